"""Sweep: many measures on many checkpoints, in several processes, again and again until done."""

from __future__ import annotations

import functools
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from landscape.measures import Measure, resolve
from landscape.populations.bench import Bench
from landscape.populations.engines import Lost, Work, outcomes
from landscape.populations.inputs import Rows, rows_of
from landscape.populations.jobs import Job, Outcome, Setup, job_key
from landscape.populations.kinds import Kind, file_hash
from landscape.populations.records import Found, Records, Wanted
from landscape.populations.swept import Swept
from landscape.populations.tables import Plan, write_tables
from landscape.populations.workers import Workers
from landscape.results import environment
from landscape.tasks import Settings
from landscape.tasks.kept import Kept

# Presets spend less on models of more parameters than this; labels are the same.
_ANY_SIZES = (0, 1 << 62)

logger = logging.getLogger(__name__)


class Sweep:
    """A sweep that is ready to run; making one writes nothing.

    Args:
        rows: What it goes over.
        measures: As ``landscape.audit`` takes them.
        out: Folder of the results; what it holds already is not measured again.
        settings: How tasks are opened; ``products="auto"`` becomes "loop".
        seed: Of every measure.
        workers: Where to compute.
        retry_failed: Measure again what failed before.

    Raises:
        ValueError: If measures are unknown, or the first task that is needed cannot be used.
    """

    def __init__(
        self,
        rows: Rows,
        measures: str | Sequence[str | Measure],
        out: Path | str,
        *,
        settings: Settings | None = None,
        seed: int = 0,
        workers: Workers | None = None,
        retry_failed: bool = False,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {seed}")
        self.rows, self.out, self.workers = rows, Path(out), workers or Workers()
        asked = measures if isinstance(measures, str) else tuple(measures)
        several = [resolve(measures, size) for size in _ANY_SIZES]
        self.measures = tuple(
            tuple({repr(one.config): Wanted.of(one) for one in same}.values())
            for same in zip(*several, strict=True)
        )
        settings = _steady(settings or Settings())
        self.setup = Setup(
            folder=(self.out / "records").resolve(),
            measures=asked,
            seed=seed,
            settings=replace(settings, initial=None),
            threads=self.workers.threads,
        )
        self._records = Records(self.setup.folder, seed)
        self._retry = retry_failed
        self._keys, jobs = self._addressed()
        self.found = {job.key: self._records.read(job.key, self.measures) for job in jobs}
        self.todo = [job for job in jobs if not self._done(self.found[job.key])]
        if self.todo:
            self._check(self.todo[0].kind)

    def _addressed(self) -> tuple[list[str], list[Job]]:
        """Keys of all rows, and one job a key."""
        facts, hashes = self.setup.facts(), _Hashes()
        keys, jobs = [], {}
        for row in self.rows.rows:
            if row.skipped or row.checkpoint is None:
                keys.append("")
                continue
            key = job_key(hashes[row.checkpoint], hashes[row.initial], row.kind, facts)
            keys.append(key)
            if key not in jobs:
                jobs[key] = Job(
                    key=key, checkpoint=row.checkpoint, initial=row.initial, kind=row.kind
                )
        return keys, list(jobs.values())

    def _done(self, found: Found) -> bool:
        return found.finished and not (self._retry and (found.failure or found.failed))

    def _check(self, kind: Kind) -> None:
        """Makes a task and reads its data, so that what is wrong with all of them is said first."""
        settings = self.setup.settings
        task = kind.task()
        settings.objective_of(task)
        Kept(task).batches_of(
            task.train,
            samples=settings.samples,
            data_seed=settings.data_seed,
            batch_size=settings.batch_size,
        )

    @property
    def skipped(self) -> int:
        """Rows that are not measured."""
        return sum(bool(row.skipped) for row in self.rows.rows)

    def __str__(self) -> str:
        total = len(self.rows.rows) - self.skipped
        told = f"{len(self.todo)} of {total} checkpoints to do, {len(self.measures)} measures each"
        return told + (f"; {self.skipped} skipped" if self.skipped else "")

    def run(self, *, progress: bool = False) -> Swept:
        """Measures what is left to do, and makes the tables.

        Args:
            progress: Show a progress bar on a terminal.

        Returns:
            What came of it.

        Raises:
            EngineError: If workers cannot be had.
        """
        start = time.perf_counter()
        self._plan().write(self.out)
        known = {key: found for key, found in self.found.items() if self._done(found)}
        if self._retry:
            for job in self.todo:
                self._records.forget_failures(job.key, [m for some in self.measures for m in some])
        ended, interrupted = [], False
        try:
            for outcome in self._outcomes(progress=progress):
                ended.append(outcome)  # noqa: PERF402 - kept one by one, for Ctrl-C
        except KeyboardInterrupt:
            interrupted = True
        self._tidy()
        return Swept(
            folder=self.out,
            report=write_tables(self.out, known),
            measured=sum(outcome.measured for outcome in ended),
            seconds=time.perf_counter() - start,
            busy=sum(outcome.seconds for outcome in ended),
            measuring=sum(outcome.measuring for outcome in ended),
            interrupted=interrupted,
        )

    def _outcomes(self, *, progress: bool) -> Iterator[Outcome]:
        if not self.todo:
            return
        total = len(self.found)
        work = Work(
            bench=functools.partial(Bench, self.setup),
            threads=self.setup.threads,
            directory=Path.cwd(),
            device=self.setup.settings.device,
        )
        with (
            self.workers.pool(work, len(self.todo)) as pool,
            tqdm(
                total=total,
                initial=total - len(self.todo),
                unit="checkpoint",
                desc="sweep",
                disable=None if progress else True,
                leave=False,
            ) as bar,
        ):
            for job, outcome in outcomes(pool, self.todo):
                bar.update()
                if isinstance(outcome, Lost):  # a worker that died could not keep it itself
                    self._records.write_failure(job.key, outcome.message)
                    yield Outcome(key=job.key, message=outcome.message)
                else:
                    yield outcome

    def _plan(self) -> Plan:
        settings = {
            name: value if isinstance(value, bool | int | float | None) else str(value)
            for name, value in self.setup.facts().items()
        }
        facts = {
            "command": shlex.join(sys.argv),
            "engine": self.workers.engine,
            "settings": settings,
            "versions": environment(),
            "test_examples": self.rows.facts.get("test_examples"),
            "population": dict(self.rows.facts),
        }
        rows = tuple(
            {
                "name": row.name,
                "key": key,
                "skipped": row.skipped,
                "columns": {name: value for name, value in row.columns.items() if name != "name"},
            }
            for row, key in zip(self.rows.rows, self._keys, strict=True)
        )
        return Plan(rows=rows, measures=self.measures, seed=self.setup.seed, facts=facts)

    def _tidy(self) -> None:
        """Removes halves of files that killed workers left."""
        for job in self.todo:
            for half in (self.setup.folder / job.key).glob(".*"):
                half.unlink(missing_ok=True)


def _steady(settings: Settings) -> Settings:
    """Settings under which no timing decides how products are computed, nor thus the last bits.

    The loop is taken, since it works for every model; on one thread neither way was clearly faster
    for small nets.

    Returns:
        The settings; a way of computing that was asked for stays.
    """
    return replace(settings, products="loop") if settings.products == "auto" else settings


class _Hashes(dict[Path | None, str]):
    """Hashes of files, each computed once; a file that is not there has its path's."""

    def __missing__(self, path: Path | None) -> str:
        try:
            self[path] = "" if path is None else file_hash(path)
        except OSError:
            self[path] = f"no file {path}"
        return self[path]


def sweep(  # noqa: PLR0913 - settings, each with a default
    source: str | Path | Sequence[str | Path],
    measures: str | Sequence[str | Measure] = "standard",
    out: str | Path = "landscape-sweep",
    *,
    task: str | Kind | None = None,
    arguments: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    workers: Workers | None = None,
    everything: bool = False,
    retry_failed: bool = False,
    progress: bool = False,
) -> Swept:
    """Measures many checkpoints; run again, it goes on where it was stopped.

    Every (checkpoint, measure) is a record of its own, written when it is known and found again by
    content. The same numbers come out for any number of workers, in any order, after any
    interruption.

    Args:
        source: A manifest (its folder or manifest.csv), or checkpoints: a file, a pattern, a
            folder, or several of these.
        measures: As ``landscape.audit`` takes them.
        out: Folder of the results.
        task: Of checkpoints that are given as files: "digits", ``file.py:name``,
            ``package.module:name`` or a ``Kind``.
        arguments: Of the task's function.
        settings: How tasks are opened; the initial weights come from the manifest if there is one.
        seed: Of every measure.
        workers: Where to compute.
        everything: Also measure models of a manifest that did not converge.
        retry_failed: Measure again what failed before.
        progress: Show a progress bar on a terminal.

    Returns:
        What came of it; the numbers are in ``table.csv`` and ``results.csv`` of the folder.

    Raises:
        EngineError: If workers cannot be had.
        UnknownMeasureError: If a measure is unknown.
        ValueError: If there is nothing to measure, or the input is wrong otherwise.
    """
    initial = None if settings is None else settings.initial
    rows = rows_of(source, task, arguments, initial=initial, everything=everything)
    ready = Sweep(
        rows,
        measures,
        out,
        settings=settings,
        seed=seed,
        workers=workers,
        retry_failed=retry_failed,
    )
    return ready.run(progress=progress)
