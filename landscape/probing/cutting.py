"""Cutting a pass over the data into parts of m examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from landscape.probing.nesting import INSIDE, leaves, remade, with_values

_PLAIN = (str, int, float, bool, type(None))

#: The dimension that counts the examples: one for all tensors of a batch, or one for each entry, by
#: position or key; entries that are not named belong to all examples.
ExampleDim: TypeAlias = int | Sequence[int | None] | Mapping[Any, int | None]


def checked_example_dim(example_dim: Any) -> ExampleDim:
    """A dimension of the examples, refused in words where it is none.

    Args:
        example_dim: What a user gave.

    Returns:
        The same; a sequence as a tuple.

    Raises:
        ValueError: If it is neither a dimension nor several.
    """
    if _is_dim(example_dim):
        return example_dim  # type: ignore[no-any-return]
    if isinstance(example_dim, Mapping):
        entries = list(example_dim.values())
        made: Any = dict(example_dim)
    else:
        entries = list(example_dim) if isinstance(example_dim, list | tuple) else [example_dim]
        made = tuple(entries)
    told = [entry for entry in entries if entry is not None]
    if not told or not all(map(_is_dim, told)):
        raise ValueError(
            "example_dim must be the dimension that counts the examples, such as 1 for (time, "
            "batch, features), or one for each entry of a batch, such as (1, 0) or "
            f"{{'x': 1, 'y': 0}}; got {example_dim!r}"
        )
    found: ExampleDim = made
    return found


def _is_dim(entry: Any) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0


def examples(batch: Any, example_dim: ExampleDim = 0) -> int | None:
    """Number of examples of a batch.

    Args:
        batch: Of any structure.
        example_dim: Which dimension counts them. Tensors that have fewer count them along their
            last one: targets (N,) go with inputs (time, N, features).

    Returns:
        The length that all its tensors share along their dimension, or its arrays where it holds no
        tensors; None where there is none, or they differ.
    """
    lengths = {
        _length(leaf, dim)
        for part, dim in entry_dims(batch, example_dim)
        if dim is not None
        for leaf in _counted(part)
    }
    return lengths.pop() if len(lengths) == 1 else None


def _counted(batch: Any) -> list[Any]:
    """The tensors of a batch, or else its arrays."""
    found = [leaf for leaf in leaves(batch) if isinstance(leaf, Tensor | np.ndarray)]
    return [leaf for leaf in found if isinstance(leaf, Tensor)] or found


def entry_dims(batch: Any, example_dim: ExampleDim) -> list[tuple[Any, int | None]]:
    """Parts of a batch, each with the dimension that counts the examples."""
    if isinstance(example_dim, int):
        return [(batch, example_dim)]
    if isinstance(example_dim, Mapping):
        named = batch if isinstance(batch, Mapping) else {}
        return [(named[key], example_dim.get(key)) for key in named]
    listed = batch if isinstance(batch, list | tuple) else ()
    dims = [*example_dim, *[None] * len(listed)]
    return list(zip(listed, dims, strict=False))


def _length(leaf: Any, dim: int) -> int | None:
    if isinstance(leaf, Tensor) and leaf.is_nested:  # only its first dimension has one length
        return int(leaf.size(0)) if dim == 0 else None
    if leaf.ndim == 0:
        return None
    if isinstance(leaf, Tensor) and leaf.layout != torch.strided:
        # Examples in rows; a square matrix is rather a graph that joins them.
        rows = leaf.ndim == 2 and dim == 0 and leaf.shape[0] != leaf.shape[1]
        return leaf.shape[0] if rows else None
    return int(leaf.shape[min(dim, leaf.ndim - 1)])


def cut(batch: Any, start: int, stop: int, example_dim: ExampleDim = 0) -> Any:
    """Examples start to stop of a batch, tensors as views.

    Lists without tensors that are as long as the tensors (names, weights) are cut along.

    Returns:
        A batch of the same type.
    """

    def run(tensor: Tensor, dim: int) -> Tensor:
        if tensor.is_nested:
            return torch.nested.as_nested_tensor(
                list(tensor.unbind()[start:stop]), layout=tensor.layout
            )
        if tensor.layout != torch.strided:
            return selected(tensor, range(start, stop), dim)
        return tensor.narrow(min(dim, tensor.ndim - 1), start, stop - start)

    return with_examples(batch, run, lambda listed: listed[start:stop], example_dim)


def with_examples(
    batch: Any,
    of_tensor: Callable[[Tensor, int], Tensor],
    of_list: Callable[[Any], Any],
    example_dim: ExampleDim = 0,
) -> Any:
    """A batch with some of its examples.

    Args:
        batch: Of any structure.
        of_tensor: From a tensor and the dimension of its examples to those of some.
        of_list: The same for lists, tuples and arrays with one entry an example.
        example_dim: As ``examples`` takes it.

    Returns:
        A batch of the same type.
    """
    length = examples(batch, example_dim)

    def some(part: Any, dim: int | None) -> Any:
        if dim is None:
            return part

        def change(part: Any) -> Any:
            if isinstance(part, Tensor):
                return of_tensor(part, dim)
            return of_list(part) if is_list_along(part, length) else INSIDE

        return remade(part, change)

    if isinstance(example_dim, int):
        return some(batch, example_dim)
    return with_values(batch, [some(part, dim) for part, dim in entry_dims(batch, example_dim)])


def selected(tensor: Tensor, rows: Sequence[int], dim: int = 0) -> Tensor:
    """The examples of a tensor of any layout with the given numbers."""
    places = torch.as_tensor(list(rows), dtype=torch.long, device=tensor.device)
    if tensor.is_nested:
        parts = tensor.unbind()
        return torch.nested.as_nested_tensor([parts[row] for row in rows], layout=tensor.layout)
    if tensor.layout in {torch.strided, torch.sparse_coo}:
        return tensor.index_select(min(dim, tensor.ndim - 1), places)
    found: Tensor = tensor.to_sparse_coo().index_select(dim, places).to_sparse(layout=tensor.layout)
    return found


def is_list_along(entries: Any, length: int | None) -> bool:
    """Whether a list, tuple or array without tensors holds one entry an example."""
    return (
        isinstance(entries, list | tuple | np.ndarray)
        and bool(getattr(entries, "shape", (1,)))  # a scalar array has no length
        and len(entries) == length
        and not any(isinstance(leaf, Tensor) for leaf in leaves(entries))
    )


def cut_pass(
    batches: Iterable[Any],
    *,
    size: int | None,
    points: int | None,
    by_example: Callable[[Any], bool],
    example_dim: ExampleDim = 0,
) -> tuple[list[list[Any]], bool]:
    """The first ``points`` examples in parts of ``size`` examples, in order.

    A part is a list of batches, since it may reach over the end of one. Examples left over at the
    end make no part, unless they are all there are. Batches that cannot be cut (of unknown length,
    or not by examples) are parts as they are.

    Args:
        batches: The data.
        size: Examples a part, m; None makes one part of all.
        points: Examples to use; None uses all.
        by_example: Whether the examples that a batch seems to have are such; asked once.
        example_dim: As ``examples`` takes it.

    Returns:
        The parts, and whether they were cut as asked.
    """
    parts: list[list[Any]] = []
    current: list[Any] = []
    filled, used = 0, 0
    for index, batch in enumerate(batches):
        length = examples(batch, example_dim)
        if length is None or (index == 0 and not by_example(batch)):
            return _as_given(batches, size), False
        stop = length if points is None else min(length, points - used)
        start = 0
        while start < stop:
            take = stop - start if size is None else min(size - filled, stop - start)
            whole = start == 0 and take == length
            current.append(batch if whole else cut(batch, start, start + take, example_dim))
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
    columns, structures = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    if any(structure != structures[0] for structure in structures[1:]):
        return None
    joined: list[Any] = []
    dims: list[int | None] = []
    for column in zip(*columns, strict=True):
        if all(isinstance(leaf, Tensor) for leaf in column):
            if any(leaf.is_nested or leaf.layout != torch.strided for leaf in column):
                return None
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
