"""The files of a sweep that are derived from its records: results.csv, table.csv, sweep.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landscape.populations.records import Found, Records, Wanted
from landscape.results import to_json, write_atomically
from landscape.results.result import finite

PLAN = "plan.json"
#: Columns of results.csv after name and measure.
_COLUMNS = (
    "value",
    "stderr",
    "low",
    "high",
    "status",
    "message",
    "forwards",
    "gradients",
    "products",
    "seconds",
    "peak_memory",
    "seed",
)
_METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_GAPS = ("gap_loss", "gap_accuracy")
# What a manifest says of the training has the name of what a sweep says of the measuring.
_RENAMED = {"status": "training_status", "message": "training_message"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do; kept on disk, so that tables can be made of an interrupted one.

    Args:
        rows: Of the table: name, key of the checkpoint, why it is skipped, columns.
        measures: For each label the measures that may have it.
        seed: Of the measures.
        facts: For sweep.json.
    """

    rows: tuple[Mapping[str, Any], ...]
    measures: tuple[tuple[Wanted, ...], ...]
    seed: int
    facts: Mapping[str, Any]

    def write(self, folder: Path) -> None:
        """Keeps it in the folder of the sweep."""
        report = {
            "seed": self.seed,
            "measures": [
                [[entry.name, entry.label, entry.config] for entry in several]
                for several in self.measures
            ],
            "facts": dict(self.facts),
            "rows": [dict(row) for row in self.rows],
        }
        write_atomically(folder / PLAN, to_json(finite(report)))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Inverse of ``write``.

        Args:
            folder: Of the sweep.

        Returns:
            The plan.

        Raises:
            ValueError: If there is none.
        """
        try:
            report = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            return cls(
                rows=tuple(report["rows"]),
                measures=tuple(
                    tuple(Wanted(*entry) for entry in several) for several in report["measures"]
                ),
                seed=report["seed"],
                facts=report["facts"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} is no folder of a sweep: its {PLAN} cannot be read ({error})"
            ) from error


def write_tables(folder: Path, known: Mapping[str, Found] | None = None) -> dict[str, Any]:
    """Makes results.csv, table.csv and sweep.json of the records of a whole or partial sweep.

    Args:
        folder: Of the sweep.
        known: What was read before, by key; the rest is read here.

    Returns:
        The content of sweep.json.

    Raises:
        ValueError: If it is no folder of a sweep.
    """
    plan = Plan.read(folder)
    records, known = Records(folder / "records", plan.seed), dict(known or {})
    for row in plan.rows:
        if not row["skipped"] and row["key"] not in known:
            known[row["key"]] = records.read(row["key"], plan.measures)
    labels = [several[0].label for several in plan.measures]
    found = [None if row["skipped"] else known[row["key"]] for row in plan.rows]
    derived = {
        entry.column: entry.facts for one in found if one is not None for entry in one.derived
    }
    order = sorted(derived, key=lambda column: labels.index(derived[column]["measure"]))
    write_atomically(folder / "results.csv", _csv(_long(plan.rows, found, labels, plan.seed)))
    table = [_wide(row, one, labels, order) for row, one in zip(plan.rows, found, strict=True)]
    write_atomically(folder / "table.csv", _csv(pd.DataFrame(table)))
    report = finite(
        {
            **plan.facts,
            "seed": plan.seed,
            "measures": labels,
            "derived": {column: derived[column] for column in order},
            "test_examples": _test_examples(plan, found),
            "counts": _counts(table, found),
            "failures": _failures(plan.rows, found),
        }
    )
    write_atomically(folder / "sweep.json", to_json(report))
    return dict(report)


def _csv(frame: pd.DataFrame) -> str:
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _long(
    rows: Sequence[Mapping[str, Any]], found: Sequence[Found | None], labels: list[str], seed: int
) -> pd.DataFrame:
    entries = []
    for row, one in zip(rows, found, strict=True):
        if one is None:
            continue
        broken = {"status": "failed", "message": one.failure, "seed": seed}
        for label in labels:
            columns = broken if one.failure else one.rows.get(label)
            if columns is not None:
                entries.append({"name": row["name"], "measure": label, **columns})
    frame = pd.DataFrame(entries, columns=["name", "measure", *_COLUMNS])
    # Passes are shares of the data, summed in the order in which measures came.
    return frame.round(dict.fromkeys(("forwards", "gradients", "products"), 9))


def _wide(
    row: Mapping[str, Any], found: Found | None, labels: list[str], derived: list[str]
) -> dict[str, Any]:
    given = {
        _RENAMED.get(name, name): value
        for name, value in row["columns"].items()
        if name not in {*_METRICS, *_GAPS}
    }
    status, message = _status(row, found)
    metrics = _metrics(found)
    values = {} if found is None else {label: own["value"] for label, own in found.rows.items()}
    further = {} if found is None else {entry.column: entry.value for entry in found.derived}
    return {
        "name": row["name"],
        **given,
        **metrics,
        "status": status,
        "message": message,
        **{label: values.get(label, math.nan) for label in labels},
        **{column: further.get(column, math.nan) for column in derived},
    }


def _status(row: Mapping[str, Any], found: Found | None) -> tuple[str, str]:
    if found is None:
        return "skipped", row["skipped"]
    if found.failure:
        return "failed", found.failure
    if found.missing:
        return "unfinished", f"{len(found.missing)} measures are left to do"
    told = [
        f"{label}: {own['message']}"
        for label, own in found.rows.items()
        if own["status"] == "failed"
    ]
    return "measured", "; ".join(told)


def _metrics(found: Found | None) -> dict[str, float]:
    """What the sweep measured on training and test data, and the gaps between them."""
    known = {} if found is None or found.index is None else found.index["metrics"]
    metrics = dict.fromkeys((*_METRICS, *_GAPS), math.nan)
    metrics |= {name: math.nan if value is None else value for name, value in known.items()}
    metrics["gap_loss"] = metrics["test_loss"] - metrics["train_loss"]
    metrics["gap_accuracy"] = metrics["train_accuracy"] - metrics["test_accuracy"]
    return metrics


def _test_examples(plan: Plan, found: Sequence[Found | None]) -> int | None:
    """Number of test examples, where it is known and the same for all."""
    told = {one.index.get("test_examples") for one in found if one is not None and one.index}
    return plan.facts.get("test_examples") or (told.pop() if len(told) == 1 else None)


def _counts(table: list[dict[str, Any]], found: Sequence[Found | None]) -> dict[str, int]:
    states = [row["status"] for row in table]
    counts = {name: states.count(name) for name in ("measured", "failed", "skipped", "unfinished")}
    return {
        "checkpoints": len(table),
        **counts,
        "failed_measures": sum(one.failed for one in found if one is not None),
    }


def _failures(
    rows: Sequence[Mapping[str, Any]], found: Sequence[Found | None]
) -> list[dict[str, Any]]:
    failures = []
    for row, one in zip(rows, found, strict=True):
        if one is None:
            continue
        if one.failure:
            failures.append({"name": row["name"], "measure": None, "message": one.failure})
        failures += [
            {"name": row["name"], "measure": label, "message": own["message"]}
            for label, own in one.rows.items()
            if own["status"] == "failed"
        ]
    return failures
