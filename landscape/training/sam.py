"""SAM and its element-wise adaptive form, ASAM."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check
from landscape.training.vectors import TINY, Vector


class SAM(BatchOptimizer):
    """Sharpness-aware minimisation: the gradient at the end of one ascent step.

        ε = ρ g / ‖g‖,  g = ∇L(w);  the base optimiser steps at w with ∇L(w + ε)

    Source: Foret et al. 2021, arXiv 2010.01412. Cost: 2 gradients a step.

    Differences from the code in common use (davda54/sam):

    1. ‖g‖ is bounded below by 1e-12 instead of 1e-12 being added; the same to rounding.
    2. The weights are copied back, since w + ε − ε is not w in floating point.
    3. Running statistics of batch norm are put back after the second pass, with their counter.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ, in units of the weights.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        return passes.gradient(self.scaled(passes.gradient().unit()))


class ASAM(BatchOptimizer):
    """Adaptive SAM: the ascent step in a ball that scales with the weights.

        ε = ρ T² g / ‖T g‖,  T = |w| + η for weights, 1 for other parameters

    Source: Kwon et al. 2021, arXiv 2102.11600. Cost: 2 gradients a step.

    Differences from the published code (SamsungLabs/ASAM):

    1. ``adapt="weights"`` is its rule: T = |w| + η for parameters with "weight" in their name
       (those of batch norm too), 1 elsewhere. Only the last part of the name counts here.
    2. ``adapt="all"`` with ``eta=0`` is the ``adaptive=True`` of davda54/sam and pytorch_optimizer;
       its good ρ is several times larger.
    3. η is 0.01 as in its class; its example script has 0.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates; its names tell weights from other parameters.
        rho: ρ, relative to the weights.
        eta: η.
        adapt: "weights" or "all" parameters.
        **common: See ``Common``.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.5,
        eta: float = 0.01,
        adapt: Literal["weights", "all"] = "weights",
        **common: Unpack[Common],
    ) -> None:
        check("eta", eta)
        if adapt not in {"weights", "all"}:
            raise ValueError(f"adapt must be weights or all, got {adapt!r}")
        self._eta, self._all = eta, adapt == "all"
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        gradient = passes.gradient()
        scales = self._scales(passes.weights)
        stretched = scales * gradient  # T g
        offset = scales * stretched * (1 / stretched.norm().clamp_min(TINY))
        return passes.gradient(self.scaled(offset))

    def _scales(self, weights: Vector) -> Vector:
        named = {p: name for name, p in self.model.named_parameters(remove_duplicate=False)}
        return Vector(
            [
                weight.abs() + self._eta
                if self._all or "weight" in named.get(param, "").rsplit(".", 1)[-1]
                else torch.ones_like(weight)
                for param, weight in zip(self._parameters(), weights.tensors, strict=True)
            ]
        )
