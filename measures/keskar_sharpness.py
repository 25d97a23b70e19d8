"""Keskar's sharpness: the relative rise of the loss in a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence.ascent import Direction
from landscape.geometry import Norm
from landscape.measures.neighbourhood import Array
from landscape.measures.worst_case import BallSharpness


@dataclass(frozen=True, kw_only=True)
class KeskarSharpness(BallSharpness):
    """phi = 100 (max over |z_i| <= rho (|w_i| + 1) of L(w + z) - L(w)) / (1 + L(w)), in percent.

    On all the data as one part.

    Notes:
        1. The paper takes ten iterations of L-BFGS-B, and also a variant in a random subspace; here
           it is the projected ascent that every worst-case measure shares, in the full space.

    Args:
        rho: Size epsilon of the box, 1e-3 and 5e-4 in the paper.

    Example:
        >>> import landscape
        >>> landscape.measures.get("keskar-sharpness").eta
        1.0
    """

    name: ClassVar[str] = "keskar-sharpness"
    meaning: ClassVar[str] = "Rise of the loss in a small box around the weights, in % of 1 + L."
    formula: ClassVar[str] = "100 (max_{|δᵢ|≤ρ(|wᵢ|+1)} L(w+δ) − L(w)) / (1 + L(w))"
    source: ClassVar[str] = "Keskar et al. 2017, metric 2.1"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    quantity: ClassVar[str] = "percent"
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.05, "linf": 0.001}
    directions: ClassVar[tuple[Direction, ...]] = ("up",)

    rho: float | Sequence[float] | None = None
    geometry: str = "elementwise"
    eta: float = 1.0
    norm: Norm = "linf"
    m: int | None = None
    points: int | None = None

    def _unit(self, losses: Array) -> Array:
        """(1 + L) / 100."""
        return (1 + losses) / 100
