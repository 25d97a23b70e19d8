"""NSO: gradients at pairs of opposite random neighbours."""

from __future__ import annotations

from typing import Unpack

from torch import nn
from torch.optim import Optimizer

from landscape.training.base import BatchOptimizer
from landscape.training.passes import Passes
from landscape.training.settings import Common, check, check_count
from landscape.training.vectors import Vector


class NoiseStability(BatchOptimizer):
    """Descent on E L(w + U) = L(w) + (σ²/2) Tr ∇²L(w) + O(σ⁴), U ~ N(0, σ² I).

        λ ∇L(w) + (1 − λ)/(2k) Σ_j [∇L(w + U_j) + ∇L(w − U_j)]

    The pair cancels the odd orders in U, so that less noise is left than with 2k draws.

    Source: Zhang, Li, Ju 2024, arXiv 2306.08553. Cost: 2k gradients a step, one more for λ > 0.

    Differences from the published code (VirtuosoResearch/Noise-stability-optimization):

    1. With λ = 0 the pass at w is left out; the code makes it for the statistics of batch norm,
       which follow the first noisy pass here.
    2. Normal noise alone. The code's "binomial" noise is not centred, and its Cauchy noise has no
       variance.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates.
        sigma: σ.
        pairs: k.
        plain: λ.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        sigma: float = 0.01,
        pairs: int = 1,
        plain: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        check_count("pairs", pairs)
        check("plain", plain, high=1)
        self._pairs, self._plain = pairs, plain
        super().__init__(base_optimizer, model, {"sigma": sigma}, common)

    def direction(self, passes: Passes) -> Vector:
        """The mean over pairs, and ∇L(w) where λ > 0."""
        total = self._plain * passes.gradient() if self._plain else 0.0 * passes.weights
        share = (1 - self._plain) / (2 * self._pairs)
        for pair in range(self._pairs):
            noise = self.scaled(self.noise(passes.weights), "sigma")
            first = pair == 0 and not self._plain
            total += share * passes.gradient(noise, statistics=first)
            total += share * passes.gradient(-1.0 * noise)
        return total
