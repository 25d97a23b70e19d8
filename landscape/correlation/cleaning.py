"""From any table to a population: checked columns, used rows, configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscape.correlation.columns import (
    PARAMETER_COUNTS,
    SEEDS,
    check_roles,
    countable,
    given_columns,
    hyperparameter_columns,
    measure_columns,
    named,
    numeric,
    require,
)
from landscape.correlation.levels import configurations, level_codes
from landscape.correlation.options import Options
from landscape.correlation.rounding import finite, joined, scale

Array = NDArray[np.float64]

UNCONVERGED = ("not converged", "diverged", "failed")


@dataclass(frozen=True)
class Population:
    """The used rows of a table, and its configurations (rows that differ in the seed alone).

    Nothing here depends on the order of the rows of the table: runs are sorted by configuration,
    seed, target and measures. Values that differ by rounding alone are equal.

    Args:
        frame: The used rows with their own index: target, hyper-parameters, given columns and
            measures, with infinite values as NaN.
        target: Target of every run, shape (runs,).
        measures: Names and values of every run, NaN where missing; (runs,) each.
        given: The same for the columns that partial tau is given.
        configuration: Number of the configuration of every run, (runs,).
        levels: Number of the value of every hyper-parameter, (configurations,) each.
        labels: The values of every hyper-parameter as text, by that number.
        notes: What was left out, as sentences.
    """

    frame: pd.DataFrame
    target: Array
    measures: dict[str, Array]
    given: dict[str, Array]
    configuration: NDArray[np.int64]
    levels: dict[str, NDArray[np.int64]]
    labels: dict[str, list[str]]
    notes: tuple[str, ...] = field(default=())

    @property
    def configurations(self) -> int:
        """How many configurations there are."""
        return int(self.configuration.max()) + 1

    def means(self, values: Array) -> Array:  # (runs,) -> (configurations,)
        """Mean over the runs of every configuration that have a value; NaN where none has."""
        known = np.isfinite(values)
        size = self.configurations
        total = np.bincount(self.configuration[known], values[known], size)
        count = np.bincount(self.configuration[known], minlength=size)
        means = np.full(size, np.nan)
        np.divide(total, count, out=means, where=count > 0)
        return means


def clean(
    frame: pd.DataFrame,
    target: str,
    hyperparameters: Sequence[str] | None,
    measures: Sequence[str] | None,
    given: Sequence[str],
    *,
    seeds: str | None,
    options: Options,
) -> Population:
    """Checks the columns and drops the rows that cannot be used.

    Args:
        frame: One row a model; never changed.
        target: Column to correlate with.
        hyperparameters: Columns that make a configuration; None takes ``hp.*`` but the seed.
        measures: Columns to correlate; None takes all numeric ones that have no other role.
        given: Columns that partial tau is given.
        seeds: Column that tells repetitions of a configuration apart.
        options: Settings; ``keep_unconverged`` is used here.

    Returns:
        The population.

    Raises:
        ValueError: Where a column is missing, doubled, of two roles or not numeric, or fewer
            than two rows remain.
    """
    table, notes = named(frame), []
    if seeds is None:
        seeds = next((name for name in SEEDS if name in table and name != target), None)
    axes = hyperparameter_columns(table, hyperparameters, seeds)
    given, skipped = given_columns(table, given, target)
    notes += skipped
    roles = {target, *axes, *given} | ({seeds} if seeds else set())
    names = measure_columns(table, measures, roles)
    for name in (target, *axes, *names, *given, *([seeds] if seeds else [])):
        require(table, name)
    check_roles(target, axes, names, given)
    numbers = {name: numeric(table, name) for name in dict.fromkeys((target, *names, *given))}
    used, dropped = _rows(table, target, numbers[target], options)
    notes += dropped
    if not axes:
        notes.append("No hyper-parameters are known: every row counts as its own configuration.")
    rows = np.flatnonzero(used)
    columns = dict.fromkeys((target, *axes, *([seeds] if seeds else []), *given, *names))
    extra = [n for n in PARAMETER_COUNTS if n not in columns and n in table and countable(table[n])]
    part = table.iloc[rows][[*columns, *extra]].copy()
    for name, values in numbers.items():
        part[name] = values[rows]
    part, rows = part.iloc[order := _order(part, axes, seeds, target)], rows[order]
    levels, labels, configuration = configurations(part, axes)
    near = {name: finite(values[rows]) for name, values in numbers.items()}
    return Population(
        frame=part,
        target=joined(near[target], scale(near[target])),
        measures={name: joined(near[name]) for name in names},
        given={name: joined(near[name], scale(near[name])) for name in given},
        configuration=configuration,
        levels=levels,
        labels=labels,
        notes=tuple(notes),
    )


def _rows(
    table: pd.DataFrame, target: str, values: Array, options: Options
) -> tuple[NDArray[np.bool_], list[str]]:
    notes = []
    used = np.ones(len(table), dtype=bool)
    if "status" in table and target != "status" and not options.keep_unconverged:
        status = table["status"].astype(str).str.strip().str.lower()
        bad = status.isin(UNCONVERGED).to_numpy()
        if bad.any():
            notes.append(f"{int(bad.sum())} of {len(table)} models did not converge: left out.")
        used &= ~bad
    missing = used & ~np.isfinite(values)
    if missing.any():
        notes.append(f"{int(missing.sum())} models have no finite {target}: left out.")
    used &= ~missing
    if used.sum() < 2:
        raise ValueError(
            f"a rank correlation needs two models or more with a finite {target}; "
            f"{int(used.sum())} of {len(table)} rows can be used"
        )
    return used, notes


def _order(
    part: pd.DataFrame, axes: list[str], seeds: str | None, target: str
) -> NDArray[np.int64]:
    """Rows by configuration, seed, target and then all other numbers."""
    keys: list[NDArray[Any]] = [configurations(part, axes)[2]] if axes else []
    keys += [level_codes(part[seeds])[0]] if seeds else []
    rest = [name for name in part.columns if name not in {*axes, seeds, target}]
    keys += [numeric(part, name) for name in (target, *rest)]
    order: NDArray[np.int64] = np.lexsort(keys[::-1])
    return order
