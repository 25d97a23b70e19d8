"""Friendly SAM: the perturbation without the part that all batches share."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check
from landscape.training.vectors import Vector


class FriendlySAM(BatchOptimizer):
    """SAM that perturbs along the noise of the batch gradient.

        d = g − σ m,  ε = ρ d/‖d‖;  then m ← λ m + (1 − λ) g;  first step: d = m = g

    Source: Li et al. 2024, arXiv 2403.12350; nblt/F-SAM. Cost: 2 gradients a step.

    Differences:

    1. As in the published code, m is the average before this step's gradient enters. Taking it
       after would scale d by λ where σ = 1, and leave ε the same; with other σ ε would differ.
    2. ρ = 0.2, σ = 1, λ = 0.6 are those of its CIFAR runs; its class has λ = 0.9.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        sigma: σ; 0 is SAM.
        decay: λ.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.2,
        sigma: float = 1.0,
        decay: float = 0.6,
        **common: Unpack[Common],
    ) -> None:
        check("sigma", sigma)
        check("decay", decay, high=1)
        self._sigma, self._decay = sigma, decay
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        gradient = passes.gradient()
        mean = self.remembered("mean")
        if mean is None:
            noise, mean = gradient, gradient
        else:
            noise = gradient - self._sigma * mean
            mean = self._decay * mean + (1 - self._decay) * gradient
        self.memory["mean"] = mean
        return passes.gradient(self.scaled(noise.unit()))
