"""What is asked of workers: benches at which jobs are done."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


class Job(Protocol):
    """One thing to do, sent to a worker by pickle."""

    @property
    def key(self) -> str:
        """Its name, which no other job has."""

    @property
    def group(self) -> str:
        """A worker goes on with jobs of the same group, whose model and data it may have kept."""


JobT = TypeVar("JobT", bound=Job)
OutcomeT = TypeVar("OutcomeT")
JobT_contra = TypeVar("JobT_contra", bound=Job, contravariant=True)
OutcomeT_co = TypeVar("OutcomeT_co", covariant=True)


class Bench(Protocol[JobT_contra, OutcomeT_co]):
    """Where a worker does its jobs, one by one."""

    def do(self, job: JobT_contra) -> OutcomeT_co:
        """Does a job; whatever goes wrong with it is part of the outcome, which is pickled."""


@dataclass(frozen=True, kw_only=True)
class Work(Generic[JobT, OutcomeT]):
    """What all jobs share; sent to every worker when it starts.

    Args:
        bench: Makes the bench of a worker on a device; a class or function at the top of a
            module, or a ``functools.partial`` of one.
        threads: Of torch and the linear algebra in a worker.
        directory: The working directory, from which modules and files are named.
        device: On which jobs are done; None is the CPU.
        log: File to which processes of this machine add what they print; None lets them print.
    """

    bench: Callable[[str | None], Bench[JobT, OutcomeT]]
    threads: int
    directory: Path
    device: str | None = None
    log: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether a worker needs a GPU."""
        return (self.device or "").startswith("cuda")


class Worker(Generic[JobT, OutcomeT]):
    """A bench, and the threads that it may take.

    Args:
        work: What all jobs share.
        device: Of this worker; None takes that of the work.
        alone: Whether the process is there for this worker only.
    """

    def __init__(
        self, work: Work[JobT, OutcomeT], device: str | None = None, *, alone: bool = True
    ) -> None:
        self._bench = work.bench(device or work.device)
        self._threads = work.threads
        self._alone, self._frozen = alone, False

    def do(self, job: JobT) -> OutcomeT:
        """Does a job.

        Args:
            job: Which.

        Returns:
            What the bench says.
        """
        with _few_threads(self._threads):
            outcome = self._bench.do(job)
        if self._alone:
            gc.collect()  # graphs of the last model hang together in circles
            if not self._frozen:  # what is imported by now stays, and need not be looked at again
                gc.freeze()
                self._frozen = True
        return outcome


@contextlib.contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def settle(directory: Path) -> None:
    """Makes a process a worker's.

    Args:
        directory: From which the user's code is named.
    """
    os.chdir(directory)
