"""Sources whose examples can be picked by number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from landscape.probing.calling import TARGETS
from landscape.probing.cutting import ExampleDim, examples
from landscape.probing.entries import with_entry
from landscape.probing.nesting import tensors
from landscape.tasks.data.options import Settled
from landscape.tasks.data.picking import pick


class Examples(Protocol):
    """A source of numbered examples.

    There may be more to it: ``facts`` for the record, ``settled`` for test data, and ``lengths``,
    one number an example that tells which are the longest.
    """

    def __len__(self) -> int:
        """How many examples there are."""

    def batch(self, rows: Sequence[int]) -> Any:
        """The examples of the given numbers as one batch."""


class TensorExamples:
    """Tensors of equally many examples in memory.

    Args:
        data: The whole as one batch: a tuple (inputs, ..., targets) or a dictionary.
        facts: For the record.
        settled: What test data are to have alike.
        example_dim: The dimension of the tensors that counts the examples.

    Raises:
        ValueError: If their numbers of examples differ or there is no example.
    """

    def __init__(
        self,
        data: Any,
        facts: Mapping[str, Any] | None = None,
        settled: Settled | None = None,
        *,
        example_dim: ExampleDim = 0,
    ) -> None:
        length = examples(data, example_dim)
        if length is None:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(data))
            raise ValueError(
                f"tensors of data must share {_dimension(example_dim)}, got shapes {shapes}"
            )
        if length == 0:
            raise ValueError("there is no example in the data; give at least one")
        self._data, self._length, self.settled = data, length, settled
        self._example_dim = example_dim
        self.facts = dict(facts or {})

    def __len__(self) -> int:
        return self._length

    def batch(self, rows: Sequence[int]) -> Any:
        """The examples of the given numbers as one batch."""
        return pick(self._data, rows, self._example_dim)


def _dimension(example_dim: ExampleDim) -> str:
    if example_dim == 0:
        return "their first dimension"
    return f"their number of examples, in dimension example_dim={example_dim}"


class DatasetExamples:
    """A map-style torch dataset with a function that makes batches of its items.

    Args:
        dataset: With a length.
        collate: From a list of items to a batch.
        order: Numbers of the items to use, in order; all by default.
        facts: For the record.

    Raises:
        TypeError: If the dataset has no length.
        ValueError: If it is empty.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        order: Sequence[int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._dataset: Any = dataset
        self._collate = collate
        self._order: Sequence[int] = range(_length(dataset)) if order is None else order
        self.facts = dict(facts or {})
        if not self._order:
            raise ValueError(f"{type(dataset).__name__} is empty; give at least one example")

    def __len__(self) -> int:
        return len(self._order)

    def batch(self, rows: Sequence[int]) -> Any:
        """The examples of the given numbers as one batch."""
        places = [self._order[row] for row in rows]
        if hasattr(self._dataset, "__getitems__"):  # reads many at once, as DataLoader does
            return self._collate(self._dataset.__getitems__(places))
        return self._collate([self._dataset[place] for place in places])


def _length(dataset: Any) -> int:
    if not hasattr(dataset, "__len__"):
        raise TypeError(
            f"a map-style dataset needs a length, {type(dataset).__name__} has none; add "
            "__len__, or derive it from IterableDataset"
        )
    return len(dataset)


def as_tensors(data: Any) -> Any:
    """Data as one big batch, if they are a bare tuple or dictionary of tensors or arrays.

    Args:
        data: Anything.

    Returns:
        A tuple or a dictionary of tensors, arrays among them converted; None for other data.
    """
    if not isinstance(data, tuple | Mapping) or not data:
        return None
    values = list(data.values() if isinstance(data, Mapping) else data)
    if not all(isinstance(value, Tensor | np.ndarray) for value in values):
        return None
    converted = [torch.as_tensor(value) for value in values]
    return (
        dict(zip(data, converted, strict=True)) if isinstance(data, Mapping) else tuple(converted)
    )


def with_long_targets(data: Any, classes: bool, target: Any = None) -> Any:
    """Integer targets as torch takes class numbers.

    Args:
        data: A tuple or a dictionary of tensors.
        classes: Whether the targets are one class an example; (N, 1) becomes (N,) then.
        target: Position or key of the targets; None takes the last, or "labels" and its like.

    Returns:
        The same with integer targets in int64.
    """
    mapping = isinstance(data, Mapping)
    key = target
    if key is None:
        key = next((name for name in TARGETS if name in data), None) if mapping else len(data) - 1
    known = data if mapping else range(0 if target is not None else 1, len(data))
    if callable(key) or key not in known:
        return data
    target = data[key]
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return data
    target = target.long()
    if classes and target.dim() == 2 and target.shape[1] == 1:
        target = target[:, 0]
    return with_entry(data, key, target)
