"""m-SAM: a perturbation for each part of the batch."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import RowOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check_count
from landscape.training.vectors import Vector


class MicroBatchSAM(RowOptimizer):
    """SAM on micro-batches of m examples, each with its own ascent step.

        g̃ = Σ_j (|S_j|/B) ∇L_{S_j}(w + ρ g_j/‖g_j‖),  g_j = ∇L_{S_j}(w)

    Source: Foret et al. 2021, section 4.1; Andriushchenko & Flammarion 2022, arXiv 2206.06232.
    Cost: 2 gradients a step, in 2B/m smaller passes.

    Differences from codes that take one micro-batch a device:

    1. A last micro-batch that is smaller has its share of the mean, not an equal one.
    2. Batch norm sees micro-batches; running statistics follow the first pass on each.
    3. Over processes, SAM with ``perturbation="local"`` is m-SAM with m = batch of a process.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        micro_batch: m.
        rho: ρ.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        micro_batch: int,
        rho: float = 0.05,
        **common: Unpack[Common],
    ) -> None:
        check_count("micro_batch", micro_batch)
        self._m = micro_batch
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """The mean of the perturbed gradients."""
        total = 0.0 * passes.weights
        for rows in passes.rows.split(self._m):
            offset = self.scaled(passes.gradient(rows=rows).unit())
            share = len(rows) / len(passes.rows)
            total += share * passes.gradient(offset, rows=rows)
        return total
