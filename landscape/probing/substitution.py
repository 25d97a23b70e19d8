"""Evaluating a module with other tensors in place of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

# Where a tensor is registered: the dictionary of a module, and its key there.
Place = tuple[Any, str]


class TensorPlaces:
    """Every place of a module tree that holds a parameter or a buffer, by the tensor's first name.

    ``torch.func.functional_call`` restores tensors name by name, so that a module which is
    registered under two names keeps the substitutes. Here every place is visited once.

    Args:
        module: The module; its structure must not change afterwards.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = _places(module, "_parameters")
        self._buffers = _places(module, "_buffers")

    def buffers(self) -> dict[str, Tensor]:
        """The tensors that are registered as buffers now, by name."""
        return {
            name: holder[key]
            for name, ((holder, key), *_) in self._buffers.items()
            if holder[key] is not None
        }

    @contextmanager
    def substituted(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> Iterator[None]:
        """The module with other tensors inside the block; the same objects as before after it.

        Buffers that a forward pass assigns inside the block are put back as well.

        Args:
            parameters: Substitutes by name, as in ``named_parameters()``.
            buffers: Substitutes by name, as in ``named_buffers()``.
        """
        before: list[tuple[Any, str, Any]] = []
        try:
            for named, known in ((parameters, self._parameters), (buffers, self._buffers)):
                for name, tensor in named.items():
                    for holder, key in known[name]:
                        before.append((holder, key, holder[key]))
                        holder[key] = tensor
            yield
        finally:
            for holder, key, tensor in reversed(before):
                holder[key] = tensor


def _places(module: nn.Module, kind: str) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    names: dict[int, str] = {}
    for prefix, part in module.named_modules():
        holder = getattr(part, kind)
        for key, tensor in holder.items():
            if tensor is not None:
                name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                found.setdefault(name, []).append((holder, key))
    return found
