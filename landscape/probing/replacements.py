"""Functions of torch that are replaced during an evaluation, for right second derivatives."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import checkpoint

CHECKPOINTING = "activation checkpointing switched off"
WEIGHT_NORM = "fused weight norm replaced, its second derivative is wrong in torch"

# What torch.utils.checkpoint.checkpoint calls for its two kinds. Where torch has renamed them, the
# walls of walls.py say in words that checkpointing must be switched off.
_CHECKPOINTS = ("_checkpoint_without_reentrant_generator", "CheckpointFunction")


@contextmanager
def replaced(used: Callable[[str], None]) -> Iterator[None]:
    """Checkpointed functions are simply called, and weight norm is computed by its formula.

    Args:
        used: Called with ``CHECKPOINTING`` or ``WEIGHT_NORM`` whenever that happens.
    """

    def not_reentrant(*_: Any, **__: Any) -> Iterator[None]:
        used(CHECKPOINTING)
        yield

    class Reentrant:
        @staticmethod
        def apply(function: Callable[..., Any], _: Any, *args: Any) -> Any:
            used(CHECKPOINTING)
            return function(*args)

    def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
        used(WEIGHT_NORM)
        return v * (g / torch.norm_except_dim(v, 2, dim))

    with ExitStack() as stack:
        if all(hasattr(checkpoint, name) for name in _CHECKPOINTS):
            for name, ours in zip(_CHECKPOINTS, (not_reentrant, Reentrant), strict=True):
                stack.enter_context(patch.object(checkpoint, name, ours))
        # The hook-based form has bound the name in its own module.
        for module in (torch, sys.modules["torch.nn.utils.weight_norm"]):
            if hasattr(module, "_weight_norm"):
                stack.enter_context(patch.object(module, "_weight_norm", weight_norm))
        yield
