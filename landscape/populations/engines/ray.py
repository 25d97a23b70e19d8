"""Workers as actors of a Ray cluster: of a running one, or of one that is started here."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any, Generic

from landscape.populations.engines.scheduling import Died, EngineError, Ready
from landscape.populations.engines.work import JobT, OutcomeT, Work, Worker, settle

# Ray reads them when it is imported: it reports to nobody, and leaves devices as they are.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
_PATIENCE = 10  # seconds
_STORE = 100 << 20  # bytes; only small messages are sent


def imported_ray() -> Any:
    """The library.

    Returns:
        The module.

    Raises:
        EngineError: If it is not installed.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 - optional, and seconds to import
    except ImportError as error:
        raise EngineError(
            "engine ray needs the package ray, which is not installed; pip install "
            "'landscape-toolkit[ray]'"
        ) from error
    return ray


def check_cluster(address: str | None) -> None:
    """Looks whether there is a Ray, and something at an address; ray itself tries for minutes.

    Args:
        address: Of a running cluster; only those of the form host:port can be looked at.

    Raises:
        EngineError: If not.
    """
    imported_ray()
    host, _, port = (address or "").rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise EngineError(f"no Ray cluster can be reached at {address}: {error}") from error


class _Actor:
    """A worker in a process of the cluster."""

    def __init__(self, work: Work[Any, Any]) -> None:
        settle(work.directory)
        self._worker = Worker(work)

    def ready(self) -> Ready:
        return Ready()

    def do(self, job: Any) -> Any:
        return self._worker.do(job)


class Cluster(Generic[JobT, OutcomeT]):
    """Actors, one a worker; the cluster is asked for CPUs, and for a GPU where one is used.

    Args:
        work: What all jobs share. All nodes must see its folders under the same paths.
        workers: How many; None takes as many as the cluster has room for.
        address: Of a running cluster, such as "auto"; None starts one on this machine.
        local_cpus: CPUs of one that is started here.

    Raises:
        EngineError: If ray is not installed, the cluster cannot be reached, or it has no room.
    """

    def __init__(
        self,
        work: Work[JobT, OutcomeT],
        workers: int | None,
        *,
        address: str | None,
        local_cpus: int,
    ) -> None:
        self._ray = ray = imported_ray()
        self._work = work
        self._needs = {
            "num_cpus": work.threads,
            "num_gpus": int(work.on_gpu),
        }
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address, max(local_cpus, work.threads * (workers or 1)))
        room = _room(ray.cluster_resources(), self._needs)
        if room < 1:
            self.close()
            raise EngineError(
                f"the Ray cluster has no room for a worker with {self._needs['num_cpus']} CPUs "
                f"and {self._needs['num_gpus']} GPUs"
            )
        self.workers = workers or room
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet = {
            "log_to_driver": False,
            "logging_level": logging.CRITICAL,
            "configure_logging": True,
        }
        local = {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": _STORE,
            "_node_ip_address": "127.0.0.1",
        }
        try:
            if address is None:
                self._ray.init(address="local", **local, **quiet)
            else:
                self._ray.init(address=address, **quiet)
        except Exception as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            where = "started" if address is None else f"reached at {address}"
            raise EngineError(f"no Ray cluster can be {where}: {told[0]}") from error

    def start(self, worker: int) -> None:
        """Asks for an actor; it is ready once the cluster has room for it."""
        made = self._ray.remote(**self._needs, max_restarts=0, max_task_retries=0)(_Actor)
        actor = made.remote(self._work)
        self._actors[worker] = actor
        self._pending[actor.ready.remote()] = worker

    def submit(self, worker: int, job: JobT) -> None:
        """Sends a job."""
        self._pending[self._actors[worker].do.remote(job)] = worker

    def wait(self) -> list[tuple[int, Ready | Died | OutcomeT]]:
        """What actors say, and which have died with their process or node."""
        done, _ = self._ray.wait(list(self._pending), num_returns=1)
        return [(self._pending.pop(reference), self._heard(reference)) for reference in done]

    def _heard(self, reference: Any) -> Ready | Died | OutcomeT:
        try:
            event: Ready | OutcomeT = self._ray.get(reference)
        except Exception as error:  # noqa: BLE001 - whatever a lost node or actor looks like
            lines = str(error).strip().splitlines() or [""]
            return Died(f"{type(error).__name__}: {lines[0]}")
        return event

    def close(self) -> None:
        """Ends the actors, and the connection or cluster if it was made here."""
        for actor in getattr(self, "_actors", {}).values():
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        if self._ours:
            self._ray.shutdown()


def _room(resources: dict[str, float], needs: dict[str, int]) -> int:
    wanted = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
    return min(
        (int(resources.get(name, 0) // count) for name, count in wanted.items() if count),
        default=1,
    )
