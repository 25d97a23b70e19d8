"""Effective dimension of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import Spectrum
from landscape.linalg import SpectralSum
from landscape.measures.base import CostClass
from landscape.measures.spectral import SpectralMeasure, with_rounding
from landscape.results import Estimate, Status


@dataclass(frozen=True, kw_only=True)
class EffectiveDimension(SpectralMeasure):
    """Number of directions that curvature determines, N(z) = sum_i |lambda_i| / (|lambda_i| + z).

    For a Gaussian prior of variance s^2 and n examples, z = 1 / (n s^2). The absolute value keeps
    the sum finite where an eigenvalue is near -z; with ``operator="ggn"`` it changes nothing.

    Args:
        z: Curvature that counts as half a direction, positive.
    """

    name: ClassVar[str] = "effective-dimension"
    meaning: ClassVar[str] = "How many directions are curved more than z."
    formula: ClassVar[str] = "N(z) = Σ |λᵢ| / (|λᵢ| + z)"
    source: ClassVar[str] = "MacKay 1992; Maddox, Benton and Wilson 2020, eq. 3"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    z: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.z > 0:
            raise ValueError(f"z must be positive, got {self.z}")

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """N(z) with sampling, quadrature and rounding error."""
        total = spectrum.absolute_sum(lambda values: values / (values + self.z))
        return of_sum(total)


def of_sum(total: SpectralSum) -> Estimate:
    """An estimate from a spectral sum, its systematic errors in the diagnostics."""
    low, high = total.interval()
    estimate = Estimate(
        value=total.value,
        stderr=total.stderr,
        interval=(max(low, 0.0), high),
        status=Status.UNCERTAIN if high - low > abs(total.value) else Status.OK,
        diagnostics={
            "quadrature_error": total.quadrature_error,
            "bracket": list(total.bracket),
            "rounding_error": total.rounding_error,
        },
    )
    return with_rounding(estimate, total.rounding_error)
