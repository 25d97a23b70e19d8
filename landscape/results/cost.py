"""What a number cost: passes over the data, seconds and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(kw_only=True)
class Cost:
    """Passes over the data and resources of one block of work.

    Args:
        forwards: Forward passes over the whole data (forward only, no gradient).
        gradients: Gradient passes (forward and backward).
        products: Curvature-vector products, one per vector (a pass over the whole data each).
        seconds: Wall-clock seconds.
        peak_memory: Bytes. On CUDA the most that was allocated inside the block; on CPU the largest
            resident size of the process up to the end of the block. None if unknown.
    """

    forwards: float = 0.0
    gradients: float = 0.0
    products: float = 0.0
    seconds: float = 0.0
    peak_memory: int | None = None

    def __add__(self, other: Cost) -> Cost:
        peaks = [peak for peak in (self.peak_memory, other.peak_memory) if peak is not None]
        return Cost(
            forwards=self.forwards + other.forwards,
            gradients=self.gradients + other.gradients,
            products=self.products + other.products,
            seconds=self.seconds + other.seconds,
            peak_memory=max(peaks, default=None),
        )

    @property
    def passes(self) -> float:
        """All passes over the data, of whatever kind."""
        return self.forwards + self.gradients + self.products

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return asdict(self)


class Meter:
    """Running totals of one model's evaluations; blocks are differences of the totals."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._total = Cost()
        self._listeners: list[Callable[[float], None]] = []
        self._depth = 0
        self._preparing = 0
        #: What was spent on preparations, which belong to no measure.
        self.preparation = Cost()

    def count(
        self, *, forwards: float = 0.0, gradients: float = 0.0, products: float = 0.0
    ) -> None:
        """Adds passes and tells the listeners how many."""
        spent = Cost(forwards=forwards, gradients=gradients, products=products)
        if self._preparing:
            self.preparation += spent
            return
        self._total += spent
        for listener in self._listeners:
            listener(spent.passes)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """What is spent inside belongs to no block that is open.

        A probe evaluates its base point and checks its derivatives once, for whichever measure
        comes first; costs that counted it would depend on the order of the measures.
        """
        start, before = time.perf_counter(), self.preparation.seconds
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1
            inner = self.preparation.seconds - before
            self.preparation.seconds += time.perf_counter() - start - inner

    @contextmanager
    def listen(self, listener: Callable[[float], None]) -> Iterator[None]:
        """Calls ``listener(passes)`` after every evaluation inside the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def block(self) -> Iterator[Cost]:
        """Yields a Cost that is filled in when the block ends, also by an exception."""
        cost, before, start = Cost(), self._total, time.perf_counter()
        aside = self.preparation.seconds
        cuda = self._device.type == "cuda"
        if cuda and not self._depth:  # a block inside another shares its peak
            torch.cuda.reset_peak_memory_stats(self._device)
        self._depth += 1
        try:
            yield cost
        finally:
            self._depth -= 1
            if cuda:
                torch.cuda.synchronize(self._device)
            cost.forwards = self._total.forwards - before.forwards
            cost.gradients = self._total.gradients - before.gradients
            cost.products = self._total.products - before.products
            cost.seconds = time.perf_counter() - start - (self.preparation.seconds - aside)
            cost.peak_memory = (
                torch.cuda.max_memory_allocated(self._device) if cuda else _peak_resident()
            )


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
