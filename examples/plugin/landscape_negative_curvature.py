"""An example plug-in: curvature ratio |lambda_min| / lambda_max from the shared Spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape import Estimate, Status
from landscape.evidence import Spectrum
from landscape.measures import SpectralMeasure


@dataclass(frozen=True, kw_only=True)
class NegativeCurvature(SpectralMeasure):
    """Ratio of the extreme eigenvalues of the Hessian, |lambda_min| / lambda_max.

    It reads the same Spectrum as the built-in measures, so in an audit it costs nothing more.
    """

    name: ClassVar[str] = "negative-curvature"
    meaning: ClassVar[str] = "Most negative curvature as a share of the most positive one."
    formula: ClassVar[str] = "|λ_min| / λ_max"
    source: ClassVar[str] = "Li et al. 2018, section 6"
    cost_class: ClassVar[str] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """The ratio, with an interval from the residual bounds of both ends."""
        low, high = spectrum.values[0], spectrum.values[-1]
        if high <= 0:
            return Estimate.without_value(Status.UNDEFINED, "no eigenvalue is positive")
        errors = spectrum.error_bounds
        value = max(-low, 0.0) / high
        error = errors[0] / high + value * errors[-1] / high
        return Estimate(
            value=float(value),
            stderr=float(error),
            interval=(float(max(value - error, 0.0)), float(value + error)),
        )
