"""PAC-Bayes bounds whose noise is the largest that the accuracy stands."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from landscape.measures.base import Requests
from landscape.measures.norms import initial_weights
from landscape.measures.pac_bayes_flatness import PacBayesFlatness
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class PacBayesBound(PacBayesFlatness):
    """KL(Q || P) / 2 + log(m / sigma) + 10, Q the noise of ``pac-bayes-flatness`` around w.

    With standard deviations s_i = sigma the prior P has the same, and KL / 2 is
    ||w - c||^2 / (4 sigma^2), c its centre. Where ``magnitude_aware``,
    s_i^2 = sigma^2 w_i^2 + epsilon^2 and the variance of P is the one that makes KL smallest:
    KL / 2 = 1/4 sum_i log((epsilon^2 + (sigma^2 ||w||^2 + ||w - c||^2) / P) / s_i^2).
    m is the number of terms of the data. All parameters that the noise moves count, as they are.

    Notes:
        1. The published magnitude-aware forms have sigma^2 (w_i - w0_i)^2 in the denominator,
           around zero too, though the noise they search is sigma^2 w_i^2: they are the KL of no
           pair of distributions with that noise. Here noise and bound agree.
        2. The published sigma is the root of the actual one; see ``pac-bayes-flatness``.

    Args:
        adjusted: Give sqrt(value / m).
    """

    adjusted: bool = False

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The bound at the sigma that was found, with that one's error."""
        flatness = super().estimate(probe, seed)
        if not flatness.status.measured:
            return flatness
        weights, moved = probe.weights().double(), self.moved(probe).double()

        def bound(sharpness: float) -> float:
            return self._bound(sharpness**-0.5, weights, moved, probe.terms)

        value = bound(flatness.value)
        step = 1e-4 * flatness.value
        slope = (bound(flatness.value + step) - bound(flatness.value - step)) / (2 * step)
        ends = [bound(end) for end in flatness.interval]
        return replace(
            flatness,
            value=value,
            stderr=abs(slope) * flatness.stderr,
            interval=(min(value, *ends), max(value, *ends)),
        )

    @abstractmethod
    def moved(self, probe: Probe) -> Tensor:
        """The weights from the centre of the prior, (P,)."""

    def _bound(self, sigma: float, weights: Tensor, moved: Tensor, terms: float) -> float:
        if self.magnitude_aware:
            noise = sigma**2 * weights**2 + self.epsilon**2
            variance = (noise + moved**2).mean()
            half = float((variance / noise).log().sum()) / 4
        else:
            half = float(moved.square().sum()) / (4 * sigma**2)
        value = half + math.log(terms / sigma) + 10
        return math.sqrt(value / terms) if self.adjusted else value


@dataclass(frozen=True, kw_only=True)
class PacBayesOrigin(PacBayesBound):
    """KL(Q || P) / 2 + log(m / sigma) + 10, the prior P centred at zero.

    Without ``magnitude_aware`` ||w||^2 / (4 sigma^2) + log(m / sigma) + 10; see
    ``PacBayesBound`` for the other, and for the fields ``PacBayesFlatness``.

    Example:
        >>> import landscape
        >>> landscape.measures.get("pac-bayes-origin").draws
        20
    """

    name: ClassVar[str] = "pac-bayes-origin"
    meaning: ClassVar[str] = "Squared weights in units of the noise that costs 10 % accuracy."
    formula: ClassVar[str] = "‖w‖²/(4σ²) + log(m/σ) + 10"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (pac-bayes-orig)"
    group: ClassVar[str] = "Norms and margins"

    def moved(self, probe: Probe) -> Tensor:
        """The weights."""
        return probe.weights()


@dataclass(frozen=True, kw_only=True)
class PacBayesInitial(PacBayesBound):
    """KL(Q || P) / 2 + log(m / sigma) + 10, the prior P centred at the initial weights.

    Without ``magnitude_aware`` ||w - w0||^2 / (4 sigma^2) + log(m / sigma) + 10; see
    ``PacBayesBound`` for the other, and for the fields ``PacBayesFlatness``.

    Example:
        >>> import landscape
        >>> landscape.measures.get("pac-bayes-initial", magnitude_aware=True).epsilon
        0.001
    """

    name: ClassVar[str] = "pac-bayes-initial"
    meaning: ClassVar[str] = "Squared way of training in units of the noise that costs 10 %."
    formula: ClassVar[str] = "‖w−w⁰‖²/(4σ²) + log(m/σ) + 10"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (pac-bayes-init)"
    group: ClassVar[str] = "Norms and margins"

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The search for sigma; declines where the initial weights are unknown."""
        initial_weights(probe)
        return super().requests(probe, seed)

    def moved(self, probe: Probe) -> Tensor:
        """The way from the initial weights."""
        return probe.weights() - initial_weights(probe)
