"""Kendall's tau-a and tau-b of two columns, and of all columns of a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Weights = NDArray[np.float32]

#: So many rows or fewer, all pairs at once are quicker than sorting.
DENSE = 300


def complete(first: Array, second: Array) -> NDArray[np.bool_]:
    """Where both have a finite value."""
    known: NDArray[np.bool_] = np.isfinite(first) & np.isfinite(second)
    return known


def constant(values: Array) -> bool:
    """Whether there are no two different values."""
    return len(values) < 2 or bool(np.all(values == values[0]))


def tau_b(first: Array, second: Array) -> float:
    """Kendall's tau-b (Kendall 1945): (C - D) / sqrt((N - ties_1)(N - ties_2)).

    C and D count the pairs that both put in the same, or in the opposite, order, N all pairs.
    Rows without both values are left out.

    Args:
        first: One value a model.
        second: The other.

    Returns:
        tau-b; NaN where one of the two is constant.
    """
    known = complete(first, second)
    a, b = first[known], second[known]
    if constant(a) or constant(b):
        return float("nan")
    return concordance(a, b) / float(np.sqrt(_ordered(a) * _ordered(b)))


def tau_a(first: Array, second: Array) -> float:
    """Kendall's tau-a (Kendall 1938): 2 / (n (n - 1)) sum_{i<j} sign(a_i - a_j) sign(b_i - b_j).

    A tied pair counts as 0 in the sum and as a pair below it, so a constant column gives 0 / N;
    NaN is returned instead, since it says nothing about order.

    Args:
        first: One value a model.
        second: The other.

    Returns:
        tau-a; NaN where one of the two is constant.
    """
    known = complete(first, second)
    a, b = first[known], second[known]
    if constant(a) or constant(b):
        return float("nan")
    return concordance(a, b) / (len(a) * (len(a) - 1) / 2)


def untied(first: Array, second: Array) -> float:
    """Root of the product of the pairs that are not tied in the one and in the other column."""
    return float(np.sqrt(_ordered(first) * _ordered(second)))


def tau_table(columns: dict[str, Array]) -> Array:  # (K, K)
    """tau-b between all columns, each pair on the rows that have both."""
    values = list(columns.values())
    table = np.full((len(values), len(values)), np.nan)
    for row, first in enumerate(values):
        for column in range(row, len(values)):
            table[row, column] = table[column, row] = tau_b(first, values[column])
    return table


def pair_signs(values: Array) -> NDArray[np.float32]:  # (n,) -> (n, n)
    """sign(v_i - v_j) of all pairs."""
    ranks = stats.rankdata(values, method="dense").astype(np.float32)
    signs: NDArray[np.float32] = np.sign(ranks[:, None] - ranks[None, :])
    return signs


def concordance(a: Array, b: Array) -> float:
    """C - D; beyond a few hundred rows SciPy's tau times its denominator, a whole number."""
    if len(a) <= DENSE:
        return float((pair_signs(a) * pair_signs(b)).sum(dtype=np.float64) / 2)
    return float(round(stats.kendalltau(a, b).statistic * np.sqrt(_ordered(a) * _ordered(b))))


def _ordered(values: Array) -> float:
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts.sum() ** 2 - (counts**2).sum()) / 2)
