"""What the measures of a neighbourhood have in common: geometry, norm, radii, and their scan."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from landscape.geometry import Geometry, Norm, as_geometry, checked_norm
from landscape.linalg import SampleMean
from landscape.measures.base import MEASURE_IN_DOUBLE, TWO_DIGITS, DeclinedError, Measure
from landscape.probing import Parts, Probe
from landscape.results import Estimate, Status

Array = NDArray[np.float64]

#: Multiples of the radius that ``scan="around"`` stands for.
AROUND = (0.25, 0.5, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class NeighbourhoodMeasure(Measure):
    """Fields of every measure of the losses near a checkpoint.

    Subclasses have a radius, the field that ``radius_field`` names. It may be given as a sequence:
    the first entry is the radius of the value, the others join ``scan``.

    Args:
        geometry: "euclidean" (c = 1), "elementwise" (c = |w| + eta) or "filterwise" (c = norm of
            the filter); distances are ||delta / c||.
        eta: Of the element-wise geometry, in units of the weights.
        one_dimensional: Of the filter-wise geometry: "exclude", "elementwise" or "tensor" for
            biases and normalisation parameters.
        norm: "l2" or "linf".
        scan: Further radii, whose values are in ``diagnostics["scan"]``; "around" stands for 1/4,
            1/2, 2 and 4 times the radius.
        logit_normalisation: Measure the loss of centred logits of length one.
    """

    budget: ClassVar[frozenset[str]] = frozenset({"scan"})
    #: Name of the field that holds the radius.
    radius_field: ClassVar[str] = "rho"
    #: What the radius is: of a "ball", the length of a "step", or the scale of a "noise".
    scan_kind: ClassVar[str] = "ball"
    #: What the value is: "rise" of the loss, or something that is drawn by itself.
    quantity: ClassVar[str] = "rise"
    #: Default radius by norm.
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.05, "linf": 0.002}

    geometry: str = "euclidean"
    eta: float = 0.0
    one_dimensional: Literal["exclude", "elementwise", "tensor"] = "exclude"
    norm: Norm = "l2"
    scan: tuple[float, ...] | Literal["around"] = ()
    logit_normalisation: bool = False

    def __post_init__(self) -> None:
        checked_norm(self.norm)
        given = getattr(self, self.radius_field)
        first, *rest = _radii(self.radii[self.norm] if given is None else given, self.radius_field)
        around = [first * factor for factor in AROUND]
        more = around if self.scan == "around" else _radii(self.scan, "scan")
        object.__setattr__(self, self.radius_field, first)
        object.__setattr__(self, "scan", tuple(sorted({*rest, *more} - {first})))
        self._geometry()  # validates it

    @property
    def radius(self) -> float:
        """The radius of the value."""
        radius: float = getattr(self, self.radius_field)
        return radius

    @property
    def all_radii(self) -> tuple[float, ...]:
        """The radius and those of the scan, ascending."""
        return tuple(sorted({self.radius, *self.scan}))

    def default_of(self, name: str) -> Any:
        """The default radius depends on the norm."""
        return self.radii[self.norm] if name == self.radius_field else super().default_of(name)

    def _geometry(self) -> Geometry:
        return as_geometry(self.geometry, eta=self.eta, one_dimensional=self.one_dimensional)

    def _probe(self, probe: Probe) -> Probe:
        """The probe that is measured, with normalised logits if asked for."""
        if not self.logit_normalisation:
            return probe
        if not probe.objective.has_outputs:
            raise DeclinedError(
                "logit normalisation needs the network's outputs, and the objective gives losses "
                "only; use an Objective with outputs()"
            )
        return probe.normalised_logits()

    def _scanned(self, at: Callable[[float], Estimate]) -> Estimate:
        """The estimate at the radius, with those of the scan in its diagnostics."""
        found = {radius: at(radius) for radius in self.all_radii}
        value = found[self.radius]
        if not self.scan:
            return value
        points = [
            {
                "at": radius,
                "value": estimate.value,
                "stderr": estimate.stderr,
                "interval": list(estimate.interval),
                "status": estimate.status.value,
                "message": estimate.message,
            }
            for radius, estimate in found.items()
        ]
        scan = {
            "parameter": self.radius_field,
            "kind": self.scan_kind,
            "quantity": self.quantity,
            "points": points,
        }
        return replace(value, diagnostics={**value.diagnostics, "scan": scan})

    @abstractmethod
    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The value at the radius, and the scan."""


