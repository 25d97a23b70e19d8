"""The edge of stability of SAM."""

from __future__ import annotations

import math

from landscape.training.settings import check


def sam_edge(edge: float, rho: float, gradient_norm: float) -> float:
    """Largest eigenvalue of the loss at which SAM is stable on a quadratic.

        λ (1 + ρ λ/‖g‖) = E,  so  λ* = ‖g‖/(2ρ) (√(1 + 4 ρ E/‖g‖) − 1)

    The gradient at w + ρ g/‖g‖ is (I + ρ H/‖g‖) g, which gives a direction of curvature λ that of
    λ (1 + ρ λ/‖g‖). The edge moves with the gradient: to E for large ones, to 0 for small ones.

    Source: Long & Bartlett 2024, arXiv 2309.12488, for E = 2/η.

    Args:
        edge: E, the edge of the base optimiser.
        rho: ρ of SAM.
        gradient_norm: ‖g‖ of the whole data.

    Returns:
        The edge of SAM; E for ρ = 0.
    """
    check("rho", rho)
    check("gradient_norm", gradient_norm)
    if rho == 0 or edge <= 0:
        return edge
    # The same root without the difference of near numbers that small ρ/‖g‖ would bring.
    if gradient_norm == 0:
        return 0.0
    return 2 * edge / (1 + math.sqrt(1 + 4 * rho * edge / gradient_norm))
