"""Workers as processes of this machine, or none: everything in this process."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, NoReturn

from tqdm import tqdm

from landscape.populations.engines.scheduling import Died, Ready
from landscape.populations.engines.work import JobT, OutcomeT, Work, Worker, settle

# Seconds between two looks whether the parent is still there.
_LOOK = 0.5


class Inline(Generic[JobT, OutcomeT]):
    """No worker but this process: for debugging, and where processes cannot be had.

    Args:
        work: What all jobs share.
        devices: The first one is taken.
    """

    workers = 1

    def __init__(self, work: Work[JobT, OutcomeT], devices: tuple[str, ...]) -> None:
        self._worker = Worker(work, devices[0], alone=False)
        self._jobs: list[JobT | None] = []

    def start(self, worker: int) -> None:  # noqa: ARG002
        """Nothing is to be started."""
        self._jobs.append(None)

    def submit(self, worker: int, job: JobT) -> None:  # noqa: ARG002
        """Takes a job."""
        self._jobs.append(job)

    def wait(self) -> list[tuple[int, Ready | Died | OutcomeT]]:
        """Does what was submitted."""
        jobs, self._jobs = self._jobs, []
        return [(0, Ready() if job is None else self._worker.do(job)) for job in jobs]

    def close(self) -> None:
        """Nothing is to be ended."""


class Processes(Generic[JobT, OutcomeT]):
    """Spawned processes, one a worker.

    Args:
        work: What all jobs share.
        devices: Handed out to the workers in turn.
        workers: How many.
    """

    def __init__(self, work: Work[JobT, OutcomeT], devices: tuple[str, ...], workers: int) -> None:
        self.workers = workers
        self._work = work
        self._devices = devices
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, worker: int) -> None:
        """Starts a process."""
        ours, theirs = self._context.Pipe()
        device = self._devices[worker % len(self._devices)]
        # Not a daemon: the user's data may have loaders with processes of their own.
        process = self._context.Process(
            target=_serve, args=(theirs, self._work, device, os.getpid()), daemon=False
        )
        with _deaf_to_interrupts():  # which is inherited; the parent ends its workers itself
            process.start()
        theirs.close()
        self._running[worker] = process, ours

    def submit(self, worker: int, job: JobT) -> None:
        """Sends a job."""
        with contextlib.suppress(OSError):  # a dead worker is found by ``wait``
            self._running[worker][1].send(job)

    def wait(self) -> list[tuple[int, Ready | Died | OutcomeT]]:
        """What workers say, and who has died."""
        by_handle: dict[Any, int] = {}
        for worker, (process, connection) in self._running.items():
            by_handle[connection] = by_handle[process.sentinel] = worker
        found = {by_handle[handle] for handle in wait(list(by_handle))}
        return [(worker, self._heard(worker)) for worker in sorted(found)]

    def _heard(self, worker: int) -> Ready | Died | OutcomeT:
        process, connection = self._running[worker]
        try:
            if connection.poll():
                event: Ready | OutcomeT = connection.recv()
                return event
        except (EOFError, OSError, pickle.UnpicklingError):
            pass
        _kill(process)
        process.join()
        connection.close()
        del self._running[worker]
        return Died(_reason(process.exitcode))

    def close(self) -> None:
        """Kills all processes; files are written atomically, so none is harmed."""
        running, self._running = self._running, {}
        for process, connection in running.values():
            _kill(process)
            connection.close()
        for process, _ in running.values():
            process.join()


def _kill(process: BaseProcess) -> None:
    """Ends a process, and what the user's code started in it."""
    if os.name == "posix" and process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # which may not yet have a group of its own


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, work: Work[Any, Any], device: str, parent: int) -> None:
    """The life of a worker."""
    if os.name == "posix":
        os.setsid()  # a group of its own, which ends as one
    if work.log is not None:
        _print_to(work.log)
    tqdm.set_lock(threading.RLock())  # instead of one between processes, which a kill would leak
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    settle(work.directory)
    bench = Worker(work, device)
    answer: Any = Ready()
    while True:
        try:
            connection.send(answer)
            job = connection.recv()
        except (EOFError, OSError):
            _end()
        answer = bench.do(job)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    _end()


def _end() -> NoReturn:
    """Ends this worker, and what the user's code has started in it."""
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _print_to(log: Path) -> None:
    """What is printed by this process and those that it starts goes to a file."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(line_buffering=True)  # a kill would lose the rest
