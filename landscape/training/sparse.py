"""Sparse SAM: only a masked part of the weights is perturbed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Closure, Overflow, Passes
from landscape.training.settings import Common, check, check_count
from landscape.training.vectors import Vector


class SparseSAM(BatchOptimizer):
    """SAM with a mask from the empirical Fisher information (SSAM-F).

        ε = ρ (M ⊙ g)/‖g‖,  M the (1 − s) share of entries with the largest Σ_i (∇l_i)²

    The mask is set by ``refresh_mask``; until its first call all entries are perturbed.

    Source: Mi et al. 2022, arXiv 2210.05177. Cost: 2 gradients a step, and one gradient for each
    example at a refresh.

    Differences from the published code (Mi-Peng/Sparse-Sharpness-Aware-Minimization):

    1. The first mask is full; in the code it is empty until the first batch is over.
    2. It refreshes on 1024 samples every 5 epochs, one by one and with true labels; here the caller
       chooses examples and times.
    3. As there, ‖g‖ is the norm before masking, so ‖ε‖ < ρ.
    4. Running statistics of batch norm are put back after the second pass.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        sparsity: s, the share of entries that is not perturbed.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        sparsity: float = 0.2,
        **common: Unpack[Common],
    ) -> None:
        check("sparsity", sparsity, high=1)
        self._sparsity = sparsity
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        gradient = passes.gradient()
        mask = self.remembered("mask")
        unit = gradient.unit()
        return passes.gradient(self.scaled(unit if mask is None else mask * unit))

    @torch.no_grad()
    def refresh_mask(self, closures: Iterable[Closure]) -> None:
        """Sets the mask anew; examples that overflow under loss scaling are left out.

        Args:
            closures: One for each example: forward, backward, and the loss returned.

        Raises:
            ValueError: If there is none, or none without overflow.
        """
        total: Vector | None = None
        for closure in closures:
            try:
                gradient = self._passes(closure).gradient(statistics=False).widened()
            except Overflow:
                continue
            squares = gradient * gradient
            total = squares if total is None else total + squares
        if total is None:
            raise ValueError(
                "refresh_mask needs at least one example with a finite gradient, got none"
            )
        mask = largest(total, 1 - self._sparsity).tensors
        self.memory["mask"] = Vector(
            [part.to(param) for part, param in zip(mask, self._parameters(), strict=True)]
        )


class DynamicSparseSAM(BatchOptimizer):
    """SAM with a mask that drops flat entries and regrows others (SSAM-D).

        ε = ρ (M ⊙ g)/‖g‖
        now and then the share d_t of live entries with the smallest |g| dies, and as many of those
        that were dead come alive at random;  d_t = (d/2)(1 + cos πt/T)

    Source: Mi et al. 2022, arXiv 2210.05177. Cost: 2 gradients a step.

    Differences from the published code:

    1. Times are in steps; the code refreshes every 5 epochs.
    2. Entries that just died do not come alive in the same refresh.
    3. As for ``SparseSAM``: the norm is that before masking, running statistics are put back.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        refresh_every: Steps between changes of the mask.
        total_steps: T.
        rho: ρ.
        sparsity: s, the share of entries that is not perturbed.
        drop: d.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        refresh_every: int,
        total_steps: int,
        rho: float = 0.05,
        sparsity: float = 0.2,
        drop: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        check_count("refresh_every", refresh_every)
        check_count("total_steps", total_steps)
        check("sparsity", sparsity, high=1)
        check("drop", drop, high=1)
        self._sparsity, self._drop = sparsity, drop
        self._every, self._total = refresh_every, total_steps
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        gradient = passes.gradient()
        step = self.memory.get("step", 0)
        mask = self.remembered("mask")
        if mask is None:
            mask = largest(self.noise(gradient), 1 - self._sparsity)
        elif step % self._every == 0:
            mask = self._regrown(mask, gradient, step)
        self.memory |= {"mask": mask, "step": step + 1}
        return passes.gradient(self.scaled(mask * gradient.unit()))

    def _regrown(self, mask: Vector, gradient: Vector, step: int) -> Vector:
        phase = math.pi * min(step / self._total, 1)
        share = self._drop / 2 * (1 + math.cos(phase))
        live = mask.flat() > 0
        dead = int((~live).sum())
        count = min(round(share * int(live.sum())), dead)
        size = gradient.flat().abs().masked_fill(~live, math.inf)
        chance = self.noise(gradient).flat().masked_fill(live, -math.inf)
        flat = live.to(size)
        flat[size.topk(count, largest=False).indices] = 0
        flat[chance.topk(count).indices] = 1
        return mask.like(flat)


def largest(scores: Vector, share: float) -> Vector:
    """1 for the share of entries with the largest scores, 0 for the others."""
    flat: Tensor = scores.flat()
    mask = torch.zeros_like(flat)
    mask[flat.topk(round(share * flat.numel())).indices] = 1
    return scores.like(mask)
