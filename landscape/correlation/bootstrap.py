"""Cluster bootstrap: configurations are drawn with replacement; intervals from the spread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.correlation.kendall import (
    Array,
    Weights,
    complete,
    constant,
    pair_signs,
    tau_b,
    untied,
)

Statistic = Callable[[Array, Array, Weights], Array]

#: More configurations than these need no jackknife: its ratio to the resamples is 1.
JACKKNIFE = 512
#: Resamples at once, so that their ranks stay in the cache.
CHUNK = 128


def resamples(configurations: int, bootstraps: int, seed: int) -> Weights:  # (n, B)
    """How often every configuration is drawn in every resample of as many as there are."""
    generator = np.random.default_rng([seed, 0])
    share = np.full(configurations, 1 / configurations)
    counts = generator.multinomial(configurations, share, size=bootstraps)
    return np.ascontiguousarray(counts.T, dtype=np.float32)


def spearman(first: Array, second: Array) -> float:
    """Spearman's rho: Pearson's correlation of the mid-ranks; NaN where one is constant."""
    known = np.isfinite(first) & np.isfinite(second)
    one = np.ones((int(known.sum()), 1), dtype=np.float32)
    return float(resampled_spearman(first[known], second[known], one)[0]) if known.any() else np.nan


def resampled_spearman(first: Array, second: Array, weights: Weights) -> Array:  # (B,)
    """Spearman's rho of every resample, ranked anew with its copies tied.

    Args:
        first: One value a row, all finite.
        second: The other.
        weights: How often every row occurs in every resample, (n, B).

    Returns:
        rho by resample; NaN where a resample is constant.
    """
    parts = [
        _rank_correlation(first, second, weights[:, start : start + CHUNK])
        for start in range(0, weights.shape[1], CHUNK)
    ]
    return np.concatenate(parts)


def _rank_correlation(first: Array, second: Array, weights: Weights) -> Array:
    a, b = _centred_ranks(first, weights), _centred_ranks(second, weights)
    product = np.einsum("nb,nb,nb->b", weights, a, b, dtype=np.float64)
    spread = np.einsum("nb,nb,nb->b", weights, a, a, dtype=np.float64) * np.einsum(
        "nb,nb,nb->b", weights, b, b, dtype=np.float64
    )
    rho = np.full(len(product), np.nan)
    np.divide(product, np.sqrt(spread), out=rho, where=spread > 0)
    return rho


def _centred_ranks(values: Array, weights: Weights) -> Weights:  # (n, B)
    """Mid-ranks within every resample, less their mean."""
    groups = np.unique(values, return_inverse=True)[1].reshape(-1)
    order = np.argsort(groups, kind="stable")
    drawn = weights[order]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    if len(starts) < len(groups):
        drawn = np.add.reduceat(drawn, starts, axis=0)
    ranks = np.cumsum(drawn, axis=0, dtype=np.float32)
    ranks -= (drawn + ranks[-1]) / 2  # centre of each group, less half of all
    return ranks[groups]


def tau_interval(
    first: Array, second: Array, resampled: Array, confidence: float, parameters: int = 0
) -> tuple[float, float]:
    """Interval of tau-b: percentiles of the resamples, with two corrections for few configurations.

    1. Resampling overstates the variance that belongs to single pairs, which shows where tau is
       near ±1. The distances of the percentiles from tau are multiplied by the ratio of the
       jackknife's standard error to that of the resamples, where it is below 1.
    2. Few pairs against the order are counts like Poisson's, and none at all would give an
       interval without width. With D of N pairs, the interval reaches to 1 - 2 d / N at least,
       where d is the upper confidence limit of a Poisson mean of which D was seen.

    Args:
        first: One value a configuration, all finite.
        second: The other.
        resampled: tau-b of the resamples; NaN ones are left out.
        confidence: Level.
        parameters: Of a regression that the values are residuals of.

    Returns:
        Low and high; NaN where fewer than half of the resamples are defined.
    """
    estimate, spread = tau_b(first, second), standard_error(resampled)
    if not np.isfinite(estimate) or not np.isfinite(spread) or len(first) < 3:
        return float("nan"), float("nan")
    outer = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(resampled, outer)
    scale = np.sqrt(len(first) / max(len(first) - parameters, 1))
    if spread > 0 and len(first) <= JACKKNIFE:
        scale *= min(1.0, _jackknife(first, second) / spread)
    low, high = estimate - scale * (estimate - low), estimate + scale * (high - estimate)
    return widened(estimate, (low, high), untied(first, second), confidence)


def spearman_interval(
    estimate: float,
    tau: float,
    resampled: Array,
    *,
    count: int,
    reached: float,
    confidence: float,
) -> tuple[float, float]:
    """Interval of Spearman's rho: percentiles on Fisher's scale, freed of two biases.

    The copies in a resample are tied, which draws its rho towards 0. So the percentiles of artanh
    are moved outwards by what artanh(rho) exceeds their median. Values of ±1 count as half of the
    least possible step below. The rho of a sample is itself nearer to 0 than the population's: its
    mean is ((n - 2) rho + 3 tau) / (n + 1) (Kendall 1970). The outer end is moved by as much.

    Args:
        estimate: Of the whole sample.
        tau: Kendall's tau of the whole sample.
        resampled: Of the resamples; NaN ones are left out.
        count: Configurations.
        reached: End of tau's interval on the side of 0, used where all pairs are in one order:
            rho is at least (3 tau - 1) / 2, and (tau² + 2 tau - 1) / 2 where tau is negative
            (Durbin and Stuart 1951).
        confidence: Level.

    Returns:
        Low and high; NaN where fewer than half of the resamples are defined.
    """
    if not np.isfinite(estimate) or not np.isfinite(standard_error(resampled)) or count < 3:
        return float("nan"), float("nan")
    if abs(estimate) >= 1 - 1e-12:
        t = np.sign(estimate) * reached
        least = float(np.clip((3 * t - 1) / 2 if t >= 0 else (t * t + 2 * t - 1) / 2, -1, 1))
        return (least, 1.0) if estimate > 0 else (-1.0, -least)
    bound = 1 - 6 / (count**3 - count)
    z = np.sign(estimate) * np.arctanh(
        np.clip(resampled[np.isfinite(resampled)], -bound, bound)
    )  # the sign of the estimate is outwards
    shift = max(0.0, float(np.arctanh(min(abs(estimate), bound)) - np.median(z)))
    outer = [(1 - confidence) / 2, (1 + confidence) / 2]
    inner_end, outer_end = np.tanh(np.quantile(z, outer) + shift)
    unbiased = ((count + 1) * abs(estimate) - 3 * abs(tau)) / max(count - 2, 1)
    outer_end = min(outer_end + max(unbiased - abs(estimate), 0.0), 1.0)
    ends = np.sign(estimate) * np.array([inner_end, outer_end])
    return min(float(ends.min()), estimate), max(float(ends.max()), estimate)


def widened(
    estimate: float, ends: tuple[float, float], pairs: float, confidence: float
) -> tuple[float, float]:
    """The interval, reaching at least to the Poisson limit of the pairs against the order.

    Args:
        estimate: In [-1, 1].
        ends: The interval.
        pairs: N, the pairs behind the estimate.
        confidence: Level.

    Returns:
        Low and high within [-1, 1], on either side of the estimate.
    """
    low, high = ends
    against = pairs * (1 - abs(estimate)) / 2
    limit = 1 - stats.chi2.ppf((1 + confidence) / 2, 2 * (against + 1)) / pairs
    if estimate > 0:
        low = min(low, limit)
    elif estimate < 0:
        high = max(high, -limit)
    return max(float(min(low, estimate)), -1.0), min(float(max(high, estimate)), 1.0)


def _jackknife(first: Array, second: Array) -> float:
    """Standard error of tau from leaving out one configuration at a time."""
    count = len(first)
    both = pair_signs(first) * pair_signs(second)
    known = np.abs(both)
    pairs, signs = known.sum(dtype=np.float64) / 2, both.sum(dtype=np.float64) / 2
    left = np.maximum(pairs - known.sum(1), 1)
    without = (signs - both.sum(1)) / left
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def standard_error(resampled: Array) -> float:
    """Standard deviation of the defined resamples; NaN where fewer than half are."""
    defined = resampled[np.isfinite(resampled)]
    if len(defined) < max(2, len(resampled) / 2):
        return float("nan")
    return float(np.std(defined, ddof=1))


def resampled_where_defined(
    statistic: Statistic, mean: Array, aim: Array, weights: Weights
) -> Array:  # (B,)
    """A statistic of the resamples of the configurations that have both values; else NaN."""
    rows = complete(mean, aim)
    if constant(mean[rows]) or constant(aim[rows]):
        return np.full(weights.shape[1], np.nan)
    return statistic(mean[rows], aim[rows], drawn(weights, rows))


def drawn(weights: Weights, rows: NDArray[np.bool_]) -> Weights:
    """The resamples of a part of the configurations."""
    return weights if rows.all() else weights[rows]
