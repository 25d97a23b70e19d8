"""ESAM: SAM on some tensors and on the examples that react most."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn
from torch.optim import Optimizer

from landscape.training.base import RowOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check
from landscape.training.vectors import Vector


class ESAM(RowOptimizer):
    """Efficient SAM: stochastic weight perturbation and sharpness-sensitive data selection.

        ε = ρ (b/β) ⊙ g/‖g‖,  b = 1 for each tensor with probability β, 0 otherwise
        S⁺ = the γ share of examples with the largest rise l_i(w + ε) − l_i(w)
        the base optimiser steps with  ∇L_{S⁺}(w + ε)

    Source: Du et al. 2022, arXiv 2110.03141. Cost: 1 + γ gradients a step and, for γ < 1, one
    forward pass.

    Differences from the published code (dydjw9/Efficient_SAM):

    1. ‖g‖ is the norm of the whole gradient, so that the mean of ε over b is SAM's. So the whole
       gradient is computed: what could be saved for tensors left out is not.
    2. Exactly ⌈γB⌉ examples are chosen. Ties never add any.
    3. Where no tensor is drawn, or ρ = 0, no example reacts more than another: the step takes g.
    4. Running statistics follow the first pass alone.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        beta: β.
        gamma: γ.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        beta: float = 0.5,
        gamma: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        check("beta", beta, low=1e-6, high=1)
        check("gamma", gamma, high=1)
        self._beta, self._gamma = beta, gamma
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L_{S⁺}(w + ε)."""
        gradient = passes.gradient()
        before = passes.row_losses
        draws = torch.rand(
            len(gradient.tensors), generator=self._generator, device=self._generator.device
        ).tolist()
        chosen = [1 / self._beta if draw < self._beta else 0.0 for draw in draws]
        offset = self.scaled(gradient.unit().weighted(chosen))
        if not offset.norm():
            return gradient
        rows = passes.rows
        if self._gamma < 1:
            count = max(1, -int(-self._gamma * len(rows) // 1))
            rise = passes.losses_of(rows, offset) - before
            rows = rows[rise.topk(count).indices.sort().values]
        return passes.gradient(offset, rows=rows)
