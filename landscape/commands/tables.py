"""Tables of measures from files: a sweep's folder, CSV, Parquet or JSON lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_TABLE, _FACTS, _RECORDS = "table.csv", "sweep.json", "results.csv"
_STATUSES = ("ok", "not converged", "uncertain", "undefined", "declined", "failed")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_UNCONVERGED = ("not converged", "diverged", "failed")


@dataclass(frozen=True)
class Results:
    """A table of measures with what is known of how it came about.

    Args:
        frame: One row a model.
        facts: What ``sweep.json`` holds; empty for other tables.
        coverage: By measure and status the number of models; None where only values are known.
    """

    frame: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    coverage: dict[str, dict[str, int]] | None = None

    @property
    def measures(self) -> list[str] | None:
        """The measures of a sweep, radii and layers included; None for other tables.

        Numbers of parameters are left out: every report has them as a control.
        """
        from landscape.correlation.columns import PARAMETER_COUNTS

        if "measures" not in self.facts:
            return None
        names = [*self.facts["measures"], *self.facts.get("derived", {})]
        return [name for name in names if name in self.frame and name not in PARAMETER_COUNTS]


def read_results(path: Path) -> Results:
    """Reads a folder of ``landscape sweep`` or a table.

    Args:
        path: The folder, or a file: .csv, .tsv, .parquet, .jsonl or .ndjson.

    Returns:
        The table.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    if not path.exists():
        raise ValueError(f"there is no table at {path}; give a folder of landscape sweep or a file")
    if not path.is_dir():
        return Results(_named(_read(path), path))
    if not (path / _TABLE).is_file():
        raise ValueError(f"{path} holds no {_TABLE}; is it the --out folder of landscape sweep?")
    frame = _named(_read(path / _TABLE), path / _TABLE)
    facts = _facts(path / _FACTS)
    records = path / _RECORDS
    coverage = _coverage(_read(records), len(frame), facts) if records.is_file() else None
    return Results(frame, facts, coverage)


def check_target(frame: pd.DataFrame, target: str) -> None:
    """Refuses a target that is no column of numbers or has one value only.

    Args:
        frame: The table.
        target: Name of the column.

    Raises:
        ValueError: If it is missing, not numeric or constant.
    """
    import pandas as pd

    require(frame, target)
    values = pd.to_numeric(frame[target], errors="coerce")
    texts = frame[target][values.isna() & frame[target].notna()]
    if len(texts):
        raise ValueError(f"target {target!r} must be numeric, but holds {texts.iloc[0]!r}")
    if values.count() > 1 and values.nunique() == 1:
        raise ValueError(
            f"target {target!r} is {values.dropna().iloc[0]:g} in every model; a constant target "
            "ranks nothing"
        )


def require(frame: pd.DataFrame, name: str) -> None:
    """Refuses a name that is no column.

    Args:
        frame: The table.
        name: Name of the column.

    Raises:
        ValueError: If it is missing; names that are close are told.
    """
    if name in frame:
        return
    columns = list(map(str, frame.columns))
    whole = next((column for column in columns if "," in column and name in column), None)
    close = difflib.get_close_matches(name, columns, n=3, cutoff=0.5)
    hint = f"close: {', '.join(close)}" if close else f"there are {', '.join(columns[:12])}"
    if whole is not None:
        hint = f"commas separate names; quote one that holds a comma: '\"{whole}\"'"
    raise ValueError(f"the table has no column {name!r}; {hint}")


def dropped_columns(frame: pd.DataFrame, roles: set[str]) -> str:
    """A sentence on columns that a few texts keep from being measures; empty if there are none.

    Args:
        frame: The table.
        roles: Columns that are something else.

    Returns:
        Their names, each with the first text and how many there are.
    """
    from landscape.correlation.columns import mostly_numbers

    found = mostly_numbers(frame, roles)
    told = [
        f"{name} ({len(texts)} of {frame[name].count()} values are no numbers, the first "
        f"{texts.iloc[0]!r})"
        for name, texts in found.items()
    ]
    return f"Left out as measures: {'; '.join(told)}." if told else ""


def left_out(
    frame: pd.DataFrame, used: pd.Index[Any], target: str
) -> list[tuple[str, str]]:  # (model, reason)
    """Which rows of a table were not used, and why."""
    found = []
    for place in frame.index.difference(used):
        row = frame.loc[place]
        name = next((str(row[key]) for key in ("name", "checkpoint") if key in row), f"row {place}")
        status = str(row.get("status", "")).strip().lower()
        reason = f"training: {status}" if status in _UNCONVERGED else f"no finite {target}"
        message = row.get("message")
        told = f" ({message})" if isinstance(message, str) and message else ""
        found.append((name, reason + told))
    return found


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda file: _separated(file, ","),
        ".tsv": lambda file: _separated(file, "\t"),
        ".parquet": pd.read_parquet,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
    }
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must end in {', '.join(readers)}")
    try:
        return readers[path.suffix.lower()](path)
    except ImportError:
        raise ValueError("Parquet needs pyarrow; pip install pyarrow") from None
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _separated(path: Path, separator: str) -> pd.DataFrame:
    """A text table, whose header pandas would mend without a word."""
    import pandas as pd

    header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna()
    doubled = sorted(set(header[header.duplicated()]))
    if doubled:
        raise ValueError(f"it has several columns called {', '.join(doubled)}; rename them")
    other = next((mark for mark in _SEPARATORS if mark in header.iloc[0]), None)
    if len(header) == 1 and other is not None and other != separator:
        raise ValueError(
            f"its only column is {header.iloc[0]!r}; columns must be separated by "
            f"{_SEPARATORS[separator]} in {path.suffix}, and here seem to be by "
            f"{_SEPARATORS[other]}"
        )
    return pd.read_csv(path, sep=separator)


def _json_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} holds no object")
        rows.append(row)
    return pd.DataFrame(rows)


def _named(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not len(frame):
        raise ValueError(f"{path} holds no row")
    return frame.set_axis([str(name) for name in frame.columns], axis="columns").reset_index(
        drop=True
    )


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _coverage(
    records: pd.DataFrame, models: int, facts: dict[str, Any]
) -> dict[str, dict[str, int]] | None:
    """Statuses by measure; models without a record have no value."""
    if not {"measure", "status"} <= set(records):
        return None
    known = records[records["status"].isin(_STATUSES)]
    found: dict[str, dict[str, int]] = {str(name): {} for name in facts.get("measures", ())}
    for measure, status in zip(known["measure"], known["status"], strict=True):
        row = found.setdefault(str(measure), {})
        row[status] = row.get(status, 0) + 1
    for row in found.values():
        if missing := models - sum(row.values()):
            row["no value"] = max(missing, 0)
    return found
