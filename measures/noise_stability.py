"""Noise stability: the curvature that small noise sees, from forward passes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from landscape.evidence import NoiseLosses
from landscape.geometry import Norm
from landscape.linalg import SampleMean
from landscape.measures.neighbourhood import Array
from landscape.measures.noise import NoiseMeasure, mean_of_pairs
from landscape.probing import Probe
from landscape.results import Estimate

# Relative departure from the smallest sigma that counts as leaving the quadratic regime.
_DEPARTURE = 0.05


@dataclass(frozen=True, kw_only=True)
class NoiseStability(NoiseMeasure):
    """mean_j [ L(w + U_j) + L(w - U_j) - 2 L(w) ] / sigma^2, U_j ~ N(0, sigma^2 I).

    An unbiased estimate of tr H up to O(sigma^2) (for "linf" of tr H / 3, the variance of the
    uniform). With several sigma, ``diagnostics["quadratic_up_to"]`` is the largest one up to which
    none departs from the smallest by more than 5 % beyond its error; ``"regime"`` says it in words.
    Sigma so small that rounding hides the curvature are left out of that. The same U / sigma serve
    all sigma, so that departures are seen through the sampling error.

    Notes:
        1. The interval contains the measured rounding of the losses, 2 / sigma^2 times that of a
           rise, which dominates where sigma is very small; it does not contain the O(sigma^2) bias.
        2. The Hessian of a ReLU net is blind to its kinks, noise is not: the two agree only where
           sigma is smaller than the distance to most kinks.

    Args:
        sigma: Standard deviation of the noise, or several.

    Example:
        >>> import landscape
        >>> landscape.measures.get("noise-stability", sigma=(0.01, 0.003, 0.03)).all_radii
        (0.003, 0.01, 0.03)
    """

    name: ClassVar[str] = "noise-stability"
    meaning: ClassVar[str] = "Trace of the Hessian as small noise sees it, without differentiation."
    formula: ClassVar[str] = "E [L(w+U) + L(w−U) − 2L(w)] / σ²"
    source: ClassVar[str] = "Zhang, Li and Ju 2024 (NSO), the two-point estimate as a measure"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    radius_field: ClassVar[str] = "sigma"
    quantity: ClassVar[str] = "curvature"
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.01, "linf": 0.02}

    sigma: float | Sequence[float] | None = None

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The curvature at every sigma, and how far it stays the same."""
        found = super().estimate(probe, seed)
        own = self._probe(probe)
        scans = [own.evidence(self._request(radius, seed)) for radius in self.all_radii]
        return replace(found, diagnostics={**found.diagnostics, **quadratic_regime(scans)})

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """Mean over the pairs."""
        return mean_of_pairs(_curvatures(losses))

    def rounding_of(self, losses: NoiseLosses) -> float:
        """That of a rise, as a curvature."""
        return _rounding(losses)


def quadratic_regime(scans: Sequence[NoiseLosses]) -> dict[str, Any]:
    """Between which sigma the curvature is the same.

    Args:
        scans: Losses of the same noise at ascending sigma.

    Returns:
        ``regime_from`` and ``quadratic_up_to``, None where not established; ``regime``, in words.
    """
    usable = [
        losses for losses in scans if losses.free and not losses.nonfinite and _settled(losses)
    ]
    if len(usable) < 2:
        words = "The quadratic regime is not established: give several noise scales."
        return {"regime_from": None, "quadratic_up_to": None, "regime": words}
    least = usable[0]
    reference = _curvatures(least)
    size = abs(float(np.mean(reference)))
    limit = least.sigma
    words = ""
    for losses in usable[1:]:
        shift = SampleMean.of(_curvatures(losses) - reference)
        low, high = shift.interval()
        room = _DEPARTURE * size + _rounding(losses) + _rounding(least)
        if low > room or high < -room:
            change = f"{100 * shift.value / size:+.0f} %"
            words = (
                f"Noise sees one curvature, that of a quadratic, from σ = {least.sigma:g} up to "
                f"σ = {limit:g}; at σ = {losses.sigma:g} it differs by {change}."
            )
            if limit == least.sigma:
                words = (
                    f"The curvature at σ = {losses.sigma:g} differs by {change} from that at the "
                    f"least usable noise scale, σ = {limit:g}: the loss is quadratic up to there "
                    "at most."
                )
            break
        limit = losses.sigma
    words = words or (
        f"Noise sees one curvature, that of a quadratic, up to σ = {limit:g}, the largest measured."
    )
    return {"regime_from": least.sigma, "quadratic_up_to": limit, "regime": words}


def _curvatures(losses: NoiseLosses) -> Array:
    curvatures: Array = 2 / losses.sigma**2 * losses.rises
    return curvatures


def _rounding(losses: NoiseLosses) -> float:
    """Rounding of a rise, as a curvature."""
    return 2 * losses.rounding / losses.sigma**2


def _settled(losses: NoiseLosses) -> bool:
    """Whether the curvature is more than the rounding of the losses."""
    return _rounding(losses) <= _DEPARTURE * abs(float(np.mean(_curvatures(losses))))
