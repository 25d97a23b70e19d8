"""Which worker does which job, and what happens when a worker dies."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from landscape.populations.engines.work import JobT, JobT_contra, OutcomeT, OutcomeT_co

#: A job of which so many workers died is given up.
DEATHS = 3

logger = logging.getLogger(__name__)


class EngineError(ConnectionError):
    """No worker can be had."""


@dataclass(frozen=True)
class Ready:
    """A worker has started."""


@dataclass(frozen=True)
class Died:
    """A worker is gone.

    Args:
        reason: In words.
    """

    reason: str


@dataclass(frozen=True)
class Lost:
    """A job is given up, since workers die of it.

    Args:
        message: In a sentence.
    """

    message: str


class Pool(Protocol[JobT_contra, OutcomeT_co]):
    """Workers by number. A worker is started, says that it is ready, and takes a job at a time."""

    @property
    def workers(self) -> int:
        """How many."""

    def start(self, worker: int) -> None:
        """Starts one, or one in the place of a dead one."""

    def submit(self, worker: int, job: JobT_contra) -> None:
        """Gives a ready worker a job."""

    def wait(self) -> Iterable[tuple[int, Ready | Died | OutcomeT_co]]:
        """Waits until something happens: a worker is ready, or dead, or has done its job."""

    def close(self) -> None:
        """Ends all workers at once."""


class Queue(Generic[JobT]):
    """Jobs by group, so that a worker goes on with the model and data that it has.

    Args:
        jobs: All of them.
    """

    def __init__(self, jobs: Sequence[JobT]) -> None:
        self._groups: dict[str, deque[JobT]] = {}
        for job in jobs:
            self._groups.setdefault(job.group, deque()).append(job)
        self._last: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def put_back(self, job: JobT) -> None:
        """A job whose worker died."""
        self._groups.setdefault(job.group, deque()).append(job)

    def take(self, worker: int) -> JobT:
        """The next job of the worker's group, or of the largest, if possible no other's."""
        group = self._last.get(worker)
        if group not in self._groups:
            others = {last for other, last in self._last.items() if other != worker}
            group = max(self._groups, key=lambda key: (key not in others, len(self._groups[key])))
        self._last[worker] = group
        job = self._groups[group].popleft()
        if not self._groups[group]:
            del self._groups[group]
        return job


def outcomes(
    pool: Pool[JobT, OutcomeT], jobs: Sequence[JobT]
) -> Iterator[tuple[JobT, OutcomeT | Lost]]:
    """Has all jobs done.

    Args:
        pool: The workers.
        jobs: What to do.

    Yields:
        Each job and how it ended, as it ends.

    Raises:
        EngineError: If workers die before they can begin.
    """
    schedule = _Schedule(pool, jobs)
    while schedule.open:
        for worker, event in pool.wait():
            job = schedule.held(worker)
            if isinstance(event, Died):
                lost = schedule.died(worker, event.reason)
                if job is not None and lost is not None:
                    yield job, lost
                continue
            schedule.free(worker)
            if job is not None and not isinstance(event, Ready):
                yield job, event
        schedule.hand_out()


class _Schedule(Generic[JobT, OutcomeT]):
    """Who does what."""

    def __init__(self, pool: Pool[JobT, OutcomeT], jobs: Sequence[JobT]) -> None:
        self._pool = pool
        self._queue = Queue(jobs)
        self._held: dict[int, JobT] = {}
        self._idle: set[int] = set()
        self._deaths = Counter[str]()
        self._stillborn = 0
        for worker in range(min(pool.workers, len(jobs))):
            pool.start(worker)

    @property
    def open(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._queue or self._held)

    def held(self, worker: int) -> JobT | None:
        """The job that a worker is at."""
        return self._held.get(worker)

    def free(self, worker: int) -> None:
        """A worker can take a job."""
        self._stillborn = 0
        self._held.pop(worker, None)
        self._idle.add(worker)

    def died(self, worker: int, reason: str) -> Lost | None:
        """A worker is gone; how its job ended, if that is given up."""
        logger.debug("worker %d died: %s", worker, reason)
        self._idle.discard(worker)
        job, given_up = self._held.pop(worker, None), None
        if job is None:
            self._stillborn += 1
            if self._stillborn >= DEATHS:
                raise EngineError(_stillborn(reason))
        else:
            self._deaths[job.key] += 1
            if self._deaths[job.key] < DEATHS:
                self._queue.put_back(job)
            else:
                given_up = Lost(_given_up(reason))
        if self._queue:
            self._pool.start(worker)
        return given_up

    def hand_out(self) -> None:
        """Jobs for all who have none."""
        while self._queue and self._idle:
            worker = min(self._idle)
            self._idle.discard(worker)
            self._held[worker] = self._queue.take(worker)
            self._pool.submit(worker, self._held[worker])


def _stillborn(reason: str) -> str:
    return (
        f"workers end before they can begin: {reason}; a script that starts them needs "
        'if __name__ == "__main__":'
    )


def _given_up(reason: str) -> str:
    return (
        f"{DEATHS} workers died of it, the last: {reason}; with too little memory fewer workers "
        "or a smaller batch size help"
    )
