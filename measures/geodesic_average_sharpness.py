"""Geodesic average sharpness: the mean rise under noise that does not see GL(h) on attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.geometry import Geometry, Metric, Norm, Quotient
from landscape.measures.geodesic_sharpness import with_attention
from landscape.measures.noise import MeanRise
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class GeodesicAverageSharpness(MeanRise):
    """E[ L(gamma_xi(1)) - L(w) ], xi normal in the horizontal space, standard deviation rho.

    The average version of ``geodesic-sharpness``: xi has rho as its standard deviation in every
    coordinate of the metric, and its part along the orbits of GL(h) is taken out. It may be
    negative.

    Notes:
        1. Its distribution is the same everywhere on an orbit, the draws of one seed are not.

    Args:
        metric: "inv" or "mix".
        second_order: Whether geodesics bend; False goes straight.

    Example:
        >>> import landscape
        >>> landscape.measures.get("geodesic-average-sharpness").rho
        0.1
    """

    name: ClassVar[str] = "geodesic-average-sharpness"
    meaning: ClassVar[str] = "Mean rise of the loss, free of how attention is parametrised."
    formula: ClassVar[str] = "E L(γ_ξ(1)) − L(w)"
    source: ClassVar[str] = "after da Silva, Dangel and Oore 2025, arXiv 2505.05409"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "attention", "permutation")
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.1, "linf": 0.1}
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"metric": "inv"}, {"metric": "mix"})

    geometry: str = Quotient.name
    metric: Metric = "mix"
    second_order: bool = True

    def __post_init__(self) -> None:
        if self.norm != "l2" or self.geometry != Quotient.name:
            raise ValueError(
                "geodesic-average-sharpness has a geometry and norm of its own: leave geometry and "
                "norm at their defaults"
            )
        super().__post_init__()

    def _geometry(self) -> Geometry:
        return self._quotient()

    def _quotient(self) -> Quotient:
        return Quotient(metric=self.metric, second_order=self.second_order)

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The mean over the draws, and what was found of attention."""
        return with_attention(super().estimate(probe, seed), self._quotient().found(probe))
