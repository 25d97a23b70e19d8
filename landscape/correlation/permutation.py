"""p-values of tau under permutations of the target, and their adjustment for many measures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from landscape.correlation.kendall import DENSE, Array, complete, concordance, constant, pair_signs

#: Up to here all permutations are counted where there are no ties.
EXACT = 33


def p_value(
    measure: Array,
    target: Array,
    strata: NDArray[np.int64] | None,
    permutations: int,
    seed: int,
) -> float:
    """Two-sided p-value of tau-b: share of permutations of the target with |tau| as large.

    Without strata the distribution over all permutations is known: exactly without ties and for up
    to 33 configurations, and beyond that as a normal law with the variance of Kendall (1970) for
    ties. Otherwise ``permutations`` random ones are drawn, within strata where there are any, and
    the sample itself counts as one: p = (1 + count) / (1 + permutations).

    Args:
        measure: One value a configuration, NaN where missing.
        target: One value a configuration.
        strata: Number of the stratum of every configuration, or None.
        permutations: How many are drawn.
        seed: Of the draws.

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
    order = np.argsort(groups, kind="stable")
    signs = pair_signs(m) if len(m) <= DENSE else None
    others = pair_signs(t) if len(m) <= DENSE else None
    least, count = abs(concordance(m, t)), 0
    drawn = np.empty(len(m), dtype=np.int64)
    for _ in range(permutations):
        # Sorting by stratum and a random number permutes within strata; the ties, and so the
        # denominator of tau, stay.
        drawn[order] = np.lexsort((generator.random(len(m)), groups))
        if signs is not None and others is not None:
            found = float(np.vdot(signs, others[np.ix_(drawn, drawn)])) / 2
        else:
            found = concordance(m, t[drawn])
        count += abs(found) >= least
    return (1 + count) / (1 + permutations)


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
