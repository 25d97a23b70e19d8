"""LookSAM: the sharpness part of a SAM gradient, reused for some steps."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check, check_count
from landscape.training.vectors import Vector


class LookSAM(BatchOptimizer):
    """A SAM step every k steps; in between, plain gradients bent by what that step found.

        step 0, k, 2k, …:  g_p = ∇L(w + ρ g/‖g‖),  v = g_p − (ĝ·g_p) ĝ,  ĝ = g/‖g‖;  step with g_p
        other steps:       step with  g + α ‖g‖ v/‖v‖

    Source: Liu et al. 2022, arXiv 2203.02714. Cost: 1 + 1/k gradients a step.

    Differences from other codes:

    1. Norms and inner products run over all parameters; ``pytorch_optimizer`` takes them tensor by
       tensor, which is another rule once there are two tensors.
    2. The defaults k = 5 and α = 0.2 are those of the class of MarlonBecker/MSAM; its configuration
       and ``pytorch_optimizer`` have 10 and 0.7.
    3. v is 0 where g_p and g differ in direction by rounding only, which has no direction.
    4. The bent gradient is longer than g: its length is ‖g‖ √(1 + α² + 2α cos), as published.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        alpha: α.
        every: k.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        alpha: float = 0.2,
        every: int = 5,
        **common: Unpack[Common],
    ) -> None:
        check("alpha", alpha)
        check_count("every", every)
        self._alpha, self._every = alpha, every
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """g_p, or g + α ‖g‖ v/‖v‖."""
        gradient = passes.gradient()
        step = self.memory.get("step", 0)
        held = self.remembered("sharpness")
        if step % self._every and held is not None:
            self.memory["step"] = step + 1
            return gradient + (self._alpha * gradient.norm()) * held
        unit = gradient.unit()
        perturbed = passes.gradient(self.scaled(unit))
        self.memory["sharpness"] = perturbed.beside(unit).unit()
        self.memory["step"] = step + 1
        return perturbed
