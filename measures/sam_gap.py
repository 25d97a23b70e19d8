"""SAM gap: the rise of the loss at the point where SAM takes its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import AlongGradient, Rule
from landscape.measures.perturbation_gap import PerturbationGap


@dataclass(frozen=True, kw_only=True)
class SamGap(PerturbationGap):
    """E_B [ L_B(w + rho g_B / ||g_B||) - L_B(w) ], about rho ||g|| + rho^2 g'Hg / (2 ||g||^2).

    With ``geometry="elementwise"`` it is ASAM's: eps = rho c^2 g / ||c g||.

    Example:
        >>> import landscape
        >>> landscape.measures.get("sam-gap", m=32).label
        'sam-gap[m=32]'
    """

    name: ClassVar[str] = "sam-gap"
    meaning: ClassVar[str] = "Rise of the loss one step of length ρ along the gradient of a batch."
    formula: ClassVar[str] = "E_B L_B(w + ρ g_B/‖g_B‖) − L_B(w)"
    source: ClassVar[str] = "Foret et al. 2021, eq. 2"

    def _rule(self, seed: int) -> Rule:  # noqa: ARG002
        return AlongGradient()
