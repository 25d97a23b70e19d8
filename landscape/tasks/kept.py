"""What many checkpoints of one task share: the skeleton of the model, and the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from landscape.probing.batches import place, size_of
from landscape.tasks.data import Batched, batches_of
from landscape.tasks.task import Task, _wants_state

# Batches up to this size in bytes stay in memory from one checkpoint to the next.
_MOST = 1 << 30


class Kept:
    """A task of which several checkpoints are opened, one after the other.

    The model is made once and copied, unless its sizes are read off each checkpoint. Data are read
    once, and their batches kept on the device where they are small.

    Args:
        task: The task.
    """

    def __init__(self, task: Task) -> None:
        self._given = task
        self._task: Task | None = None
        self._read: dict[tuple[Any, ...], Batched] = {}
        self._batches: dict[int, Iterable[Any]] = {}

    @property
    def task(self) -> Task:
        """The task, with the model made where that takes no checkpoint."""
        if self._task is None:
            ready = isinstance(self._given.model, nn.Module) or _wants_state(self._given.model)
            self._task = self._given if ready else replace(self._given, model=self._given.build())
        return self._task

    def batches_of(self, source: Any, **wanted: Any) -> Batched:
        """As ``landscape.tasks.data.batches_of``, read once for the same arguments."""
        key = (id(source), *sorted((name, repr(value)) for name, value in wanted.items()))
        if key not in self._read:
            self._read[key] = batches_of(source, **wanted)
        return self._read[key]

    def in_memory(self, batched: Batched) -> Batched:
        """The same data with the batches that ``keep`` has kept."""
        found = self._batches.get(id(batched.batches))
        return batched if found is None else replace(batched, batches=found)

    def keeps(self, batched: Batched) -> bool:
        """Whether ``keep`` has seen these data."""
        return id(batched.batches) in self._batches

    def keep(self, batched: Batched, device: str | None) -> None:
        """Keeps batches that were walked without fault, on the device.

        Values and types stay as they are, so that the hash of the data does.

        Args:
            batched: Of ``batches_of``.
            device: Where the model is; None leaves them where they are.
        """
        if self.keeps(batched):
            return
        size, found = 0, []
        for batch in batched.batches:
            size += size_of(batch)
            if size > _MOST:
                self._batches[id(batched.batches)] = batched.batches
                return
            found.append(batch if device is None else place(batch, device, None, copy=False))
        self._batches[id(batched.batches)] = found
