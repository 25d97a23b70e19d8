"""Losses under noise: one set of antithetic samples that every noise measure reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.evidence.ascent import checked_radii
from landscape.evidence.planning import share, vector_bytes
from landscape.geometry import Euclidean, Geometry, Norm, checked_norm
from landscape.probing import Probe
from landscape.results import Cost

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class NoiseRequest:
    """Losses at w + U_j and w - U_j for random U_j.

    With norm "l2" U is Gaussian, N(0, sigma^2 diag(c^2)): standard deviation sigma per parameter,
    in units of its scale c. With norm "linf" U_i is uniform in [-sigma c_i, sigma c_i]. The same
    seed gives the same U / sigma for every sigma.

    Args:
        geometry: Scale c of each parameter.
        norm: "l2" or "linf".
        sigma: Noise scale.
        pairs: Number of U_j, two losses each; at least 2.
        points: Use only the first so many examples; None uses all.
        seed: Of the draws.
        memory: Bytes for the samples that are held at a time.
    """

    geometry: Geometry = field(default_factory=Euclidean)
    norm: Norm = "l2"
    sigma: float = 0.01
    pairs: int = 50
    points: int | None = None
    seed: int = 0
    memory: int = field(default=256 << 20, repr=False)

    def __post_init__(self) -> None:
        checked_norm(self.norm)
        checked_radii((self.sigma,))
        if self.pairs < 2:
            raise ValueError(f"pairs must be at least 2, got {self.pairs}")

    @property
    def passes(self) -> int:
        """Forward passes it will cost."""
        return 2 * self.pairs

    def planned(self, probe: Probe) -> Cost:
        """What it will cost."""
        held = vector_bytes(probe, 8, 8 * max(self.memory, probe.size * probe.dtype.itemsize))
        return Cost(forwards=self.passes * share(probe, self.points), peak_memory=held)

    def compute(self, probe: Probe) -> NoiseLosses:
        """Two forward passes over the data for each pair."""
        ball = self.geometry.around(probe, self.norm)
        draw = ball.gaussian if self.norm == "l2" else ball.sample_inside
        generator = torch.Generator().manual_seed(self.seed)
        parts = probe.parts(None, self.points)
        # Of all the data, the loss at the checkpoint is known, but not that of derived probes.
        known = self.points is None and not probe.variant
        base = probe.loss() if known else float(parts.base_losses()[0])
        most = max(1, self.memory // (8 * probe.size * ball.scale.element_size()))
        plus, minus = [], []
        highest, farthest = -math.inf, None
        for start in range(0, self.pairs, most):
            count = min(most, self.pairs - start)
            # Drawn one by one, so that the numbers do not depend on the memory.
            both = ball.scale.new_empty(2 * count, probe.size)
            for row in range(count):
                torch.mul(draw(1, generator)[0], self.sigma, out=both[row])
            torch.neg(both[:count], out=both[count:])
            offsets = ball.retract(both)
            losses = parts.losses(offsets, [0] * len(both))
            if float(losses.max()) > highest:  # never where one is not a number
                highest, farthest = float(losses.max()), offsets[losses.argmax()].clone()
            plus.append(losses[:count])
            minus.append(losses[count:])
        return NoiseLosses(
            sigma=self.sigma,
            base=base,
            plus=torch.cat(plus).numpy(),
            minus=torch.cat(minus).numpy(),
            free=ball.free,
            precision=torch.finfo(probe.dtype).eps,
            base_error=probe.rounding.loss,
            noise_error=0.0 if farthest is None else probe.difference_rounding(farthest),
        )


@dataclass(frozen=True, kw_only=True)
class NoiseLosses:
    """Losses of antithetic pairs.

    Args:
        sigma: Noise scale.
        base: L(w).
        plus: L(w + U_j), (pairs,).
        minus: L(w - U_j), (pairs,).
        free: Number of parameters that move.
        precision: Machine precision of the losses.
        base_error: Measured absolute error of the loss at the checkpoint; 0 where it is unknown.
        noise_error: That of the rise to the noise with the highest loss.
    """

    sigma: float
    base: float
    plus: Array
    minus: Array
    free: int
    precision: float
    base_error: float = 0.0
    noise_error: float = 0.0

    @property
    def rounding(self) -> float:
        """How far rounding may move a mean of losses, or their mean rise.

        The error at the checkpoint is common to all samples, so that it does not average out. Where
        errors are unknown, or every loss is rounded to zero, they are taken to be the precision of
        numbers of size one, such as log-probabilities that cancel.
        """
        size = max(abs(self.base), float(np.abs(self.plus + self.minus).mean()) / 2)
        known = max(self.base_error, self.noise_error) if size else 0.0
        return (known or self.precision) + self.precision * size

    @property
    def nonfinite(self) -> int:
        """Number of losses that are not finite."""
        return int((~np.isfinite(self.plus)).sum() + (~np.isfinite(self.minus)).sum())

    @property
    def rises(self) -> Array:
        """Mean rise of each pair, (L(w + U) + L(w - U)) / 2 - L(w)."""
        rises: Array = (self.plus + self.minus) / 2 - self.base
        return rises
