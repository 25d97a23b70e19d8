"""Friendly gap: the rise along what is special to a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import AgainstFullGradient, Rule
from landscape.measures.perturbation_gap import PerturbationGap


@dataclass(frozen=True, kw_only=True)
class FriendlyGap(PerturbationGap):
    """E_B [ L_B(w + rho d_B / ||d_B||) - L_B(w) ], d_B = g_B - sigma grad L(w).

    The full gradient is that of all the data of the probe.

    Notes:
        1. Training with Friendly SAM follows the full gradient by a moving average of batch
           gradients; at a fixed checkpoint the full gradient itself is known.

    Args:
        sigma: Share of the full gradient that is taken out.

    Example:
        >>> import landscape
        >>> landscape.measures.get("friendly-gap").sigma
        1.0
    """

    name: ClassVar[str] = "friendly-gap"
    meaning: ClassVar[str] = (
        "Rise of the loss along the part of a batch's gradient that is its own."
    )
    formula: ClassVar[str] = "E_B L_B(w + ρ d_B/‖d_B‖) − L_B(w), d_B = g_B − σ∇L"
    source: ClassVar[str] = "Li et al. 2024 (Friendly SAM), eq. 7"

    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.sigma):
            raise ValueError(f"sigma must be finite, got {self.sigma}")

    def _rule(self, seed: int) -> Rule:  # noqa: ARG002
        return AgainstFullGradient(sigma=self.sigma)

    def _advice(self) -> str:
        return "nothing is left of their gradients without the full one; choose a smaller m"
