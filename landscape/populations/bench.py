"""The bench of a worker: checkpoint after checkpoint is put on it and measured."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import replace

from landscape.auditing import each_result
from landscape.measures import Measure, resolve
from landscape.populations.jobs import Job, Outcome, Setup
from landscape.populations.records import Records
from landscape.results import Status, Store, Table
from landscape.tasks import Opened, Task, importable, is_own, open_task, told
from landscape.tasks.kept import Kept

# Kinds whose model and data stay in memory.
_KINDS = 2

logger = logging.getLogger(__name__)


class Bench:
    """Measures checkpoints one by one; model and data of their kind stay between them.

    Args:
        setup: What all jobs share.
        device: Where this bench computes; None takes that of the setup.
    """

    def __init__(self, setup: Setup, device: str | None = None) -> None:
        self._setup = setup
        self._settings = replace(setup.settings, device=device or setup.settings.device)
        self._records = Records(setup.folder, setup.seed)
        self._kept: OrderedDict[str, tuple[Task, Kept]] = OrderedDict()

    def do(self, job: Job) -> Outcome:
        """Measures what is missing of a checkpoint; each record is written as it is known.

        Args:
            job: Which.

        Returns:
            How it went. A checkpoint that cannot be loaded is a failure on record.
        """
        start = time.perf_counter()
        try:
            outcome = self._measured(job)
        except (Exception, SystemExit) as error:
            logger.debug("%s failed", job.checkpoint, exc_info=True)
            message = str(error) if _ours(error) else told(error)
            message = " ".join(message.split())
            self._records.write_failure(job.key, message)
            outcome = Outcome(key=job.key, message=message)
        return replace(outcome, seconds=time.perf_counter() - start)

    def _measured(self, job: Job) -> Outcome:
        opened = self._open(job)
        probe, store = opened.probe, self._records.store(job.key)
        test = None if opened.test is None else opened.test.examples
        self._records.write_index(
            job.key,
            {
                "identity": probe.identity(),
                "metrics": opened.metrics(),
                "size": probe.size,
                "test_examples": test,
                "checkpoint": str(job.checkpoint),
                "notes": list(opened.notes),
            },
        )
        measures = resolve(self._asked(), probe.size)
        identity, seed = probe.identity(), self._setup.seed
        keys = [Store.key(identity, one.label, one.config, seed) for one in measures]
        there = {
            key
            for one, key in zip(measures, keys, strict=True)
            if store.load(one.name, key) is not None
        }
        new, failed = [], 0
        results = each_result(probe, measures, seed, store=store)
        for measure, key, result in zip(measures, keys, results, strict=True):
            if result.status is Status.FAILED:
                store.save(measure.name, key, result)  # which an audit does not keep
                failed += 1
            if key not in there:
                new.append(result)
        spent = Table(new).cost.seconds
        return Outcome(key=job.key, measured=len(new), failed=failed, measuring=spent)

    def _asked(self) -> str | list[str | Measure]:
        asked = self._setup.measures
        return asked if isinstance(asked, str) else list(asked)

    def _open(self, job: Job) -> Opened:
        key = job.kind.key
        with importable(job.kind.folders):
            if key not in self._kept:
                task = job.kind.task()
                self._kept[key] = task, Kept(task)
                while len(self._kept) > _KINDS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            task, kept = self._kept[key]
            settings = replace(self._settings, initial=job.initial)
            return open_task(task, job.checkpoint, settings, kept=kept)


def _ours(error: BaseException) -> bool:
    return is_own(error) and isinstance(error, ValueError | TypeError | OSError)
