"""What max-, min-, bilateral and adaptive sharpness have in common: extremes inside a ball."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from landscape.evidence import AlongGradient, AscentRequest, PartsRequest, StepRequest
from landscape.evidence.ascent import Compat, Direction
from landscape.measures.base import CostClass, Requests, checked_count
from landscape.measures.neighbourhood import (
    Array,
    NeighbourhoodMeasure,
    no_room,
    of_parts,
    with_rounding,
)
from landscape.probing import Evidence, Parts, Probe
from landscape.results import Estimate, Status

# Shares of the value: what more steps may add to a search that has settled, and how far the two
# best of its starts may end from each other where they agree.
_SETTLED, _AGREED = 0.02, 0.03


@dataclass(frozen=True, kw_only=True)
class BallSharpness(NeighbourhoodMeasure):
    """Fields of the measures that search a ball for the extreme loss, on each part of the data.

    The value is the mean over the parts (the "m-sharpness"), its standard error that mean's over
    the parts as a sample of the data. The search gives a bound from one side: the extreme may lie
    beyond. What more steps may add and how far apart the two best starts ended widen the interval
    upwards; where either is large, the status says so.

    Args:
        rho: Radius, or several; in units of the scale c of each parameter.
        m: Examples a part; None makes one part of all.
        points: Use only the first so many examples, in the order of the data; None uses all.
        steps: Length of the search: for each radius a maximum takes up to 2.7 times as many
            gradients, a minimum twice as many, and fewer where it settles.
        restarts: Whole searches, each from a start of its own; the first is the checkpoint.
        one_step: A single step along the part's gradient instead, as training with SAM sees it.
        compat: "andriushchenko2023" for the published algorithm.
    """

    group: ClassVar[str] = "Worst case in a ball"
    cost_class: ClassVar[CostClass] = "medium"
    budget: ClassVar[frozenset[str]] = NeighbourhoodMeasure.budget | {"points", "steps", "restarts"}
    #: Which extremes are added up.
    directions: ClassVar[tuple[Direction, ...]]

    rho: float | Sequence[float] | None = None
    m: int | None = 128
    points: int | None = 1024
    steps: int = 20
    restarts: int = 1
    one_step: bool = False
    compat: Compat | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count(m=self.m, points=self.points, steps=self.steps, restarts=self.restarts)
        if self.one_step and self.compat is not None:
            raise ValueError("one_step has no published variant; use compat=None")
        for direction in self.directions:
            self._request(direction, 0)  # validates the rest

    def _parts(self) -> PartsRequest:
        return PartsRequest(size=self.m, points=self.points)

    def _request(self, direction: Direction, seed: int) -> AscentRequest | StepRequest:
        if self.one_step:
            return StepRequest(
                rule=AlongGradient(),
                sign=1 if direction == "up" else -1,
                radii=self.all_radii,
                geometry=self._geometry(),
                norm=self.norm,
                parts=self._parts(),
            )
        return AscentRequest(
            direction=direction,
            radii=self.all_radii,
            geometry=self._geometry(),
            norm=self.norm,
            steps=self.steps,
            restarts=self.restarts,
            parts=self._parts(),
            seed=seed,
            compat=self.compat,
        )

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The parts of the data, and the search on each."""
        own = self._probe(probe)
        wanted: list[Evidence[object]] = [self._parts()]
        wanted += [self._request(direction, seed) for direction in self.directions]
        return [(own, request) for request in wanted]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The mean over the parts, at every radius."""
        own = self._probe(probe)
        base = own.evidence(self._parts())
        found = [_rises(own, self._request(direction, seed)) for direction in self.directions]
        if not found[0].free:
            return no_room(self.geometry)
        unit = self._unit(base.losses)
        if not (unit > 0).all():
            return Estimate.without_value(
                Status.UNDEFINED, "the value is relative to 1 + L(w), which is not positive here"
            )

        def at(radius: float) -> Estimate:
            place = self.all_radii.index(radius)
            judged = self._judged(
                sum((part.rises[place] / unit for part in found), np.zeros(len(unit))),
                late=float(sum((part.late[place] / unit).mean() for part in found)),
                apart=float(sum((part.apart[place] / unit).mean() for part in found)),
                blind=int(sum(part.nonfinite[place].sum() for part in found)),
                parts=base.parts,
            )
            error = sum(float(part.rounding[place]) for part in found) / float(unit.mean())
            return with_rounding(judged, error, least=0.0)

        return self._scanned(at)

    def _unit(self, losses: Array) -> Array:
        """What a rise of each part is divided by."""
        return np.ones_like(losses)

    def _judged(
        self, rises: Array, *, late: float, apart: float, blind: int, parts: Parts
    ) -> Estimate:
        if blind:
            return Estimate.without_value(
                Status.UNDEFINED,
                f"the loss is not finite at {blind} of the points visited inside the ball; "
                f"reduce {self.radius_field}",
                largest_finite=float(rises.mean()),
            )
        doubt = late + apart
        found = of_parts(rises, parts, late=doubt, least=0.0, ascent_error=late, starts_apart=apart)
        if late > _SETTLED * found.value:
            return replace(
                found,
                status=Status.NOT_CONVERGED,
                message=f"At least {found.value:.3g}: the search was still gaining and may gain "
                f"{late:.1g} more; raise steps.",
            )
        if "up" in self.directions and not rises.any():
            return replace(
                found,
                status=Status.UNCERTAIN,
                message="No point visited lies higher: the loss is constant around the checkpoint, "
                f"or the ball too small for the precision; raise {self.radius_field}.",
            )
        if apart > _AGREED * found.value:
            return replace(
                found,
                status=Status.UNCERTAIN,
                message=f"At least {found.value:.3g}: the ball has several maxima, only one start "
                f"reached this one and the next best ended {apart / found.value:.0%} lower, so "
                "that a higher one may have been missed; raise restarts.",
            )
        return found


@dataclass(frozen=True)
class _Rises:
    rises: Array
    late: Array
    apart: Array
    nonfinite: Array
    free: int
    rounding: Array


def _rises(probe: Probe, request: AscentRequest | StepRequest) -> _Rises:
    """How far the loss rises (or falls) on each part, (radii, parts), never negative."""
    if isinstance(request, AscentRequest):
        ascent = probe.evidence(request)
        return _Rises(
            ascent.rises,
            ascent.late,
            ascent.apart,
            ascent.nonfinite,
            ascent.free,
            ascent.rounding,
        )
    steps = probe.evidence(request)
    found = request.sign * steps.changes
    blind = np.isnan(found) | (found == np.inf)
    # The checkpoint itself is a candidate, so that no rise is below zero.
    rises = np.maximum(np.where(blind, 0.0, found), 0.0)
    none = np.zeros_like(rises)
    return _Rises(rises, none, none, blind.astype(float), steps.free, steps.rounding)
