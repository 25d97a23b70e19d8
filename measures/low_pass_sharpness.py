"""Low-pass sharpness (LPF): the loss smoothed by a Gaussian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import NoiseLosses
from landscape.geometry import Norm
from landscape.measures.noise import NoiseMeasure, mean_of_pairs
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class LowPassSharpness(NoiseMeasure):
    """LPF = E[ L(w + eps) ], eps ~ N(0, sigma^2 I): the loss itself, not its rise.

    Notes:
        1. The published code normalises each filter before measuring, which is the filter-wise
           geometry: ``geometry="filterwise", one_dimensional="tensor"``. The default follows the
           formula of the paper.

    Args:
        sigma: Standard deviation of the noise, or several.

    Example:
        >>> import landscape
        >>> landscape.measures.get("low-pass-sharpness").sigma
        0.01
    """

    name: ClassVar[str] = "low-pass-sharpness"
    meaning: ClassVar[str] = "The loss smoothed by a Gaussian of standard deviation σ."
    formula: ClassVar[str] = "E L(w+σε)"
    source: ClassVar[str] = "Bisla, Wang and Choromanska 2022 (LPF-SGD), def. of LPF"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    radius_field: ClassVar[str] = "sigma"
    quantity: ClassVar[str] = "loss"
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.01, "linf": 0.02}

    sigma: float | Sequence[float] | None = None

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """Mean over the pairs."""
        return mean_of_pairs(losses.rises + losses.base)
