"""Projected ascent inside a ball: Auto-PGD with step and offset reset together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.evidence.secant import SecantModel
from landscape.geometry import Ball, RoundBall

_MOMENTUM = 0.75
_LEAST_RISES = 0.75
_LATE = 0.75
_TINY = 1e-30

#: Offsets (K, P) and whether gradients are wanted -> losses (K,) float64 on the CPU, gradients
#: (K, P) or, unwanted, anything.
Evaluate = Callable[[Tensor, bool], tuple[Tensor, Tensor]]
#: The same of some of the ascents, whose numbers come last.
EvaluateRows = Callable[[Tensor, bool, Tensor], tuple[Tensor, Tensor]]


def checkpoints(steps: int) -> list[int]:
    """Iterations at which the step is reconsidered (Croce and Hein 2020): ceil(p_j steps).

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06).

    Returns:
        The iterations, ascending.

    Example:
        >>> checkpoints(20)
        [5, 9, 12, 15, 16, 18, 19, 20]
    """
    shares, found = [0.0, 0.22], [math.ceil(0.22 * steps)]
    while found[-1] < steps:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
        following = math.ceil(shares[-1] * steps)
        if following == found[-1]:
            break
        found.append(following)
    return found


@dataclass(frozen=True)
class Climb:
    """The best point of each of K ascents.

    Args:
        best: Offsets, (K, P).
        losses: Their losses, (K,) float64.
        late: What the last quarter of the steps added to them.
        nan: Evaluations that gave NaN, (K,).
        infinite: Evaluations that gave plus infinity, beyond every maximum, (K,).
    """

    best: Tensor
    losses: Tensor
    late: Tensor
    nan: Tensor
    infinite: Tensor


def climb(  # noqa: PLR0913 - a pure function of all of them
    evaluate: Evaluate,
    ball: Ball,
    rho: float,
    *,
    start: Tensor,
    candidates: Tensor,
    candidate_losses: Tensor,
    base: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Climb:
    """Maximises K losses over ||delta|| <= rho, each from its own start.

    Auto-PGD (Croce and Hein 2020, algorithm 1) in the norm of the ball: steps of length 2 rho
    along its steepest direction, projection, momentum 0.75; at checkpoints the step is halved
    where the ascent stalls, and point, offset and direction go back to the best ones. In a round
    ball, as long as the loss rises, the step is taken from the maximum of a secant model instead
    of the current point, without which closely spaced eigenvalues would slow it to a power
    iteration. Every operation moves along when loss and ball are rescaled together, so that the
    value does not change either.

    Args:
        evaluate: Losses and gradients at offsets.
        ball: What is climbed in.
        rho: Radius.
        start: Offsets to begin at, (K, P).
        candidates: Offsets inside the ball that are known already, such as the checkpoint, (K, P).
        candidate_losses: Their losses, (K,) float64.
        base: Gradients at the centre of the ball, (K, P).
        steps: Gradients to take, at least 1.
        generator: Of the directions taken where the gradient vanishes at the start.

    Returns:
        The best points.
    """
    deltas = ball.project(start, rho)
    before = deltas
    best = _Best(candidates, candidate_losses, rho, checkpoints(steps))
    late = candidate_losses
    model = SecantModel(ball.slopes(base)) if isinstance(ball, RoundBall) else None
    for step in range(steps):
        losses, gradients = evaluate(deltas, True)
        if not gradients.sum().isfinite():
            gradients = torch.nan_to_num(gradients, 0.0, 0.0, 0.0)
        directions = ball.steepest(gradients)
        if step == 0:
            directions = _unstuck(directions, ball, generator)
        best.see(deltas, losses, directions)
        visited = deltas
        back = best.stalled(step)[:, None]
        if back.any():
            deltas = torch.where(back, best.deltas, deltas)
            before = torch.where(back, best.deltas, before)
            directions = torch.where(back, best.directions, directions)
        lengths = best.lengths(deltas)
        leaps = best.rising(deltas) & ~back if step > 0 else torch.zeros_like(back)
        leap = None
        if step > 0 and isinstance(ball, RoundBall) and model is not None:
            model.add(ball.coordinates(visited), ball.slopes(gradients))
            point, slope = model.maximum(rho)
            lead = slope / slope.norm(dim=1, keepdim=True).clamp_min(_TINY)
            leap = ball.offsets(_shrunk(point + lengths * lead, rho))
        if leap is None or not leaps.all():
            aim = _step(ball, rho, deltas, before if step > 0 else None, lengths * directions)
            leap = aim if leap is None else torch.where(leaps, leap, aim)
        deltas, before = leap, deltas
        if step < _LATE * steps:
            late = best.losses
    best.see(deltas, evaluate(deltas, False)[0], None)
    return Climb(best.deltas, best.losses, best.losses - late, best.nan, best.infinite)


def _shrunk(points: Tensor, rho: float) -> Tensor:
    """Coordinates scaled back to length rho where they are longer."""
    lengths = torch.linalg.vector_norm(points, dim=1, keepdim=True, dtype=torch.float64)
    found: Tensor = points * (rho / lengths.clamp_min(_TINY)).clamp_max(1).to(points.dtype)
    return found


def _step(ball: Ball, rho: float, deltas: Tensor, before: Tensor | None, move: Tensor) -> Tensor:
    """A projected step z, with momentum a (z - x) + (1 - a) (x - x_before) from x but at first."""
    aim = ball.project(deltas + move, rho)
    if before is None:
        return aim
    heavy = deltas + _MOMENTUM * (aim - deltas) + (1 - _MOMENTUM) * (deltas - before)
    return ball.project(heavy, rho)


def _unstuck(directions: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
    """Random directions where there is no slope: an exact minimum is no maximum."""
    flat = ~directions.any(1, keepdim=True)
    if not flat.any():
        return directions
    return torch.where(flat, ball.sample_surface(len(directions), generator), directions)


def _replaced(old: Tensor, new: Tensor, rows: Tensor) -> Tensor:
    """Some rows of one tensor, the others of another; neither is changed."""
    if rows.all():
        return new
    return torch.where(rows.to(old.device)[:, None], new, old) if rows.any() else old


class _Best:
    """The best points seen, and the steps that depend on how often they improve."""

    def __init__(self, deltas: Tensor, losses: Tensor, rho: float, turns: list[int]) -> None:
        self.deltas = deltas
        self.losses = losses.clone()
        self.directions = torch.zeros_like(deltas)
        self.nan = torch.zeros(len(losses), dtype=torch.long)
        self.infinite = torch.zeros(len(losses), dtype=torch.long)
        self._steps = torch.full((len(losses),), 2 * rho, dtype=torch.float64)
        self._turns = set(turns)
        self._last = 0
        self._rises = torch.zeros(len(losses), dtype=torch.long)
        self._previous = losses.clone()
        self._rose = torch.ones(len(losses), dtype=torch.bool)
        self._then = (self._steps.clone(), self.losses.clone())

    def see(self, deltas: Tensor, losses: Tensor, directions: Tensor | None) -> None:
        """Takes note of K evaluations; points without a finite loss are no candidates."""
        self.nan += losses.isnan()
        self.infinite += losses == torch.inf
        losses = torch.where(losses.isfinite(), losses, -torch.inf)
        self._rose = losses >= self._previous
        self._rises += losses > self._previous
        self._previous = losses
        better = losses > self.losses
        self.losses = torch.where(better, losses, self.losses)
        self.deltas = _replaced(self.deltas, deltas, better)
        if directions is not None:
            # The checkpoint itself is the first point seen and the first candidate.
            self.directions = _replaced(self.directions, directions, losses >= self.losses)

    def stalled(self, step: int) -> Tensor:
        """Rows whose step was halved just now, and that go back to their best point, (K,) bool."""
        none = torch.zeros(len(self.losses), dtype=torch.bool, device=self.deltas.device)
        if step not in self._turns:
            return none
        steps, losses = self._then
        few = self._rises < _LEAST_RISES * (step - self._last)
        idle = (self._steps == steps) & (self.losses == losses)
        halve = few | idle
        self._then = (self._steps.clone(), self.losses.clone())
        self._steps = torch.where(halve, self._steps / 2, self._steps)
        self._last = step
        self._rises = torch.zeros_like(self._rises)
        known = self.directions.abs().amax(1) > 0
        return halve.to(known.device) & known

    def rising(self, like: Tensor) -> Tensor:
        """Whether the last point was no worse than the one before, (K, 1)."""
        return self._rose.to(like.device)[:, None]

    def lengths(self, like: Tensor) -> Tensor:
        """Length of each row's step, (K, 1)."""
        return self._steps.to(device=like.device, dtype=like.dtype)[:, None]
