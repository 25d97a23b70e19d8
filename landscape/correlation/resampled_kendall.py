"""Kendall's tau of many weighted resamples at once, exactly and without a matrix of all pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.correlation.kendall import Array, Weights

#: Values of one bin of the sorted sample; three times as many or fewer are one block.
BLOCK = 128
#: Resamples at once, so that they stay in the cache.
CHUNK = 256


def resampled_tau_b(
    first: Array,
    second: Array,
    weights: Weights,  # (n, B)
) -> Array:  # (B,)
    """tau-b of every resample, in which row i occurs ``weights[i, b]`` times.

    Copies of one row are tied in both columns, so that tau-b leaves their pairs out: without other
    ties it is (C - D) over the pairs of different rows.

    Args:
        first: One value a row, all finite.
        second: The other.
        weights: How often every row occurs in every resample.

    Returns:
        tau-b by resample; NaN where a resample is constant.
    """
    product = _resampled_untied(first, weights) * _resampled_untied(second, weights)
    numerator = resampled_numerator(first, second, weights)
    tau = np.full(len(numerator), np.nan)
    np.divide(numerator, np.sqrt(product), out=tau, where=product > 0)
    return tau


def resampled_numerator(first: Array, second: Array, weights: Weights) -> Array:
    """sum_{i<j} w_i w_j sign(a_i - a_j) sign(b_i - b_j) of every resample, exactly.

    Both columns are cut into bins of neighbouring values. Pairs that share no bin have signs known
    from their bins: cumulative counts of the cells suffice. Only pairs within a bin of either
    column need their signs, so that n (2 BLOCK) products a resample stand for n².

    Args:
        first: One value a row, all finite.
        second: The other.
        weights: How often every row occurs in every resample, (n, B).

    Returns:
        The sums, (B,).
    """
    a, b = (stats.rankdata(values, method="dense").astype(np.int64) for values in (first, second))
    bins_a, bins_b = bins(a), bins(b)
    blocks = [(rows, _signs(a[rows], b[rows])) for rows in members(bins_a, a)]
    for rows in members(bins_b, b):
        other = bins_a[rows]
        blocks.append((rows, _signs(a[rows], b[rows]) * (other[:, None] != other[None, :])))
    total = np.zeros(weights.shape[1])
    for start in range(0, weights.shape[1], CHUNK):
        part = np.ascontiguousarray(weights[:, start : start + CHUNK])
        found = _across_bins(bins_a, bins_b, part)
        for rows, signs in blocks:
            drawn = part[rows]
            found += 0.5 * np.einsum("mb,mb->b", drawn, signs @ drawn)  # whole, far below 2^24
        total[start : start + CHUNK] = found
    return total


def below_in_both(
    first: Array,
    second: Array,
    weights: Weights,  # (n, G)
) -> Weights:  # (n, G)
    """By row, the total weight of the rows whose both values are lower; bins as above.

    Args:
        first: One value a row, all finite.
        second: The other.
        weights: Weights of the rows.

    Returns:
        sum_j w_j 1[a_j < a_i] 1[b_j < b_i] for every row i.
    """
    a, b = (stats.rankdata(values, method="dense").astype(np.int64) for values in (first, second))
    bins_a, bins_b = bins(a), bins(b)
    counts = _cells(bins_a, bins_b, weights)
    before = np.cumsum(np.cumsum(counts, axis=0), axis=1)
    padded = np.zeros((counts.shape[0] + 1, counts.shape[1] + 1, counts.shape[2]), np.float32)
    padded[1:, 1:] = before
    found: Weights = padded[bins_a, bins_b]
    for numbers, ranks, other in ((bins_a, a, None), (bins_b, b, bins_a)):
        for rows in members(numbers, ranks):
            lower = (a[rows, None] > a[None, rows]) & (b[rows, None] > b[None, rows])
            if other is not None:
                lower &= other[rows, None] != other[None, rows]
            found[rows] += lower.astype(np.float32) @ weights[rows]
    return found


def _resampled_untied(values: Array, weights: Weights) -> Array:
    """Pairs of every resample whose values differ: half of (sum w)² - sum over values (sum w)²."""
    groups = np.unique(values, return_inverse=True)[1].reshape(-1)
    same = weights if len(groups) == groups.max() + 1 else _summed(groups, weights)
    squares = np.einsum("gb,gb->b", same, same, dtype=np.float64)
    pairs: Array = 0.5 * (weights.sum(0, dtype=np.float64) ** 2 - squares)
    return pairs


def _summed(groups: NDArray[np.int64], weights: Weights) -> Weights:  # (groups, B)
    """Sum of the weights of every group that occurs, in the order of their numbers."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    if len(starts) == len(groups):
        return weights[order]
    return np.add.reduceat(weights[order], starts, axis=0)


def bins(ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bins of neighbouring ranks, about BLOCK rows each; equal ranks share one."""
    if len(ranks) <= 3 * BLOCK:
        return np.zeros(len(ranks), dtype=np.int64)
    counts = np.bincount(ranks)[1:]
    numbers, current, filled = np.zeros(len(counts), dtype=np.int64), 0, 0
    for index, count in enumerate(counts):
        if filled and filled + count > BLOCK:
            current, filled = current + 1, 0
        filled += count
        numbers[index] = current
    found: NDArray[np.int64] = numbers[ranks - 1]
    return found


def members(numbers: NDArray[np.int64], ranks: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of every bin that holds two different ranks or more."""
    order = np.argsort(numbers, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [part for part in rows if np.ptp(ranks[part]) > 0]


def _signs(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
    product = np.sign(a[:, None] - a[None, :]) * np.sign(b[:, None] - b[None, :])
    signs: NDArray[np.float32] = product.astype(np.float32)
    return signs


def _across_bins(
    bins_a: NDArray[np.int64], bins_b: NDArray[np.int64], weights: Weights
) -> Array:  # (B,)
    shape = (int(bins_a.max()) + 1, int(bins_b.max()) + 1)
    if 1 in shape:
        return np.zeros(weights.shape[1])
    counts = _cells(bins_a, bins_b, weights)  # whole numbers far below 2^24, as are their sums
    before = np.cumsum(counts, axis=0) - counts  # rows of lower bins of a
    lower = np.cumsum(before, axis=1)
    higher = lower[:, -1:] - lower
    total: Array = np.einsum("ijb,ijb->b", counts, lower - before - higher, dtype=np.float64)
    return total


def _cells(bins_a: NDArray[np.int64], bins_b: NDArray[np.int64], weights: Weights) -> Weights:
    """Weight of every pair of bins, (bins of a, bins of b, B)."""
    shape = (int(bins_a.max()) + 1, int(bins_b.max()) + 1)
    cells = bins_a * shape[1] + bins_b
    counts = np.zeros((shape[0] * shape[1], weights.shape[1]), np.float32)
    counts[np.unique(cells)] = _summed(cells, weights)
    cube: Weights = counts.reshape(*shape, -1)
    return cube
