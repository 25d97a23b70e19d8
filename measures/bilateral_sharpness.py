"""Bilateral sharpness: the range of the loss in a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.ascent import Direction
from landscape.measures.worst_case import BallSharpness


@dataclass(frozen=True, kw_only=True)
class BilateralSharpness(BallSharpness):
    """The flatness indicator of Bilateral SAM, MaxS_rho + MinS_rho: the range of the loss.

    Along +-g its second-order terms cancel and it is 2 rho ||g|| up to third order, so that with
    ``one_step`` it says little more than the gradient norm; the search does not share this.

    Example:
        >>> import landscape
        >>> landscape.measures.get("bilateral-sharpness").label
        'bilateral-sharpness'
    """

    name: ClassVar[str] = "bilateral-sharpness"
    meaning: ClassVar[str] = "Range of the loss within a distance ρ of the weights: rise plus fall."
    formula: ClassVar[str] = "MaxS_ρ + MinS_ρ"
    source: ClassVar[str] = "Deng et al. 2024 (Bilateral SAM, flatness indicator)"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"one_step": False}, {"one_step": True})
    directions: ClassVar[tuple[Direction, ...]] = ("up", "down")
