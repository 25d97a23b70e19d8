"""Picking single examples out of batches of any structure, and joining batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.probing.batches import renewed, tensors
from landscape.probing.cutting import examples


def pick(batch: Any, rows: Sequence[int]) -> Any:
    """The examples of a batch with given positions along the first dimension.

    Lists without tensors that are as long as the tensors (names, weights) are picked from too.

    Returns:
        A batch of the same type.
    """
    return _pick(batch, list(rows), examples(batch))


def _pick(batch: Any, rows: list[int], length: int | None) -> Any:
    if isinstance(batch, Tensor):
        return batch[torch.tensor(rows, dtype=torch.long, device=batch.device)]
    if _is_list_along(batch, length):
        return batch[rows] if isinstance(batch, np.ndarray) else [batch[row] for row in rows]
    if isinstance(batch, Mapping):
        return renewed(batch, {key: _pick(value, rows, length) for key, value in batch.items()})
    if isinstance(batch, list | tuple):
        return _rebuilt(batch, [_pick(value, rows, length) for value in batch])
    return batch


def joined(first: Any, second: Any) -> Any:
    """The examples of two batches in one.

    Args:
        first: A batch.
        second: One of the same structure.

    Returns:
        A batch of the type of the first; None where the two do not go together, for their
        structure or for their shapes beyond the first dimension.
    """
    try:
        return _joined(first, second, (examples(first), examples(second)))
    except _UnlikeError:
        return None


class _UnlikeError(Exception):
    """Two batches that cannot be one."""


def _joined(first: Any, second: Any, lengths: tuple[int | None, int | None]) -> Any:
    if type(first) is not type(second):
        raise _UnlikeError
    if isinstance(first, Tensor):
        if first.shape[1:] != second.shape[1:] or first.dtype != second.dtype:
            raise _UnlikeError
        return torch.cat([first, second])
    if _is_list_along(first, lengths[0]) and _is_list_along(second, lengths[1]):
        return np.concatenate([first, second]) if isinstance(first, np.ndarray) else first + second
    if isinstance(first, Mapping):
        if first.keys() != second.keys():
            raise _UnlikeError
        items = {key: _joined(value, second[key], lengths) for key, value in first.items()}
        return renewed(first, items)
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            raise _UnlikeError
        pairs = zip(first, second, strict=True)
        return _rebuilt(first, [_joined(*pair, lengths) for pair in pairs])
    if not isinstance(first, str | int | float | bool | None) or first != second:
        raise _UnlikeError
    return first


def _is_list_along(entries: Any, length: int | None) -> bool:
    return (
        isinstance(entries, list | tuple | np.ndarray)
        and not any(True for _ in tensors(entries))
        and bool(getattr(entries, "shape", (1,)))  # a scalar array has no length
        and len(entries) == length
    )


def _rebuilt(batch: Any, values: list[Any]) -> Any:
    return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
