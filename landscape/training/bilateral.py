"""BSAM: bilateral SAM, flat upwards and downwards."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common
from landscape.training.vectors import TINY, Vector


class BilateralSAM(BatchOptimizer):
    """Descent on L(w) + max sharpness + min sharpness, by one step up and one down.

        g = ∇L(w),  g₊ = ∇L(w + ρ g/‖g‖),  g₋ = ∇L(w − ρ_min g/‖g‖)
        the base optimiser steps with  g + g₊ − (‖g₊‖/‖g₋‖) g₋

    Source: Deng et al. 2024, arXiv 2409.13173; ajiaaa/BSAM. Cost: 3 gradients a step.

    Differences from the published code:

    1. ‖g₋‖ is bounded below by 1e-12; the code divides by 0 where the descent step hits a minimum.
    2. The ratio ‖g₊‖/‖g₋‖ is the code's. The gradient of the objective, with ε held fixed, has 1.
    3. The code moves ρ_min from 0.05 to 0 along with the learning rate; that is
       ``FollowLearningRate(optimizer, "rho_min", high=0.05, lr_high=...)``.
    4. ρ_min = 0 leaves  g₊ + (1 − ‖g₊‖/‖g‖) g , which is not SAM.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ of the step up.
        rho_min: ρ of the step down.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        rho_min: float = 0.05,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(base_optimizer, model, {"rho": rho, "rho_min": rho_min}, common)

    def direction(self, passes: Passes) -> Vector:
        """G + g₊ − (‖g₊‖/‖g₋‖) g₋."""
        gradient = passes.gradient()
        unit = gradient.unit()
        up = passes.gradient(self.scaled(unit))
        down = passes.gradient(-1.0 * self.scaled(unit, "rho_min"))
        return gradient + up - (up.norm() / down.norm().clamp_min(TINY)) * down
