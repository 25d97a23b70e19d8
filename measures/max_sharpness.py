"""Max-sharpness: how far the loss can rise in a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.ascent import Direction
from landscape.measures.worst_case import BallSharpness


@dataclass(frozen=True, kw_only=True)
class MaxSharpness(BallSharpness):
    """MaxS_rho = E_B [ max over ||delta / c||_p <= rho of L_B(w + delta) - L_B(w) ].

    The mean is over disjoint parts B of m examples. Never negative. On a quadratic at its minimum
    it is rho^2 lambda_max / 2 for c = 1 and p = 2.

    Notes:
        1. The search is Auto-PGD with the offset reset together with the weights, and a secant
           model in l2 balls; then L-BFGS from its best point and from the ends of the directions
           of largest curvature. ``compat="andriushchenko2023"`` follows the published code instead.
        2. With ``one_step`` the value is L_B(w + rho g / ||g||) - L_B(w), or 0 if that is negative.

    Example:
        >>> import landscape
        >>> landscape.measures.get("max-sharpness", rho=0.1, one_step=True).label
        'max-sharpness[rho=0.1,one_step=True]'
    """

    name: ClassVar[str] = "max-sharpness"
    meaning: ClassVar[str] = "How far the loss can rise within a distance ρ of the weights."
    formula: ClassVar[str] = "E_B max_{‖δ‖≤ρ} L_B(w+δ) − L_B(w)"
    source: ClassVar[str] = "Foret et al. 2021, eq. 1; Deng et al. 2024 (Bilateral SAM, MaxS)"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"one_step": False}, {"one_step": True})
    directions: ClassVar[tuple[Direction, ...]] = ("up",)
