"""Trace of the Fisher information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from landscape.evidence import ExampleGradients
from landscape.evidence.example_gradients import Targets
from landscape.measures.fisher import ExampleMeasure
from landscape.measures.neighbourhood import of_values
from landscape.results import Estimate

FisherKind = Literal["empirical", "model"]


@dataclass(frozen=True, kw_only=True)
class FisherTrace(ExampleMeasure):
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
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"kind": "empirical"}, {"kind": "model"})

    kind: FisherKind = "empirical"

    def __post_init__(self) -> None:
        checked_kind(self.kind)
        super().__post_init__()

    @property
    def _targets(self) -> Targets:
        return "data" if self.kind == "empirical" else "model"

    def of_gradients(self, gradients: ExampleGradients) -> Estimate:
        """Mean of the squared norms."""
        return of_values(gradients.squares, least=0.0, what="examples")


def checked_kind(kind: str) -> None:
    """Raises where the kind of the Fisher information is unknown."""
    if kind not in get_args(FisherKind):
        raise ValueError(f"kind must be one of {get_args(FisherKind)}, got {kind!r}")
