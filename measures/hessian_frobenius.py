"""Frobenius norm of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import Spectrum
from landscape.measures.base import CostClass
from landscape.measures.spectral import SpectralMeasure, of_mean
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class HessianFrobenius(SpectralMeasure):
    """Frobenius norm of the Hessian, ||H||_F = sqrt(sum_i lambda_i^2) = sqrt(E ||H v||^2).

    Exact on the Krylov basis, the mean of ||H v||^2 over random probes outside it. The squared
    norm and its interval are in the diagnostics.
    """

    name: ClassVar[str] = "hessian-frobenius"
    meaning: ClassVar[str] = "Size of the curvature over all directions, large eigenvalues first."
    formula: ClassVar[str] = "‖H‖_F = (Σ λᵢ²)^½"
    source: ClassVar[str] = "tr(H²) = E‖Hv‖², Hutchinson 1990; Bisla et al. 2022 use it as measure"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """||H||_F by the square root of the squared norm and of its interval's ends."""
        unit = spectrum.unit
        own = of_mean(spectrum.frobenius_squared(unit))
        low, high = (unit * max(end, 0.0) ** 0.5 for end in own.interval)
        value = max(own.value, 0.0) ** 0.5
        return Estimate(
            value=unit * value,
            stderr=unit * own.stderr / (2 * value) if value else 0.0,
            interval=(low, high),
            status=own.status,
            message=own.message,
            diagnostics={
                "squared": unit * (unit * own.value),
                "squared_stderr": unit * (unit * own.stderr),
                "squared_interval": [unit * (unit * end) for end in own.interval],
            },
        )
