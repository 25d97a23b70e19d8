"""What the noise measures have in common: one set of perturbed losses that all of them read."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy import stats

from landscape.evidence import NoiseLosses, NoiseRequest
from landscape.linalg import SampleMean, student_quantile
from landscape.measures.base import (
    MEASURE_IN_DOUBLE,
    TWO_DIGITS,
    CostClass,
    Requests,
    checked_count,
)
from landscape.measures.neighbourhood import Array, NeighbourhoodMeasure, no_room
from landscape.probing import Probe
from landscape.results import Estimate, Status

# With a smaller effective share of the pairs than this, a tilted mean leans on losses too rare to
# be seen (docs/benchmarks/noise_coverage.json).
_COLLAPSED = 0.5
# Fewer pairs do not tell their own spread: with 5, at most 88 % of the intervals held the truth
# where the spread alone decided (docs/benchmarks/noise_coverage.json).
_FEWEST_PAIRS = 10


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
            return self._judged(self.of_losses(losses), self.rounding_of(losses))

        return self._scanned(at)

    def rounding_of(self, losses: NoiseLosses) -> float:
        """How far the rounding of the losses may move the value."""
        return losses.rounding

    def _judged(self, found: Estimate, rounding: float) -> Estimate:
        """The estimate with rounding in its interval, and the status that both deserve."""
        low, high = found.interval[0] - rounding, found.interval[1] + rounding
        pairs, size = self.samples // 2, abs(found.value)
        doubts = [found.message] if found.message else []
        if rounding > size / 2:
            doubts.append(
                "The value is within the rounding of the losses: the loss is constant, or the "
                f"noise too small for the precision; raise {self.radius_field} or use float64."
            )
        elif rounding > TWO_DIGITS * size:
            doubts.append(f"{MEASURE_IN_DOUBLE}, or raise {self.radius_field}")
        elif pairs < _FEWEST_PAIRS:
            doubts.append(
                f"{self.samples} samples do not tell their own spread; take at least "
                f"{2 * _FEWEST_PAIRS}."
            )
        elif not doubts and (high - low) * largest_spread(pairs) > size:
            doubts.append("The interval is wide for the value; raise samples.")
        return replace(
            found,
            interval=(low, high),
            status=Status.UNCERTAIN if doubts else Status.OK,
            message=" ".join(doubts),
            diagnostics={**found.diagnostics, "rounding": rounding},
        )

    @abstractmethod
    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """The measure as a pure function of the losses."""


@dataclass(frozen=True, kw_only=True)
class MeanRise(NoiseMeasure):
    """E[L(w + U)] - L(w), the mean rise of the loss; negative where the loss curves down."""

    rho: float | Sequence[float] | None = None

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """Mean over the pairs."""
        return mean_of_pairs(losses.rises)


def mean_of_pairs(values: Array) -> Estimate:
    """The mean of one value a pair, with the interval of ``skewed_interval``.

    Args:
        values: Independent values, (pairs,), at least two.

    Returns:
        The estimate, whose status ``NoiseMeasure`` settles.
    """
    mean = SampleMean.of(values)
    return Estimate(
        value=mean.value,
        stderr=mean.stderr,
        interval=skewed_interval(values),
        status=Status.OK,
        diagnostics={"samples": 2 * len(values)},
    )


def skewed_interval(values: Array) -> tuple[float, float]:
    """The 95 % interval of a mean whose samples are skewed.

    Where n samples have the skewness g, Student's T is skewed as well, and Hall's transformation
    T + g T^2 / (3 sqrt n) + g^2 T^3 / (27 n) + g / (6 sqrt n) takes that out. Losses under noise
    near a minimum are sums of squares: their mean is missed from below far more often than from
    above, and the interval reaches further up than down. Without skewness it is Student's.

    Source: Hall 1992, On the removal of skewness by transformation.

    Args:
        values: Independent samples, (n,), at least two.

    Returns:
        Lower and upper end, with the mean between them.
    """
    mean = SampleMean.of(values)
    root = np.sqrt(len(values))
    quantile = student_quantile(mean.degrees)
    skewness = _skewness(values)

    def untransformed(quantile: float) -> float:
        if abs(skewness) < 1e-9:
            return quantile
        inside = 1 + skewness * (quantile / root - skewness / (6 * len(values)))
        return float(3 * root / skewness * (np.cbrt(inside) - 1))

    ends = [mean.value - mean.stderr * untransformed(sign * quantile) for sign in (1, -1)]
    return min(ends[0], mean.value), max(ends[1], mean.value)


def largest_spread(pairs: int) -> float:
    """How many times their own the standard deviation of so few normal samples may be.

    The one-sided 95 % bound, sqrt((n - 1) / chi^2_{0.05}(n - 1)): 1.2 at 50 pairs, 2.4 at 5. A
    status that rested on the spread alone would prefer the seeds in which it is too small.

    Args:
        pairs: Number of independent samples, at least two.

    Returns:
        The factor, at least 1.
    """
    return float(np.sqrt((pairs - 1) / stats.chi2.ppf(0.05, pairs - 1)))


def log_mean_rise(losses: NoiseLosses, t: float) -> Estimate:
    """(1/t) log mean exp(t (L - L(w))) over all samples.

    Standard error and the leading bias of the logarithm are those of the delta method, over
    antithetic pairs. The interval is that of a skewed mean, and reaches at least to the
    log-mean-exp of a gamma distribution whose spread and skewness are as large as the pairs allow.
    That reckons with rare losses that were not drawn: seeds without them see a smaller error and
    more effective samples than others do.

    Args:
        losses: Of the pairs.
        t: Tilt, not zero.

    Returns:
        The estimate, with the effective number of samples (sum q)^2 / sum q^2, q = exp(t L), and
        the one that is expected of such a gamma distribution; uncertain where few pairs outweigh
        the others by either.
    """
    powers = t * np.stack([losses.plus, losses.minus]) - t * losses.base  # (2, pairs)
    count = powers.shape[1]
    highest = float(powers.max())
    weights = np.exp(powers - highest)
    pairs = weights.mean(0)
    # Relative to the mean; at most 1, where one pair outweighs all others.
    error = float(pairs.std(ddof=1) / (np.sqrt(count) * pairs.mean()))
    value = highest + float(np.log(pairs.mean())) + error**2 / 2
    logs = np.logaddexp(powers[0], powers[1]) - np.log(2)  # (pairs,)
    spread = float(logs.std(ddof=1)) * largest_spread(count)
    skewness = _skewness(logs) + float(np.sqrt(6 / count))
    low, high = _log_interval(powers, pairs, highest)
    reach = float(logs.mean()) + _log_mean_exp(spread, skewness, 1)
    reach += student_quantile(count - 1) * spread / float(np.sqrt(count))
    low, high = min(low, value), max(high, value, reach if np.isfinite(reach) else high)
    ends = sorted((low / t, high / t))
    expected = _expected_share(spread, skewness)
    effective = _effective(weights)
    found = Estimate(
        value=value / t,
        stderr=error / abs(t),
        interval=(ends[0], ends[1]),
        status=Status.OK,
        diagnostics={
            "samples": 2 * count,
            "effective_samples": effective,
            "expected_effective_samples": expected * 2 * count,
        },
    )
    share = min(_effective(pairs) / count, expected)
    if share >= _COLLAPSED:
        return found
    leaning = ("high", "higher") if t > 0 else ("low", "lower")
    return replace(
        found,
        status=Status.UNCERTAIN,
        message=f"Only about {min(effective, share * 2 * count):.1f} of {2 * count} samples count: "
        f"the value leans on {leaning[0]} losses, and rarer and {leaning[1]} ones may be missing; "
        "reduce the noise or the tilt.",
    )


def _log_interval(powers: Array, pairs: Array, highest: float) -> tuple[float, float]:
    """Interval of log E exp(powers): of the mean weight, and no lower than that of the mean."""
    low, high = skewed_interval(pairs)
    least = skewed_interval(powers.mean(0))[0]  # by Jensen's inequality
    return max(highest + float(np.log(low)), least) if low > 0 else least, highest + float(
        np.log(high)
    )


def _expected_share(spread: float, skewness: float) -> float:
    """Effective share of the samples, (E q)^2 / E q^2, of weights whose logarithms are gamma."""
    second = _log_mean_exp(spread, skewness, 2)
    if not np.isfinite(second):
        return 0.0
    return float(np.exp(2 * _log_mean_exp(spread, skewness, 1) - second))


def _log_mean_exp(spread: float, skewness: float, times: float) -> float:
    """What a shifted gamma variable Y has for log E exp(times (Y - E Y)); it may be infinite.

    The logarithms of the weights are sums of squares on a quadratic, of which the gamma
    distribution is the usual fit, and exact for equal eigenvalues; without skewness Y is
    normal.

    Args:
        spread: Standard deviation of Y.
        skewness: Of Y.
        times: The exponent's factor, positive.

    Returns:
        The logarithm.
    """
    scale = spread * skewness / 2
    if abs(scale * times) < 1e-4:
        return (times * spread) ** 2 / 2
    if scale * times >= 1:
        return float("inf")
    return -((spread / scale) ** 2) * float(scale * times + np.log1p(-scale * times))


def _skewness(values: Array) -> float:
    """Sample skewness, adjusted for the number of samples; 0 where they are too few or equal."""
    count = len(values)
    away = values - values.mean()
    size = float(np.abs(away).max())
    if count < 3 or not size:
        return 0.0
    away = away / size
    third, second = float((away**3).mean()), float((away**2).mean())
    return third / math.pow(second, 1.5) * math.sqrt(count * (count - 1)) / (count - 2)


def _effective(weights: Array) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())
