"""Adaptive average sharpness: the mean rise of the loss under noise relative to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.geometry import Norm
from landscape.measures.noise import MeanRise


@dataclass(frozen=True, kw_only=True)
class AdaptiveAverageSharpness(MeanRise):
    """S_avg = E[ L(w + delta) - L(w) ], delta ~ N(0, rho^2 diag(|w|^2)) for "l2".

    For "linf" delta_i is uniform in [-rho |w_i|, rho |w_i|]. Rescaling weights so that the
    function stays the same does not change it. It may be negative.

    Example:
        >>> import landscape
        >>> landscape.measures.get("adaptive-average-sharpness").geometry
        'elementwise'
    """

    name: ClassVar[str] = "adaptive-average-sharpness"
    meaning: ClassVar[str] = "Mean rise of the loss under noise of relative size ρ on each weight."
    formula: ClassVar[str] = "E L(w+ρ|w|⊙ε) − L(w)"
    source: ClassVar[str] = "Andriushchenko et al. 2023, eq. 1 (c = |w|)"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "permutation")
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.1, "linf": 0.1}
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"logit_normalisation": False},
        {"logit_normalisation": True},
    )

    geometry: str = "elementwise"
