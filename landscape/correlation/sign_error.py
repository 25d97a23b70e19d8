"""Robust sign-error: how often a measure orders two models wrongly, by environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.correlation.cleaning import Population
from landscape.correlation.granulated import cells_along
from landscape.correlation.kendall import Array

CHUNK = 2_000_000  # signs at once


@dataclass(frozen=True)
class Environments:
    """Pairs of configurations that differ in one hyper-parameter, with the errors of all measures.

    Args:
        axis: Name of that hyper-parameter, (E,).
        first: One configuration, (E,).
        second: The other, (E,).
        error: Weighted share of wrongly ordered pairs of runs, (E, K); NaN without weight.
        weight: Sum of the weights, (E, K).
        size: Effective number of pairs (sum w)² / sum w², (E, K).
    """

    axis: NDArray[np.object_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    error: Array
    weight: Array
    size: Array


def hoeffding_weight(difference: Array, test_examples: float) -> Array:
    """max(h - 1/2, 0), h = max(0, 1 - 2 exp(-2 n (d/2)²))²: how surely two accuracies differ.

    Args:
        difference: Difference of the two targets.
        test_examples: n, the number of test examples behind each.

    Returns:
        Weights in [0, 1/2].
    """
    sure = 1 - 2 * np.exp(-2 * test_examples * (difference / 2) ** 2)
    weight: Array = np.maximum(np.maximum(sure, 0) ** 2 - 0.5, 0)
    return weight


def sign_errors(
    population: Population,
    values: Array,  # (runs, K)
    test_examples: int | None,
) -> Environments:
    """Sign-errors of all measures in all environments (Dziugaite et al. 2020).

    An environment is a pair of configurations that differ in exactly one hyper-parameter. Over the
    pairs of a run of the one and a run of the other, the error is the weighted mean of
    (1 - sign(m - m') sign(t - t')) / 2: 0 where the order is right, 1 where it is wrong, 1/2 for a
    tie. Chance is 1/2. Both directions of a pair have the same error and are one environment here.

    Source: Dziugaite, Drouin, Neal, Rajkumar, Caballero, Wang, Mitliagkas, Roy, "In search of
    robust measures of generalization", NeurIPS 2020.

    Args:
        population: Runs and configurations.
        values: The measures of every run, NaN where missing.
        test_examples: n of ``hoeffding_weight``; None weighs all pairs of runs alike.

    Returns:
        All environments, also those whose effective size is small.
    """
    axis, first, second = _neighbours(population.levels)
    runs = _runs(population.configuration)
    padded_t = np.where(runs >= 0, population.target[runs], np.nan)  # (n, R)
    padded = np.where(runs[:, :, None] >= 0, values[runs], np.nan)  # (n, R, K)
    shape = (len(first), values.shape[1])
    wrong, weight, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    step = max(1, CHUNK // max(1, runs.shape[1] * values.shape[1]))
    for start in range(0, len(first), step):
        part = slice(start, start + step)
        a, b = first[part], second[part]
        other_t, other = padded_t[b], padded[b]
        for run in range(runs.shape[1]):
            dt = padded_t[a, run][:, None] - other_t  # (e, R)
            dm = padded[a, run][:, None, :] - other  # (e, R, K)
            w = np.ones(dt.shape) if test_examples is None else hoeffding_weight(dt, test_examples)
            w = np.where(np.isfinite(dt)[:, :, None] & np.isfinite(dm), w[:, :, None], 0.0)
            error = (1 - np.sign(dm) * np.sign(dt)[:, :, None]) / 2
            wrong[part] += np.where(w > 0, w * error, 0.0).sum(1)
            weight[part] += w.sum(1)
            squares[part] += (w**2).sum(1)
    nothing = np.full(shape, np.nan)
    return Environments(
        axis=axis,
        first=first,
        second=second,
        error=np.divide(wrong, weight, out=nothing, where=weight > 0),
        weight=weight,
        size=np.divide(weight**2, squares, out=np.zeros(shape), where=squares > 0),
    )


def _neighbours(
    levels: dict[str, NDArray[np.int64]],
) -> tuple[NDArray[np.object_], NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of configurations that differ in one hyper-parameter."""
    names, firsts, seconds = [], [], []
    for axis in levels:
        cells = cells_along(axis, levels)
        order = np.argsort(cells, kind="stable")
        for offset in range(1, int(np.bincount(cells).max())):
            same = np.flatnonzero(cells[order][offset:] == cells[order][:-offset])
            names += [axis] * len(same)
            firsts.append(order[same])
            seconds.append(order[same + offset])
    empty = [np.zeros(0, dtype=np.int64)]
    return (
        np.array(names, dtype=object),
        np.concatenate(firsts or empty),
        np.concatenate(seconds or empty),
    )


def _runs(configuration: NDArray[np.int64]) -> NDArray[np.int64]:  # (n, R)
    """Rows of the runs of every configuration, padded with -1."""
    counts = np.bincount(configuration)
    order = np.argsort(configuration, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    runs = np.full((len(counts), int(counts.max())), -1)
    runs[configuration[order], place] = order
    return runs
