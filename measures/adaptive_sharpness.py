"""Adaptive sharpness: the worst case in a ball of relative changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.ascent import Direction
from landscape.geometry import Norm
from landscape.measures.worst_case import BallSharpness


@dataclass(frozen=True, kw_only=True)
class AdaptiveSharpness(BallSharpness):
    """S_max = E_B [ max over ||delta / |w| ||_p <= rho of L_B(w + delta) - L_B(w) ].

    Rescaling weights so that the function stays the same does not change it. Parameters that are
    exactly zero stay where they are. Never negative.

    Notes:
        1. Published values come from the algorithm of ``compat="andriushchenko2023"``, which finds
           lower maxima; the definition is the same.
        2. Radii of the literature: ResNets 0.5 to 1 (l2), 1e-3 to 8e-3 (linf); ViTs 0.5 to 4 (l2),
           5e-4 to 4e-3 (linf).

    Example:
        >>> import landscape
        >>> landscape.measures.get("adaptive-sharpness", norm="linf").rho
        0.002
    """

    name: ClassVar[str] = "adaptive-sharpness"
    meaning: ClassVar[str] = (
        "How far the loss can rise when each weight changes relative to itself."
    )
    formula: ClassVar[str] = "E_B max_{‖δ⊘|w|‖≤ρ} L_B(w+δ) − L_B(w)"
    source: ClassVar[str] = "Kwon et al. 2021 (ASAM), eq. 3; Andriushchenko et al. 2023, eq. 1"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "permutation")
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.5, "linf": 0.002}
    variants: ClassVar[tuple[dict[str, Any], ...]] = tuple(
        {"norm": norm, "logit_normalisation": normalised}
        for normalised in (False, True)
        for norm in ("l2", "linf")
    )
    directions: ClassVar[tuple[Direction, ...]] = ("up",)

    geometry: str = "elementwise"
