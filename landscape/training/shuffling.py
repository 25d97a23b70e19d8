"""Training data: examples by number, in a new order every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from landscape.tasks.data import Examples, TensorExamples, batches_of
from landscape.tasks.data.regrouping import ExampleBatches

_ALL = 1 << 62


class Rows:
    """Some examples of a source, numbered from 0.

    Args:
        source: The source.
        rows: Which.
    """

    def __init__(self, source: Examples, rows: Sequence[int]) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: Sequence[int]) -> Any:
        """The examples of the given numbers as one batch."""
        return self._source.batch([self._rows[row] for row in rows])


def examples_of(source: Any, samples: int | None = None, data_seed: int = 0) -> Examples:
    """The examples of data of any kind, to be taken in any order.

    Args:
        source: As ``Task`` takes training data.
        samples: Use a fixed random subset of so many.
        data_seed: Of the subset.

    Returns:
        The examples; batches are joined in memory.

    Raises:
        ValueError: If batches differ in shape, so that their examples cannot be mixed.
    """
    found = batches_of(source, samples=samples, data_seed=data_seed, batch_size=_ALL)
    if isinstance(found.batches, ExampleBatches):
        return Rows(found.batches.examples, found.batches.rows)
    whole = list(found.batches)
    if len(whole) != 1:
        raise ValueError(
            "examples of these batches cannot be mixed, since the batches differ in shape; give "
            "tensors of one shape, or a torch dataset with a loader that pads"
        )
    return TensorExamples(whole[0])


def seed_of(seed: int, epoch: int) -> int:
    """A seed for one epoch, so that an epoch can be repeated without those before it."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def order(examples: int, seed: int, epoch: int, batch_size: int) -> Iterator[list[int]]:
    """Numbers of the examples of each batch of an epoch."""
    shuffled = np.random.default_rng(seed_of(seed, epoch)).permutation(examples).tolist()
    for start in range(0, examples, batch_size):
        yield shuffled[start : start + batch_size]
