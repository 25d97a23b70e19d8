"""Classes as targets: labels of any kind, and weights of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def checked_class_weights(weight: Tensor | Sequence[float]) -> Tensor:
    """Weights of classes in float64, refused in words where they are none.

    Args:
        weight: One a class.

    Returns:
        A copy, (C,).

    Raises:
        ValueError: If there is another dimension, a weight is negative or all are zero.
    """
    found = torch.as_tensor(weight, dtype=torch.float64).detach().cpu()
    if found.dim() != 1 or not bool(((found >= 0) & found.isfinite()).all()) or not found.any():
        raise ValueError(
            "weight must be a list of one finite number for each class, none negative and not all "
            f"zero, got {found.tolist()}"
        )
    return found.clone()


def told_weights(weight: Tensor) -> str:
    """Weights of classes in a name: all of a few, the first and a hash of many."""
    shown = ", ".join(f"{value:g}" for value in weight[:8].tolist())
    digest = hashlib.blake2b(weight.numpy().tobytes(), digest_size=4).hexdigest()
    return f"{shown}, ... ({digest})" if len(weight) > 8 else shown


def class_targets(targets: Tensor, outputs: Tensor, name: str) -> Tensor:
    """Targets of any kind as torch's cross-entropy takes them.

    Args:
        targets: Class numbers (N, ...) or (N, 1), integer, boolean or whole floats; one-hot
            integers or probabilities (N, C, ...).
        outputs: Logits, (N, C, ...).
        name: Of the objective, for errors.

    Returns:
        Class numbers in int64 or probabilities.

    Raises:
        ValueError: If the targets are of another shape or no classes.
    """
    targets = targets.to(outputs.device)
    if outputs.dim() < 2:
        raise ValueError(
            f"{name} needs batches of examples, whose outputs are (examples, classes), got outputs "
            f"of shape {tuple(outputs.shape)}; put single examples into batches"
        )
    classes, numbers = outputs.shape[1], (outputs.shape[0], *outputs.shape[2:])
    whole = not targets.is_floating_point()
    if targets.shape == outputs.shape and classes > 1:
        return _from_one_hot(targets, name) if whole else targets.to(outputs.dtype)
    if targets.shape == outputs.shape and not whole:
        return targets.to(outputs)
    if targets.dim() == outputs.dim() and targets.shape[1] == 1:
        targets = targets.squeeze(1)
    if tuple(targets.shape) != numbers or targets.is_complex():
        raise ValueError(
            f"{name} needs targets of shape {numbers}, a class number each, or "
            f"{tuple(outputs.shape)}, a probability or 0 and 1 for each class, since the outputs "
            f"are {tuple(outputs.shape)}; got {targets.dtype} targets of shape "
            f"{tuple(targets.shape)}"
        )
    if not whole and not _is_batched(targets) and bool((targets != targets.round()).any()):
        raise ValueError(
            f"{name} needs class numbers as targets, got numbers that are not whole; use the "
            "objective 'mse' for real numbers"
        )
    return targets.long()


def _from_one_hot(targets: Tensor, name: str) -> Tensor:
    if not _is_batched(targets):
        numbers = targets.long()
        if not bool(((numbers == 0) | (numbers == 1)).all() & (numbers.sum(1) == 1).all()):
            raise ValueError(
                f"{name} takes integer targets of the shape of the outputs for one-hot classes, "
                "with a single 1 for each target, got others; use the objective 'bce' for several "
                "labels an example"
            )
    return targets.long().argmax(1)


def _is_batched(tensor: Tensor) -> bool:
    """Whether vmap is at work, which forbids to look at values; they were looked at before."""
    return bool(torch._C._functorch.is_batchedtensor(tensor))
