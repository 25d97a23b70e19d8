"""RSAM: a step whose length is a Rényi-like ratio of the gradient."""

from __future__ import annotations

import math
from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check
from landscape.training.vectors import Vector

_TINY = 1e-16


class RenyiSAM(BatchOptimizer):
    """SAM along ±g with a length made of powers of the gradient.

        s = sign(1 − α),  G = Σ g_j² + 1e-16,  P = Σ |g_j|^{2α} + 1e-16
        ε = −s ρ (P/G^{α+1}) g;  the base optimiser steps at w with ∇L(w + ε)

    To first order L(w + ε) = L(w) − s ρ P/G^α: the loss and a regulariser, −sign(1 − α) times the
    power sum of g²/‖g‖² whose logarithm gives the Rényi entropy.

    Source: Zhang et al. 2025, arXiv 2510.07758; class NEWRSAM of QiaozheZhang/RSAM. Cost: 2
    gradients a step.

    Notes and differences:

    1. For α > 1 the step goes up the gradient, for α < 1 down; the value of L(w + ε) then falls and
       rises with the regulariser as intended. α = 1 would be no step and is refused.
    2. As for SAM, ε is held fixed when L(w + ε) is differentiated. Here that reverses a term:
       ∇L(w + ε) ≈ g − s ρ (P/G^{α+1}) H g, while the gradient of the regulariser is
       −2α s ρ [H(|g|^{2α−1} sign g)/G^α − (P/G^{α+1}) H g]. On L = c‖w‖²/2 the regulariser does not
       change along w, but RSAM's extra term points along w. The published rule is kept.
    3. ‖ε‖ = ρ (P/G^α)/‖g‖ grows without bound as g shrinks, until the constants 1e-16 stop it. The
       code warms up with the base optimiser alone for 5 epochs: start with ``rho`` 0 in the groups.
    4. The code sets statistics of batch norm in both passes; here in the first.
    5. α = 1.2 and ρ = 0.65 are those of its README for a ResNet-20 on CIFAR-10.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        alpha: α.
        **common: See ``Common``.

    Raises:
        ValueError: If α is 1 or another setting is out of range.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.65,
        alpha: float = 1.2,
        **common: Unpack[Common],
    ) -> None:
        check("alpha", alpha, low=1e-6)
        if alpha == 1:
            raise ValueError("alpha must differ from 1, where the Rényi step has no direction")
        self._alpha = alpha
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        alpha = self._alpha
        gradient = passes.gradient()
        squares = gradient.dot(gradient) + _TINY
        powers = gradient.widened().map(lambda tensor: tensor.abs().pow(2 * alpha)).sum() + _TINY
        factor = math.copysign(1, alpha - 1) * powers / squares.pow(alpha + 1)
        return passes.gradient(self.scaled(factor * gradient))
