"""What a sweep came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep came to.

    Args:
        folder: With table.csv, results.csv, sweep.json and the records.
        report: The content of sweep.json.
        measured: Measures computed now.
        seconds: Wall-clock time.
        busy: Seconds of all workers.
        measuring: Of these, spent in measures.
        interrupted: Whether Ctrl-C cut it short.
    """

    folder: Path
    report: Mapping[str, Any]
    measured: int
    seconds: float
    busy: float
    measuring: float
    interrupted: bool

    @property
    def failed(self) -> int:
        """Checkpoints and measures that failed."""
        counts = self.report["counts"]
        return int(counts["failed"] + counts["failed_measures"])
