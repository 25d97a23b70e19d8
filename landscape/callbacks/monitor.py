"""The monitor: measures of a model in training, every so many steps."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from landscape.auditing import each_result
from landscape.callbacks.exporters import Exporter
from landscape.callbacks.row import COLUMNS, Row
from landscape.callbacks.row_file import RowFile
from landscape.callbacks.training_state import rate_and_edge, untouched
from landscape.measures import Measure, resolve
from landscape.probing import Objective, Probe, as_objective
from landscape.probing.batches import Batches
from landscape.results import Cost, Estimate, Result, Status

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class Monitor:
    """Measures a model while it is trained, and keeps the numbers in a table.

    Training goes on as if there were no monitor, bit for bit: what is measured is a copy of the
    model, and all random states are put back. A measure that fails, a file that cannot be written
    and an exporter that raises do not stop the training either; each is logged once, and a failed
    measure is a row with its message. In distributed training only rank 0 measures.

    Rows are told apart by step and measure. Training that is resumed at step s keeps the rows up
    to s, measures none of them again, and takes out those of later steps; training that begins at
    step 0 or 1 is a new run. A copy of what is taken out stays beside the file (``.old``).

    Args:
        objective: As `landscape.Probe` takes it.
        batches: Held-out data or a fixed part of the training data, as `landscape.Probe` takes it.
        measures: "quick", "standard" or "full", a name, or a list of names and Measures.
        every: Steps between measurements; "epoch" leaves it to the ends of epochs (in a plain
            loop, call ``measure`` there).
        seed: Seed of every measure.
        out: CSV file to which each number is appended when it is known; None keeps them in memory.
        exporters: Where else the numbers go, such as `TensorBoardExporter`.
        **probe_settings: Further settings of `landscape.Probe`.

    Raises:
        ValueError: If a measure or setting is unknown, or ``out`` is a file of other columns.
        TypeError: If the batches cannot be walked many times.

    Example:
        >>> import torch, landscape
        >>> from landscape.callbacks import Monitor
        >>> model = torch.nn.Linear(4, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> monitor = Monitor("cross_entropy", batches, ["gradient-norm"], every=10)
        >>> for step in range(20):
        ...     rows = monitor.step(model, step)  # after the optimiser's step
        >>> monitor.frame.step.tolist()
        [0, 10]
    """

    def __init__(
        self,
        objective: str | Objective | Callable[[nn.Module, Any], Any],
        batches: Iterable[Any],
        measures: str | Sequence[str | Measure] = "quick",
        *,
        every: int | Literal["epoch"] = 100,
        seed: int = 0,
        out: str | Path | None = None,
        exporters: Sequence[Exporter] = (),
        **probe_settings: Any,
    ) -> None:
        self.every = _checked(every)
        if seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {seed}")
        known = set(inspect.signature(Probe).parameters) - {"model", "objective", "batches"}
        if unknown := sorted(set(probe_settings) - known):
            raise ValueError(
                f"Monitor has no setting {', '.join(unknown)}; those of the probe are "
                f"{', '.join(sorted(known))}"
            )
        Batches(batches, torch.device("cpu"), torch.float32)  # refuses what cannot be walked twice
        self._objective = as_objective(objective)
        self._batches = batches
        self._measures = resolve(measures)
        self._seed = seed
        self._settings = probe_settings
        self._exporters = list(exporters)
        self._file = RowFile(None if out is None else Path(out))
        self._latest: int | None = None  # step of the last call
        self._told: set[str] = set()

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order in which they were measured."""
        return list(self._file.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """All rows as a pandas table, NaN where something is unknown."""
        import pandas as pd  # noqa: PLC0415 - half a second that a bare import need not pay

        kinds = {entry.name: str(entry.type) for entry in fields(Row)}
        return pd.DataFrame([asdict(row) for row in self.rows], columns=list(COLUMNS)).astype(kinds)

    def begin(self, step: int) -> None:
        """Tells at which step training begins or goes on; the first ``step`` does so by itself.

        Args:
            step: Optimiser steps done.
        """
        if _leads():
            self._latest = int(step)
            self._attempt("file", self._file.begin, int(step))

    def step(
        self, model: nn.Module, step: int, *, optimizer: Any = None, epoch: float | None = None
    ) -> list[Row]:
        """Measures if the step is a multiple of ``every``; to be called after each step.

        Args:
            model: The model in training; wrappers of DDP and torch.compile are taken off.
            step: Optimiser steps, counted on over epochs.
            optimizer: Whose learning rate is noted; an optimiser or a list of them.
            epoch: Noted.

        Returns:
            The new rows.
        """
        if self._latest is None:
            self.begin(step)
        if self.every == "epoch" or int(step) % self.every:
            return []
        return self.measure(model, step, optimizer=optimizer, epoch=epoch)

    def measure(
        self, model: nn.Module, step: int, *, optimizer: Any = None, epoch: float | None = None
    ) -> list[Row]:
        """Measures now, except what is known of this step already.

        Args:
            model: The model in training; wrappers of DDP and torch.compile are taken off.
            step: Optimiser steps, counted on over epochs.
            optimizer: Whose learning rate is noted; an optimiser or a list of them.
            epoch: Noted.

        Returns:
            The new rows.

        Raises:
            TypeError: If the model is no module.
        """
        if not _leads():
            return []
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        step = int(step)
        if self._latest is None:
            self.begin(step)
        self._note(step)
        known = {row.measure for row in self._file.rows if row.step == step}
        wanted = [measure for measure in self._measures if measure.label not in known]
        if not wanted:
            return []
        rows: list[Row] = []
        rate, edge = rate_and_edge(optimizer)
        when = math.nan if epoch is None else float(epoch)
        with untouched(self._batches):
            for result in self._results(model, wanted):
                row = Row.of(result, step=step, epoch=when, learning_rate=rate, edge=edge)
                rows.append(row)
                self._attempt("file", self._file.add, row)
            for exporter in self._exporters:
                self._attempt(type(exporter).__name__, exporter.export, step, rows)
        self._tell_failures(rows)
        return rows

    def _results(self, model: nn.Module, measures: list[Measure]) -> Iterator[Result]:
        done = 0
        try:
            probe = Probe(model, self._objective, self._batches, **self._settings)
            for result in each_result(probe, measures, self._seed):
                done += 1
                yield result
            probe.release()
        except Exception as error:  # noqa: BLE001 - training goes on; the rows say what happened
            estimate = Estimate.without_value(Status.FAILED, f"{type(error).__name__}: {error}")
            for measure in measures[done:]:
                yield Result(measure=measure.label, estimate=estimate, cost=Cost())

    def _note(self, step: int) -> None:
        if self._latest is not None and step < self._latest:
            self._once(
                "steps",
                f"the step went back from {self._latest} to {step}, and steps that are in the "
                "table are not measured again; count steps on over epochs, and call "
                "begin(step) where another run begins",
            )
        self._latest = step

    def _attempt(self, what: str, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - training goes on
            self._once(what, f"{what} of the monitor: {type(error).__name__}: {error}")

    def _tell_failures(self, rows: list[Row]) -> None:
        failed = [row for row in rows if row.status == Status.FAILED.value]
        for message in dict.fromkeys(row.message for row in failed):
            names = ", ".join(row.measure for row in failed if row.message == message)
            self._once(names, f"{names} failed at step {rows[0].step}: {message}")

    def _once(self, topic: str, message: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            logger.warning("%s (said once)", message)


def _leads() -> bool:
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return not running or distributed.get_rank() == 0


def _checked(every: Any) -> int | Literal["epoch"]:
    if every == "epoch":
        return "epoch"
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ValueError(f'every must be a positive number of steps or "epoch", got {every!r}')
    return every
