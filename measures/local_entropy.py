"""Local entropy: how much of the neighbourhood has a low loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from landscape.evidence import NoiseLosses
from landscape.geometry import Norm
from landscape.measures.noise import NoiseMeasure, log_mean_rise
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class LocalEntropy(NoiseMeasure):
    """log E[ exp(-beta L(w + eps)) ], eps ~ N(0, sigma^2 I) with sigma^2 = 1/gamma.

    F(w; gamma) = log integral of exp(-beta L(w') - gamma/2 ||w - w'||^2) dw' is this plus
    (P/2) log(2 pi / gamma), which is the same for all checkpoints of one architecture and is left
    out; for plain Gaussian noise it is in the diagnostics as "volume". Larger is flatter.

    Notes:
        1. Entropy-SGD estimates the gradient of F by Langevin dynamics; this is F itself, by the
           noise samples that the other measures read.
        2. L is the mean loss. The Gibbs distribution of n examples has beta = n, for which plain
           noise is a poor proposal: watch the effective number of samples.

    Args:
        sigma: Standard deviation of the noise, 1/sqrt(gamma), or several.
        beta: Inverse temperature, positive.

    Example:
        >>> import landscape
        >>> landscape.measures.get("local-entropy", sigma=0.02).label
        'local-entropy[sigma=0.02]'
    """

    name: ClassVar[str] = "local-entropy"
    meaning: ClassVar[str] = (
        "Log of the share of the neighbourhood with a low loss; larger is flatter."
    )
    formula: ClassVar[str] = "log E exp(−β L(w+σε))"
    source: ClassVar[str] = "Chaudhari et al. 2017 (Entropy-SGD), eq. 2"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    radius_field: ClassVar[str] = "sigma"
    quantity: ClassVar[str] = "entropy"
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.01, "linf": 0.02}

    sigma: float | Sequence[float] | None = None
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be positive and finite, got {self.beta}")

    def of_losses(self, losses: NoiseLosses) -> Estimate:
        """The log-mean-exp of the tilt t = -beta."""
        tilted = log_mean_rise(losses, -self.beta)
        low, high = (-self.beta * (end + losses.base) for end in reversed(tilted.interval))
        even = self.norm == "l2" and self.geometry == "euclidean"
        volume = losses.free / 2 * math.log(2 * math.pi * losses.sigma**2)
        return replace(
            tilted,
            value=-self.beta * (tilted.value + losses.base),
            stderr=self.beta * tilted.stderr,
            interval=(low, high),
            diagnostics=tilted.diagnostics | ({"volume": volume} if even else {}),
        )

    def rounding_of(self, losses: NoiseLosses) -> float:
        """That of beta L."""
        return self.beta * losses.rounding
