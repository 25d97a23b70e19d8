"""Nested batches: one walk over whatever holds tensors, and batches remade with other parts."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime as dt
import enum
import os
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

#: Numbers and texts.
PLAIN = (str, bytes, int, float, complex, type(None), np.generic)
_LEAVES = (Tensor, np.ndarray, *PLAIN)
# What holds no data of a batch, whatever attributes it has.
_CLOSED = (
    *(type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType),
    *(nn.Module, torch.device, torch.dtype, torch.Generator, np.random.Generator, np.dtype),
    *(enum.Enum, os.PathLike, dt.date, dt.time, dt.timedelta, weakref.ref),
)


class _Inside:
    """Says that a part is to be looked into."""


#: What a change of ``remade`` returns for a part that stays, but for what is inside.
INSIDE = _Inside()


def leaves(batch: Any) -> Iterator[Any]:
    """All tensors, arrays, numbers and texts of a batch, in order.

    It looks into mappings, sequences, sets, data classes and any other object with attributes. Of
    objects that are no data classes only tensors and arrays are told: the rest may be notes that
    they keep for themselves.

    Yields:
        One after the other.
    """
    yield from _leaves(batch, {})


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a nested batch, in order."""
    return (leaf for leaf in leaves(batch) if isinstance(leaf, Tensor))


def _leaves(part: Any, seen: dict[int, Any]) -> Iterator[Any]:
    if isinstance(part, _LEAVES):
        yield part
        return
    if isinstance(part, _CLOSED) or id(part) in seen:
        return
    seen[id(part)] = part  # objects may refer to each other in a circle
    declared = isinstance(part, Mapping | Sequence | Set) or dataclasses.is_dataclass(part)
    for value in _members(part):
        for leaf in _leaves(value, seen):
            if declared or isinstance(leaf, Tensor | np.ndarray):
                yield leaf


def _members(part: Any) -> list[Any]:
    """What an object holds, one level down."""
    if isinstance(part, Mapping):
        return [part[key] for key in part]
    if isinstance(part, Sequence):
        return list(part)
    if isinstance(part, Set):
        return sorted(part, key=repr)
    return list(attributes(part).values())


def attributes(part: Any) -> dict[str, Any]:
    """The attributes that an object holds itself, in slots or not, by name."""
    found: dict[str, Any] = {}
    for kind in type(part).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType) and not name.startswith("__"):
                # Not by getattr: what an object makes up for names it does not know is not held.
                try:
                    found[name] = member.__get__(part)
                except AttributeError:  # a slot that was never filled
                    continue
    with contextlib.suppress(AttributeError):
        found |= object.__getattribute__(part, "__dict__")
    return found


def remade(
    batch: Any, change: Callable[[Any], Any], finish: Callable[[Any], Any] = lambda part: part
) -> Any:
    """A batch of the same types with other parts in it; the batch itself is not touched.

    Args:
        batch: Nested in any way.
        change: Gives what stands in the place of a part, or ``INSIDE`` where its own parts are to
            be looked at. Parts of which nothing changes are kept as they are.
        finish: Applied to objects that are no tuple, list or mapping, after their parts have
            changed.

    Returns:
        The new batch.

    Raises:
        TypeError: If an object in it cannot be copied.
    """
    changed = change(batch)
    if changed is not INSIDE:
        return changed
    if isinstance(batch, (*_LEAVES, *_CLOSED)):
        return batch
    if isinstance(batch, Mapping):
        return with_values(batch, [remade(batch[key], change, finish) for key in batch])
    if isinstance(batch, PackedSequence):  # its sizes stay on the CPU
        data, sizes, *orders = batch
        return type(batch)(
            change(data), sizes, *(order if order is None else change(order) for order in orders)
        )
    if isinstance(batch, list | tuple):
        return with_values(batch, [remade(value, change, finish) for value in batch])
    return finish(_remade_object(batch, change))


def with_values(batch: Any, values: Sequence[Any]) -> Any:
    """A mapping, tuple or list of the same type and attributes with other values, in order."""
    if not isinstance(batch, Mapping):
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    items = dict(zip(batch, values, strict=True))
    if type(batch) is dict or not hasattr(type(batch), "__setitem__"):
        return items
    fresh: Any = copy.copy(batch)
    for key, value in items.items():
        fresh[key] = value
    return fresh


def _remade_object(batch: Any, change: Callable[[Any], Any]) -> Any:
    """A deep copy in which changed parts stand in the place of the old ones."""
    changes: dict[int, Any] = {}
    _note_changes(batch, change, changes, {})
    if not changes:
        return batch
    try:
        return copy.deepcopy(batch, changes)
    except Exception as error:  # whatever an object's own way of being copied raises
        raise TypeError(
            f"a batch holds a {type(batch).__name__} with tensors, which cannot be copied "
            f"({type(error).__name__}: {error}); give batches of tensors in tuples, dictionaries "
            "or data classes"
        ) from error


def _note_changes(
    part: Any, change: Callable[[Any], Any], changes: dict[int, Any], seen: dict[int, Any]
) -> None:
    """Notes by the identity of a part what takes its place, as ``copy.deepcopy`` looks it up."""
    seen[id(part)] = part
    # A mapping with attributes keeps its values there, and may give others than it keeps.
    held = attributes(part) if isinstance(part, Mapping) and not isinstance(part, dict) else {}
    for value in held.values() or _members(part):
        if id(value) in seen or isinstance(value, (*PLAIN, *_CLOSED)):
            continue
        changed = change(value)
        if changed is not INSIDE:
            seen[id(value)], changes[id(value)] = value, changed
        elif not isinstance(value, _LEAVES):
            _note_changes(value, change, changes, seen)
