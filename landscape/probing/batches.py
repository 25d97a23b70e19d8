"""Batches: any re-iterable of any structure, walked in a fixed order."""

from __future__ import annotations

import copy as copy_module
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Data up to this size stay on the device after the first walk.
_CACHE_BYTES = 1 << 30


class Batches:
    """A pass over data that can be repeated in the same order.

    A batch is anything: a tuple, a dictionary, nested, or an object with ``.to(device)``.
    Floating tensors are converted to the probe's dtype, everything is moved to its device.

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
        #: The first batch as the source gave it, once the source was walked.
        self.first: Any = None

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
            if not hashes:
                self.first = batch
            digest = hashlib.blake2b(digest_size=16)
            for tensor in tensors(batch):
                size += tensor.numel() * tensor.element_size()
                array = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(array.view(torch.uint8).numpy().tobytes())
            hashes.append(digest.hexdigest())
        if not hashes:
            raise ValueError("there is no batch in the data; give at least one")
        return hashes, size

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


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a nested batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        for value in batch:
            yield from tensors(value)


def place(batch: Any, device: torch.device, dtype: torch.dtype, *, copy: bool) -> Any:
    """A nested batch on a device, floating tensors in a dtype, optionally always a copy."""
    if isinstance(batch, Tensor):
        floating = batch.is_floating_point()
        return batch.detach().to(
            device=device,
            dtype=dtype if floating else batch.dtype,
            copy=copy or batch.is_inference(),
        )
    if isinstance(batch, Mapping):
        moved_items = {key: place(value, device, dtype, copy=copy) for key, value in batch.items()}
        if isinstance(batch, dict):
            return renewed(batch, moved_items)
        return _rebuild(batch, moved_items, device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(place(value, device, dtype, copy=copy) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(place(value, device, dtype, copy=copy) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def renewed(batch: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """A mapping of the same type and attributes with other values under its keys."""
    if type(batch) is dict:
        return items
    fresh: Any = copy_module.copy(batch)
    for key, value in items.items():
        fresh[key] = value
    return fresh


def _rebuild(batch: Mapping[Any, Any], items: dict[Any, Any], device: torch.device) -> Any:
    # Mappings with their own type and attributes (a tokenizer's BatchEncoding) move themselves.
    if not hasattr(batch, "to"):
        return items
    moved = batch.to(device)
    for key, value in items.items():
        moved[key] = value
    return moved
