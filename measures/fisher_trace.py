"""Trace of the Fisher information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import ExampleGradients
from landscape.measures.fisher import FisherMeasure
from landscape.measures.neighbourhood import of_values
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class FisherTrace(FisherMeasure):
    """tr F = mean_i ||g_i||^2, g_i the gradient of the loss of example i.

    "empirical" takes the targets of the data, "model" the model's own distribution: the Fisher
    information itself, equal to the trace of the Gauss-Newton matrix for cross-entropy. Near
    interpolation the two differ by orders of magnitude. The standard error is that of the mean over
    the examples.

    Notes:
        1. Labels drawn from a confident model are never the rare ones that make up tr F. Targets
           with the same second moments and random signs take their place: see
           ``Objective.sampled``.
        2. The loss of an example is the mean over its terms (tokens, or entries for mean squared
           error), as the loss of the data is; with D terms an example tr F is 1/D^2 of that of
           their sum.

    Args:
        kind: "empirical" or "model".

    Example:
        >>> import landscape
        >>> landscape.measures.get("fisher-trace", kind="model").label
        'fisher-trace[kind=model]'
    """

    name: ClassVar[str] = "fisher-trace"
    meaning: ClassVar[str] = "Mean squared norm of the gradients of single examples."
    formula: ClassVar[str] = "tr F = E ‖∇L(x, y)‖²"
    source: ClassVar[str] = "Kunstner, Balles and Hennig 2019, eq. 2 (model) and 3 (empirical)"

    def of_gradients(self, gradients: ExampleGradients) -> Estimate:
        """Mean of the squared norms."""
        return of_values(gradients.squares, least=0.0, what="examples")
