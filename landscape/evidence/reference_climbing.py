"""The ascent of Andriushchenko et al. 2023 as published, for numbers that compare with theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.evidence.climbing import Climb, Evaluate, checkpoints
from landscape.geometry import Ball, LinfBall

_MOMENTUM = 0.75
_LEAST_IMPROVEMENTS = 0.75
_EPSILON = 1e-12
_LATE = 0.75


def reference_climb(evaluate: Evaluate, ball: Ball, rho: float, base: Tensor, steps: int) -> Climb:
    """Maximises K losses over ||delta|| <= rho from delta = 0 by the published update.

    It differs from ``climb`` in four ways, all of which are kept on purpose:

    1. The step along g is 2 rho c g / ||g||_2, not the steepest direction of the scaled norm.
    2. The projection is Euclidean, and the momentum a d' + (1 - a) d_previous has none after it.
    3. On halving the step only the weights go back to the best point; the offset goes on from
       where it was, so that the next gradient of the one is applied to the other.
    4. Improvements are counted against the best loss, and the last checkpoint is never reached.

    One thing is mended: entries with c = 0, where the published norm is NaN, stay at zero.

    Args:
        evaluate: Losses and gradients at offsets.
        ball: What is climbed in.
        rho: Radius.
        base: Losses at the checkpoint, (K,) float64.
        steps: Gradients to take.

    Returns:
        The best points.
    """
    shape = (len(base), len(ball.scale))
    offset = torch.zeros(shape, dtype=ball.scale.dtype, device=ball.scale.device)
    previous, weights, best = offset, offset, offset
    losses, last, late = base.clone(), base.clone(), base.clone()
    lengths = torch.full((len(base),), 2 * rho, dtype=torch.float64)
    last_lengths = lengths.clone()
    improvements = torch.zeros(len(base), dtype=torch.long)
    nan, infinite = improvements.clone(), improvements.clone()
    turns, turned = set(checkpoints(steps)), 0
    for step in range(steps):
        _, gradients = evaluate(weights, True)
        if isinstance(ball, LinfBall):
            directions = gradients.sign()
        else:
            directions = gradients / (gradients.norm(dim=1, keepdim=True) + _EPSILON)
        moved = offset + _column(lengths, offset) * directions * ball.scale
        moved = ball.project_euclidean(moved, rho)
        offset, previous = _MOMENTUM * moved + (1 - _MOMENTUM) * previous, offset
        weights = offset
        found, _ = evaluate(weights, False)
        nan += found.isnan()
        infinite += found == torch.inf
        better = found > losses
        losses = torch.where(better, found, losses)
        best = torch.where(_column(better, offset), weights, best)
        improvements += better
        if step < _LATE * steps:
            late = losses
        if step in turns:
            few = improvements < _LEAST_IMPROVEMENTS * (step - turned)
            idle = (last_lengths == lengths) & (last == losses)
            last_lengths, last, turned = lengths, losses, step
            improvements = torch.zeros_like(improvements)
            halve = few | idle
            lengths = torch.where(halve, lengths / 2, lengths)
            weights = torch.where(_column(halve, offset), best, weights)
    return Climb(best, losses, losses - late, nan, infinite)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(K,) as a column that goes with offsets; truth values stay what they are."""
    dtype = values.dtype if values.dtype == torch.bool else like.dtype
    return values.to(device=like.device, dtype=dtype)[:, None]
