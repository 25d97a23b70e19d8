"""Sparse gap: the rise of the loss when only the entries of a Fisher mask are perturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence import ExampleGradientsRequest, OnFisherMask, Rule
from landscape.measures.base import CostClass, DeclinedError
from landscape.measures.fisher import declined_examples
from landscape.measures.perturbation_gap import PerturbationGap
from landscape.probing import Evidence, Probe


@dataclass(frozen=True, kw_only=True)
class SparseGap(PerturbationGap):
    """E_B [ L_B(w + rho m*g_B / ||m*g_B||) - L_B(w) ], m the mask of the largest Fisher entries.

    The empirical Fisher information is the mean square of the gradients of single examples.

    Notes:
        1. The published code divides by the norm of the whole gradient, so that its perturbation is
           shorter than rho; here the masked perturbation has length rho.

    Args:
        fraction: Share of the parameters that are perturbed, in (0, 1].

    Example:
        >>> import landscape
        >>> landscape.measures.get("sparse-gap", fraction=0.1).fraction
        0.1
    """

    name: ClassVar[str] = "sparse-gap"
    meaning: ClassVar[str] = "The SAM gap when only the parameters with the most information move."
    formula: ClassVar[str] = "E_B L_B(w + ρ m⊙g_B/‖m⊙g_B‖) − L_B(w)"
    source: ClassVar[str] = "Mi et al. 2022 (Sparse SAM, Fisher mask)"
    cost_class: ClassVar[CostClass] = "medium"

    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")
        super().__post_init__()

    def _examples(self) -> ExampleGradientsRequest:
        return ExampleGradientsRequest(points=self.points)

    def _rule(self, seed: int) -> Rule:  # noqa: ARG002
        return OnFisherMask(fraction=self.fraction, examples=self._examples())

    def _needs(self, probe: Probe, seed: int) -> Sequence[Evidence[Any]]:  # noqa: ARG002
        if (reason := declined_examples(probe, self._examples())) is not None:
            raise DeclinedError(reason)
        return (self._examples(),)
