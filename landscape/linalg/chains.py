"""What Markov chains say about a mean: its error, and whether the chains agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.linalg.trace import student_quantile

Array = NDArray[np.float64]
# Halves shorter than this have no variance and no autocorrelation.
_SHORTEST = 2


@dataclass(frozen=True, kw_only=True)
class ChainMean:
    """Mean over all draws of several chains.

    Args:
        value: The mean.
        stderr: Its standard error, sqrt(variance / effective).
        effective: Number of independent draws that would tell as much.
        rhat: Split R-hat, 1 where the chains agree; NaN with fewer than 4 draws.
    """

    value: float
    stderr: float
    effective: float
    rhat: float

    @classmethod
    def of(cls, values: Array) -> ChainMean:
        """Mean of the values of at least two chains, (chains, draws).

        Returns:
            Mean with its error. With fewer than 4 draws every chain counts as one value.

        Raises:
            ValueError: If there are fewer than two chains or no draws.
        """
        if values.ndim != 2 or values.shape[0] < 2 or not values.shape[1]:
            raise ValueError(
                f"values must be (chains, draws), 2 or more chains, got {values.shape}"
            )
        effective = effective_draws(values)
        if _too_short(values):
            variance = float(np.var(values.mean(1), ddof=1))
        else:
            variance = _variances(_halves(values))[1]
        return cls(
            value=float(values.mean()),
            stderr=math.sqrt(variance / effective),
            effective=effective,
            rhat=split_rhat(values),
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided Student-t interval with effective - 1 degrees of freedom."""
        half = self.stderr * student_quantile(int(self.effective) - 1, level)
        return self.value - half, self.value + half


def split_rhat(values: Array) -> float:
    """R-hat = sqrt(((n-1)/n W + B/n) / W) of the two halves of every chain.

    W is the mean variance within the halves of n draws, B/n the variance of their means (Gelman et
    al. 2013, Bayesian Data Analysis, section 11.4). Splitting also finds a drift of all chains.

    Args:
        values: One number a draw, (chains, draws).

    Returns:
        1 where the halves agree, more where they do not; NaN with fewer than 4 draws.

    Example:
        >>> import numpy as np
        >>> round(split_rhat(np.random.default_rng(0).normal(size=(4, 1000))), 2)
        1.0
    """
    if _too_short(values):
        return math.nan
    within, total = _variances(_halves(values))
    if within == 0:
        return 1.0 if total == 0 else math.inf
    return math.sqrt(total / within)


def effective_draws(values: Array) -> float:
    """Effective number of draws, m n / (1 + 2 sum_t rho_t), over the halves of all chains.

    The autocorrelation rho_t = 1 - (W - mean autocovariance at t) / V compares with the variance V
    of all halves together, so chains that disagree count for less. The sum ends by Geyer's initial
    monotone sequence: sums of adjacent pairs are positive and decreasing (Geyer 1992, section 3.3;
    Vehtari et al. 2021, section 3.2).

    Args:
        values: One number a draw, (chains, draws).

    Returns:
        The number; at most m n log10(m n) where draws alternate; the number of chains with fewer
        than 4 draws.

    Example:
        >>> import numpy as np
        >>> walk = np.random.default_rng(0).normal(size=(4, 1000)).cumsum(1)
        >>> effective_draws(walk) < 20
        True
    """
    if _too_short(values):
        return float(len(values))
    halves = _halves(values)
    within, total = _variances(halves)
    if total == 0:
        return float(halves.size)
    correlation = 1 - (within - _autocovariance(halves).mean(0)) / total
    correlation[0] = 1.0
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs <= 0)
    kept = pairs[: negative[0]] if len(negative) else pairs
    time = -1 + 2 * float(np.minimum.accumulate(kept).sum())
    return halves.size / max(time, 1 / math.log10(halves.size))


def _too_short(values: Array) -> bool:
    return bool(values.shape[1] // 2 < _SHORTEST)


def _halves(values: Array) -> Array:
    length = values.shape[1] // 2
    return np.concatenate([values[:, :length], values[:, -length:]])


def _variances(halves: Array) -> tuple[float, float]:
    """W within the halves, and V of all of them together."""
    length = halves.shape[1]
    within = float(halves.var(1, ddof=1).mean())
    between = float(halves.mean(1).var(ddof=1))
    return within, within * (length - 1) / length + between


def _autocovariance(halves: Array) -> Array:
    """Autocovariance of each row at every lag, by FFT; lag 0 is the variance with ddof 1."""
    length = halves.shape[1]
    centred = halves - halves.mean(1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * length, axis=1)
    found: Array = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :length] / (length - 1)
    return found
