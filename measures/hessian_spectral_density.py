"""Spectral density of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from landscape.evidence import Spectrum
from landscape.linalg import student_quantile
from landscape.measures.base import CostClass
from landscape.measures.spectral import SpectralMeasure, with_rounding
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class HessianSpectralDensity(SpectralMeasure):
    """Density of the eigenvalues, phi(x) = 1/P sum_i N(x; lambda_i, width^2).

    Known eigenvalues enter exactly, the bulk by stochastic Lanczos quadrature on the rest of the
    space. The curve, its 95 % band and the known eigenvalues are in the diagnostics; the band holds
    sampling, quadrature and the places of eigenvalues that are not told apart. The value is the
    share of eigenvalues within one percent of the largest |lambda| around zero.

    Args:
        width: Standard deviation of the smoothing as a share of the spectrum's range.
        points: Points of the curve.
    """

    name: ClassVar[str] = "hessian-spectral-density"
    meaning: ClassVar[str] = "Share of directions that are flat: |λ| below 1 % of the largest."
    formula: ClassVar[str] = "φ(x) = 1/P Σ N(x; λᵢ, σ²);  value = #{|λᵢ| < 0.01 max|λ|} / P"
    source: ClassVar[str] = "Ghorbani, Krishnan and Xiao 2019; Golub and Welsch 1969"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")
    budget: ClassVar[frozenset[str]] = SpectralMeasure.budget | {"points", "width"}

    width: float = 0.005
    points: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.width < 1 or self.points < 10:
            raise ValueError(
                f"width must lie in (0, 1) and points be at least 10, got {self.width}, "
                f"{self.points}"
            )

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """Flat share, with the curve in the diagnostics."""
        low, high = float(spectrum.values[0]), float(spectrum.values[-1])
        reach = max(high - low, abs(high), abs(low)) or 1.0
        grid = np.linspace(min(low, 0.0) - 0.03 * reach, max(high, 0.0) + 0.03 * reach, self.points)
        curve = spectrum.density(grid, self.width * reach)
        largest = max(abs(low), abs(high))
        share, stderr = _flat_share(spectrum, 0.01 * largest)
        spread = student_quantile(len(spectrum.chains) - 1) * stderr
        estimate = Estimate(
            value=share,
            stderr=stderr,
            interval=(max(share - spread, 0.0), min(share + spread, 1.0)),
            diagnostics={
                "grid": grid.tolist(),
                "density": curve.values.tolist(),
                "density_low": curve.low.tolist(),
                "density_high": curve.high.tolist(),
                "width": self.width * reach,
                "eigenvalues": spectrum.known_values.tolist(),
                "size": spectrum.size,
            },
        )
        return with_rounding(estimate, spectrum.rounding.eigenvalue * spectrum.unit, largest)


def _flat_share(spectrum: Spectrum, threshold: float) -> tuple[float, float]:
    known = float((np.abs(spectrum.known_values) <= threshold).sum()) / spectrum.size
    rest = (spectrum.size - len(spectrum.known_values)) / spectrum.size
    shares, edges = [], []
    for chain in spectrum.chains:
        if chain.mass <= 0:
            continue
        nodes, weights = chain.quadrature()
        shares.append(float(weights[np.abs(nodes) <= threshold].sum() / chain.mass))
        # A node stands for its surroundings: the counts at an edge are known up to the weight of
        # the nodes beside it (the separation theorem of Chebyshev, Markov and Stieltjes).
        beside = [np.abs(nodes - edge).argmin() for edge in (-threshold, threshold)]
        edges.append(float(weights[beside].sum() / chain.mass) / 4)
    if len(shares) < 2:
        return known, 0.0
    sampling = np.std(shares, ddof=1) / np.sqrt(len(shares))
    placement = 0.0 if all(chain.exact for chain in spectrum.chains) else np.mean(edges)
    return known + rest * float(np.mean(shares)), rest * float(np.hypot(sampling, placement))