def _radii(given: Any, name: str) -> list[float]:
    """One or several radii as numbers."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    try:
        found = [float(radius) for radius in given] if several else [float(given)]
    except (TypeError, ValueError):
        found = [-1.0]
    named = isinstance(given, str | bool) or (not found and name != "scan")
    if named or not all(0 < radius < float("inf") for radius in found):
        around = ' or "around"' if name == "scan" else ""
        raise ValueError(
            f"{name} must be a positive, finite number, or several{around}, got {given!r}"
        )
    return found


def of_values(
    values: Array,
    *,
    late: float = 0.0,
    least: float = -np.inf,
    what: str = "parts",
    **diagnostics: Any,
) -> Estimate:
    """The mean of one value a part of the data, with a Student-t interval.

    Args:
        values: Independent values, (n,).
        late: How much more they might be, for want of iterations; widens the interval upwards.
        least: Lower limit of the quantity.
        what: What the values belong to.
        **diagnostics: Kept with it.

    Returns:
        The estimate; a single value has no spread, only what it might be more.
    """
    count = len(values)
    mean = (
        SampleMean.of(values)
        if count > 1
        else SampleMean(value=float(values[0]), stderr=late, degrees=1)
    )
    low, high = mean.interval() if count > 1 else (mean.value, mean.value)
    wide = high - low > abs(mean.value)
    message = ""
    if count == 1 and what == "examples":
        wide, message = True, "A single example: how examples differ is not seen."
    elif wide:
        message = f"The {count} {what} differ widely; more data would narrow the interval."
    return Estimate(
        value=mean.value,
        stderr=mean.stderr,
        interval=(max(low, min(least, mean.value)), high + late),
        status=Status.UNCERTAIN if wide else Status.OK,
        message=message,
        diagnostics={what: count, **diagnostics},
    )


def of_parts(values: Array, parts: Parts, **settings: Any) -> Estimate:
    """The mean of one value a part, and in the diagnostics how the data were cut.

    A single part that is not all of the data leaves open how parts differ.

    Args:
        values: One a part.
        parts: The parts.
        **settings: As for ``of_values``.

    Returns:
        The estimate.
    """
    used = sum(parts.counts)
    found = of_values(
        values,
        terms_per_part=parts.counts[0],
        terms_used=used,
        cut_as_asked=parts.as_asked,
        **settings,
    )
    if len(values) > 1 or math.isclose(used, parts.pass_terms):
        return found
    return replace(
        found,
        status=Status.UNCERTAIN,
        message=f"A single part, {used} of {parts.pass_terms} loss terms: how parts differ is not "
        "seen; use a smaller m, or more of the data.",
    )


def with_rounding(estimate: Estimate, error: float, *, least: float = -math.inf) -> Estimate:
    """A difference of losses, its interval wider by their rounding.

    Args:
        estimate: The difference.
        error: Measured rounding error of the difference.
        least: Lower limit of the quantity.

    Returns:
        The estimate, uncertain where the error leaves less than two digits.
    """
    if not estimate.status.measured or not error > 0:
        return estimate
    low, high = estimate.interval
    found = replace(estimate, interval=(max(low - error, min(least, low)), high + error))
    if error <= TWO_DIGITS * abs(estimate.value):
        return found
    message = f"{estimate.message} {MEASURE_IN_DOUBLE}" if estimate.message else MEASURE_IN_DOUBLE
    return replace(found, status=Status.UNCERTAIN, message=message)


def no_room(geometry: str) -> Estimate:
    """What a ball without extent gives."""
    advice = "use eta > 0 or geometry='euclidean'"
    if geometry == "filterwise":
        advice = "use another rule for one_dimensional, or geometry='euclidean'"
    return Estimate.without_value(
        Status.UNDEFINED,
        f"the {geometry} ball has no extent: every parameter is zero or left out; {advice}",
    )
