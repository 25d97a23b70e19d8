"""Tables in files: comma-separated values, Parquet, lines of JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from landscape.tasks.data.column_examples import column_examples
from landscape.tasks.data.columns import FrameColumns
from landscape.tasks.data.examples import Examples, TensorExamples
from landscape.tasks.data.numbers import NumberExamples
from landscape.tasks.data.options import DataOptions

_NOT_AVAILABLE = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-nan", "null", "NULL", "None")


def read_table(path: Path, options: DataOptions) -> Examples:
    """The examples of a ``.csv``, ``.parquet`` or ``.jsonl`` file; numbers as tensors in memory.

    Args:
        path: The file.
        options: Which columns are what.

    Returns:
        The examples.

    Raises:
        ValueError: If the file cannot be read or its columns do not fit.
    """
    if options.split is not None:
        raise ValueError(f"{path} is one table without splits; leave out split")
    frame = _READERS[path.suffix.lower()](path)
    found = column_examples(FrameColumns(frame, str(path)), options)
    if isinstance(found, NumberExamples):
        return TensorExamples(found.batch(range(len(found))), found.facts, found.settled)
    return found


def _csv(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would be cut off with no more than this warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, index_col=False, low_memory=False, keep_default_na=False, na_values=[""]
            )
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty; it needs a header and rows") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error
    except pd.errors.ParserWarning as error:
        raise ValueError(f"{path} has rows with more fields than its header; mend them") from error
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path} is no regular table: {reason}; mend that line") from error
    return frame.apply(_gaps)


def _gaps(cells: pd.Series[Any]) -> pd.Series[Any]:
    """NA and its like are gaps among numbers; among words they are words, such as a class."""
    said = cells.isin(_NOT_AVAILABLE)
    if not said.any() or said.all():
        return cells
    try:
        return pd.to_numeric(cells.mask(said))
    except (ValueError, TypeError):
        return cells


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package pyarrow, which is not installed; pip install pyarrow"
        ) from error
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be read as Parquet ({reason}); it is truncated or of another format"
        ) from error


def _json_lines(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_json_object(line, number, path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error
    if not rows:
        raise ValueError(f"{path} is empty; it needs one JSON object a line")
    # Objects, so that whole numbers stay such beside missing ones and lists stay cells.
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})


def _json_object(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} of {path} is no JSON: {error}; mend it") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"line {number} of {path} holds a {type(found).__name__}, expected one object a line, "
            'such as {"text": "...", "label": 1}'
        )
    return found


_READERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines}
#: Suffixes of tables.
TABLE_SUFFIXES = tuple(_READERS)
