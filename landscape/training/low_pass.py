"""LPF-SGD: gradients of the loss smoothed by noise in proportion to the filters."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.training.base import RowOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check_count
from landscape.training.vectors import Vector


class LowPassSGD(RowOptimizer):
    """Each part of the batch is evaluated under its own noise.

        step with  Σ_j (|S_j|/B) ∇L_{S_j}(w + n_j),  entries of n_j ~ N(0, (γ ‖filter‖)²)

    A filter is an index of the first dimension; a tensor of one dimension is one filter.

    Source: Bisla et al. 2022, arXiv 2201.08025; devansh20la/LPF-SGD. Cost: 1 gradient a step, in M
    smaller passes.

    Differences from the published code:

    1. A part that is smaller has its share of the mean.
    2. γ is a setting of the groups; its schedule, increasing by a cosine, is left to the caller.
    3. Running statistics of batch norm follow every part, as no pass is made without noise.
    4. γ and M are chosen by task in the code; the defaults here are a start.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        gamma: γ, a standard deviation relative to the norm of a filter.
        parts: M.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        gamma: float = 0.0005,
        parts: int = 8,
        **common: Unpack[Common],
    ) -> None:
        check_count("parts", parts)
        self._parts = parts
        super().__init__(base_optimizer, model, {"gamma": gamma}, common)

    def direction(self, passes: Passes) -> Vector:
        """The mean over parts."""
        weights = passes.weights
        widths = self.scaled(weights.map(_filter_norms), "gamma")
        total = 0.0 * weights
        for rows in passes.rows.tensor_split(self._parts):
            if len(rows):
                offset = widths * self.noise(weights)
                share = len(rows) / len(passes.rows)
                total += share * passes.gradient(offset, rows=rows, statistics=True)
        return total


def _filter_norms(tensor: Tensor) -> Tensor:
    """‖filter‖ at every entry."""
    if tensor.ndim < 2:
        norms: Tensor = torch.linalg.vector_norm(tensor)
    else:
        dims = tuple(range(1, tensor.ndim))
        norms = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
    return norms.expand_as(tensor)
