"""The columns of a table by their roles: found by name, checked, read as numbers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]

PREFIX = "hp."
SEEDS = ("hp.seed", "seed")
GIVEN = ("train_loss",)
#: Columns that describe a model's training and never count as a measure by default.
METRICS = frozenset(
    f"{part}_{kind}" for part in ("train", "test", "gap") for kind in ("loss", "accuracy")
) | {"epochs", "gradients", "seconds"}
#: Names of the controls begin so.
RESERVED = "control: "
PARAMETER_COUNTS = ("parameters", "parameter_count", "parameter-count", "num_parameters")
_TAKEN = METRICS | set(PARAMETER_COUNTS) | set(SEEDS)


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """A view of the table whose columns are text and all different."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame must be a pandas DataFrame, got {type(frame).__name__}")
    table = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    doubled = sorted(set(table.columns[table.columns.duplicated()]))
    if doubled:
        raise ValueError(f"the table has several columns called {', '.join(doubled)}; rename them")
    return table


def require(table: pd.DataFrame, name: str) -> None:
    """Refuses a name that is no column, with names that are close."""
    if name not in table:
        close = difflib.get_close_matches(str(name), table.columns, n=3, cutoff=0.5)
        known = close or list(table.columns)[:12]
        hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}."
        raise ValueError(f"the table has no column {name!r}; {hint}")


def hyperparameter_columns(
    table: pd.DataFrame, names: Sequence[str] | None, seeds: str | None
) -> list[str]:
    """Columns that make a configuration: those named, or ``hp.*``, without the seed."""
    if isinstance(names, str):
        raise TypeError(f"hyperparameters must be a list of columns, got {names!r}")
    if names is None:
        names = [name for name in table.columns if name.startswith(PREFIX)]
    return [name for name in dict.fromkeys(names) if name != seeds]


def given_columns(
    table: pd.DataFrame, names: Sequence[str], target: str
) -> tuple[tuple[str, ...], list[str]]:
    """Columns that partial tau is given, and a note where the default one is not there."""
    if isinstance(names, str):
        raise TypeError(f"given must be a list of columns, got {names!r}")
    names = tuple(dict.fromkeys(names))
    if names == GIVEN and (GIVEN[0] not in table or target == GIVEN[0]):
        reason = "is the target" if target == GIVEN[0] else "is no column of the table"
        return (), [f"No partial tau: {GIVEN[0]} {reason}."]
    return names, []


def countable(column: pd.Series[Any]) -> bool:
    """Whether a column is of real numbers."""
    kinds = pd.api.types
    return kinds.is_numeric_dtype(column) and not kinds.is_complex_dtype(column)


def measure_columns(table: pd.DataFrame, names: Sequence[str] | None, roles: set[str]) -> list[str]:
    """Columns that are correlated: those named, or all numeric ones without another role."""
    if isinstance(names, str):
        raise TypeError(f"measures must be a list of columns, got {names!r}")
    if names is None:
        taken = roles | _TAKEN
        names = [
            name
            for name in table.columns
            if name not in taken and not name.startswith(PREFIX) and countable(table[name])
        ]
    if not names:
        reasons = [
            f"; {name!r} holds {texts.iloc[0]!r}"
            for name, texts in mostly_numbers(table, roles).items()
        ]
        raise ValueError(
            f"the table has no numeric column left that could be a measure{''.join(reasons)}"
        )
    return list(dict.fromkeys(names))


def check_roles(target: str, axes: list[str], names: list[str], given: Sequence[str]) -> None:
    """Refuses columns of two roles; a given column may also be a hyper-parameter."""
    for role, columns in (("hyper-parameter", axes), ("measure", names), ("given column", given)):
        if target in columns:
            raise ValueError(f"the target {target!r} cannot also be a {role}")
    reserved = next((name for name in names if name.startswith(RESERVED)), None)
    if reserved is not None:
        raise ValueError(f"{reserved!r} is the name of a control; rename this measure")
    both = sorted(set(axes) & set(names))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both hyper-parameter and measure")


def not_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """The values that are there and are no numbers."""
    texts = column[[isinstance(value, str) for value in column]].astype(object)
    return texts[pd.to_numeric(texts, errors="coerce").isna()]


def mostly_numbers(table: pd.DataFrame, roles: set[str]) -> dict[str, pd.Series[Any]]:
    """Columns without a role that would be measures but for less than half of their values."""
    found = {}
    for name in table.columns:
        if name in roles | _TAKEN or name.startswith(PREFIX):
            continue
        texts = not_numbers(table[name])
        if 0 < 2 * len(texts) < table[name].count():
            found[name] = texts
    return found


def numeric(table: pd.DataFrame, name: str) -> Array:
    """A column as numbers, NaN where it is missing or infinite."""
    column = table[name]
    if column.dtype.kind in "cmM":  # complex numbers, durations, dates
        raise ValueError(f"column {name!r} must hold real numbers, but is of type {column.dtype}")
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        texts = not_numbers(column)
        shown = f" such as {texts.iloc[0]!r}" if len(texts) else ""
        raise ValueError(f"column {name!r} must be numeric, but holds values{shown}") from None
    return np.where(np.isfinite(values), values, np.nan)
