"""TSAM: random neighbours, weighted by how high their loss is."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check, check_count
from landscape.training.vectors import TINY, Vector


class TiltedSAM(BatchOptimizer):
    """Descent on (1/t) log E exp(t L(w + ε)), by samples that take one ascent step.

        u_j ~ N(0, σ² I), shortened to norm r where longer
        ε_j = u_j + ρ ∇L(w + u_j)/‖∇L(w + u_j)‖
        the base optimiser steps with  Σ_j q_j ∇L(w + ε_j),  q = softmax(t L(w + ε_j))

    Source: Li, Zhou, Bilmes 2025, arXiv 2410.22656; litian96/TSAM. Cost: 2s gradients.

    Differences from the published code:

    1. Weights are streamed: a running maximum of t L and two sums take the place of s stored
       gradients. The result is the softmax of the code to rounding.
    2. t = 0 needs no case of its own: all q_j are equal.
    3. Running statistics of batch norm follow the first pass alone; the code lets the pass at every
       u_j in.
    4. Its "uniform" noise, a direction of norm nearly r, is not offered.
    5. t multiplies the mean loss of the batch, so that its useful size depends on the loss. t = 20
       is from the paper's grid {0, 1, 5, 20, 100}; the code's default is 1.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        tilt: t.
        samples: s.
        rho: ρ of the ascent step.
        sigma: σ of the noise; 0 is SAM.
        radius: r.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        tilt: float = 20.0,
        samples: int = 3,
        rho: float = 0.05,
        sigma: float = 1.0,
        radius: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        check("tilt", tilt)
        check_count("samples", samples)
        check("radius", radius)
        self._tilt, self._samples, self._radius = tilt, samples, radius
        super().__init__(base_optimizer, model, {"rho": rho, "sigma": sigma}, common)

    def direction(self, passes: Passes) -> Vector:
        """Σ_j q_j ∇L(w + ε_j)."""
        mean = 0.0 * passes.weights
        total: torch.Tensor | float = 0.0
        top: torch.Tensor | None = None
        for sample in range(self._samples):
            noise = self._shortened(self.scaled(self.noise(passes.weights), "sigma"))
            ascent = passes.gradient(noise, statistics=sample == 0).unit()
            gradient = passes.gradient(noise + self.scaled(ascent))
            loss = passes.mean_loss()
            height = self._tilt * loss.to(torch.promote_types(loss.dtype, torch.float32))
            highest = height if top is None else torch.maximum(top, height)
            # exp of what is at most 0: the sums so far, then this sample, on the new scale.
            before = (highest if top is None else top).sub(highest).exp()
            weight = (height - highest).exp()
            mean, total, top = before * mean + weight * gradient, before * total + weight, highest
        return mean * (1 / total)

    def _shortened(self, noise: Vector) -> Vector:
        return noise * (self._radius / noise.norm().clamp_min(TINY)).clamp_max(1.0)
