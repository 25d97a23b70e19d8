"""Trace of the covariance of the gradients of single examples: gradient noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import ExampleGradients
from landscape.measures.fisher import ExampleMeasure
from landscape.measures.neighbourhood import of_values
from landscape.results import Estimate, Status


@dataclass(frozen=True, kw_only=True)
class GradientCovarianceTrace(ExampleMeasure):
    """tr Cov(g_i) = sum_i ||g_i - mean g||^2 / (n - 1).

    The gradient of a random batch of B examples has variance tr Cov / B around the mean one
    (without replacement, times 1 - B/n).

    Example:
        >>> import landscape
        >>> landscape.measures.get("gradient-covariance-trace").points
        1024
    """

    name: ClassVar[str] = "gradient-covariance-trace"
    meaning: ClassVar[str] = "Gradient noise: spread of the gradients of single examples."
    formula: ClassVar[str] = "tr Cov(∇Lᵢ)"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (gradient noise)"

    def of_gradients(self, gradients: ExampleGradients) -> Estimate:
        """Unbiased over the examples."""
        count = len(gradients.spread)
        if count < 2:
            return Estimate.without_value(
                Status.UNDEFINED, "a single example has no spread; use more of the data"
            )
        return of_values(gradients.spread * (count / (count - 1)), least=0.0, what="examples")
