"""Running statistics of batch norm, kept through passes at perturbed weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Puts running mean, running variance and their counter back when the block ends.

    They are copied rather than frozen by ``momentum = 0``, since 0 · NaN is NaN and the counter
    would go on. The pass itself uses the statistics of its batch, as training does.

    Args:
        model: The model whose batch norm and instance norm layers keep their statistics.

    Yields:
        Nothing.
    """
    buffers = [
        buffer
        for module in model.modules()
        if isinstance(module, _NormBase) and module.training
        for buffer in module.buffers(recurse=False)
    ]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
