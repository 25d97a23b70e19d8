"""The folder of a training: recipe, metrics, weights, and what is needed to go on."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from landscape.results import write_atomically


class RunFolder:
    """Files of one training; a kill at any time leaves each of them whole.

    ``recipe.yaml``; ``metrics.csv``, a row an epoch; ``initial.pt`` and ``epochK.pt``, weights;
    ``last.pt``, weights, optimiser and everything else, of the last epoch that was finished.

    Args:
        path: The folder; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def state(self, run: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an earlier call saved; None where there is nothing.

        Args:
            run: What decides the course of the training, by name.

        Returns:
            The content of ``last.pt``.

        Raises:
            ValueError: If it is of another training, or cannot be read.
        """
        if self.path is None or not (last := self.path / "last.pt").exists():
            return None
        advice = "give another folder, or move this one away"
        try:
            state: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True)
            before = state["run"]
        except Exception as error:
            raise ValueError(f"{last} cannot be read as a training to go on with; {advice}") from (
                error
            )
        names = [*run, *(name for name in before if name not in run)]
        for name in names:
            if run.get(name) != before.get(name):
                raise ValueError(
                    f"{self.path} holds a training with {name} {before.get(name)!r}, not "
                    f"{run.get(name)!r}; {advice}"
                )
        return state

    def begin(self, run: Mapping[str, Any]) -> None:
        """Writes ``recipe.yaml``."""
        if self.path is not None:
            write_atomically(self.path / "recipe.yaml", yaml.safe_dump(dict(run), sort_keys=False))

    def weights(self, name: str, state: Mapping[str, Any]) -> None:
        """Writes weights under a name without ending."""
        if self.path is not None:
            _save(self.path / f"{name}.pt", {"model": dict(state)})

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes ``metrics.csv`` and ``last.pt``."""
        if self.path is not None:
            write_atomically(self.path / "metrics.csv", _table(state["history"]))
            _save(self.path / "last.pt", dict(state))


def _save(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            torch.save(content, stream)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # torch cannot close a file that was cut short
        raise


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
