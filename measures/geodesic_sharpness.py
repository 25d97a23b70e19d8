"""Geodesic sharpness: the worst case in a ball that does not see GL(h) on attention heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from landscape.evidence.ascent import Ascent, Direction
from landscape.geometry import Attention, Geometry, Metric, Norm, Quotient
from landscape.measures.worst_case import BallSharpness
from landscape.probing import Probe
from landscape.results import Estimate, Status

# Lengths of the second-order term, in units of the first-order one, beyond which it is no
# correction any more.
_BENT = 1.0


@dataclass(frozen=True, kw_only=True)
class GeodesicSharpness(BallSharpness):
    """S_max = E_B [ max over horizontal ||xi|| <= rho of L_B(gamma_xi(1)) - L_B(w) ].

    gamma_xi is the geodesic from w along xi, to second order. The metric is "inv" or "mix" on the
    pairs (W_Q, W_K) and (W_V, W_O) of every attention head and on LoRA pairs, and ||xi / |w| ||
    elsewhere. Without attention it is ``adaptive-sharpness``. Never negative. The diagnostics tell
    how many pairs were found and what was left out.

    Notes:
        1. The printed projection for "inv" is wrong and mended, and Gram matrices are relaxed only
           where they are singular: see ``landscape.geometry.QuotientBall``.
        2. The text gives no radius; 0.5 is that of ``adaptive-sharpness``. Scan it.
        3. Gradients go through the retraction; the ascent is that of every worst-case measure.
        4. Where a pair is nearly singular the second-order term exceeds the first-order one, and
           the path does not follow the geodesic: ``diagnostics["bending"]`` tells their ratio, and
           beyond 1 the status is uncertain.

    Args:
        metric: "inv" or "mix".
        second_order: Whether geodesics bend; False goes straight.

    Example:
        >>> import landscape
        >>> landscape.measures.get("geodesic-sharpness", metric="inv").label
        'geodesic-sharpness[metric=inv]'
    """

    name: ClassVar[str] = "geodesic-sharpness"
    meaning: ClassVar[str] = "How far the loss can rise, free of how attention is parametrised."
    formula: ClassVar[str] = "E_B max_{‖ξ‖≤ρ} L_B(γ_ξ(1)) − L_B(w)"
    source: ClassVar[str] = "da Silva, Dangel and Oore 2025, arXiv 2505.05409, eq. 9"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "attention", "permutation")
    radii: ClassVar[Mapping[Norm, float]] = {"l2": 0.5, "linf": 0.5}
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"metric": "inv"}, {"metric": "mix"})
    directions: ClassVar[tuple[Direction, ...]] = ("up",)

    geometry: str = Quotient.name
    metric: Metric = "mix"
    second_order: bool = True

    def __post_init__(self) -> None:
        if self.norm != "l2" or self.geometry != Quotient.name or self.compat is not None:
            raise ValueError(
                "geodesic-sharpness has a geometry and norm of its own and no published code: "
                "leave geometry, norm and compat at their defaults"
            )
        super().__post_init__()

    def _geometry(self) -> Geometry:
        return self._quotient()

    def _quotient(self) -> Quotient:
        return Quotient(metric=self.metric, second_order=self.second_order)

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The mean over the parts, at every radius, and what was found of attention."""
        found = super().estimate(probe, seed)
        found = with_attention(found, self._quotient().found(probe))
        ascent = self._probe(probe).evidence(self._request("up", seed))
        if not isinstance(ascent, Ascent) or not found.status.measured:
            return found
        bending = float(ascent.bending[self.all_radii.index(self.radius)].max())
        found = replace(found, diagnostics={**found.diagnostics, "bending": bending})
        if bending <= _BENT or found.status is not Status.OK:
            return found
        return replace(
            found,
            status=Status.UNCERTAIN,
            message=f"The second-order term of the path is {bending:.1g} times the first-order "
            "one: it no longer follows the geodesic, as with nearly singular matrices; reduce rho.",
        )


def with_attention(estimate: Estimate, attention: Attention) -> Estimate:
    """The estimate, with what was found of attention and a warning for each block left out."""
    told = {"pairs": len(attention.pairs), "left_out": attention.left_out}
    diagnostics = {**estimate.diagnostics, **told}
    return replace(estimate, diagnostics=diagnostics, warnings=attention.warnings)
