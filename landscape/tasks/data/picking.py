"""Picking single examples out of batches of any structure, and joining batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.probing.cutting import (
    ExampleDim,
    entry_dims,
    examples,
    is_list_along,
    selected,
    with_examples,
)
from landscape.probing.nesting import with_values


def pick(batch: Any, rows: Sequence[int], example_dim: ExampleDim = 0) -> Any:
    """The examples of a batch with given numbers.

    Lists without tensors that are as long as the tensors (names, weights) are picked from too.

    Args:
        batch: Of any structure.
        rows: The numbers.
        example_dim: Which dimension counts the examples.

    Returns:
        A batch of the same type.
    """
    chosen = list(rows)

    def listed(entries: Any) -> Any:
        return entries[chosen] if isinstance(entries, np.ndarray) else [entries[r] for r in chosen]

    return with_examples(
        batch, lambda tensor, dim: selected(tensor, chosen, dim), listed, example_dim
    )


def joined(first: Any, second: Any, example_dim: ExampleDim = 0) -> Any:
    """The examples of two batches in one.

    Args:
        first: A batch.
        second: One of the same structure.
        example_dim: Which dimension counts the examples.

    Returns:
        A batch of the type of the first; None where the two do not go together, for their
        structure or for their shapes beyond the dimension of the examples.
    """
    lengths = examples(first, example_dim), examples(second, example_dim)
    try:
        if isinstance(example_dim, int):
            return _joined(first, second, lengths, example_dim)
        entries = zip(entry_dims(first, example_dim), entry_dims(second, example_dim), strict=True)
        return with_values(
            first, [_joined(one, two, lengths, dim) for (one, dim), (two, _) in entries]
        )
    except _UnlikeError:
        return None


class _UnlikeError(Exception):
    """Two batches that cannot be one."""


def _joined(
    first: Any, second: Any, lengths: tuple[int | None, int | None], dim: int | None
) -> Any:
    if type(first) is not type(second):
        raise _UnlikeError
    if isinstance(first, Tensor):
        return _joined_tensors(first, second, dim)
    if is_list_along(first, lengths[0]) and is_list_along(second, lengths[1]):
        return np.concatenate([first, second]) if isinstance(first, np.ndarray) else first + second
    if isinstance(first, Mapping):
        if first.keys() != second.keys():
            raise _UnlikeError
        return with_values(first, [_joined(first[key], second[key], lengths, dim) for key in first])
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            raise _UnlikeError
        pairs = zip(first, second, strict=True)
        return with_values(first, [_joined(*pair, lengths, dim) for pair in pairs])
    if not isinstance(first, str | int | float | bool | None) or first != second:
        raise _UnlikeError
    return first


def _joined_tensors(first: Tensor, second: Tensor, dim: int | None) -> Tensor:
    if dim is None:  # shared by all examples
        if not torch.equal(first, second):
            raise _UnlikeError
        return first
    if first.is_nested or first.ndim != second.ndim or first.dtype != second.dtype:
        raise _UnlikeError
    along = min(dim, first.ndim - 1)
    if [*first.shape[:along], *first.shape[along + 1 :]] != [
        *second.shape[:along],
        *second.shape[along + 1 :],
    ]:
        raise _UnlikeError
    return torch.cat([first, second], along)
