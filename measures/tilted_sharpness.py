"""Tilted sharpness: between the mean and the maximum of the loss under noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence import NoiseLosses
from landscape.geometry import Norm
from landscape.measures.noise import NoiseMeasure, log_mean_rise, mean_of_pairs
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class TiltedSharpness(NoiseMeasure):
    """L^t(w) - L(w) = (1/t) log E[ exp(t L(w + eps)) ] - L(w), eps ~ N(0, rho^2 I).

    t = 0 is the plain mean, the average sharpness; t to infinity the maximum over the support of
    the noise. On a quadratic at its minimum it is -1/(2t) sum_i log(1 - t rho^2 lambda_i) where
    t rho^2 lambda_max < 1, and infinite beyond. t goes with the loss: L -> c L needs t -> t / c.

    Notes:
        1. The training method clips the noise to a radius and adds a SAM step; the measure is the
           objective itself, with plain noise.
        2. The effective sample size (sum q)^2 / sum q^2, q = exp(t L), is in the diagnostics.
           Where few pairs outweigh the others, or would if the losses that were not drawn are
           reckoned with, the value is a lower bound set by the largest losses seen, and the status
           says so.

    Args:
        rho: Standard deviation of the noise, or several.
        t: Tilt, not negative.

    Example:
        >>> import landscape
        >>> landscape.measures.get("tilted-sharpness", t=5.0).label
        'tilted-sharpness[t=5]'
    """

    name: ClassVar[str] = "tilted-sharpness"
    meaning: ClassVar[str] = "Rise of the loss under noise, high losses weighted up by exp(tL)."
    formula: ClassVar[str] = "(1/t) log E exp(t L(w+ρε)) − L(w)"
    source: ClassVar[str] = "Li, Zhou and Bilmes 2025 (Tilted SAM), the objective"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.01, "linf": 0.02}
    variants: ClassVar[tuple[dict[str, Any], ...]] = tuple(
        {"t": t} for t in (0.0, 1.0, 5.0, 20.0, 100.0)
    )

    rho: float | Sequence[float] | None = None
    t: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.t < math.inf:
            raise ValueError(f"t must be finite and not negative, got {self.t}")

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """The log-mean-exp, or the mean where nothing is tilted."""
        if self.t == 0:
            return mean_of_pairs(losses.rises)
        return log_mean_rise(losses, self.t)
