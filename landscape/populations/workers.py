"""Workers: of which engine, and how many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from landscape.populations.engines import Pool, Work
from landscape.populations.engines.work import JobT, OutcomeT

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where a sweep measures, or a population is trained.

    Args:
        engine: "local" for processes of this machine, "ray" for actors of a cluster.
        count: Workers; 0 works in this process; None takes one a GPU, or one for every
            ``threads`` CPUs.
        threads: Of each worker. Another number gives other last digits.
        address: Of a running Ray cluster, such as "auto"; None starts one on this machine.
    """

    engine: EngineName = "local"
    count: int | None = None
    threads: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in get_args(EngineName):
            raise ValueError(f"engine must be one of {get_args(EngineName)}, got {self.engine!r}")
        if self.count is not None:
            _check_whole("workers", self.count, least=0 if self.engine == "local" else 1)
        _check_whole("threads", self.threads, least=1)
        if self.address is not None and self.engine != "ray":
            raise ValueError("address belongs to engine ray")

    def check(self) -> None:
        """Looks whether the engine can be had.

        Raises:
            EngineError: If not.
        """
        if self.engine == "ray":
            from landscape.populations.engines.ray import (  # noqa: PLC0415 - optional
                check_cluster,
            )

            check_cluster(self.address)

    @contextmanager
    def pool(self, work: Work[JobT, OutcomeT], jobs: int) -> Iterator[Pool[JobT, OutcomeT]]:
        """The workers, ended with the block.

        Args:
            work: What all jobs share.
            jobs: How many there are, so that there are not more workers.

        Yields:
            The pool.
        """
        pool = self._pool(work, jobs)
        try:
            yield pool
        finally:
            pool.close()

    def _pool(self, work: Work[JobT, OutcomeT], jobs: int) -> Pool[JobT, OutcomeT]:
        if self.engine == "ray":
            from landscape.populations.engines.ray import Cluster  # noqa: PLC0415 - optional

            count = None if self.count is None else min(self.count, jobs)
            cpus = max(_cpus(), self.threads)
            return Cluster(work, count, address=self.address, local_cpus=cpus)
        from landscape.populations.engines.local import (  # noqa: PLC0415 - beside the other
            Inline,
            Processes,
        )

        devices = _devices(work.device)
        if self.count == 0:
            return Inline(work, devices)
        default = len(devices) if work.on_gpu else _cpus() // self.threads
        return Processes(work, devices, max(1, min(self.count or default, jobs)))


def _check_whole(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _devices(device: str | None) -> tuple[str, ...]:
    if device == "cuda" and torch.cuda.device_count() > 1:
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return (device or "cpu",)
