"""What the noise measures have in common: one set of perturbed losses that all of them read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from landscape.evidence import NoiseLosses, NoiseRequest
from landscape.linalg import SampleMean
from landscape.measures.base import CostClass, Requests, checked_count
from landscape.measures.neighbourhood import Array, NeighbourhoodMeasure, no_room
from landscape.measures.spectral import of_mean
from landscape.probing import Probe
from landscape.results import Estimate, Status

# With fewer effective pairs than this share a tilted mean leans on losses too rare to be seen, and
# misses by more than its error (docs/benchmarks: noise 0.1 |w|, t = 100).
_COLLAPSED = 0.7


@dataclass(frozen=True, kw_only=True)
class NoiseMeasure(NeighbourhoodMeasure):
    """Fields of the measures of losses under noise; equal fields mean shared losses.

    Noise of norm "l2" is Gaussian with standard deviation radius times c per parameter; of norm
    "linf" it is uniform in [-radius c, radius c]. Samples come in antithetic pairs w + U, w - U.

    Args:
        samples: Perturbed losses at each radius, even, at least 4.
        points: Use only the first so many examples; None uses all.
    """

    group: ClassVar[str] = "Noise"
    scan_kind: ClassVar[str] = "noise"
    cost_class: ClassVar[CostClass] = "medium"
    budget: ClassVar[frozenset[str]] = NeighbourhoodMeasure.budget | {"points", "samples"}

    samples: int = 100
    points: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count(samples=self.samples, points=self.points)
        if self.samples < 4 or self.samples % 2:
            raise ValueError(f"samples must be even and at least 4, got {self.samples}")
        self._request(self.radius, 0)  # validates the rest

    def _request(self, radius: float, seed: int) -> NoiseRequest:
        return NoiseRequest(
            geometry=self._geometry(),
            norm=self.norm,
            sigma=radius,
            pairs=self.samples // 2,
            points=self.points,
            seed=seed,
        )

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The perturbed losses at every radius."""
        own = self._probe(probe)
        return [(own, self._request(radius, seed)) for radius in self.all_radii]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The functional of the losses, at every radius."""
        own = self._probe(probe)

        def at(radius: float) -> Estimate:
            losses = own.evidence(self._request(radius, seed))
            if not losses.free:
                return no_room(self.geometry)
            if losses.nonfinite:
                return Estimate.without_value(
                    Status.UNDEFINED,
                    f"{losses.nonfinite} of {self.samples} perturbed losses are not finite; "
                    f"reduce {self.radius_field}",
                )
            return self._rounded(self.of_losses(losses), self.rounding_of(losses))

        return self._scanned(at)

    def rounding_of(self, losses: NoiseLosses) -> float:
        """How far the rounding of the losses may move the value."""
        return losses.rounding

    def _rounded(self, found: Estimate, rounding: float) -> Estimate:
        """The estimate with rounding in its interval, and the status that goes with it."""
        low, high = found.interval[0] - rounding, found.interval[1] + rounding
        found = replace(
            found, interval=(low, high), diagnostics={**found.diagnostics, "rounding": rounding}
        )
        if found.status is not Status.OK and found.message:  # has a reason of its own
            return found
        if high - low <= abs(found.value):
            return replace(found, status=Status.OK)
        message = "The interval is wide for the value; raise samples."
        if 2 * rounding > abs(found.value):
            message = (
                "The value is within the rounding of the losses: the loss is constant, or the "
                f"noise too small for the precision; raise {self.radius_field} or use float64."
            )
        return replace(found, status=Status.UNCERTAIN, message=message)

    @abstractmethod
    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """The measure as a pure function of the losses."""


@dataclass(frozen=True, kw_only=True)
class MeanRise(NoiseMeasure):
    """E[L(w + U)] - L(w), the mean rise of the loss; negative where the loss curves down."""

    rho: float | Sequence[float] | None = None

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """Mean over the pairs."""
        return of_mean(SampleMean.of(losses.rises), samples=self.samples)


def log_mean_rise(losses: NoiseLosses, t: float) -> Estimate:
    """(1/t) log mean exp(t (L - L(w))) over all samples.

    Standard error and the leading bias of the logarithm are those of the delta method, over
    antithetic pairs.

    Args:
        losses: Of the pairs.
        t: Tilt, not zero.

    Returns:
        The estimate, with the effective number of samples (sum q)^2 / sum q^2, q = exp(t L);
        uncertain where few pairs outweigh the others.
    """
    powers = t * np.stack([losses.plus, losses.minus]) - t * losses.base  # (2, pairs)
    highest = float(powers.max())
    weights = np.exp(powers - highest)
    pairs = weights.mean(0)
    # Relative to the mean; at most 1, where one pair outweighs all others.
    error = float(pairs.std(ddof=1) / (np.sqrt(len(pairs)) * pairs.mean()))
    value = (highest + float(np.log(pairs.mean())) + error**2 / 2) / t
    effective = _effective(weights)
    mean = SampleMean(value=value, stderr=error / abs(t), degrees=len(pairs) - 1)
    found = of_mean(mean, samples=2 * len(pairs), effective_samples=effective)
    if _effective(pairs) >= _COLLAPSED * len(pairs):
        return found
    return replace(
        found,
        status=Status.UNCERTAIN,
        message=f"Only {effective:.1f} of {2 * len(pairs)} samples count: the value leans on "
        "high losses, and rarer and higher ones may be missing; reduce the noise or the tilt.",
    )


def _effective(weights: Array) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())
