"""Columns of a table, whatever it was read from, and their values as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Columns(Protocol):
    """Named columns of equal length."""

    where: str  # named in errors
    names: tuple[str, ...]

    def __len__(self) -> int:
        """How many rows there are."""

    def take(self, name: str, rows: Sequence[int]) -> Any:
        """The values of a column in the given rows, an array or a list."""

    def classes(self, name: str) -> tuple[str, ...] | None:
        """The names of the classes that a column's integers stand for, where they are known."""

    def is_image(self, name: str) -> bool:
        """Whether a column holds images."""


class FrameColumns:
    """The columns of a pandas frame.

    Args:
        frame: The table.
        where: Named in errors.
    """

    def __init__(self, frame: pd.DataFrame, where: str) -> None:
        self.where = where
        self.names = tuple(str(name) for name in frame.columns)
        self._frame = frame.set_axis(list(self.names), axis="columns")

    def __len__(self) -> int:
        return len(self._frame)

    def take(self, name: str, rows: Sequence[int]) -> Any:
        """The values of a column in the given rows."""
        if rows == range(len(self)):
            return self._frame[name].to_numpy()
        return self._frame[name].iloc[list(rows)].to_numpy()

    def classes(self, name: str) -> tuple[str, ...] | None:  # noqa: ARG002
        """Not known."""
        return None

    def is_image(self, name: str) -> bool:  # noqa: ARG002
        """Never."""
        return False


def column(columns: Columns, given: str | None, usual: Iterable[str], role: str) -> str:
    """Name of the column for a role.

    Args:
        columns: Where it is looked for.
        given: The name that was asked for.
        usual: Names that are tried otherwise.
        role: "target" or "text", the option that names it.

    Returns:
        The name.

    Raises:
        ValueError: If there is no such column.
    """
    if given is not None:
        check_names(columns, [given])
        return given
    for name in usual:
        if name in columns.names:
            return name
    raise ValueError(
        f"{columns.where} has no column named {' or '.join(usual)}; name the one for the {role} "
        f"with {role}, of {', '.join(columns.names)}"
    )


def check_names(columns: Columns, names: Iterable[str]) -> None:
    """Refuses names of columns that are not there.

    Args:
        columns: Where they should be.
        names: The names.

    Raises:
        ValueError: If one is missing; it lists those there are.
    """
    missing = [name for name in names if name not in columns.names]
    if missing:
        raise ValueError(
            f"{columns.where} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(columns.names)}"
        )


def refuse_missing(values: Any, rows: Sequence[int], label: str) -> None:
    """Refuses values that are not there or are not finite.

    Args:
        values: One a row.
        rows: Their numbers, from 0.
        label: Names the column in the error.

    Raises:
        ValueError: If one is missing; it names the first row, counted from 1.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufc":
        bad = np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(1))
        place = int(bad[0, 0]) if len(bad) else None
    else:
        place = next((at for at, value in enumerate(values) if _is_missing(value)), None)
    if place is not None:
        raise ValueError(
            f"{label} has a missing or infinite value in row {rows[place] + 1}; fill it in or "
            "drop the row"
        )


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, float | np.floating) and not np.isfinite(value)


def as_array(values: Any, rows: Sequence[int], label: str) -> np.ndarray[Any, Any]:
    """The values of a column as one array, (N, ...); text stays text.

    Args:
        values: One a row: numbers, text, or equally long lists of such.
        rows: Their numbers, from 0.
        label: Names the column in errors.

    Returns:
        An array of numbers or of text.

    Raises:
        ValueError: If a value is missing or rows are of different lengths.
    """
    refuse_missing(values, rows, label)
    if not isinstance(values, np.ndarray) or values.dtype == object:
        cells = [as_cell(value) for value in values]
        first = np.shape(cells[0])
        for row, cell in zip(rows, cells, strict=True):
            if cell is None or np.shape(cell) != first:
                raise ValueError(
                    f"{label} has lists of different lengths, see row {row + 1}; make them "
                    "equally long"
                )
        values = np.asarray(cells)
        if values.dtype == object:
            gaps = [any(map(_is_missing, np.ravel(cell))) for cell in values]
            refuse_missing([None if gap else 0 for gap in gaps], rows, label)
        else:
            refuse_missing(values, rows, label)
    array: np.ndarray[Any, Any] = values
    return array


def as_cell(value: Any) -> Any:
    """A scalar as it is, a list as an array; None if its inner lists differ in length."""
    try:
        return value if np.isscalar(value) else _nested(value)
    except ValueError:
        return None


def _nested(value: Any) -> Any:
    # Nested lists come from Parquet as arrays of arrays.
    array = np.asarray(value)
    if array.dtype == object and array.ndim and all(isinstance(part, np.ndarray) for part in array):
        return np.stack([_nested(part) for part in array])
    return array


def is_text(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array holds anything but numbers."""
    return array.dtype.kind not in "biuf"
