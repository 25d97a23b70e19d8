"""Partial tau: what is left of a rank correlation when other columns are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from landscape.correlation.averages import Averages
from landscape.correlation.bootstrap import drawn, tau_interval
from landscape.correlation.kendall import (
    Array,
    Weights,
    complete,
    constant,
    tau_b,
)
from landscape.correlation.options import Options
from landscape.correlation.resampled_kendall import resampled_tau_b

#: Residuals below this, in standard deviations of the scores, are rounding.
ROUNDING = 1e-8


def left_over(values: Array, given: Array) -> Array:  # (n,), (n, Z) -> (n,)
    """What a smooth function of the given columns does not explain of the normal scores.

    Values and given columns are replaced by their normal scores Phi^-1((rank - 1/2) / n), ties by
    mean ranks. The scores of the values are regressed by least squares on natural cubic splines of
    the scores of every given column. The residuals are returned, with those of rounding size as 0.

    Partial tau is tau-b of the residuals of two columns. If all are monotone functions of jointly
    normal variables, this is (2 / pi) asin(partial correlation), the tau of the two at a fixed
    value of the given ones. Kendall's own formula,
    (t_xy - t_xz t_yz) / sqrt((1 - t_xz²) (1 - t_yz²)), is not 0 for variables that are independent
    given z, is 0 / 0 where x is a monotone function of z, and does not see functions that are not
    monotone; so it is not used.

    Args:
        values: One value a configuration, all finite.
        given: Given columns, all finite.

    Returns:
        Residuals; all 0 where the values are such a function of the given columns.
    """
    scores = normal_scores(values)
    basis = np.concatenate(
        [np.ones((len(values), 1)), *(_spline(column) for column in given.T)], axis=1
    )
    fitted = basis @ np.linalg.lstsq(basis, scores, rcond=None)[0]
    residuals = scores - fitted
    return np.where(np.abs(residuals) > ROUNDING, np.round(residuals, 9), 0.0)


def freedom(count: int, columns: int) -> int:
    """Parameters of the regression on ``columns`` given columns."""
    return 1 + columns * _degrees(count)


def normal_scores(values: Array) -> Array:
    """Phi^-1((rank - 1/2) / n), ties by mean ranks."""
    scores: Array = stats.norm.ppf((stats.rankdata(values) - 0.5) / len(values))
    return scores


def _degrees(count: int) -> int:
    """Columns of one spline: a line for a few rows, 5 for 50 and more."""
    return int(np.clip(count // 10, 1, 5))


def _spline(values: Array) -> Array:  # (n, degrees)
    """Natural cubic spline of the scores: truncated powers, knots at quantiles."""
    scores = normal_scores(values)
    degrees = _degrees(len(values))
    columns = [scores]
    if degrees > 1:
        knots = stats.norm.ppf(np.linspace(0.05, 0.95, degrees + 1))
        last = knots[-1]

        def bend(knot: float) -> Array:
            cubes = np.maximum(scores - knot, 0) ** 3 - np.maximum(scores - last, 0) ** 3
            return np.asarray(cubes / (last - knot))

        columns += [bend(knot) - bend(knots[-2]) for knot in knots[: degrees - 1]]
    return np.stack(columns, axis=1)


def partial_columns(
    averaged: dict[str, Averages],
    given: Sequence[str],
    weights: Weights,
    options: Options,
) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Partial tau of every measure given each column, and given all of them together.

    Args:
        averaged: Measures, targets and given columns by configuration.
        given: Names of the given columns.
        weights: Resamples of the configurations.
        options: Confidence.

    Returns:
        Columns ``partial[z]``, ``partial_low[z]``, ``partial_high[z]`` by measure, and by measure
        the given columns of which it is a function (its partial tau is then 0).
    """
    sets = {name: [name] for name in given}
    if len(given) > 1:
        sets[", ".join(given)] = list(given)
    columns: dict[str, list[float]] = {}
    functions: dict[str, list[str]] = {}
    for label, names in sets.items():
        found = []
        for name, one in averaged.items():
            fixed = np.stack([one.given[column] for column in names], axis=1)
            estimate, low, high, explained = _partial(one.mean, one.aim, fixed, weights, options)
            found.append((estimate, low, high))
            if explained:
                functions.setdefault(name, []).append(label)
        for key, values in zip(
            ("partial", "partial_low", "partial_high"), zip(*found, strict=True), strict=True
        ):
            columns[f"{key}[{label}]"] = list(values)
    return pd.DataFrame(columns, index=list(averaged)), functions


def _partial(
    mean: Array, aim: Array, fixed: Array, weights: Weights, options: Options
) -> tuple[float, float, float, bool]:
    nan = float("nan")
    rows = complete(mean, aim) & np.isfinite(fixed).all(axis=1)
    parameters = freedom(int(rows.sum()), fixed.shape[1])
    if rows.sum() < parameters + 3 or constant(mean[rows]) or constant(aim[rows]):
        return nan, nan, nan, False
    x, t = left_over(mean[rows], fixed[rows]), left_over(aim[rows], fixed[rows])
    if constant(x) or constant(t):
        return 0.0, nan, nan, True
    resampled = resampled_tau_b(x, t, drawn(weights, rows))
    low, high = tau_interval(x, t, resampled, options.confidence, parameters - 1)
    return tau_b(x, t), low, high, False
