"""Searches for the extreme loss in a ball: which starts, how many steps, what they agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from landscape.evidence.climbing import EvaluateRows, climb
from landscape.evidence.curved_directions import curved_directions, unit
from landscape.evidence.refining import Refined, refine
from landscape.geometry import Ball

# Shares of the steps: the first ascent, products for directions, a trial of each start, and what
# follows from the best of them.
_CLIMB, _PRODUCTS, _TRIAL, _LAST = 0.5, 0.3, 0.25, 0.5
# Directions of curvature whose two ends are looked at, and how many of the ends are tried.
_DIRECTIONS, _TRIALS = 3, 4
# Share of chance in the vector that directions are looked for from: slopes may have no part along
# the direction of largest curvature.
_CHANCE = 0.5
# What curvature can add, as a share of the rise, where its directions are no starts.
_FLAT = 0.01
# Distance of the start from where the slope vanishes, in units of the radius.
_NUDGE = 0.05


@dataclass(frozen=True)
class Found:
    """The best point of each of K searches.

    Args:
        best: Offsets, (K, P).
        losses: Their losses, (K,) float64.
        late: What more steps from them may add, (K,) float64.
        ends: The losses that each start led to, the best among them, (K, starts) float64.
        nan: Evaluations that gave NaN, (K,).
        infinite: Evaluations that gave plus infinity, (K,).
    """

    best: Tensor
    losses: Tensor
    late: Tensor
    ends: Tensor
    nan: Tensor
    infinite: Tensor


def most_gradients(*, up: bool, steps: int) -> int:
    """Gradients that a search takes at most, its evaluations of losses counted as thirds.

    Args:
        up: Whether it is a ``search_up`` or a ``search_down``.
        steps: Steps of it.

    Returns:
        A number of gradients for every row.
    """
    if not up:
        return 2 * steps
    climbed, products, trial, last = _shares(steps)
    looks = (1 + 2 * min(_DIRECTIONS, products)) / 3
    return climbed + products + (1 + _TRIALS) * trial + last + math.ceil(looks)


def search_down(
    evaluate: EvaluateRows,
    ball: Ball,
    rho: float,
    *,
    start: Tensor,
    losses: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Found:
    """Looks for a minimum of L = -loss: up to twice the steps of L-BFGS, from one start.

    Args:
        evaluate: Losses times -1 and their gradients, of some of the rows.
        ball: What is searched.
        rho: Radius.
        start: Offsets to begin at, (K, P); beside them where the slope vanishes there.
        losses: Losses times -1 at the centre, (K,) float64.
        steps: Half of the gradients to take at most.
        generator: Of the directions taken where the slope vanishes.

    Returns:
        The best points.
    """
    rows = torch.arange(len(losses))
    flat = ~evaluate(start, True, rows)[1].any(1, keepdim=True)
    if flat.any():
        aside = _NUDGE * rho * ball.sample_surface(len(losses), generator)
        start = torch.where(flat, ball.project(start + aside, rho), start)
    own = refine(evaluate, ball, rho, start=start, base=losses, steps=2 * steps)
    # Beside a minimum without slope the model promises no more than the way back to it.
    missing = (losses - own.losses).clamp_min(0)
    late = torch.where(own.late > 2 * missing, own.late - missing, 0)
    return _Tally(replace(own, late=torch.where(missing > 0, late, own.late))).found()


def search_up(  # noqa: PLR0913 - a pure function of all of them
    evaluate: EvaluateRows,
    ball: Ball,
    rho: float,
    *,
    start: Tensor,
    candidates: Tensor,
    candidate_losses: Tensor,
    losses: Tensor,
    base: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Found:
    """Looks for a maximum: an ascent from one start, then from the ends of curved directions.

    1. Auto-PGD (``climb``), and a few steps of L-BFGS from its best point.
    2. Where the curvature may add to the rise: the three directions in which the loss curves up
       most, from a few differences of gradients. Of the six points where they leave the ball, the
       four of largest loss are tried by a few steps of L-BFGS each.
    3. More of these steps from the best of the five.

    An ascent from the checkpoint alone follows the gradient into the nearest of several maxima; the
    highest one lies mostly at one end of the direction of largest curvature.

    Args:
        evaluate: Losses and gradients at offsets, of some of the rows.
        ball: What is searched.
        rho: Radius.
        start: Offsets to begin at, (K, P).
        candidates: Offsets in the ball that are known already, (K, P).
        candidate_losses: Their losses, (K,) float64.
        losses: Losses at the centre, (K,) float64.
        base: Gradients at the centre, (K, P).
        steps: Length of the search; ``most_gradients`` tells how many gradients it may take.
        generator: Of the directions taken where the gradient vanishes at the start.

    Returns:
        The best points.
    """
    first_steps, products, trial, last = _shares(steps)
    climbed = climb(
        lambda deltas, gradient: evaluate(deltas, gradient, torch.arange(len(losses))),
        ball,
        rho,
        start=start,
        candidates=candidates,
        candidate_losses=candidate_losses,
        base=base,
        steps=first_steps,
        generator=generator,
    )
    own = refine(evaluate, ball, rho, start=climbed.best, base=losses, steps=trial)
    tally = _Tally(own)
    tally.count(torch.arange(len(losses)), climbed.nan, climbed.infinite)
    # Where the loss rises at first, where it does in the end, and chance, all of which move along
    # with the ball when weights are rescaled.
    first = unit(ball.slopes(base)) + unit(ball.coordinates(own.best))
    if ball.draws_move_along:
        draws = ball.sample_surface(len(losses), generator)
        first = first + _CHANCE * unit(ball.coordinates(draws))
    curvatures, directions = curved_directions(
        evaluate, ball, rho, base=base, first=unit(first), steps=products
    )
    bend = curvatures[:, 0] * ball.extent(rho) ** 2 / 2
    rows = torch.nonzero(bend > _FLAT * (own.losses - losses))[:, 0]
    if len(rows):
        places = rows.to(directions.device)
        lines = directions[places, :_DIRECTIONS]
        edges = ball.edge(torch.cat([lines, -lines], 1), rho)  # (rows, ends, P)
        _try_ends(
            evaluate,
            ball,
            rho,
            edges=edges,
            rows=rows,
            losses=losses[rows],
            steps=trial,
            tally=tally,
        )
    choice = tally.most_promising()
    tally.add(
        refine(evaluate, ball, rho, start=tally.points(choice), base=losses, steps=last), choice
    )
    return tally.found()


def _shares(steps: int) -> tuple[int, int, int, int]:
    """Steps of the first ascent, products, steps of a trial, and steps from the best start."""
    climbed, products, trial, last = (
        max(2, round(share * steps)) for share in (_CLIMB, _PRODUCTS, _TRIAL, _LAST)
    )
    return climbed, products, trial, last


def _try_ends(
    evaluate: EvaluateRows,
    ball: Ball,
    rho: float,
    *,
    edges: Tensor,
    rows: Tensor,
    losses: Tensor,
    steps: int,
    tally: _Tally,
) -> None:
    """Looks at the ends (n, ends, P) of directions of n rows and tries the highest of each."""
    each = edges.shape[1]
    points = ball.offsets(edges.flatten(0, 1))
    owner = rows.repeat_interleave(each)
    heights = evaluate(points, False, owner)[0]
    tally.count(owner, heights.isnan(), heights == torch.inf)
    heights = torch.where(heights.isfinite(), heights, -torch.inf).reshape(-1, each)
    for place in heights.topk(min(_TRIALS, each), dim=1).indices.T:
        chosen = (torch.arange(len(rows)) * each + place).to(points.device)
        found = refine(
            lambda deltas, gradient, which: evaluate(deltas, gradient, rows[which]),
            ball,
            rho,
            start=points[chosen],
            base=losses,
            steps=steps,
        )
        tally.add_start(found, rows)


class _Tally:
    """What the starts of K searches led to."""

    def __init__(self, own: Refined) -> None:
        self._ends = [own]
        self._nan, self._infinite = own.nan.clone(), own.infinite.clone()

    def count(self, rows: Tensor, nan: Tensor, infinite: Tensor) -> None:
        """Counts evaluations without a finite loss."""
        self._nan.index_add_(0, rows, nan.long())
        self._infinite.index_add_(0, rows, infinite.long())

    def add_start(self, found: Refined, rows: Tensor) -> None:
        """Another start of some rows; the others have none, and get their first end again."""
        self.count(rows, found.nan, found.infinite)
        first = self._ends[0]
        self._ends.append(
            Refined(
                best=first.best.index_copy(0, rows.to(first.best.device), found.best),
                losses=first.losses.index_copy(0, rows, found.losses),
                expected=first.expected.index_copy(0, rows, found.expected),
                late=first.late.index_copy(0, rows, found.late),
                nan=found.nan,
                infinite=found.infinite,
            )
        )

    def most_promising(self) -> Tensor:
        """Which end of each row is highest with what its model still promises, (K,)."""
        tops = torch.stack([end.losses for end in self._ends], 1)
        promised = torch.stack([end.expected for end in self._ends], 1)
        return torch.where(tops.isfinite(), tops + promised, tops).argmax(1)

    def points(self, choice: Tensor) -> Tensor:
        """The best point of the chosen end of each row, (K, P)."""
        points = torch.stack([end.best for end in self._ends], 1)
        return points[torch.arange(len(choice)), choice]

    def add(self, found: Refined, choice: Tensor) -> None:
        """The chosen ends went on to these."""
        self.count(torch.arange(len(choice)), found.nan, found.infinite)
        self._ends = [_chosen(end, found, choice == place) for place, end in enumerate(self._ends)]

    def found(self) -> Found:
        """The best of all ends."""
        ends = torch.stack([end.losses for end in self._ends], 1)
        choice = ends.argmax(1)
        rows = torch.arange(len(choice))
        late = torch.stack([end.late for end in self._ends], 1)[rows, choice]
        return Found(self.points(choice), ends[rows, choice], late, ends, self._nan, self._infinite)


def _chosen(old: Refined, new: Refined, rows: Tensor) -> Refined:
    """Some rows of the one and the others of the other."""
    return Refined(
        best=torch.where(rows.to(old.best.device)[:, None], new.best, old.best),
        losses=torch.where(rows, new.losses, old.losses),
        expected=torch.where(rows, new.expected, old.expected),
        late=torch.where(rows, new.late, old.late),
        nan=old.nan,
        infinite=old.infinite,
    )
