"""Vectors over all parameters, kept as one tensor a parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Smallest divisor of a normalisation; a zero gradient then gives a zero step.
TINY = 1e-12
# Roundings that a difference of near vectors may have.
_ROUNDING = 100


class Vector:
    """A point or a direction in parameter space; never changed in place.

    A list keeps devices and data types as they are and spares the copies of one flat tensor.

    Args:
        tensors: One tensor for each parameter, in the order of the optimiser's groups.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def __add__(self, other: Vector) -> Vector:
        return Vector(torch._foreach_add(self.tensors, other.tensors))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(torch._foreach_sub(self.tensors, other.tensors))

    def __mul__(self, other: Vector | Tensor | float) -> Vector:
        """Entry by entry with another vector, or with one number (a tensor spares a wait)."""
        if isinstance(other, Vector):
            return Vector(torch._foreach_mul(self.tensors, other.tensors))
        return Vector(torch._foreach_mul(self.tensors, other))

    __rmul__ = __mul__

    def weighted(self, factors: Sequence[float]) -> Vector:
        """Each tensor times its own number."""
        return Vector(torch._foreach_mul(self.tensors, list(factors)))

    def map(self, change: Callable[[Tensor], Tensor]) -> Vector:
        """A function of every tensor."""
        return Vector([change(tensor) for tensor in self.tensors])

    def dot(self, other: Vector) -> Tensor:
        """Inner product, a tensor without dimensions, at least in float32."""
        pairs = zip(self.tensors, other.tensors, strict=True)
        return _together([(_widened(a) * _widened(b)).sum() for a, b in pairs]).sum()

    def sum(self) -> Tensor:
        """Sum of all entries, at least in float32."""
        return _together([_widened(tensor).sum() for tensor in self.tensors]).sum()

    def widened(self) -> Vector:
        """The vector in float32 at least, where powers neither vanish nor overflow."""
        return self.map(_widened)

    def norm(self) -> Tensor:
        """Euclidean norm over all parameters, at least in float32."""
        norms = [torch.linalg.vector_norm(tensor, dtype=_wide(tensor)) for tensor in self.tensors]
        norm: Tensor = torch.linalg.vector_norm(_together(norms))
        return norm

    def unit(self) -> Vector:
        """V / ‖v‖, and 0 for v = 0."""
        return self * (1 / self.norm().clamp_min(TINY))

    def beside(self, other: Vector) -> Vector:
        """What is left of the vector beside another one; 0 where that is no more than rounding."""
        rest = self - (self.dot(other) / other.norm().clamp_min(TINY).square()) * other
        norm = rest.norm()
        return rest * (norm > _ROUNDING * torch.finfo(norm.dtype).eps * self.norm()).to(norm)

    def flat(self) -> Tensor:
        """All entries one after the other, (P,)."""
        return torch.cat([tensor.flatten() for tensor in self.tensors])

    def like(self, flat: Tensor) -> Vector:
        """A flat tensor cut into the shapes of this vector."""
        parts = flat.split([tensor.numel() for tensor in self.tensors])
        return Vector(
            [
                part.view_as(tensor).to(tensor)
                for part, tensor in zip(parts, self.tensors, strict=True)
            ]
        )

    def finite(self) -> bool:
        """Whether every entry is; waits for the device."""
        return bool(_together([tensor.isfinite().all() for tensor in self.tensors]).all())


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(_wide(tensor))


def _together(scalars: list[Tensor]) -> Tensor:
    return torch.stack([scalar.to(scalars[0].device) for scalar in scalars])
