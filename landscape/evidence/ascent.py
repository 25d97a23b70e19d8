"""Ascent and descent inside balls, part by part of the data: worst-case and best-case losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.climbing import Climb, climb
from landscape.evidence.parts import BaseParts, PartsRequest
from landscape.evidence.planning import share, vector_bytes
from landscape.evidence.reference_climbing import reference_climb
from landscape.geometry import Ball, Euclidean, Geometry, Norm, checked_norm
from landscape.probing import Probe
from landscape.results import Cost

Array = NDArray[np.float64]
Direction = Literal["up", "down"]
Compat = Literal["andriushchenko2023"]

# Vectors of P entries that an ascent holds for every row.
_VECTORS = 20


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
        steps: Gradients for each radius.
        restarts: Starts; the first is the checkpoint, the others are random points of the ball.
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
        """Passes over the parts it will cost."""
        return (self.steps + 1) * self.restarts * len(self.radii)

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
            self._group(base, ball, parts[start : start + at_once])
            for start in range(0, len(parts), at_once)
        ]
        return Ascent(
            radii=self.radii,
            rises=np.concatenate([group[0] for group in groups], axis=1),
            late=np.concatenate([group[1] for group in groups], axis=1),
            nonfinite=np.concatenate([group[2] for group in groups], axis=1),
            bending=np.concatenate([group[3] for group in groups], axis=1),
            free=ball.free,
        )

    def _group(self, base: BaseParts, ball: Ball, parts: range) -> tuple[Array, ...]:
        """Rises, late gains, evaluations without a finite loss, bending, each (radii, parts)."""
        rows = [part for part in parts for _ in range(self.restarts)]
        sign = 1.0 if self.direction == "up" else -1.0
        losses = sign * torch.from_numpy(base.losses)[rows]
        generator = torch.Generator().manual_seed(self.seed)
        zero = ball.scale.new_zeros(len(rows), len(ball.scale))
        slopes = sign * base.gradients(rows)

        def evaluate(deltas: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
            if not deltas.any():
                return losses, slopes
            offsets = ball.retract(deltas)
            if gradient:
                found, gradients = base.parts.losses_and_gradients(offsets, rows)
                return sign * found, sign * ball.pull_back(deltas, gradients)
            return sign * base.parts.losses(offsets, rows), slopes

        best, best_losses = zero, losses
        found = []
        for place, rho in enumerate(self.radii):
            if self.compat is not None:
                climbed = reference_climb(evaluate, ball, rho, losses, self.steps)
            else:
                start = self._start(ball, best, place, generator)
                climbed = climb(
                    evaluate,
                    ball,
                    rho,
                    start=start,
                    candidates=best,
                    candidate_losses=best_losses,
                    base=slopes,
                    steps=self.steps,
                    generator=generator,
                )
                best, best_losses = climbed.best, climbed.losses
            bending = ball.bending(climbed.best)
            found.append(self._over_restarts(climbed, losses, bending, len(parts)))
        return tuple(np.stack(kind) for kind in zip(*found, strict=True))

    def _start(self, ball: Ball, best: Tensor, place: int, generator: torch.Generator) -> Tensor:
        """From the best point of the smaller ball, as far out; at first where restarts are."""
        rho = self.radii[place]
        if place > 0:
            return best * (rho / self.radii[place - 1])
        start = rho * ball.sample_inside(len(best), generator)
        start[:: self.restarts] = 0
        return start

    def _over_restarts(
        self, climbed: Climb, losses: Tensor, bending: Tensor, parts: int
    ) -> tuple[Array, ...]:
        rises = (climbed.losses - losses).reshape(parts, self.restarts)
        best, place = rises.max(1)
        late, bent = (
            kind.reshape(parts, self.restarts).gather(1, place[:, None])[:, 0].numpy()
            for kind in (climbed.late, bending)
        )
        blind = climbed.nan + climbed.infinite
        nonfinite = blind.reshape(parts, self.restarts).sum(1)
        return best.numpy(), late, nonfinite.double().numpy(), bent


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How far the loss of each part rises (or falls) in each ball.

    Args:
        radii: Radii.
        rises: Extreme loss less the loss at the checkpoint, never negative, (radii, parts).
        late: What the last quarter of the steps added, (radii, parts).
        nonfinite: Points visited whose loss is not finite, (radii, parts).
        free: Number of parameters that the ball lets move.
        bending: Length of the second-order term of the path to the best point, in units of the
            first-order one; zero in a flat geometry, (radii, parts).
    """

    radii: tuple[float, ...]
    rises: Array
    late: Array
    nonfinite: Array
    free: int
    bending: Array


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
