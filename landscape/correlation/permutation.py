"""p-values of tau under permutations of the target, and their adjustment for many measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.correlation.kendall import DENSE, Array, complete, concordance, constant, pair_signs

#: Up to here all permutations are counted where there are no ties.
EXACT = 33
#: Further permutations are drawn where fewer of the first ones than these reach the sample.
RARE = 20
#: Signs at once.
CHUNK = 1_000_000


def p_value(
    measure: Array,
    target: Array,
    strata: NDArray[np.int64] | None,
    permutations: int,
    seed: int,
    *,
    most: int = 0,
) -> float:
    """Two-sided p-value of tau-b: share of permutations of the target with |tau| as large.

    Without strata the distribution over all permutations is known: exactly without ties and for up
    to 33 configurations, and beyond that as a normal law with the variance of Kendall (1970) for
    ties. Otherwise ``permutations`` random ones are drawn, within strata where there are any, and
    the sample itself counts as one: p = (1 + count) / (1 + permutations). Where fewer than 20 of
    them reach the sample, so many more are drawn that there are ``most``. This keeps the level: a
    p-value of the first draws that stands is larger than any that leads to more of them.

    Args:
        measure: One value a configuration, NaN where missing.
        target: One value a configuration.
        strata: Number of the stratum of every configuration, or None.
        permutations: How many are drawn.
        seed: Of the draws.
        most: Permutations for a small p-value; not used for more than 300 configurations.

    Returns:
        The p-value; NaN where tau is not defined.
    """
    rows = complete(measure, target)
    m, t = measure[rows], target[rows]
    if constant(m) or constant(t):
        return float("nan")
    tied = len(np.unique(m)) < len(m) or len(np.unique(t)) < len(t)
    if strata is None and (not tied or len(m) > EXACT):
        method = "exact" if len(m) <= EXACT else "asymptotic"
        return float(stats.kendalltau(m, t, method=method).pvalue)
    groups = np.zeros(len(m), dtype=np.int64) if strata is None else strata[rows]
    generator = np.random.default_rng([seed, 1])
    count = _reached(m, t, groups, permutations, generator)
    if count < RARE and permutations < most and len(m) <= DENSE:
        count += _reached(m, t, groups, most - permutations, generator)
        permutations = most
    return (1 + count) / (1 + permutations)


def needed(measures: int, confidence: float) -> int:
    """Permutations whose least p-value stays 20 times below the level after Holm's adjustment."""
    return int(np.ceil(RARE * measures / (1 - confidence)))


def _reached(
    m: Array,
    t: Array,
    groups: NDArray[np.int64],
    permutations: int,
    generator: np.random.Generator,
) -> int:
    """How many random permutations within groups have |C - D| as large as the sample."""
    least, count, n = abs(concordance(m, t)), 0, len(m)
    order = np.argsort(groups, kind="stable")
    if n > DENSE:
        drawn = np.empty(n, dtype=np.int64)
        for _ in range(permutations):
            drawn[order] = np.lexsort((generator.random(n), groups))
            count += abs(concordance(m, t[drawn])) >= least
        return count
    signs, others = pair_signs(m).reshape(-1), pair_signs(t)
    chunk = max(1, CHUNK // n**2)
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        drawn = np.empty((size, n), dtype=np.int64)
        # Sorting by group and a random number permutes within groups; the ties, and so the
        # denominator of tau, stay.
        drawn[:, order] = np.argsort(groups + generator.random((size, n)), axis=1)
        permuted = others[drawn[:, :, None], drawn[:, None, :]]
        found = permuted.reshape(size, -1) @ signs / 2  # whole, far below 2^24
        count += int((np.abs(found) >= least).sum())
    return count


def holm(p: Array) -> Array:
    """Holm's step-down adjustment, which bounds the chance of any false finding; NaN stay."""
    known = np.isfinite(p)
    values = p[known]
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    adjusted = np.full(len(p), np.nan)
    back = np.empty(len(values))
    back[order] = np.minimum(steps, 1)
    adjusted[known] = back
    return adjusted


def benjamini_hochberg(p: Array) -> Array:
    """Benjamini and Hochberg's adjustment, which bounds the share of false findings; NaN stay."""
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted
