"""Operators in units of their own size, so that no square under- or overflows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from landscape.linalg.operator import SymmetricOperator

_REACH_OF_FLOAT32 = 60


class Rescaled:
    """A / unit, where unit is the power of two nearest to the size of the first product of A.

    Its products are of order one whatever the scale of A is: powers of two change no digit, so
    what an algorithm finds for c A is c times what it finds for A. Where the first product is too
    small (zero included) or too large for the type, it is formed again with a longer or a shorter
    vector, which costs one more product.

    Args:
        operator: A.

    Example:
        >>> import torch
        >>> from landscape.linalg import MatrixOperator
        >>> tiny = Rescaled(MatrixOperator(1e-30 * torch.eye(2)))
        >>> tiny.matmat(torch.ones(1, 2)).round(decimals=2), tiny.unit == 2**-100
        (tensor([[1.2700, 1.2700]]), True)
    """

    def __init__(self, operator: SymmetricOperator) -> None:
        self._operator = operator
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        #: Products spent.
        self.products = 0
        self._exponent: int | None = None
        self._zero_twice = False
        limits = torch.finfo(operator.dtype)
        self._reach = 2 * int(-math.log2(limits.tiny) / 2)
        # Below, an entry a thousand times smaller than the largest one would lose digits.
        self._least = limits.tiny / limits.eps * 1024

    @property
    def unit(self) -> float:
        """The power of two; 1 as long as all products are zero."""
        return math.ldexp(1.0, self._exponent or 0)

    @property
    def zero(self) -> bool:
        """Whether all products so far were zero, the first one also with a longer vector."""
        return self._zero_twice and self._exponent is None

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products of A / unit with K vectors, (K, P) -> (K, P)."""
        if self._exponent is None and len(vectors):
            return self._first(vectors)
        return self._divided(vectors, self._exponent or 0)

    def rounding_errors(self, vectors: Tensor) -> Tensor | None:
        """Measured errors of the products of A / unit, (K, P) -> (K, P), in float64.

        Args:
            vectors: (K, P).

        Returns:
            The errors; None where they are unknown or not finite.
        """
        measure = getattr(self._operator, "rounding_errors", None)
        if measure is None:
            return None
        # Errors may be measured in float32, which holds no longer and no shorter vectors.
        exponent = self._exponent or 0
        before = min(max(exponent // 2, -_REACH_OF_FLOAT32), _REACH_OF_FLOAT32)
        found: Tensor | None = measure(vectors * math.ldexp(1.0, -before))
        if found is None or not bool(found.isfinite().all()):
            return None
        rest = exponent - before
        found = found.double() * math.ldexp(1.0, -(rest // 2))
        return found * math.ldexp(1.0, rest // 2 - rest)

    def _divided(self, vectors: Tensor, exponent: int) -> Tensor:
        before, after = _halves(exponent)
        self.products += len(vectors)
        if not exponent:
            return self._operator.matmat(vectors)
        return self._operator.matmat(vectors * before) * after

    def _first(self, vectors: Tensor) -> Tensor:
        images, shift = self._divided(vectors, 0), 0
        size = _largest(images)
        large = not math.isfinite(size)
        if large or (size < self._least * _largest(vectors) and not self._zero_twice):
            shift = self._reach if large else -self._reach
            images = self._divided(vectors, shift)
            size = _largest(images)
        if not math.isfinite(size):
            return images
        if size == 0:
            self._zero_twice = True
            return images
        exponent = math.frexp(size)[1] - math.frexp(_largest(vectors))[1]
        self._exponent = shift + exponent
        return images * math.ldexp(1.0, -exponent)


def _halves(exponent: int) -> tuple[float, float]:
    """Factors of vector and image that divide by 2^exponent together, neither of them extreme."""
    before = exponent // 2
    return math.ldexp(1.0, -before), math.ldexp(1.0, before - exponent)


def _largest(block: Tensor) -> float:
    return float(block.abs().max())
