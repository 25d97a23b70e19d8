"""Cutting a pass over the data into parts of m examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.probing.batches import renewed, tensors

_PLAIN = (str, int, float, bool, type(None))


def examples(batch: Any) -> int | None:
    """Number of examples of a batch: the first dimension that all its tensors share."""
    lengths = {len(tensor) if tensor.dim() else None for tensor in tensors(batch)}
    return lengths.pop() if len(lengths) == 1 else None


def cut(batch: Any, start: int, stop: int) -> Any:
    """Examples start to stop of a batch, tensors as views.

    Lists without tensors that are as long as the tensors (names, weights) are cut along.

    Returns:
        A batch of the same type.
    """
    return _cut(batch, start, stop, examples(batch))


def _cut(batch: Any, start: int, stop: int, length: int | None) -> Any:
    along = isinstance(batch, Tensor) or (
        isinstance(batch, list | tuple | np.ndarray)
        and not any(True for _ in tensors(batch))
        and _length(batch) == length
    )
    if along:
        return batch[start:stop]
    if isinstance(batch, Mapping):
        items = {key: _cut(value, start, stop, length) for key, value in batch.items()}
        return renewed(batch, items)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(value, start, stop, length) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_cut(value, start, stop, length) for value in batch)
    return batch


def _length(entries: Any) -> int | None:
    return len(entries) if getattr(entries, "shape", (1,)) else None  # a scalar array has none


def cut_pass(
    batches: Iterable[Any],
    *,
    size: int | None,
    points: int | None,
    by_example: Callable[[Any], bool],
) -> tuple[list[list[Any]], bool]:
    """The first ``points`` examples in parts of ``size`` examples, in order.

    A part is a list of batches, since it may reach over the end of one. Examples left over at the
    end make no part, unless they are all there are. Batches that cannot be cut (of unknown length,
    or not by examples) are parts as they are.

    Args:
        batches: The data.
        size: Examples a part, m; None makes one part of all.
        points: Examples to use; None uses all.
        by_example: Whether the first dimension of a batch counts examples; asked once.

    Returns:
        The parts, and whether they were cut as asked.
    """
    parts: list[list[Any]] = []
    current: list[Any] = []
    filled, used = 0, 0
    for index, batch in enumerate(batches):
        length = examples(batch)
        if length is None or (index == 0 and not by_example(batch)):
            return _as_given(batches, size), False
        stop = length if points is None else min(length, points - used)
        start = 0
        while start < stop:
            take = stop - start if size is None else min(size - filled, stop - start)
            whole = start == 0 and take == length
            current.append(batch if whole else cut(batch, start, start + take))
            start, filled, used = start + take, filled + take, used + take
            if filled == size:
                parts, current, filled = [*parts, current], [], 0
        if points is not None and used >= points:
            break
    if current and not parts:
        parts = [current]
    return parts, True


def _as_given(batches: Iterable[Any], size: int | None) -> list[list[Any]]:
    return [list(batches)] if size is None else [[batch] for batch in batches]


def stacked(batches: list[Any]) -> tuple[Any, Any] | None:
    """Batches of one structure with a new first dimension, and vmap's ``in_dims`` for it.

    Returns:
        The stacked batch and the dimensions; None where structures or shapes differ.
    """
    leaves, structures = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    if any(structure != structures[0] for structure in structures[1:]):
        return None
    joined: list[Any] = []
    dims: list[int | None] = []
    for column in zip(*leaves, strict=True):
        if all(isinstance(leaf, Tensor) for leaf in column):
            if len({leaf.shape for leaf in column}) > 1:
                return None
            joined.append(torch.stack(column))
            dims.append(0)
        elif not all(isinstance(leaf, _PLAIN) and leaf == column[0] for leaf in column):
            return None
        else:
            joined.append(column[0])
            dims.append(None)
    return (
        pytree.tree_unflatten(joined, structures[0]),
        pytree.tree_unflatten(dims, structures[0]),
    )
