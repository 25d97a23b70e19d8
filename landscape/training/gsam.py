"""GSAM: descent on the perturbed loss and on the surrogate gap."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check
from landscape.training.vectors import Vector


class GSAM(BatchOptimizer):
    """Surrogate-gap guided SAM.

        g = ∇L(w),  g_p = ∇L(w + ρ g/‖g‖),  g_⊥ = g − (g·g_p / ‖g_p‖²) g_p
        the base optimiser steps with  g_p − α g_⊥

    g_⊥ is the part of g that does not change the perturbed loss to first order, so stepping against
    it reduces the gap between the two losses.

    Source: Zhuang et al. 2022, arXiv 2203.08065. Cost: 2 gradients a step.

    Differences from the published code (juntang-zhuang/GSAM):

    1. ρ is a setting of the groups; the schedule ρ_t, affine in the learning rate, is
       ``FollowLearningRate(optimizer, "rho", ...)``.
    2. The projection divides by ‖g_p‖² bounded below, instead of twice by a norm plus 1e-12.
    3. The code makes both passes without averaging over processes and averages the result, which is
       ``perturbation="local"`` here.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        alpha: α, the weight of the gap.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        alpha: float = 0.4,
        **common: Unpack[Common],
    ) -> None:
        check("alpha", alpha)
        self._alpha = alpha
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """g_p − α g_⊥."""
        gradient = passes.gradient()
        perturbed = passes.gradient(self.scaled(gradient.unit()))
        return perturbed - self._alpha * gradient.beside(perturbed)
