"""The statistics along hyper-parameters as frames: granulated tau and sign-errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from landscape.correlation.averages import Averages
from landscape.correlation.bootstrap import widened
from landscape.correlation.cleaning import Population
from landscape.correlation.environments import environment_texts, pooled
from landscape.correlation.granulated import granulated, psi_errors
from landscape.correlation.kendall import Array
from landscape.correlation.options import EnvironmentKind, Options
from landscape.correlation.sign_error import sign_errors

PSI = ("measure", "axis", "psi", "low", "high", "cells")
SIGN = ("measure", "axis", "environment", "error", "weight", "effective_size")


@dataclass(frozen=True)
class SignErrors:
    """Sign-errors of all measures.

    Args:
        frame: One row a measure and environment; axis "all" holds all environments again.
        summary: Mean, 90th percentile and maximum, and the number of environments, by measure.
        environments: How many there are, of any size.
        kind: Of the environments.
        note: Why this kind, where it was chosen here.
    """

    frame: pd.DataFrame
    summary: pd.DataFrame
    environments: int
    kind: EnvironmentKind
    note: str = ""


def granulated_frames(
    population: Population,
    averaged: dict[str, Averages],
    options: Options,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Granulated tau by measure and axis, and over all axes.

    Args:
        population: Its hyper-parameters make the cells.
        averaged: The measures and their targets by configuration.
        options: Confidence.

    Returns:
        The long frame, and psi, psi_low, psi_high by measure.
    """
    names = list(averaged)
    columns = ["psi", "psi_low", "psi_high"]
    if not population.levels:
        return pd.DataFrame(columns=list(PSI)), pd.DataFrame(np.nan, index=names, columns=columns)
    values = np.stack([one.mean for one in averaged.values()], axis=1)
    aims = [one.aim for one in averaged.values()]
    shared = all(aim is aims[0] for aim in aims)
    target = aims[0] if shared else np.stack(aims, axis=1)
    axes = granulated(target, values, population.levels)
    rows: list[tuple[Any, ...]] = []
    for axis, found in axes.items():
        one = psi_errors({axis: found})
        low, high = _bounds(one, options.confidence)
        rows += zip(
            names, [axis] * len(names), one[0], low, high, found.cells.astype(int), strict=True
        )
    whole_psi = psi_errors(axes)
    low, high = _bounds(whole_psi, options.confidence)
    whole = pd.DataFrame(np.stack([whole_psi[0], low, high], axis=1), index=names, columns=columns)
    return pd.DataFrame(rows, columns=list(PSI)), whole


def _bounds(found: tuple[Array, Array, Array, Array], confidence: float) -> tuple[Array, Array]:
    """Student's t on Fisher's scale, reaching at least to the Poisson limit as for tau."""
    mean, error, units, pairs = found
    low, high = np.full((2, len(mean)), np.nan)
    for k in np.flatnonzero(np.isfinite(mean) & (units > 1)):
        near = np.clip(mean[k], -1 + 1 / units[k] ** 2, 1 - 1 / units[k] ** 2)
        half = stats.t.ppf((1 + confidence) / 2, units[k] - 1) * error[k] / (1 - near**2)
        ends = np.tanh(np.arctanh(near) + np.array([-half, half]))
        low[k], high[k] = widened(mean[k], (ends[0], ends[1]), pairs[k], confidence)
    return low, high


def sign_error_frames(
    population: Population, measures: dict[str, Array], options: Options, bounded: bool
) -> SignErrors:
    """Sign-errors by measure and environment, and their mean, 90th percentile and maximum.

    Args:
        population: Runs and configurations.
        measures: The measures by run.
        options: Test examples and least effective size.
        bounded: Whether the target is an accuracy, so that differences can be weighted.

    Returns:
        Frames of the environments that are large enough, and what was taken.
    """
    names = list(measures)
    columns = ["sign_error_mean", "sign_error_p90", "sign_error_max", "environments"]
    summary = pd.DataFrame(np.nan, index=names, columns=columns)
    summary["environments"] = 0
    if not population.levels:
        return SignErrors(pd.DataFrame(columns=list(SIGN)), summary, 0, options.environment)
    values = np.stack(list(measures.values()), axis=1)
    found = sign_errors(population, values, options.test_examples if bounded else None)
    texts = environment_texts(population, found)
    own = [index for index, name in enumerate(names) if name in population.measures]
    large = np.asarray(found.size[:, own].max(axis=1, initial=0.0) >= options.effective_size)
    kind, note = options.environment, ""
    if kind == "auto" and len(large):
        kind = "configurations" if 2 * large.sum() >= len(large) else "values"
        note = _note(int(large.sum()), len(large), kind, options.effective_size)
    if len(texts) and kind == "values":
        found, texts = pooled(population, found)
    parts = []
    for index, name in enumerate(names):
        kept = np.flatnonzero(found.size[:, index] >= options.effective_size)
        errors = found.error[kept, index]
        if len(kept):
            numbers = [errors.mean(), np.percentile(errors, 90), errors.max()]
            summary.loc[name, columns[:3]] = numbers
            summary.loc[name, "environments"] = len(kept)
        rows = pd.DataFrame(
            {
                "measure": name,
                "axis": found.axis[kept],
                "environment": texts[kept],
                "error": errors,
                "weight": found.weight[kept, index],
                "effective_size": found.size[kept, index],
            }
        )
        parts += [rows, rows.assign(axis="all")]
    frame = pd.concat(parts, ignore_index=True)
    return SignErrors(frame[list(SIGN)], summary, len(found.axis), kind, note)


def _note(large: int, count: int, kind: EnvironmentKind, least: float) -> str:
    taken = "they are the environments of the sign-error"
    if kind == "values":
        taken = (
            "less than half, so an environment of the sign-error is a change of one "
            "hyper-parameter at one value of another"
        )
    return (
        f"{large} of {count} pairs of configurations that differ in one hyper-parameter have an "
        f"effective size of {least:g} or more: {taken}."
    )
