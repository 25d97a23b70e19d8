"""Walks that make their batches as they go: of examples by number, or from other batches."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from landscape.probing.cutting import ExampleDim, cut, examples
from landscape.tasks.data.examples import Examples
from landscape.tasks.data.picking import joined, pick


class ExampleBatches:
    """Batches of numbered examples, read anew on every walk.

    Args:
        source: Of the examples.
        rows: Their numbers, in order.
        batch_size: Examples a batch; the last one may have fewer.
    """

    def __init__(self, source: Examples, rows: Sequence[int], batch_size: int) -> None:
        self.examples, self.rows, self._size = source, rows, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self._size)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.rows), self._size):
            yield self.examples.batch(list(self.rows[start : start + self._size]))


class CalledBatches:
    """Batches of a function that gives a fresh iterator at every call.

    Args:
        function: Called without arguments at the start of every walk.
    """

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[Any]:
        yield from self._function()


class RegroupedBatches:
    """Some examples of other batches, in batches of another size.

    Neighbours that do not go together in one batch, such as sequences padded to different lengths,
    stay apart, so that some batches may be smaller.

    Args:
        source: Re-iterable of batches.
        rows: Ascending numbers of the examples to use, counted over all batches.
        batch_size: Examples a batch at most.
        example_dim: The dimension of the tensors that counts the examples.
    """

    def __init__(
        self,
        source: Iterable[Any],
        rows: Sequence[int],
        batch_size: int,
        example_dim: ExampleDim = 0,
    ) -> None:
        self._source, self._rows, self._size = source, rows, batch_size
        self._dim = example_dim

    def __iter__(self) -> Iterator[Any]:
        current, filled = None, 0
        for piece in self._pieces():
            length = examples(piece, self._dim) or 0
            start = 0
            while start < length:
                if filled == self._size:
                    yield current
                    current, filled = None, 0
                take = min(self._size - filled, length - start)
                part = cut(piece, start, start + take, self._dim)
                together = part if current is None else joined(current, part, self._dim)
                if together is None:  # the two do not go together; what is there is a batch
                    yield current
                    current, filled = None, 0
                    continue
                current, filled, start = together, filled + take, start + take
        if current is not None:
            yield current

    def _pieces(self) -> Iterator[Any]:
        """Of every batch the examples that are used."""
        before, first = 0, 0
        for batch in self._source:
            length = examples(batch, self._dim) or 0
            last = bisect_left(self._rows, before + length, lo=first)
            rows = [row - before for row in self._rows[first:last]]
            if len(rows) == length:
                yield batch
            elif rows:
                yield pick(batch, rows, self._dim)
            before, first = before + length, last


def batch_lengths(batches: Iterable[Any], example_dim: ExampleDim = 0) -> list[int] | None:
    """Examples of every batch; None where one cannot be cut into examples."""
    lengths = []
    for batch in batches:
        length = examples(batch, example_dim)
        if length is None:
            return None
        lengths.append(length)
    return lengths
