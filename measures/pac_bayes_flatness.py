"""PAC-Bayes flatness: how much noise the accuracy stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.noise_tolerance import Criterion, NoiseToleranceRequest
from landscape.linalg import student_quantile
from landscape.measures.base import CostClass, DeclinedError, Measure, Requests
from landscape.probing import Probe
from landscape.results import Estimate, Status

_LARGEST = "every noise up to σ = {largest:g} is stood; raise largest"


@dataclass(frozen=True, kw_only=True)
class PacBayesFlatness(Measure):
    """1 / sigma^2 for the largest noise that lowers the train accuracy by ``drop`` on average.

    sigma is found by bisection, with the same draws at every sigma. Noise on parameter i has
    standard deviation sigma, or sqrt(sigma^2 w_i^2 + epsilon^2) where ``magnitude_aware``.

    Notes:
        1. The published search hands sigma^2 to a sampler that takes a standard deviation, so that
           its sigma is the root of the actual one. Here the standard deviation is sigma.
        2. The error is that of the mean drop over the draws, carried over by its slope in sigma;
           the interval also holds the last bracket.

    Args:
        magnitude_aware: Noise relative to the weights.
        criterion: "accuracy", or "loss" for a rise of the loss (also without labels).
        drop: Of the accuracy as a share, or rise of the loss.
        draws: Noise samples at each sigma.
        largest: Upper end of the search.
        epsilon: Floor of the magnitude-aware noise, in units of the weights.
        tolerance: Relative width of the bracket at the end.

    Example:
        >>> import landscape
        >>> landscape.measures.get("pac-bayes-flatness", magnitude_aware=True).drop
        0.1
    """

    name: ClassVar[str] = "pac-bayes-flatness"
    meaning: ClassVar[str] = "1/σ² for the noise σ on the weights that costs 10 % train accuracy."
    formula: ClassVar[str] = "1/σ² with E acc(w+σε) = acc(w) − 0.1"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (PAC-Bayes flatness)"
    group: ClassVar[str] = "Noise"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")
    budget: ClassVar[frozenset[str]] = frozenset({"draws", "largest", "tolerance"})
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"magnitude_aware": False},
        {"magnitude_aware": True},
    )

    magnitude_aware: bool = False
    criterion: Criterion = "accuracy"
    drop: float = 0.1
    draws: int = 20
    largest: float = 2.0
    epsilon: float = 1e-3
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        self._request(0)  # validates

    def _request(self, seed: int) -> NoiseToleranceRequest:
        return NoiseToleranceRequest(
            magnitude_aware=self.magnitude_aware,
            criterion=self.criterion,
            drop=self.drop,
            draws=self.draws,
            largest=self.largest,
            epsilon=self.epsilon,
            tolerance=self.tolerance,
            seed=seed,
        )

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The search for sigma; declines where there is no accuracy."""
        if self.criterion == "accuracy" and not probe.objective.has_accuracy:
            raise DeclinedError(
                f"the objective {probe.objective.name!r} knows no accuracy; use criterion='loss', "
                "or an Objective with correct()"
            )
        return [(probe, self._request(seed))]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """1 / sigma^2 with the errors of search and sampling."""
        found = probe.evidence(self._request(seed))
        if found.low == 0:
            return Estimate.without_value(
                Status.UNDEFINED,
                f"noise of σ = {found.high:.3g} already costs more than {self.drop:g}: the model "
                "stands no noise at this precision",
            )
        if math.isinf(found.high):
            return Estimate.without_value(Status.UNDEFINED, _LARGEST.format(largest=self.largest))
        sigma = math.sqrt(found.low * found.high)
        half = student_quantile(self.draws - 1) * found.stderr
        least, most = max(found.low - half, sigma / 10), found.high + half
        unsure = most / least > 2
        return Estimate(
            value=1 / sigma**2,
            stderr=2 * found.stderr / sigma**3,
            interval=(1 / most**2, 1 / least**2),
            status=Status.UNCERTAIN if unsure else Status.OK,
            message="sigma is known to a factor only; raise draws." if unsure else "",
            diagnostics={"sigma": sigma, "sigma_stderr": found.stderr, "at_checkpoint": found.base},
        )
