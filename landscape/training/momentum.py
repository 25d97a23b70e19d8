"""Momentum-SAM: the perturbation comes from the momentum, at no extra pass."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common
from landscape.training.vectors import Vector


class MomentumSAM(BatchOptimizer):
    """The gradient a fixed distance ahead along the momentum.

        w̃ = w − ρ v/‖v‖,  v the momentum of the base optimiser;  step at w with ∇L(w̃)

    v is the momentum buffer of SGD, or the first moment of AdamW and its kin; 0 at the first step.

    Source: Becker et al. 2024, arXiv 2401.12033; MarlonBecker/MSAM. Cost: 1 gradient a step.

    Differences from the published code:

    1. The sign is the code's. v points along past gradients, uphill, and the weights move along −v:
       w̃ lies ahead, where the next step leads (Nesterov's look-ahead of fixed length), although the
       step is called one of ascent there. A negative ρ, which would turn it round, is refused.
    2. Weights are at w̃ only within the pass; the code leaves them there and must move them back
       before evaluation. The iterates are the same.
    3. Weight decay is the base optimiser's, at w; the code's SGD adds that of w̃ to the gradient.
    4. Running statistics follow the pass at w̃, the only one there is.
    5. ρ is about 3 for CIFAR, 0.3 for a ResNet-50 on ImageNet, up to 10 for AdamW on vision
       transformers: not to be compared with SAM's.

    Args:
        base_optimizer: Takes the step; needs a momentum.
        model: What the closure evaluates.
        rho: ρ.
        **common: See ``Common``.

    Raises:
        ValueError: If the base optimiser has no momentum.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 3.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(base_optimizer, model, {"rho": rho}, common)
        if not any(group.get("momentum") or group.get("betas") for group in self.param_groups):
            raise ValueError(
                "MomentumSAM needs a base optimiser with momentum, and this "
                f"{type(base_optimizer).__name__} has none; use SGD(..., momentum=0.9) or AdamW"
            )

    def direction(self, passes: Passes) -> Vector:
        """∇L(w̃)."""
        momentum = Vector([self._momentum(param) for param in self._parameters()])
        return passes.gradient(self.scaled(-1.0 * momentum.unit()), statistics=True)

    def _momentum(self, param: nn.Parameter) -> torch.Tensor:
        state = self.base_optimizer.state.get(param, {})
        found: torch.Tensor | None = state.get("momentum_buffer", state.get("exp_avg"))
        return torch.zeros_like(param.detach()) if found is None else found
