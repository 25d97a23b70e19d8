"""Average sharpness: the mean rise of the loss under noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from landscape.geometry import Norm
from landscape.measures.noise import MeanRise


@dataclass(frozen=True, kw_only=True)
class AverageSharpness(MeanRise):
    """S_avg = E[ L(w + delta) - L(w) ], delta ~ N(0, rho^2 I) for "l2".

    For "linf" delta_i is uniform in [-rho, rho]. rho is the standard deviation (or half-width) of
    each parameter, not divided by sqrt(P). On a quadratic at its minimum it is rho^2 tr(H) / 2
    (rho^2 tr(H) / 6 for "linf"). It may be negative.

    Example:
        >>> import landscape
        >>> landscape.measures.get("average-sharpness", rho=(0.01, 0.02)).scan
        (0.02,)
    """

    name: ClassVar[str] = "average-sharpness"
    meaning: ClassVar[str] = "Mean rise of the loss when noise of size ρ is added to each weight."
    formula: ClassVar[str] = "E L(w+ρε) − L(w)"
    source: ClassVar[str] = "Andriushchenko et al. 2023, eq. 1 (c = 1)"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.01, "linf": 0.02}
