"""The manifest of a population: which models there are, and how their training went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from landscape.results import to_json, write_atomically

TABLE, FACTS = "manifest.csv", "manifest.json"
STATUSES = ("converged", "not converged", "diverged", "failed")

_TEXTS = ("name", "checkpoint", "initial", "task", "arguments", "status", "message")
_NUMBERS = (
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "gap_loss",
    "gap_accuracy",
    "epochs",
    "gradients",
    "seconds",
)
_PREFIX = "hp."


def write_manifest(folder: Path, rows: pd.DataFrame, facts: Mapping[str, Any]) -> None:
    """Writes ``manifest.csv`` and ``manifest.json``, each whole or not at all.

    Args:
        folder: Where.
        rows: A row a model.
        facts: Design, versions and whatever else is common to all models.
    """
    write_atomically(folder / TABLE, rows.to_csv(index=False, lineterminator="\n"))
    write_atomically(folder / FACTS, to_json(dict(facts)))


def read_manifest(path: Path | str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and facts of a population.

    Args:
        path: Its folder, or the ``manifest.csv`` in it.

    Returns:
        The rows, with "" for texts and NaN for numbers that are not there; and the content of
        ``manifest.json``, empty where there is none.

    Raises:
        ValueError: If there is no manifest, or it lacks what a manifest has.
    """
    path = Path(path)
    table = path / TABLE if path.is_dir() else path
    if not table.is_file():
        unfinished = (table.parent / FACTS).is_file()
        advice = "; its training is not finished, run it again to go on" if unfinished else ""
        raise ValueError(f"there is no manifest {table}{advice}")
    try:
        rows = pd.read_csv(table, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False,
                           na_values={name: [""] for name in _NUMBERS})  # fmt: skip
    except (OSError, ValueError) as error:
        raise ValueError(f"{table} cannot be read as a table: {error}") from error
    _check(table, rows)
    facts_file = table.parent / FACTS
    try:
        facts = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.exists() else {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{facts_file} cannot be read: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{facts_file} must hold facts by name, got {type(facts).__name__}")
    return rows, facts


def _check(table: Path, rows: pd.DataFrame) -> None:
    if missing := [name for name in (*_TEXTS, *_NUMBERS) if name not in rows]:
        raise ValueError(f"{table} has no column {', '.join(missing)}; a manifest has them all")
    if not any(str(name).startswith(_PREFIX) for name in rows):
        raise ValueError(f"{table} has no hyper-parameter: a column named {_PREFIX}NAME")
    if rows.empty:
        raise ValueError(f"{table} has no models")
    for name in _NUMBERS:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            wrong = rows[name][pd.to_numeric(rows[name], errors="coerce").isna()].dropna()
            raise ValueError(f"{table}: column {name} must hold numbers, got {wrong.iloc[0]!r}")
    twice = rows["name"][rows["name"].duplicated()]
    if len(twice):
        raise ValueError(f"{table} has the name {twice.iloc[0]!r} twice")
    wrong_status = rows["status"][~rows["status"].isin(STATUSES)]
    if len(wrong_status):
        raise ValueError(
            f"{table} has status {wrong_status.iloc[0]!r}; there are {', '.join(STATUSES)}"
        )
    for text in rows["arguments"].unique():
        _check_arguments(table, text)


def _check_arguments(table: Path, text: str) -> None:
    try:
        good = isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{table}: arguments must be a JSON object, got {text!r}")
