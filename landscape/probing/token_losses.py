"""Cross-entropy over a large vocabulary without temporaries of the size of the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Entries of a chunk of logits: 64 MiB in float32.
_CHUNK = 1 << 24


def token_losses(
    logits: Tensor,  # (T, V)
    targets: Tensor,  # (T,) integer
    ignore_index: int = -100,
) -> Tensor:  # (T,)
    """-log softmax(z_t)[y_t], 0 where ignored; twice differentiable, in chunks of tokens.

    Softmax, gradient and curvature are recomputed for 64 MiB of logits at a time, so that beside
    the logits only one tensor of their size is kept for each derivative. Small logits take
    torch's own function.

    Args:
        logits: One row a token.
        targets: Classes.
        ignore_index: Target of tokens that have no loss.

    Returns:
        Losses.
    """
    if logits.numel() <= _CHUNK:
        return functional.cross_entropy(
            logits, targets, reduction="none", ignore_index=ignore_index
        )
    told = targets != ignore_index
    losses: Tensor = _Losses.apply(logits, targets.where(told, 0))  # type: ignore[no-untyped-call]
    return losses * told


def _rows(logits: Tensor) -> list[slice]:
    step = max(1, _CHUNK // logits.shape[1])
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def _own(values: Tensor, targets: Tensor) -> Tensor:  # (T, V), (T,) -> (T,)
    return values.gather(1, targets[:, None])[:, 0]


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        return torch.cat(
            [
                logits[rows].logsumexp(1) - _own(logits[rows], targets[rows])
                for rows in _rows(logits)
            ]
        )

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        found: Tensor = _Slopes.apply(logits, targets, slopes[0])  # type: ignore[no-untyped-call]
        return found, None


class _Slopes(torch.autograd.Function):
    """d_t = g_t (softmax(z_t) - e_y)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets, slopes)
        found = torch.empty_like(logits)
        for rows in _rows(logits):
            part = torch.softmax(logits[rows], 1, out=found[rows])
            part.scatter_add_(1, targets[rows, None], -torch.ones_like(part[:, :1]))
            part *= slopes[rows, None]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, Tensor]:
        # Of <a, d>: by z it is g (p a - p <p, a>), by g it is <p, a> - a_y.
        (across,) = cotangents
        logits, targets, slopes = ctx.saved_tensors
        curved, by_slope = torch.empty_like(logits), []
        for rows in _rows(logits):
            shares = logits[rows].softmax(1)
            inner = (shares * across[rows]).sum(1)
            torch.mul(shares, across[rows] - inner[:, None], out=curved[rows])
            curved[rows] *= slopes[rows, None]
            by_slope.append(inner - _own(across[rows], targets[rows]))
        return curved, None, torch.cat(by_slope)
