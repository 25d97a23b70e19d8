"""The check at construction: the data and the model give the same numbers twice."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.probing.batches import Batches
from landscape.probing.objective import checked_number
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.probing.walls import refuse_walls

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BasePass:
    """Loss and gradient at the checkpoint.

    Args:
        loss: L(w).
        gradient: Its gradient, (P,).
        terms: Number of loss terms of the data, or the sum of their weights.
        unused: Trainable parameters that no gradient reaches.
        data_hash: Hash of all batches in order.
    """

    loss: float
    gradient: Tensor
    terms: float
    unused: tuple[str, ...]
    data_hash: str

    def restricted(self, space: ParamSpace, part: ParamSpace) -> BasePass:
        """The same pass, its gradient on a sub-space."""
        return BasePass(
            loss=self.loss,
            gradient=part.flatten(space.split(self.gradient)),
            terms=self.terms,
            unused=tuple(name for name in self.unused if name in part.names),
            data_hash=self.data_hash,
        )


def checked_pass(snapshot: Snapshot, space: ParamSpace, batches: Batches) -> BasePass:
    """Walks the source twice and evaluates loss and gradient twice; they must agree.

    Costs two gradient passes.

    Args:
        snapshot: Model and objective.
        space: The parameters of the gradient.
        batches: The data; kept on the device if they are small.

    Returns:
        Loss and gradient at the checkpoint.

    Raises:
        ValueError: If they do not agree, are not finite, or there is no loss term.
    """
    # One guard around both passes: with the random state put back in between, dropout would
    # draw the same masks twice and go unnoticed.
    with snapshot.evaluating(gradient=True):
        hashes, size = batches.walk()
        if hashes != batches.walk()[0]:
            raise ValueError(
                "two walks over the batches gave different data: shuffling or augmentation is on; "
                "give a DataLoader with shuffle=False and deterministic transforms, or a list"
            )
        batches.keep(size)
        if snapshot.recalibrates:
            snapshot.recalibrate({}, batches)
        data_hash = hashlib.blake2b("".join(hashes).encode(), digest_size=16).hexdigest()
        for batch in batches:
            snapshot.objective.check(batch)
        first = _first_pass(snapshot, space, batches, data_hash)
        second = gradient_pass(snapshot, space, batches, data_hash)
    if not (math.isfinite(first.loss) and bool(first.gradient.isfinite().all())):
        raise ValueError(
            f"the loss at the checkpoint is {first.loss} and its gradient has norm "
            f"{float(first.gradient.norm())}; check the weights and the data"
        )
    tolerance = 1e-9 if first.gradient.dtype == torch.float64 else 1e-4
    scale = float(first.gradient.norm()) + abs(first.loss)
    drift = float((first.gradient - second.gradient).norm())
    if max(drift, abs(first.loss - second.loss)) > tolerance * scale:
        raise ValueError(
            "two passes over the same batches gave different losses or gradients (losses "
            f"{first.loss:.8g} and {second.loss:.8g}): the forward pass is random; the likely "
            "cause is dropout or noise that ignores eval mode"
        )
    if len(first.unused) == len(space.names):
        raise ValueError(
            "no gradient reaches any parameter; an objective given as a callable must evaluate the "
            "model it is handed, loss(model, batch), not one of its own"
        )
    if first.unused:
        logger.warning("no gradient reaches %s", ", ".join(first.unused))
    return first


def _first_pass(
    snapshot: Snapshot, space: ParamSpace, batches: Batches, data_hash: str
) -> BasePass:
    try:
        return gradient_pass(snapshot, space, batches, data_hash)
    except IndexError as error:
        if "out of bounds" not in str(error):
            raise
        raise ValueError(
            f"{str(error).rstrip('.')}: a target is the number of a class for which the model has "
            "no output; compare the classes of the data with the size of the last layer"
        ) from error


def gradient_pass(
    snapshot: Snapshot, space: ParamSpace, batches: Batches, data_hash: str
) -> BasePass:
    """Loss and gradient at the checkpoint, unchecked; one gradient pass."""
    parameters = dict(snapshot.model.named_parameters())
    leaves = {name: parameters[name].detach().requires_grad_() for name in space.names}
    gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    reached: set[str] = set()
    total, count = 0.0, 0.0
    for index, batch in enumerate(batches):
        terms = snapshot.terms(leaves, batch)
        total, count = total + float(terms.total.detach()), count + terms.count
        if not terms.total.requires_grad:
            continue
        if index == 0:  # the first batch stands for all
            refuse_walls(terms.total)
        found = torch.autograd.grad(terms.total, list(leaves.values()), allow_unused=True)
        for name, part in zip(leaves, found, strict=True):
            if part is not None:
                reached.add(name)
                gradient[name] += part
    if count == 0:
        raise ValueError("the objective gave no loss term on any batch; check targets and masks")
    return BasePass(
        loss=total / count,
        gradient=space.flatten(gradient) / count,
        terms=checked_number(count),
        unused=tuple(name for name in space.names if name not in reached),
        data_hash=data_hash,
    )
