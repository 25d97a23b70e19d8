"""Momentum gap: the change of the loss where Momentum-SAM takes its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import AgainstMomentum, Rule
from landscape.measures.base import DeclinedError, Requests
from landscape.measures.perturbation_gap import PerturbationGap
from landscape.probing import Probe


@dataclass(frozen=True, kw_only=True)
class MomentumGap(PerturbationGap):
    """E_B [ L_B(w - rho v / ||v||) - L_B(w) ], v the optimiser's momentum buffer.

    It needs the buffer: ``Probe(..., momentum=...)``, or a checkpoint that holds the optimiser's
    state. Often negative: v points where the optimiser comes from.

    Notes:
        1. The published code calls this an ascent step; its direction is -v, the one in which the
           optimiser goes on, and the measure follows the code.

    Example:
        >>> import landscape
        >>> landscape.measures.get("momentum-gap").cost_class
        'low'
    """

    name: ClassVar[str] = "momentum-gap"
    meaning: ClassVar[str] = "Change of the loss one step of length ρ ahead along the momentum."
    formula: ClassVar[str] = "E_B L_B(w − ρ v/‖v‖) − L_B(w)"
    source: ClassVar[str] = "Becker, Altrock and Risse 2024 (Momentum-SAM)"

    def _rule(self, seed: int) -> Rule:  # noqa: ARG002
        return AgainstMomentum()

    def requests(self, probe: Probe, seed: int) -> Requests:
        """As for every gap; declines where no momentum is known."""
        if probe.momentum is None:
            raise DeclinedError(
                "the checkpoint holds no optimiser state that fits the model (parameters in "
                "several groups cannot be told apart); give Probe(..., momentum=...), the "
                "momentum buffer by parameter name"
            )
        return super().requests(probe, seed)

    def _advice(self) -> str:
        return "the momentum is zero"
