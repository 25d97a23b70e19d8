"""Ascent and descent inside balls, part by part of the data: worst-case and best-case losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.climbing import EvaluateRows
from landscape.evidence.parts import BaseParts, PartsRequest
from landscape.evidence.planning import share, vector_bytes
from landscape.evidence.reference_climbing import reference_climb
from landscape.evidence.searching import Found, most_gradients, search_down, search_up
from landscape.geometry import Ball, Euclidean, Geometry, Norm, checked_norm
from landscape.probing import Probe
from landscape.results import Cost

Array = NDArray[np.float64]
Direction = Literal["up", "down"]
Compat = Literal["andriushchenko2023"]

# Vectors of P entries that an ascent holds for every row.
_VECTORS = 40
# Roundings of a loss below which nothing can be gained.
_ROUNDINGS = 8


@dataclass(frozen=True, kw_only=True)
class AscentRequest:
    """The extreme loss in balls around the checkpoint, of every part of the data.

    Radii are climbed from the smallest to the largest: the best point of a ball is a candidate of
    the next, and its direction the start.

    Args:
        direction: "up" maximises the loss, "down" minimises it.
        radii: Radii, ascending.
        geometry: Scale of each parameter.
        norm: "l2" or "linf".
        steps: Length of the search at each radius; ``passes`` tells how many gradients it may take.
        restarts: Whole searches; the first begins at the checkpoint, the others at random points of
            the ball.
        parts: The parts of the data.
        seed: Of random starts, and of directions where the gradient vanishes.
        compat: "andriushchenko2023" for the published algorithm, each radius by itself.
        memory: Bytes for vectors.
    """

    direction: Direction = "up"
    radii: tuple[float, ...] = (0.05,)
    geometry: Geometry = field(default_factory=Euclidean)
    norm: Norm = "l2"
    steps: int = 20
    restarts: int = 1
    parts: PartsRequest = field(default_factory=PartsRequest)
    seed: int = 0
    compat: Compat | None = None
    memory: int = field(default=2 << 30, repr=False)

    def __post_init__(self) -> None:
        checked_norm(self.norm)
        if self.direction not in get_args(Direction):
            raise ValueError(f"direction must be 'up' or 'down', got {self.direction!r}")
        checked_radii(self.radii)
        if list(self.radii) != sorted(self.radii):
            raise ValueError(f"radii must ascend, got {self.radii}")
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(
                f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}"
            )
        if self.compat not in (None, *get_args(Compat)):
            raise ValueError(f"compat must be None or one of {get_args(Compat)}, got {self.compat}")
        if self.compat is not None and self.restarts > 1:
            raise ValueError(f"compat={self.compat!r} has a single start; use restarts=1")

    @property
    def passes(self) -> int:
        """Passes over the parts it will cost at most."""
        each = self.steps + 1
        if self.compat is None:
            each = 1 + most_gradients(up=self.direction == "up", steps=self.steps)
        return each * self.restarts * len(self.radii)

    def planned(self, probe: Probe) -> Cost:
        """What it will cost at most."""
        part = share(probe, self.parts.points)
        held = vector_bytes(probe, _VECTORS * self.restarts, self.memory)
        return Cost(gradients=self.passes * part, peak_memory=held)

    def compute(self, probe: Probe) -> Ascent:
        """Climbs from the checkpoint, as many parts at a time as memory allows."""
        base = probe.evidence(self.parts)
        ball = self.geometry.around(probe, self.norm)
        room = self.memory // (_VECTORS * probe.size * probe.weights().element_size())
        at_once = max(1, int(room) // self.restarts)
        parts = range(len(base.parts))
        groups = [
            self._group(probe, base, ball, parts[start : start + at_once])
            for start in range(0, len(parts), at_once)
        ]
        return Ascent(
            radii=self.radii,
            rises=np.concatenate([group[0] for group in groups], axis=1),
            late=np.concatenate([group[1] for group in groups], axis=1),
            nonfinite=np.concatenate([group[2] for group in groups], axis=1),
            bending=np.concatenate([group[3] for group in groups], axis=1),
            apart=np.concatenate([group[4] for group in groups], axis=1),
            rounding=groups[0][5][:, 0],
            free=ball.free,
        )

    def _group(self, probe: Probe, base: BaseParts, ball: Ball, parts: range) -> tuple[Array, ...]:
        """What is found for each radius and part.

        Returns:
            Rises, late gains, points without a finite loss, bending, gaps, each (radii, parts); and
            the rounding of the rise to the first point, (radii, 1).
        """
        rows = [part for part in parts for _ in range(self.restarts)]
        sign = 1.0 if self.direction == "up" else -1.0
        losses = sign * torch.from_numpy(base.losses)[rows]
        generator = torch.Generator().manual_seed(self.seed)
        zero = ball.scale.new_zeros(len(rows), len(ball.scale))
        slopes = sign * base.gradients(rows)

        def evaluate(deltas: Tensor, gradient: bool, which: Tensor) -> tuple[Tensor, Tensor]:
            if not deltas.any():
                return losses[which], slopes[which.to(slopes.device)]
            offsets, own = ball.retract(deltas), [rows[row] for row in which.tolist()]
            if gradient:
                found, gradients = base.parts.losses_and_gradients(offsets, own)
                return sign * found, sign * ball.pull_back(deltas, gradients)
            return sign * base.parts.losses(offsets, own), slopes

        best, best_losses = zero, losses
        found = []
        for place, rho in enumerate(self.radii):
            if self.compat is not None:
                reached = self._as_published(evaluate, ball, rho, losses)
            elif self.direction == "up":
                reached = search_up(
                    evaluate,
                    ball,
                    rho,
                    start=self._start(ball, best, place, generator),
                    candidates=best,
                    candidate_losses=best_losses,
                    losses=losses,
                    base=slopes,
                    steps=self.steps,
                    generator=generator,
                )
            else:
                start = best if place else self._start(ball, best, place, generator)
                reached = search_down(
                    evaluate,
                    ball,
                    rho,
                    start=start,
                    losses=losses,
                    steps=self.steps,
                    generator=generator,
                )
            best, best_losses = reached.best, reached.losses
            rounding = probe.difference_rounding(ball.retract(best[:1])[0])
            found.append(
                (
                    *self._over_restarts(reached, losses, ball.bending(best), len(parts)),
                    np.array([rounding]),
                )
            )
        return tuple(np.stack(kind) for kind in zip(*found, strict=True))

    def _as_published(
        self, evaluate: EvaluateRows, ball: Ball, rho: float, losses: Tensor
    ) -> Found:
        climbed = reference_climb(
            lambda deltas, gradient: evaluate(deltas, gradient, torch.arange(len(losses))),
            ball,
            rho,
            losses,
            self.steps,
        )
        ends = climbed.losses[:, None]
        return Found(
            climbed.best, climbed.losses, climbed.late, ends, climbed.nan, climbed.infinite
        )

    def _start(self, ball: Ball, best: Tensor, place: int, generator: torch.Generator) -> Tensor:
        """From the best point of the smaller ball, as far out; at first where restarts are."""
        rho = self.radii[place]
        if place > 0:
            return best * (rho / self.radii[place - 1])
        start = rho * ball.sample_inside(len(best), generator)
        start[:: self.restarts] = 0
        return start

    def _over_restarts(
        self, reached: Found, losses: Tensor, bending: Tensor, parts: int
    ) -> tuple[Array, ...]:
        rises = (reached.losses - losses).reshape(parts, self.restarts).clamp_min(0)
        best, place = rises.max(1)
        late, bent = (
            kind.reshape(parts, self.restarts).gather(1, place[:, None])[:, 0]
            for kind in (reached.late, bending)
        )
        blind = (reached.nan + reached.infinite).reshape(parts, self.restarts).sum(1)
        ends = (reached.ends - losses[:, None]).reshape(parts, -1).clamp_min(0)
        gap = best - ends.topk(min(2, ends.shape[1]), dim=1).values[:, -1]
        # Gains below the rounding of the losses are none.
        eps = torch.finfo(reached.best.dtype).eps
        least = _ROUNDINGS * eps * losses.reshape(parts, -1)[:, 0].abs()
        late, gap = (torch.where(kind > least, kind, 0) for kind in (late, gap))
        found = (best, late, blind.double(), bent, gap)
        return tuple(kind.numpy() for kind in found)


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How far the loss of each part rises (or falls) in each ball.

    Args:
        radii: Radii.
        rises: Extreme loss less the loss at the checkpoint, never negative, (radii, parts).
        late: What more steps from the best point may add, (radii, parts).
        nonfinite: Points visited whose loss is not finite, (radii, parts).
        free: Number of parameters that the ball lets move.
        bending: Length of the second-order term of the path to the best point, in units of the
            first-order one; zero in a flat geometry, (radii, parts).
        apart: How much higher the best of the starts ended than the next, 0 for a single start,
            (radii, parts).
        rounding: Measured rounding error of a rise, (radii,).
    """

    radii: tuple[float, ...]
    rises: Array
    late: Array
    nonfinite: Array
    free: int
    bending: Array
    apart: Array
    rounding: Array


def checked_radii(radii: tuple[float, ...]) -> tuple[float, ...]:
    """The radii themselves.

    Returns:
        ``radii``.

    Raises:
        ValueError: If there is none, or one is not positive and finite.
    """
    if not radii or not all(0 < rho < float("inf") for rho in radii):
        raise ValueError(f"radii must be positive and finite numbers, got {radii}")
    return radii
