"""Micro-batch gap: the SAM gap of small parts, each with a perturbation of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import AlongGradient, Rule
from landscape.measures.perturbation_gap import PerturbationGap


@dataclass(frozen=True, kw_only=True)
class MicroBatchGap(PerturbationGap):
    """The SAM gap with m = 16: what m-SAM sees when it splits a batch into micro-batches.

    Smaller parts leave more freedom to each perturbation, so that the gap grows as m falls.

    Example:
        >>> import landscape
        >>> landscape.measures.get("micro-batch-gap").m
        16
    """

    name: ClassVar[str] = "micro-batch-gap"
    meaning: ClassVar[str] = "The SAM gap of micro-batches, each perturbed by itself."
    formula: ClassVar[str] = "E_{|B|=m} L_B(w + ρ g_B/‖g_B‖) − L_B(w)"
    source: ClassVar[str] = "Foret et al. 2021, section 4.1 (m-sharpness)"

    m: int | None = 16

    def _rule(self, seed: int) -> Rule:  # noqa: ARG002
        return AlongGradient()
