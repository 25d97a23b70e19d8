"""Min-sharpness: how far the loss can fall in a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.ascent import Direction
from landscape.measures.worst_case import BallSharpness


@dataclass(frozen=True, kw_only=True)
class MinSharpness(BallSharpness):
    """MinS_rho = E_B [ L_B(w) - min over ||delta / c||_p <= rho of L_B(w + delta) ].

    The mean is over disjoint parts B of m examples. Never negative; zero at a minimum of every
    L_B. Not to be confused with the minimum sharpness of Ibayashi et al. 2021.

    Notes:
        1. The search is L-BFGS inside the ball, from the checkpoint. In stiff valleys it is still
           gaining when its steps end; the value is then a lower bound and the status says so.

    Example:
        >>> import landscape
        >>> landscape.measures.get("min-sharpness").rho
        0.05
    """

    name: ClassVar[str] = "min-sharpness"
    meaning: ClassVar[str] = "How far the loss can still fall within a distance ρ of the weights."
    formula: ClassVar[str] = "E_B L_B(w) − min_{‖δ‖≤ρ} L_B(w+δ)"
    source: ClassVar[str] = "Deng et al. 2024 (Bilateral SAM, MinS)"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"one_step": False}, {"one_step": True})
    directions: ClassVar[tuple[Direction, ...]] = ("down",)
