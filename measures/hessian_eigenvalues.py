"""Both ends of the Hessian's spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.evidence import Spectrum
from landscape.measures.base import CostClass
from landscape.measures.spectral import SpectralMeasure, with_rounding
from landscape.results import Estimate, Status

# A bound of the error above this share of the value means that Lanczos has not settled.
_SETTLED = 0.01


@dataclass(frozen=True, kw_only=True)
class HessianTopEigenvalue(SpectralMeasure):
    """Algebraically largest eigenvalue of the Hessian, lambda_max = max_v v^T H v / v^T v.

    The error is a bound from the Lanczos residual, not a statistical one. Diagnostics hold the
    five largest Ritz values and their bounds.
    """

    name: ClassVar[str] = "hessian-top-eigenvalue"
    meaning: ClassVar[str] = "Sharpest direction: the largest curvature of the loss."
    formula: ClassVar[str] = "λ_max(H)"
    source: ClassVar[str] = "Keskar et al. 2017; Lanczos with residual bounds, Parlett 1998"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """The largest Ritz value with its bound."""
        count = min(5, len(spectrum.values))
        values = spectrum.values[::-1][:count]
        bounds = spectrum.error_bounds[::-1][:count]
        return _bounded(
            values[0],
            bounds[0],
            spectrum,
            rounding=spectrum.rounding.largest,
            eigenvalues=[float(value) for value in values],
            error_bounds=[float(bound) for bound in bounds],
            ratio_to_fifth=float(values[0] / values[4]) if count == 5 and values[4] else None,
        )


@dataclass(frozen=True, kw_only=True)
class HessianBottomEigenvalue(SpectralMeasure):
    """Algebraically smallest eigenvalue of the Hessian, lambda_min, with the negative share.

    ``diagnostics["negative_mass"]`` is sum of |lambda_i| over negative ones divided by
    sum of |lambda_i| = (tr |H| - tr H) / (2 tr |H|); its interval covers sampling and quadrature.
    """

    name: ClassVar[str] = "hessian-bottom-eigenvalue"
    meaning: ClassVar[str] = "Most negative curvature: how far the point is from a minimum."
    formula: ClassVar[str] = "λ_min(H)"
    source: ClassVar[str] = "Lanczos with residual bounds, Parlett 1998"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """The smallest Ritz value with its bound."""
        largest = float(np.abs(spectrum.values).max())
        return _bounded(
            spectrum.values[0],
            spectrum.error_bounds[0],
            spectrum,
            rounding=spectrum.rounding.smallest,
            **_negative_share(spectrum),
            ratio_to_largest=abs(float(spectrum.values[0])) / largest if largest else None,
        )


def _bounded(
    value: float, bound: float, spectrum: Spectrum, *, rounding: float, **diagnostics: Any
) -> Estimate:
    scale = float(np.abs(spectrum.values).max())
    rounding *= spectrum.unit
    # What counts is whether the run has settled; more steps do nothing against rounding.
    size = max(abs(value), 1e-3 * scale)
    settled = bound - rounding <= _SETTLED * size
    estimate = Estimate(
        value=float(value),
        stderr=float(bound),
        interval=(float(value - bound), float(value + bound)),
        status=Status.OK if settled else Status.NOT_CONVERGED,
        diagnostics={**diagnostics, "rounding_error": rounding},
    )
    return with_rounding(estimate, rounding, size) if settled else estimate


def _negative_share(spectrum: Spectrum) -> dict[str, Any]:
    absolute, trace = spectrum.absolute_sum(lambda values: values), spectrum.trace()
    if absolute.value <= 0:
        return {"negative_mass": None, "negative_mass_interval": None}
    # The error of tr |H| dominates; tr H, exact on the basis, is taken at its value.
    shares = [
        float(np.clip((total - trace.value) / (2 * total), 0.0, 1.0))
        for total in (absolute.value, *absolute.interval())
        if total > 0
    ]
    return {
        "negative_mass": shares[0],
        "negative_mass_interval": [min(shares), max(shares)],
    }
