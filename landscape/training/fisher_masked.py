"""Fisher-masked SAM: the mask comes from the gradient of the batch itself."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check, check_count
from landscape.training.sparse import largest
from landscape.training.vectors import Vector

_UNMASKED = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


class FisherMaskedSAM(BatchOptimizer):
    """FSAM: SAM on the entries with the largest squared batch gradient.

        ε = ρ (M ⊙ g)/‖g‖,  M the share κ of entries with the largest g², made anew every few steps

    Source: Zhong et al. 2022, arXiv 2210.05497; WHU-ZQH/FSAM4PLM. Cost: 2 gradients a step.

    Differences:

    1. The square of a batch gradient is no Fisher information: it contains the squared mean, and
       little else once batches are large. ``SparseSAM`` sums squares of single examples.
    2. Biases, embeddings and norms take no part in the mask: they do not compete, and are perturbed
       in full. They are told by their modules and by having one dimension, in the code by name.
    3. ‖g‖ is the norm before masking.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        rho: ρ.
        keep: κ.
        refresh_every: Steps between masks.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        keep: float = 0.1,
        refresh_every: int = 1,
        **common: Unpack[Common],
    ) -> None:
        check("keep", keep, high=1)
        check_count("refresh_every", refresh_every)
        self._keep, self._every = keep, refresh_every
        super().__init__(base_optimizer, model, {"rho": rho}, common)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w + ε)."""
        gradient = passes.gradient()
        step = self.memory.get("step", 0)
        mask = self.remembered("mask")
        if mask is None or step % self._every == 0:
            mask = self._mask(gradient)
        self.memory |= {"mask": mask, "step": step + 1}
        return passes.gradient(self.scaled(mask * gradient.unit()))

    def _mask(self, gradient: Vector) -> Vector:
        whole = {
            param
            for module in self.model.modules()
            for param in module.parameters(recurse=False)
            if isinstance(module, _UNMASKED) or param.ndim < 2
        }
        masked = [param not in whole for param in self._parameters()]
        if not any(masked):
            return gradient.map(torch.ones_like)
        competing = Vector([g for g, m in zip(gradient.tensors, masked, strict=True) if m])
        found = iter(largest(competing.map(torch.abs), self._keep).tensors)
        return Vector(
            [
                next(found) if m else torch.ones_like(g)
                for g, m in zip(gradient.tensors, masked, strict=True)
            ]
        )
