"""Engines: where workers run, which know nothing of what they do."""

from landscape.populations.engines.scheduling import (
    Died,
    EngineError,
    Lost,
    Pool,
    Ready,
    outcomes,
)
from landscape.populations.engines.work import Bench, Job, Work, Worker

__all__ = [
    "Bench",
    "Died",
    "EngineError",
    "Job",
    "Lost",
    "Pool",
    "Ready",
    "Work",
    "Worker",
    "outcomes",
]
