"""Functions of torch that are replaced during an evaluation, for right derivatives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

CHECKPOINTING = "activation checkpointing switched off"
WEIGHT_NORM = "fused weight norm replaced, its second derivative is wrong in torch"
SPARSE = "sparse gradients of embeddings made dense"
AUTOCAST = "autocast inside the model switched off"
TRAINING_MODE = "the loss or the model switches itself to training mode, and is measured in it"

Used = Callable[[str], None]
# What holds a function, its name there, and what takes its place.
Replacement = tuple[Any, str, Any]

# What torch.utils.checkpoint.checkpoint calls for its two kinds. Where torch has renamed them, the
# walls of walls.py say in words that checkpointing must be switched off.
_CHECKPOINTS = ("_checkpoint_without_reentrant_generator", "CheckpointFunction")


@contextmanager
def replaced(used: Used) -> Iterator[None]:
    """Checkpointed functions are simply called, and weight norm is computed by its formula.

    Gradients of embeddings are dense, and autocast that a model enters by itself has no effect.

    Args:
        used: Called with one of the sentences above whenever that happens, and with
            ``TRAINING_MODE`` when a module is switched to training mode.
    """
    makers = (_checkpoints, _weight_norm, _embeddings, _autocast, _training_mode)
    with ExitStack() as stack:
        for make in makers:
            for holder, name, ours in make(used):
                stack.enter_context(patch.object(holder, name, ours))
        yield


def _checkpoints(used: Used) -> list[Replacement]:
    def not_reentrant(*_: Any, **__: Any) -> Iterator[None]:
        used(CHECKPOINTING)
        yield

    class Reentrant:
        @staticmethod
        def apply(function: Callable[..., Any], _: Any, *args: Any) -> Any:
            used(CHECKPOINTING)
            return function(*args)

    if not all(hasattr(checkpoint, name) for name in _CHECKPOINTS):
        return []
    pairs = zip(_CHECKPOINTS, (not_reentrant, Reentrant), strict=True)
    return [(checkpoint, name, ours) for name, ours in pairs]


def _weight_norm(used: Used) -> list[Replacement]:
    def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        used(WEIGHT_NORM)
        return v * (g / torch.norm_except_dim(v, 2, dim))

    # The hook-based form has bound the name in its own module.
    holders = (torch, sys.modules["torch.nn.utils.weight_norm"])
    return [
        (holder, "_weight_norm", weight_norm)
        for holder in holders
        if hasattr(holder, "_weight_norm")
    ]


def _embeddings(used: Used) -> list[Replacement]:
    def dense(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        """The function with dense gradients; ``place`` is that of its argument ``sparse``."""

        def embedding(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("sparse", False):
                used(SPARSE)
                kwargs["sparse"] = False
            elif len(args) > place and args[place]:
                used(SPARSE)
                args = (*args[:place], False, *args[place + 1 :])
            return function(*args, **kwargs)

        return embedding

    return [
        (torch, "embedding", dense(torch.embedding, 4)),
        (torch, "embedding_bag", dense(torch.embedding_bag, 5)),
    ]


def _autocast(used: Used) -> list[Replacement]:
    enter, leave = torch.autocast.__enter__, torch.autocast.__exit__
    switched_off: list[bool] = []  # for every block that is open, innermost last

    def enter_autocast(block: torch.autocast) -> Any:
        switched_off.append(block._enabled)
        if block._enabled:
            used(AUTOCAST)
            block._enabled = False
        return enter(block)  # type: ignore[no-untyped-call]

    def leave_autocast(block: torch.autocast, *error: Any) -> Any:
        try:
            return leave(block, *error)
        finally:  # the block of a decorated function lives on
            block._enabled = switched_off.pop()

    return [
        (torch.autocast, "__enter__", enter_autocast),
        (torch.autocast, "__exit__", leave_autocast),
    ]


def _training_mode(used: Used) -> list[Replacement]:
    train = nn.Module.train

    def switch_mode(module: nn.Module, mode: bool = True) -> nn.Module:
        if mode:
            used(TRAINING_MODE)
        return train(module, mode)

    return [(nn.Module, "train", switch_mode)]
