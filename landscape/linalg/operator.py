"""What every algorithm here needs of a matrix: its size and its products."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class SymmetricOperator(Protocol):
    """A real symmetric P x P matrix known by its products with blocks of vectors.

    An operator may also have ``rounding_errors(vectors: Tensor) -> Tensor | None``: what the
    rounding of its arithmetic adds to the products with K vectors, (K, P) -> (K, P), as measured
    against a higher precision; None where that is unknown. A Spectrum asks for it once, with a few
    vectors, and widens its intervals by what it finds. Without it a few units in the last place are
    allowed for.
    """

    @property
    def size(self) -> int:
        """P."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the vectors."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""
        ...

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products with K vectors, (K, P) -> (K, P)."""
        ...


class MatrixOperator:
    """A dense symmetric matrix as an operator.

    Args:
        matrix: Symmetric, (P, P).

    Example:
        >>> import torch
        >>> MatrixOperator(torch.diag(torch.tensor([1.0, 2.0]))).matmat(torch.ones(1, 2))
        tensor([[1., 2.]])
    """

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix
        self.size = matrix.shape[0]
        self.dtype = matrix.dtype
        self.device = matrix.device

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products with K vectors, (K, P) -> (K, P)."""
        return vectors @ self._matrix


def project_out(
    vectors: Tensor,  # (K, P)
    basis: Tensor,  # (r, P), orthonormal rows
) -> Tensor:
    """Removes the components of vectors inside the row space of a basis, twice for rounding."""
    for _ in range(2):
        vectors = vectors - (vectors @ basis.T) @ basis
    return vectors


def rademacher(
    count: int, operator: SymmetricOperator, generator: torch.Generator
) -> Tensor:  # (count, P)
    """Random signs, drawn on the CPU so that every device gets the same vectors."""
    signs = torch.randint(0, 2, (count, operator.size), generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(dtype=operator.dtype, device=operator.device)
