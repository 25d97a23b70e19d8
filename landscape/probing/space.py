"""The parameter space: which entries a flat vector holds, by name and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate

import torch
from torch import Size, Tensor, nn


@dataclass(frozen=True)
class ParamSpace:
    """Names and shapes of the trainable parameters in flattening order.

    Tied parameters appear once, under their first name; frozen and empty ones not at all.

    Args:
        names: Parameter names as in ``model.named_parameters()``.
        shapes: Their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[Size, ...]

    @classmethod
    def of(cls, model: nn.Module) -> ParamSpace:
        """The space of a model's trainable parameters.

        Args:
            model: The model.

        Returns:
            Its space.

        Raises:
            ValueError: If nothing is trainable, or a parameter is complex.
        """
        found = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.numel() > 0
        ]
        if not found:
            raise ValueError(
                "the model has no trainable parameter; set requires_grad=True on the ones to probe"
            )
        for name, parameter in found:
            if not parameter.is_floating_point():
                raise ValueError(
                    f"parameter {name!r} is {parameter.dtype}; only real floating parameters can "
                    "be probed, set requires_grad=False on it"
                )
        return cls(
            tuple(name for name, _ in found), tuple(parameter.shape for _, parameter in found)
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each parameter."""
        return tuple(shape.numel() for shape in self.shapes)

    @property
    def size(self) -> int:
        """P, the number of entries."""
        return sum(self.sizes)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in a flat vector."""
        ends = list(accumulate(self.sizes))
        return {
            name: slice(end - size, end)
            for name, size, end in zip(self.names, self.sizes, ends, strict=True)
        }

    def by_layer(self) -> dict[str, tuple[str, ...]]:
        """Parameter names by layer, the module that owns them, in flattening order."""
        layers: dict[str, tuple[str, ...]] = {}
        for name in self.names:
            layer = name.rpartition(".")[0] or "(root)"
            layers[layer] = (*layers.get(layer, ()), name)
        return layers

    def select(self, patterns: str | Sequence[str]) -> ParamSpace:
        """The sub-space of parameters whose name matches any shell-style pattern.

        Args:
            patterns: Such as "layer4.*" or ["*.weight", "head.bias"].

        Returns:
            The sub-space, in the same order.

        Raises:
            ValueError: If nothing matches.
        """
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        kept = [
            (name, shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
            if any(fnmatchcase(name, pattern) for pattern in wanted)
        ]
        if not kept:
            raise ValueError(
                f"no parameter matches {wanted}; the model has {', '.join(self.names[:20])}"
                + (" ..." if len(self.names) > 20 else "")
            )
        return ParamSpace(tuple(name for name, _ in kept), tuple(shape for _, shape in kept))

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a flat (P,) vector by name; one split, so that its backward is one cat."""
        pieces = flat.split(list(self.sizes))
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Inverse of ``split``, (P,)."""
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def gathered(self, tensors: Mapping[str, Tensor], what: str) -> Tensor:
        """A flat vector of tensors given by a user, (P,).

        Args:
            tensors: Name to tensor; further names are ignored.
            what: What the vector is, for the error.

        Returns:
            The vector.

        Raises:
            ValueError: If a tensor is missing or has another shape.
            TypeError: If they are not given by name.
        """
        if not isinstance(tensors, Mapping):
            raise TypeError(
                f"{what} must be a vector or tensors by name, such as model.state_dict(); got "
                f"{type(tensors).__name__}"
            )
        wrong = [
            name
            for name, shape in zip(self.names, self.shapes, strict=True)
            if name not in tensors or tensors[name].shape != shape
        ]
        if wrong:
            raise ValueError(
                f"{what} must hold a tensor of the shape of every trainable parameter; missing or "
                f"of another shape are {', '.join(wrong[:5])}"
            )
        return self.flatten(tensors)


def align(tensor: Tensor) -> Tensor:
    """The tensor, copied where it lies in a flat vector as ``torch.view_as_complex`` refuses it."""
    odd = tensor.storage_offset() % 2 or (tensor.dim() > 1 and tensor.stride(0) % 2)
    return tensor.clone() if odd and not tensor.numel() % 2 else tensor
