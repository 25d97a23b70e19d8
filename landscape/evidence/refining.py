"""Quasi-Newton ascent inside a ball, and how much it leaves to be gained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.evidence.climbing import EvaluateRows
from landscape.evidence.curved_directions import lengths
from landscape.geometry import Ball

# Pairs of steps and changes of slope that are kept.
_WINDOW = 12
# First step, and how long a step may grow, in units of the size of the ball.
_FIRST, _LONGEST = 0.25, 2.0
# A step that failed is cut to the top of the parabola through what was seen, within these.
_LEAST_CUT, _MOST_CUT = 0.02, 0.5
_GROWTH = 3.0
# Share of its rise that a row may still gain when it is left alone, by the model and by what so
# many evaluations added.
_SETTLED, _PATIENCE = 1e-4, 3
# Curvature that is less than this share of what it is made of is rounding.
_ROUNDING = 1e-10
# Share of the evaluations whose gain says whether a search is at its end, and between what ratios
# such gains are extrapolated as a geometric series. In stiff valleys gaps close like a power of the
# number of steps: like 1 / steps is three times the gain of the last quarter, slower is more.
_LATE, _LEAST_RATIO, _MOST_RATIO = 0.25, 0.8, 0.9
_TINY = 1e-300


@dataclass(frozen=True)
class Refined:
    """The best point of each of K quasi-Newton ascents.

    Args:
        best: Offsets, (K, P).
        losses: Their losses, (K,) float64.
        expected: What the quadratic model at the best point still promises, (K,) float64.
        late: What more steps may add, by that model and by the last gains, (K,) float64.
        nan: Evaluations that gave NaN, (K,).
        infinite: Evaluations that gave plus infinity, (K,).
    """

    best: Tensor
    losses: Tensor
    expected: Tensor
    late: Tensor
    nan: Tensor
    infinite: Tensor


def refine(
    evaluate: EvaluateRows, ball: Ball, rho: float, *, start: Tensor, base: Tensor, steps: int
) -> Refined:
    """Maximises K losses over ||delta|| <= rho by steps of L-BFGS along the boundary.

    In the coordinates u of the ball a step is B^-1 r: r is what the boundary leaves of the slope,
    and B the curvature of -L + nu |u|^2 / 2 as the last steps showed it, nu being the multiplier of
    a round boundary and 0 elsewhere. The step is no longer than a limit, which shrinks to the top
    of a parabola where the loss did not rise and grows where it did. Points that are not taken
    tell of the curvature all the same, so that steps that overshoot in a stiff valley teach the
    search its stiff directions.

    Args:
        evaluate: Losses and gradients at offsets, of some of the rows.
        ball: What is climbed in.
        rho: Radius.
        start: Offsets inside the ball to begin at, (K, P).
        base: Losses at its centre, from which rises are measured, (K,) float64.
        steps: Gradients to take, at least 1; rows that have settled take no more.

    Returns:
        The best points.
    """
    search = _Search(ball, rho, start, base, evaluate(start, True, torch.arange(len(start))))
    for _ in range(steps - 1):
        rows = search.unsettled()
        if not len(rows):
            break
        points = search.proposed(rows)
        search.take(points, evaluate(ball.offsets(points), True, rows), rows)
    return search.found()


class _Search:
    """K points with their slopes, what steps told of the curvature, and limits of the steps."""

    def __init__(
        self,
        ball: Ball,
        rho: float,
        start: Tensor,
        base: Tensor,
        evaluated: tuple[Tensor, Tensor],
    ) -> None:
        losses, gradients = evaluated
        self._ball, self._rho, self._base, self._start = ball, rho, base, start
        self._points = ball.coordinates(start)
        self._nan, self._infinite = losses.isnan().long(), (losses == torch.inf).long()
        self._losses = torch.where(losses.isfinite(), losses, -torch.inf)
        self._slopes = torch.nan_to_num(ball.slopes(gradients), 0.0, 0.0, 0.0)
        self._moved = torch.zeros(len(start), dtype=torch.bool)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._size = ball.extent(rho)
        self._limits = torch.full((len(start),), _FIRST * self._size, dtype=torch.float64)
        self._gains: list[list[float]] = [[] for _ in start]
        self._stuck = torch.zeros(len(start), dtype=torch.bool)
        self._plan()

    def unsettled(self) -> Tensor:
        """Numbers of the rows that may still gain, (n,)."""
        small = _SETTLED * self._rises()
        last = torch.tensor(
            [
                sum(gains[-_PATIENCE:]) if len(gains) >= _PATIENCE else torch.inf
                for gains in self._gains
            ],
            dtype=torch.float64,
        )
        settled = (self._expected <= small) & (last <= small)
        return torch.nonzero(~(settled | self._stuck))[:, 0]

    def proposed(self, rows: Tensor) -> Tensor:
        """Points to evaluate next, in coordinates, (n, P)."""
        rows = rows.to(self._points.device)
        onto = self._face.multiplier[rows] > 0
        return self._ball.confined(self._points[rows] + self._steps[rows], onto, self._rho)

    def take(self, points: Tensor, evaluated: tuple[Tensor, Tensor], rows: Tensor) -> None:
        """Learns from points that were evaluated, and moves to those that are better."""
        losses, slopes = evaluated[0], self._ball.slopes(evaluated[1])
        self._nan[rows] += losses.isnan()
        self._infinite[rows] += losses == torch.inf
        told = losses.isfinite() & slopes.isfinite().all(1).cpu()
        losses = torch.where(told, losses, -torch.inf)
        there, known = rows.to(points.device), told.to(points.device)[:, None]
        moves, changes = torch.zeros_like(self._points), torch.zeros_like(self._points)
        moves[there] = torch.where(known, points - self._points[there], 0)
        changes[there] = torch.where(known, slopes - self._slopes[there], 0)
        self._pairs = [*self._pairs, (moves, changes)][-_WINDOW:]
        gain = losses - self._losses[rows]
        self._limit(rows, gain, moves[there])
        for row, added in zip(rows.tolist(), gain.clamp_min(0).tolist(), strict=True):
            self._gains[row].append(added)
        rose = gain > 0
        better, taken = there[rose.to(there.device)], rose.to(points.device)
        self._points[better], self._slopes[better] = points[taken], slopes[taken]
        self._losses[rows[rose]] = losses[rose]
        self._moved[rows[rose]] = True
        self._plan()

    def found(self) -> Refined:
        """The best points so far; where none was better, the start to the last bit."""
        moved = self._moved.to(self._start.device)[:, None]
        return Refined(
            best=torch.where(moved, self._ball.offsets(self._points), self._start),
            losses=self._losses,
            expected=self._expected,
            late=self._late(),
            nan=self._nan,
            infinite=self._infinite,
        )

    def _late(self) -> Tensor:
        """What more steps may add: nothing without slope along the boundary."""
        series = torch.tensor([remaining(gains) for gains in self._gains], dtype=torch.float64)
        found = torch.maximum(self._expected, series)
        # A few steps have not shown the curvature: all that the slope promises is possible.
        few = torch.tensor([len(gains) < _PATIENCE for gains in self._gains])
        reach = lengths(self._face.slopes)[:, 0].cpu() * _LONGEST * self._size
        found = torch.where(few, torch.maximum(found, reach), found)
        return torch.where(self._expected > 0, found, 0)

    def _rises(self) -> Tensor:
        return (self._losses - self._base).clamp_min(0)

    def _limit(self, rows: Tensor, gain: Tensor, moves: Tensor) -> None:
        """Limits of the next steps, by how the last ones went."""
        there = rows.to(moves.device)
        slope = (moves * self._face.slopes[there]).sum(1).double().cpu()
        taken = torch.linalg.vector_norm(moves, dim=1, dtype=torch.float64).cpu()
        limits = self._limits[rows]
        # The parabola with this slope at the point that passes through the one evaluated.
        top = slope / (2 * (slope - gain)).clamp_min(_TINY)
        top = torch.where(gain.isfinite(), top, 0).clamp(_LEAST_CUT, _MOST_CUT)
        longer = torch.maximum(limits, _GROWTH * taken).clamp_max(_LONGEST * self._size)
        shorter = top * torch.where(taken > 0, taken, limits)
        self._limits[rows] = torch.where(gain > 0, longer, shorter)
        # Steps below the precision of the coordinates lead nowhere.
        least = torch.finfo(self._points.dtype).eps * self._size
        self._stuck[rows] |= self._limits[rows] <= least

    def _plan(self) -> None:
        """The next steps from where the points are, and what full steps promise."""
        self._face = self._ball.face(self._points, self._slopes, self._rho)
        steps, known = self._quasi_newton()
        steps = self._face.along(steps)
        slope = (steps * self._face.slopes).sum(1, keepdim=True)
        known &= slope > 0
        steps = torch.where(known, steps, self._face.slopes)
        slope = torch.where(known, slope, (steps * steps).sum(1, keepdim=True)).double()
        reach = lengths(steps).clamp_min(_TINY)
        share = self._limits.to(reach.device)[:, None] / reach
        share = torch.where(known, share.clamp_max(1), share)
        self._steps = steps * share.to(steps.dtype)
        # A model without curvature promises its whole slope as far as the ball goes.
        full = _LONGEST * self._size / reach
        bent = full.clamp_max(1) * (1 - full.clamp_max(1) / 2)
        self._expected = (slope * torch.where(known, bent, full))[:, 0].cpu()
        self._stuck |= self._expected == 0

    def _quasi_newton(self) -> tuple[Tensor, Tensor]:
        """B^-1 r by the two loops of L-BFGS, and in which rows there is a B, (K, 1)."""
        rest, tiny = self._face.slopes, torch.finfo(self._face.slopes.dtype).tiny
        scale = torch.ones_like(self._face.multiplier)
        known = torch.zeros_like(scale, dtype=torch.bool)
        weights = []
        for pair in self._pairs:
            move, bent = self._along(*pair)
            inner = (move * bent).sum(1, keepdim=True)
            least = move.norm(dim=1, keepdim=True) * bent.norm(dim=1, keepdim=True)
            curved = inner > _ROUNDING * least
            weights.append(torch.where(curved, 1 / inner.clamp_min(tiny), 0))
            spread = (bent * bent).sum(1, keepdim=True).clamp_min(tiny)
            scale, known = torch.where(curved, inner / spread, scale), known | curved
        sizes = []
        for pair, weight in zip(reversed(self._pairs), reversed(weights), strict=True):
            move, bent = self._along(*pair)
            sizes.append(weight * (move * rest).sum(1, keepdim=True))
            rest = rest - sizes[-1] * bent
        rest = scale * rest
        for pair, weight, size in zip(self._pairs, weights, reversed(sizes), strict=True):
            move, bent = self._along(*pair)
            rest = rest + move * (size - weight * (bent * rest).sum(1, keepdim=True))
        return rest, known

    def _along(self, move: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """A step and its product with B, along the boundary that holds the points now."""
        bent = self._face.multiplier * move - change
        return self._face.along(move), self._face.along(bent)


def remaining(gains: list[float]) -> float:
    """What a search may still gain, from what its evaluations added so far.

    The gain of the last quarter, extrapolated as the geometric series that the last two quarters
    begin, and at least five times itself, as where gaps close like a power of the number of steps.

    Args:
        gains: What each evaluation added, in order.

    Returns:
        A gain, 0 where nothing was evaluated.

    Example:
        >>> remaining([4.0, 2.0, 1.0, 0.875])
        7.0
    """
    count = max(1, round(_LATE * len(gains)))
    last, before = sum(gains[-count:]), sum(gains[-2 * count : -count])
    ratio = last / before if before > 0 else _MOST_RATIO
    return last / (1 - min(max(ratio, _LEAST_RATIO), _MOST_RATIO))
