"""What to mind: sentences on the population and on single measures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from landscape.correlation.along_axes import SignErrors
from landscape.correlation.averages import Averages
from landscape.correlation.cleaning import Population
from landscape.correlation.kendall import DENSE, Array, complete, constant
from landscape.correlation.mutual_information import MOST_GROUPS, Conditions
from landscape.correlation.options import Options

FEW = 10


def bounded(target: str, values: Array) -> bool:
    """Whether the target is an accuracy, or a difference of two, by its name and range."""
    named = any(word in target.lower() for word in ("acc", "error"))
    return named and bool(np.abs(values).max() <= 1)


def measure_note(
    name: str, row: pd.Series[float], one: Averages, functions: dict[str, list[str]]
) -> str:
    """Why something of one measure is not defined, and what is missing.

    Args:
        name: The measure.
        row: Its row of the table.
        one: Its values and the target's by configuration.
        functions: By measure, the given columns that determine it.

    Returns:
        Sentences, or "".
    """
    mean, aim = one.mean, one.aim
    rows = complete(mean, aim)
    notes = []
    if row["missing"]:
        notes.append(f"{int(row['missing'])} models have no finite value.")
    if rows.sum() < 2:
        notes.append("Fewer than two configurations have a value.")
    elif constant(mean[rows]):
        notes.append("The measure is constant: rank correlations are not defined.")
    elif constant(aim[rows]):
        notes.append("The target is constant: rank correlations are not defined.")
    elif abs(row["tau"]) == 1:
        notes.append(
            "All pairs are in one order: the interval is the Poisson limit of no pair against it."
        )
    notes += [
        f"Given {column}, nothing is left of measure or target: partial tau is set to 0."
        for column in functions.get(name, [])
    ]
    return " ".join(notes)


def population_notes(  # noqa: PLR0917 - what there is to say something about
    target: str,
    population: Population,
    table: pd.DataFrame,
    conditions: Conditions,
    options: Options,
    errors: SignErrors,
) -> tuple[str, ...]:
    """What to mind about the whole table.

    Args:
        target: The column correlated with.
        population: What was used.
        table: One row a measure.
        conditions: Of the mutual information.
        options: The settings.
        errors: The sign-errors.

    Returns:
        Sentences.
    """
    count = population.configurations
    notes = [*population.notes, _sample_size(count, options)]
    if count < FEW:
        notes.append(f"Fewer than {FEW} configurations: intervals are no more than a hint.")
    missing = int(table.loc[~table["control"], "missing"].gt(0).sum())
    if missing:
        notes.append(
            f"{missing} measures lack values for some models; each is compared with the target "
            "over those that have it."
        )
    undefined = int(table.loc[~table["control"], "tau"].isna().sum())
    if undefined:
        notes.append(f"{undefined} measures have no rank correlation; their notes say why.")
    tested = int(table["p"].where(~table["control"]).count())
    if (
        options.strata
        and count > DENSE
        and tested > (1 - options.confidence) * options.permutations
    ):
        notes.append(
            f"{options.permutations} permutations within strata are too few for {tested} measures: "
            "p_holm cannot fall below the level; raise permutations."
        )
    if not population.levels:
        return tuple(notes)
    notes += _along_axes(table, options, errors)
    if options.test_examples is not None and not bounded(target, population.target):
        notes.append(f"{target} is no accuracy: pairs of the sign-error all weigh 1.")
    if conditions.left_out:
        sets = "; ".join(", ".join(names) for names in conditions.left_out)
        notes.append(
            f"The mutual information is not conditioned on sets of more than {MOST_GROUPS} "
            f"combinations: {sets}."
        )
    return tuple(notes)


def _along_axes(table: pd.DataFrame, options: Options, errors: SignErrors) -> list[str]:
    notes = [errors.note] if errors.note else []
    if table["psi"].isna().all():
        notes.append("No two configurations differ in one hyper-parameter alone: Psi is undefined.")
    if errors.environments and not table["environments"].any():
        notes.append(
            f"No environment has an effective size of {options.effective_size:g}: the sign-error "
            "needs more seeds a configuration."
        )
    return notes


def _sample_size(count: int, options: Options) -> str:
    """The least |tau| that a test of independence tells from 0: its variance is known."""
    nothing = f"{count} configurations: no tau can be told from 0."
    if count < 10 and 2 / math.factorial(count) > 1 - options.confidence:
        return nothing  # of all orders, two have |tau| = 1
    variance = 2 * (2 * count + 5) / (9 * count * (count - 1))
    least = stats.norm.ppf((1 + options.confidence) / 2) * np.sqrt(variance)
    if least >= 1:
        return nothing
    return (
        f"{count} configurations: |tau| of about {least:.2f} or more can be told from 0 "
        f"(two-sided, level {1 - options.confidence:.2g}, one measure)."
    )
