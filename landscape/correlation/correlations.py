"""The result of ``landscape.correlate``: frames, notes and a paragraph on the methods."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

FRAMES = ("table", "granulated", "sign_errors", "between", "differences", "frame")


@dataclass(frozen=True)
class Correlations:
    """Rank correlations of measures with a target. Positive: a larger measure, a larger target.

    Args:
        table: One row a measure, controls last: tau with its interval, p-values, Spearman,
            granulated tau, CMI score, sign-errors, partial tau, and a note.
        granulated: One row a measure and hyper-parameter: psi, its interval, the number of cells.
        sign_errors: One row a measure and environment; axis "all" holds all environments again.
        between: tau-b between measures.
        differences: One row a pair of measures: tau_first - tau_second, its interval and p-value;
            ``strength`` is |tau_first| - |tau_second|.
        frame: The rows that were used.
        target: The column that was correlated with.
        hyperparameters: The columns that make a configuration.
        settings: Options, columns and counts.
        notes: What to mind, as sentences.
        methods: A paragraph that says what was computed and how.
    """

    table: pd.DataFrame
    granulated: pd.DataFrame
    sign_errors: pd.DataFrame
    between: pd.DataFrame
    differences: pd.DataFrame
    frame: pd.DataFrame
    target: str
    hyperparameters: tuple[str, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]
    methods: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form: NaN as None, frames by columns, repeated texts stored once."""
        return {
            field.name: _frame_to_dict(getattr(self, field.name))
            if field.name in FRAMES
            else _plain(getattr(self, field.name))
            for field in fields(self)
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Correlations:
        """Inverse of ``to_dict``."""
        values: dict[str, Any] = {
            name: _frame_from_dict(value) if name in FRAMES else value
            for name, value in record.items()
        }
        for name in ("hyperparameters", "notes"):
            values[name] = tuple(values[name])
        return cls(**values)


def _frame_to_dict(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "index": _column_to_dict(frame.index.to_series()),
        "index_name": frame.index.name,
        "columns": {str(name): _column_to_dict(frame[name]) for name in frame.columns},
    }


def _column_to_dict(column: pd.Series[Any]) -> dict[str, Any]:
    dtype = str(column.dtype)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return {"dtype": dtype, "values": _plain(column.tolist())}
    codes, values = pd.factorize(column)  # missing: -1
    plain = [_plain(value) for value in values]
    return {"dtype": "object", "values": plain, "codes": codes.tolist()}


def _column_from_dict(record: dict[str, Any]) -> pd.Series[Any]:
    if "codes" in record:
        values = [record["values"][code] if code >= 0 else None for code in record["codes"]]
        return pd.Series(values, dtype="object")
    values = [np.nan if value is None else value for value in record["values"]]
    return pd.Series(values, dtype=record["dtype"])


def _frame_from_dict(record: dict[str, Any]) -> pd.DataFrame:
    index = pd.Index(_column_from_dict(record["index"]), name=record["index_name"])
    columns = {name: _column_from_dict(column) for name, column in record["columns"].items()}
    return pd.DataFrame({n: column.to_numpy() for n, column in columns.items()}, index=index)


def _plain(value: Any) -> Any:
    """Python's own types; NaN and infinity as None, anything else as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
