"""Batches: any re-iterable of any structure, walked in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from landscape.probing.nesting import INSIDE, leaves, remade

# Data up to this size stay on the device after the first walk.
_CACHE_BYTES = 1 << 30


class Batches:
    """A pass over data that can be repeated in the same order.

    A batch is anything that holds tensors: a tuple, a dictionary, a data class or another object,
    nested in any way. Floating tensors are converted to the probe's dtype, everything is moved to
    its device; NumPy arrays and numbers stay what they are.

    Args:
        data: Re-iterable of batches, such as a list or an unshuffled DataLoader.
        device: Where batches go.
        dtype: Floating type of the batches.

    Raises:
        TypeError: If ``data`` is an iterator that can be walked only once, is a bare tuple of
            tensors, or is no iterable.
        ValueError: If there is no batch.
    """

    def __init__(self, data: Iterable[Any], device: torch.device, dtype: torch.dtype) -> None:
        if isinstance(data, Tensor) or (
            isinstance(data, tuple) and data and all(isinstance(part, Tensor) for part in data)
        ):
            raise TypeError(
                "batches must be an iterable of batches, got the tensors of a single batch; "
                "put it in a list: [(inputs, targets)]"
            )
        if not isinstance(data, Iterable):
            raise TypeError(
                f"batches must be an iterable of batches, got {type(data).__name__}; "
                "give a list of batches or a DataLoader"
            )
        if isinstance(data, Iterator):
            raise TypeError(
                f"batches must be walkable many times, got a one-shot {type(data).__name__}; "
                "give a list or a DataLoader, such as list(iterator)"
            )
        self._data = data
        self._device = device
        self._dtype = dtype
        self._cached: list[Any] | None = None
        #: Number of batches, once they were walked.
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        if self._cached is not None:
            yield from self._cached
        else:
            for batch in self._data:
                yield place(batch, self._device, self._dtype, copy=False)

    def walk(self) -> tuple[list[str], int]:
        """Walks the source once and returns a hash per batch and the size of all in bytes."""
        hashes: list[str] = []
        size = 0
        for batch in self._data:
            digest = hashlib.blake2b(digest_size=16)
            size += sum(_add(leaf, digest) for leaf in leaves(batch))
            hashes.append(digest.hexdigest())
        if not hashes:
            raise ValueError("there is no batch in the data; give at least one")
        self.count = len(hashes)
        return hashes, size

    def source(self, index: int) -> Any:
        """A batch as the source gives it, not moved and in its own precision."""
        return next(islice(iter(self._data), index, None))

    def keep(self, size: int) -> None:
        """Keeps the moved batches on the device if their size in bytes allows it."""
        if size <= _CACHE_BYTES:
            self._cached = [
                place(batch, self._device, self._dtype, copy=True) for batch in self._data
            ]


def owned(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor in a device and dtype, and usable by autograd if made in inference mode."""
    with torch.inference_mode(False):
        moved = tensor.detach().to(device=device, dtype=dtype)
        return moved.clone() if moved.is_inference() else moved


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _add(leaf: Any, digest: _Digest) -> int:
    """Adds a leaf to a hash and returns its size in bytes."""
    if isinstance(leaf, Tensor):
        return sum(_add_values(values, digest) for values in _strided(leaf))
    if isinstance(leaf, np.ndarray):
        if leaf.dtype.hasobject:  # addresses, which say nothing
            return sum(_add(entry, digest) for entry in leaves(leaf.tolist()))
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.tobytes())
        return leaf.nbytes
    digest.update(f"{type(leaf).__name__}{leaf!r}".encode())
    return 0


def _add_values(values: Tensor, digest: _Digest) -> int:
    array = values.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
    digest.update(array.view(torch.uint8).numpy().tobytes())
    return values.numel() * values.element_size()


def _strided(tensor: Tensor) -> list[Tensor]:
    """Plain tensors that say all of a tensor of any layout."""
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.layout == torch.sparse_coo:
        joined = tensor.detach().coalesce()
        return [torch.tensor(tensor.shape), joined.indices(), joined.values()]
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        rows, columns = tensor.crow_indices(), tensor.col_indices()
        return [torch.tensor(tensor.shape), rows, columns, tensor.values()]
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        columns, rows = tensor.ccol_indices(), tensor.row_indices()
        return [torch.tensor(tensor.shape), columns, rows, tensor.values()]
    return [tensor]


def size_of(batch: Any) -> int:
    """Bytes of all tensors of a batch."""
    return sum(
        values.numel() * values.element_size()
        for leaf in leaves(batch)
        if isinstance(leaf, Tensor)
        for values in _strided(leaf)
    )


_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def place(batch: Any, device: torch.device | str, dtype: torch.dtype | None, *, copy: bool) -> Any:
    """A nested batch on a device.

    Args:
        batch: Of any structure; it is not touched.
        device: Where its tensors go.
        dtype: Of floating tensors, complex ones in its precision; None leaves them as they are.
        copy: Whether tensors and arrays are copied even where nothing has to change.

    Returns:
        A batch of the same types.

    Raises:
        TypeError: If an object in it cannot be copied.
    """

    def moved(part: Any) -> Any:  # what an object holds that cannot be seen from here
        found = part.to(device) if hasattr(part, "to") else None
        return part if found is None else found

    return remade(batch, partial(_placed, device=device, dtype=dtype, copy=copy), moved)


def _placed(part: Any, device: torch.device | str, dtype: torch.dtype | None, copy: bool) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy() if copy else part
    if not isinstance(part, Tensor):
        return INSIDE
    kind = part.dtype
    if dtype is not None and part.is_floating_point():
        kind = dtype
    elif dtype is not None and part.is_complex():
        kind = _COMPLEX.get(dtype, kind)
    return part.detach().to(device=device, dtype=kind, copy=copy or part.is_inference())
