"""The noise on the weights that costs a given amount of accuracy, or of loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from landscape.probing import Probe
from landscape.results import Cost

Criterion = Literal["accuracy", "loss"]
_LEAST = 1e-9
# Ratio of the noise scales between which the slope of the drop is taken to the bracket's.
_SECANT = 1.25


@dataclass(frozen=True, kw_only=True)
class NoiseToleranceRequest:
    """Bisection on the noise scale sigma, with the same draws at every sigma.

    Args:
        magnitude_aware: Standard deviation sqrt(sigma^2 w^2 + epsilon^2) instead of sigma.
        criterion: "accuracy" (its fall) or "loss" (its rise).
        drop: Mean fall or rise that is looked for.
        draws: Noise samples, at least 2.
        largest: Upper end of the search.
        epsilon: Floor of the magnitude-aware noise.
        tolerance: Relative width of the bracket at the end.
        seed: Of the draws.
    """

    magnitude_aware: bool = False
    criterion: Criterion = "accuracy"
    drop: float = 0.1
    draws: int = 20
    largest: float = 2.0
    epsilon: float = 1e-3
    tolerance: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if self.criterion not in get_args(Criterion):
            raise ValueError(
                f"criterion must be one of {get_args(Criterion)}, got {self.criterion!r}"
            )
        if self.draws < 2:
            raise ValueError(f"draws must be at least 2, got {self.draws}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie in (0, 1), got {self.tolerance}")
        positive = {"drop": self.drop, "largest": self.largest}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if self.epsilon < 0:
            raise ValueError(f"epsilon must not be negative, got {self.epsilon}")

    @property
    def passes(self) -> int:
        """About the forward passes it will cost."""
        return 12 * self.draws

    def planned(self, probe: Probe) -> Cost:  # noqa: ARG002 - as all requests
        """What it will cost about."""
        return Cost(forwards=self.passes)

    def compute(self, probe: Probe) -> NoiseTolerance:
        """Halves sigma from the largest until the drop is less, then bisects."""
        base = probe.loss()
        if self.criterion == "accuracy":
            base = float(probe.means(probe.objective.correct, torch.zeros(1, probe.size))[0])
        low, high, step = 0.0, math.inf, self.largest
        at_low = at_high = (0.0, 0.0)
        while step > _LEAST and low == 0:
            falls = self._falls(probe, base, step)
            if falls[0] > self.drop:
                high, at_high, step = step, falls, step / 2
            else:
                low, at_low = step, falls
        while low > 0 and math.isfinite(high) and high / low - 1 > self.tolerance:
            middle = math.sqrt(low * high)
            falls = self._falls(probe, base, middle)
            if falls[0] > self.drop:
                high, at_high = middle, falls
            else:
                low, at_low = middle, falls
        error = 0.0
        if low > 0 and math.isfinite(high):
            # Inside the last bracket a step-like accuracy has no slope to speak of.
            below, above = low / _SECANT, high * _SECANT
            rise = self._falls(probe, base, above)[0] - self._falls(probe, base, below)[0]
            spread = max(at_low[1], at_high[1])
            error = spread * (above - below) / rise if rise > 0 else math.sqrt(low * high)
        return NoiseTolerance(low=low, high=high, stderr=error, base=base)

    def _falls(self, probe: Probe, base: float, sigma: float) -> tuple[float, float]:
        """Mean fall (or rise of the loss) over the draws, and its standard error."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = probe.weights()
        scale = torch.full_like(weights, sigma)
        if self.magnitude_aware:
            scale = (sigma**2 * weights**2 + self.epsilon**2).sqrt()
        found = []
        for _ in range(self.draws):
            noise = torch.randn(1, probe.size, generator=generator).to(weights) * scale
            found.append(self._fall(probe, base, noise))
        falls = torch.cat(found)
        # A loss that is not finite is lost for sure.
        falls = torch.nan_to_num(falls, nan=1e30, posinf=1e30)
        return float(falls.mean()), float(falls.std() / math.sqrt(self.draws))

    def _fall(self, probe: Probe, base: float, noise: Tensor) -> Tensor:
        if self.criterion == "loss":
            return probe.losses(noise) - base
        return base - probe.means(probe.objective.correct, noise)


@dataclass(frozen=True, kw_only=True)
class NoiseTolerance:
    """A bracket of the noise scale.

    Args:
        low: Largest sigma that was stood; 0 if none was.
        high: Smallest that was not; infinite if all were.
        stderr: Standard error of sigma for the spread of the draws.
        base: Accuracy or loss at the checkpoint.
    """

    low: float
    high: float
    stderr: float
    base: float
