"""What the one-step gaps have in common: the rise of the loss where a method steps to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from landscape.evidence import PartsRequest, Rule, StepRequest
from landscape.measures.base import CostClass, Requests, checked_count
from landscape.measures.neighbourhood import (
    NeighbourhoodMeasure,
    no_room,
    of_parts,
    with_rounding,
)
from landscape.probing import Evidence, Probe
from landscape.results import Estimate, Status


@dataclass(frozen=True, kw_only=True)
class PerturbationGap(NeighbourhoodMeasure):
    """E_B [ L_B(w + eps_B) - L_B(w) ], eps_B the perturbation of a training method.

    The mean is over disjoint parts B of m examples, its standard error that mean's over the parts.
    It may be negative.

    Args:
        rho: Length of the perturbation, or several.
        m: Examples a part; None makes one part of all.
        points: Use only the first so many examples; None uses all.
    """

    group: ClassVar[str] = "One step"
    scan_kind: ClassVar[str] = "step"
    cost_class: ClassVar[CostClass] = "low"
    budget: ClassVar[frozenset[str]] = NeighbourhoodMeasure.budget | {"points"}
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    rho: float | Sequence[float] | None = None
    m: int | None = 128
    points: int | None = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count(m=self.m, points=self.points)
        self._request(0)  # validates the rest

    @abstractmethod
    def _rule(self, seed: int) -> Rule:
        """Where the method steps to."""

    def _needs(self, probe: Probe, seed: int) -> Sequence[Evidence[Any]]:  # noqa: ARG002
        """Evidence that the rule reads."""
        return ()

    def _parts(self) -> PartsRequest:
        return PartsRequest(size=self.m, points=self.points)

    def _request(self, seed: int) -> StepRequest:
        return StepRequest(
            rule=self._rule(seed),
            radii=self.all_radii,
            geometry=self._geometry(),
            norm=self.norm,
            parts=self._parts(),
        )

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The parts of the data, what the rule needs, and the step."""
        own = self._probe(probe)
        return [
            (own, request)
            for request in (self._parts(), *self._needs(own, seed), self._request(seed))
        ]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The mean over the parts, at every radius."""
        own = self._probe(probe)
        steps = own.evidence(self._request(seed))
        parts = own.evidence(self._parts()).parts
        if not steps.free:
            return no_room(self.geometry)
        if steps.still.any():
            return Estimate.without_value(
                Status.UNDEFINED,
                f"{int(steps.still.sum())} of {len(steps.still)} parts have no direction to step "
                f"in; {self._advice()}",
            )

        def at(radius: float) -> Estimate:
            place = self.all_radii.index(radius)
            changes = steps.changes[place]
            if blind := int((~np.isfinite(changes)).sum()):
                return Estimate.without_value(
                    Status.UNDEFINED,
                    f"the loss of {blind} of {len(changes)} parts is not finite one step away; "
                    "reduce rho",
                )
            found = with_rounding(of_parts(changes, parts), float(steps.rounding[place]))
            if changes.any():
                return found
            return replace(
                found,
                status=Status.UNCERTAIN,
                message="The loss is the same one step away: it is constant, or the step too small "
                "for the precision; raise rho.",
            )

        return self._scanned(at)

    def _advice(self) -> str:
        return "the gradient is zero there (a constant loss, or dead units)"
