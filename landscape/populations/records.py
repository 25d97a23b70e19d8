"""Records of a sweep on disk: what is known of a checkpoint without loading it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.measures import Measure
from landscape.populations.derived import Derived, derived_of
from landscape.results import Result, Status, Store, to_json, write_atomically
from landscape.results.result import finite

# Without which an index is of no use.
_PARTS = ("identity", "metrics")
_COSTLESS = (Status.DECLINED, Status.FAILED)
INDEX, FAILURE = "checkpoint.json", "failure.json"


@dataclass(frozen=True)
class Wanted:
    """A measure as its records are found: the values of ``Measure`` of these names."""

    name: str
    label: str
    config: dict[str, Any]

    @classmethod
    def of(cls, measure: Measure) -> Wanted:
        """Of a configured measure."""
        return cls(measure.name, measure.label, measure.config)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the records of a checkpoint say.

    Args:
        index: Identity, metrics and further facts; None where it was never loaded.
        failure: Why it cannot be measured; empty where it can.
        rows: Label to columns of results.csv.
        derived: Further columns of table.csv.
        missing: Labels without a record.
    """

    index: dict[str, Any] | None
    failure: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    derived: tuple[Derived, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to measure."""
        return bool(self.failure) or not self.missing

    @property
    def failed(self) -> int:
        """Number of measures that stopped with an error."""
        return sum(row["status"] == "failed" for row in self.rows.values())


class Records:
    """The records of a sweep: a folder a checkpoint.

    Args:
        folder: Of all of them.
        seed: Of the measures.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed

    def store(self, key: str) -> Store:
        """The results of a checkpoint."""
        return Store(self.folder / key)

    def write_index(self, key: str, index: dict[str, Any]) -> None:
        """Keeps what is known once a checkpoint is loaded."""
        write_atomically(self.folder / key / INDEX, to_json(finite(index)))

    def write_failure(self, key: str, message: str) -> None:
        """Keeps why a checkpoint cannot be measured."""
        write_atomically(self.folder / key / FAILURE, to_json({"message": message}))

    def forget_failures(self, key: str, wanted: Sequence[Wanted]) -> None:
        """Drops what failed, so that it is measured anew."""
        (self.folder / key / FAILURE).unlink(missing_ok=True)
        index = _read(self.folder / key / INDEX)
        if index is None or not isinstance(index.get("identity"), dict):
            return
        for measure in wanted:
            result, path = self._result(key, index, measure)
            if result is not None and result.status.value == "failed":
                path.unlink(missing_ok=True)

    def read(self, key: str, wanted: Sequence[Sequence[Wanted]]) -> Found:
        """What there is of a checkpoint; files that cannot be read count as not there.

        Args:
            key: Of the checkpoint.
            wanted: For each label the measures that may have it, which differ in their budget.

        Returns:
            Values and what is missing.
        """
        labels = tuple(several[0].label for several in wanted)
        failure = _read(self.folder / key / FAILURE)
        if failure is not None and isinstance(failure.get("message"), str):
            return Found(index=None, failure=failure["message"] or "failed", missing=labels)
        index = _read(self.folder / key / INDEX)
        if index is None or not all(isinstance(index.get(name), dict) for name in _PARTS):
            return Found(index=None, missing=labels)
        rows, derived, missing = {}, [], []
        for several in wanted:
            results = (self._result(key, index, measure)[0] for measure in several)
            result = next((entry for entry in results if entry is not None), None)
            if result is None:
                missing.append(several[0].label)
                continue
            rows[result.measure] = _row(result)
            derived += derived_of(result)
        return Found(index=index, rows=rows, derived=tuple(derived), missing=tuple(missing))

    def _result(
        self, key: str, index: dict[str, Any], measure: Wanted
    ) -> tuple[Result | None, Path]:
        own = Store.key(index["identity"], measure.label, measure.config, self.seed)
        store = self.store(key)
        return store.load(measure.name, own), store.folder / f"{measure.name}-{own}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _row(result: Result) -> dict[str, Any]:
    # What it takes to see that there is no number depends on what was measured before.
    cost = result.cost.to_dict() if result.status not in _COSTLESS else {}
    return {
        "value": result.value,
        "stderr": result.stderr,
        "low": result.interval[0],
        "high": result.interval[1],
        "status": result.status.value,
        "message": result.message,
        **cost,
        "seed": result.seed,
    }
