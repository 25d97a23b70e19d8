"""What is asked of a worker of a sweep, and what comes back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from landscape.measures import Measure
from landscape.populations.kinds import Kind
from landscape.tasks import Settings
from landscape.version import __version__


@dataclass(frozen=True, kw_only=True)
class Job:
    """One checkpoint to measure.

    Args:
        key: Content address of the checkpoint under the settings of the sweep.
        checkpoint: Its weights.
        initial: The weights before training.
        kind: Of what task.
    """

    key: str
    checkpoint: Path
    initial: Path | None
    kind: Kind

    @property
    def group(self) -> str:
        """A worker keeps model and data of a kind."""
        return self.kind.key


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all jobs of a sweep share.

    Args:
        folder: Of the records.
        measures: As ``landscape.audit`` takes them.
        seed: Of every measure.
        settings: How tasks are opened.
        threads: Of torch and the linear algebra in a worker.
    """

    folder: Path
    measures: str | tuple[str | Measure, ...]
    seed: int
    settings: Settings
    threads: int

    @property
    def device_type(self) -> str:
        """The device without its number."""
        return (self.settings.device or "cpu").partition(":")[0]

    def facts(self) -> dict[str, Any]:
        """What the numbers of a checkpoint depend on beside itself, JSON-able."""
        told = {
            entry.name: getattr(self.settings, entry.name)
            for entry in fields(self.settings)
            if entry.name not in {"initial", "device"}
        }
        told["dtype"] = str(told["dtype"]).removeprefix("torch.")
        return {**told, "device": self.device_type, "threads": self.threads}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Args:
        key: Of the job.
        measured: Measures that were computed now.
        failed: How many of all measures are failed.
        message: Why the checkpoint could not be measured at all; empty where it could.
        seconds: That the worker spent.
        measuring: Of these, spent in measures.
    """

    key: str
    measured: int = 0
    failed: int = 0
    message: str = ""
    seconds: float = 0.0
    measuring: float = 0.0


def job_key(checkpoint: str, initial: str, kind: Kind, facts: Mapping[str, Any]) -> str:
    """Content address of a checkpoint in a sweep.

    Args:
        checkpoint: Hash of its bytes.
        initial: Hash of the bytes of the weights before training, or empty.
        kind: Of what task.
        facts: Of the ``Setup``.

    Returns:
        The key, which does not depend on paths nor on which measures are asked for.
    """
    text = json.dumps([__version__, checkpoint, initial, kind.key, facts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
