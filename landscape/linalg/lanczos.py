"""Lanczos: a Krylov basis for both ends of a spectrum, and chains for quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.linalg.operator import SymmetricOperator, project_out
from landscape.linalg.scaling import Rescaled

Array = NDArray[np.float64]

_NOT_FINITE = (
    "a product with the operator is not finite; where the loss is not too large for its type, "
    "measure in float64 (dtype=torch.float64, --dtype float64)"
)


@dataclass(frozen=True, kw_only=True)
class Krylov:
    """An orthonormal basis Q (rows) with A Q = T Q + remainder * e_k q_next.

    Args:
        basis: Q, (k, P).
        projected: T = Q A Q^T, (k, k), float64.
        remainder: Norm of what A maps out of the basis; 0 if the basis is invariant.
        following: q_next, (P,), the unit vector that the remainder points to.
    """

    basis: Tensor
    projected: Array
    remainder: float
    following: Tensor

    @cached_property
    def _ritz(self) -> tuple[Array, Array]:
        values, vectors = np.linalg.eigh(self.projected)
        return values, vectors

    @property
    def values(self) -> Array:
        """Ritz values, ascending, (k,)."""
        values: Array = self._ritz[0]
        return values

    @property
    def vectors(self) -> Array:
        """Coefficients of the Ritz vectors in the basis, column i for value i, (k, k)."""
        vectors: Array = self._ritz[1]
        return vectors

    @property
    def residuals(self) -> Array:
        """Residual norms ||A y - theta y|| of the Ritz pairs, (k,)."""
        residuals: Array = np.abs(self.remainder * self.vectors[-1])
        return residuals

    def error_bounds(self) -> Array:
        """Bounds of the Ritz values' errors: within each lies an eigenvalue, (k,).

        The residual norm (Parlett 1998, theorem 4.5.1), and for the rounding of the products a
        few units in the last place of the largest value. The quadratic bound res^2 / gap needs the
        gap to the other eigenvalues; with the gap to the other Ritz values in its place it fails
        for clusters that Lanczos has not told apart yet.

        Returns:
            The bounds.
        """
        rounding = 4 * torch.finfo(self.basis.dtype).eps * np.abs(self.values).max()
        bounds: Array = self.residuals + rounding
        return bounds

    def combine(self, columns: Array) -> Tensor:
        """Vectors Q^T c for coefficient columns (k, r), as rows (r, P)."""
        coefficients = torch.as_tensor(
            columns.T.copy(), dtype=self.basis.dtype, device=self.basis.device
        )
        return coefficients @ self.basis

    def images(self, columns: Array) -> Tensor:
        """A applied to ``combine(columns)``, from the stored relation: costs no product."""
        tail = torch.as_tensor(
            self.remainder * columns[-1], dtype=self.basis.dtype, device=self.basis.device
        )
        return self.combine(self.projected @ columns) + torch.outer(tail, self.following)


def krylov(
    operator: SymmetricOperator,
    start: Tensor,  # (P,)
    steps: int,
    *,
    generator: torch.Generator,
    max_basis: int | None = None,
) -> Krylov:
    """Lanczos with full re-orthogonalisation and, in bounded memory, thick restarts.

    Every step costs one product. A breakdown (the basis is invariant) restarts with a random
    orthogonal vector, so that eigenvalues missing from the start vector are found too. Above
    ``max_basis`` vectors the basis is compressed to the Ritz vectors farthest from the middle of
    the spectrum (thick restart, Wu and Simon 2000), which keeps both ends.

    Args:
        operator: Symmetric operator.
        start: Start vector, not zero.
        steps: Products to spend; fewer are spent when the basis fills the space, one more where
            the first product all but under- or overflows.
        generator: Source of the vectors after a breakdown (CPU).
        max_basis: Most vectors kept, at least 8; None keeps all.

    Returns:
        The basis with its Ritz pairs.

    Raises:
        ValueError: If the start vector is zero or ``max_basis`` is below 8.
        FloatingPointError: If a product is not finite.

    Example:
        >>> import torch
        >>> from landscape.linalg import MatrixOperator, krylov
        >>> found = krylov(MatrixOperator(torch.diag(torch.tensor([2.0, -6.0, 1.0]))),
        ...                torch.ones(3), 3, generator=torch.Generator())
        >>> [round(float(value), 4) for value in found.values]
        [-6.0, 1.0, 2.0]
    """
    limit = min(steps if max_basis is None else max_basis, operator.size)
    if max_basis is not None and max_basis < 8:
        raise ValueError(f"max_basis must be at least 8, got {max_basis}; raise the memory budget")
    norm = float(start.norm())
    if not norm > 0:
        raise ValueError(f"the start vector must be non-zero and finite, its norm is {norm}")
    scaled = Rescaled(operator)
    basis = torch.empty(limit + 1, operator.size, dtype=operator.dtype, device=operator.device)
    basis[0] = start / norm
    projected = np.zeros((limit, limit))
    count, scale, remainder = 0, 0.0, 0.0
    for _ in range(steps):
        if scaled.zero and scaled.products == steps:  # it was looked at twice, and is zero
            break
        if count == limit:
            if limit == operator.size:
                break
            count = _compress(basis, projected)
        vector = scaled.matmat(basis[count : count + 1])[0]
        if not bool(torch.isfinite(vector).all()):
            raise FloatingPointError(_NOT_FINITE)
        known = basis[: count + 1]
        first = known @ vector
        vector = vector - first @ known
        second = known @ vector
        vector = vector - second @ known
        column = (first + second).double().cpu().numpy()
        projected[count, : count + 1] = projected[: count + 1, count] = column
        remainder = float(vector.norm())
        scale = max(scale, float(np.abs(column).max()), remainder)
        count += 1
        # In float32 a remainder of a few roundings is noise: it has no direction of its own.
        if remainder <= 10 * torch.finfo(operator.dtype).eps * scale:
            remainder = 0.0
            if count == operator.size:
                break
            vector = torch.randn(operator.size, generator=generator, dtype=torch.float64).to(vector)
            vector = project_out(vector[None], basis[:count])[0]
        basis[count] = vector / vector.norm()
    return Krylov(
        basis=basis[:count],
        projected=projected[:count, :count] * scaled.unit,
        remainder=remainder * scaled.unit if count < operator.size else 0.0,
        following=basis[count] if count < operator.size else torch.zeros_like(basis[0]),
    )


def _compress(basis: Tensor, projected: Array) -> int:
    """Keeps half of the Ritz vectors, those farthest from the median, and the next vector."""
    limit = projected.shape[0]
    values, vectors = np.linalg.eigh(projected)
    order = np.argsort(np.abs(values - np.median(values)))[::-1]
    kept = np.unique(np.concatenate([order[: limit // 2 - 2], [0, limit - 1]]))
    coefficients = torch.as_tensor(vectors[:, kept].T.copy()).to(basis)
    # In slices of columns, so that the compression itself needs no second basis.
    for part in torch.arange(basis.shape[1], device=basis.device).split(1 << 18):
        columns = slice(int(part[0]), int(part[-1]) + 1)
        basis[: len(kept), columns] = coefficients @ basis[:limit, columns]
    basis[len(kept)] = basis[limit]
    projected[:] = 0.0
    projected[range(len(kept)), range(len(kept))] = values[kept]
    return len(kept)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The Jacobi matrix of one Lanczos run: diagonal (m,), off-diagonal (m,), squared start norm.

    The last off-diagonal entry is the coupling to the vector after the run; 0 if the run broke
    down, and then its quadrature is exact.
    """

    diagonal: Array
    off_diagonal: Array
    mass: float

    @property
    def exact(self) -> bool:
        """Whether the run spans an invariant space."""
        return bool(self.off_diagonal[-1] == 0)

    def scaled(self, factor: float) -> Chain:
        """The run on a multiple of the operator."""
        return Chain(
            diagonal=self.diagonal * factor,
            off_diagonal=self.off_diagonal * factor,
            mass=self.mass,
        )

    def quadrature(self, steps: int | None = None) -> tuple[Array, Array]:
        """Gauss nodes and weights of the first steps; the weights sum to the mass.

        Squares of the first row of a symmetric eigendecomposition in float64 (Golub and
        Welsch 1969).

        Returns:
            Nodes and weights, ascending by node.
        """
        count = len(self.diagonal) if steps is None else min(steps, len(self.diagonal))
        nodes, vectors = self._eigen(count)
        return nodes, self.mass * vectors[0] ** 2

    def residuals(self) -> tuple[Array, Array, Array]:
        """Nodes x of the whole run, residuals of their Ritz vectors y, and overlaps.

        The start vector is ||v|| times the sum of overlap * y; within its residual ||A y - x y||
        of each node lies an eigenvalue.

        Returns:
            Nodes, residuals and overlaps (absolute values), ascending by node.
        """
        nodes, vectors = self._eigen(len(self.diagonal))
        return nodes, np.abs(self.off_diagonal[-1] * vectors[-1]), np.abs(vectors[0])

    def _eigen(self, count: int) -> tuple[Array, Array]:
        off = self.off_diagonal[: count - 1]
        matrix = np.diag(self.diagonal[:count]) + np.diag(off, 1) + np.diag(off, -1)
        nodes, vectors = np.linalg.eigh(matrix)
        return nodes, vectors


def lanczos_chains(
    operator: SymmetricOperator,
    starts: Tensor,  # (K, P)
    steps: int,
    *,
    reorthogonalise: bool = True,
    rescale: bool = True,
) -> list[Chain]:
    """K independent Lanczos runs in lockstep: each step is one block product of K vectors.

    A run that breaks down has an exact quadrature; it ends there.

    Args:
        operator: Symmetric operator.
        starts: Start vectors; a zero row gives a chain of mass 0.
        steps: Steps of every run (K products each).
        reorthogonalise: Keep all vectors (K * steps * P numbers) and orthogonalise against them;
            False keeps three vectors a run, enough for quadrature in bounded memory.
        rescale: Bring the products to order one first; False where the operator does that.

    Returns:
        One chain a start vector.

    Raises:
        FloatingPointError: If a product is not finite.
    """
    scaled = Rescaled(operator) if rescale else operator
    norms = starts.norm(dim=1)
    current = starts / norms.clamp_min(torch.finfo(starts.dtype).tiny)[:, None]
    previous = torch.zeros_like(current)
    count = starts.shape[0]
    kept = starts.new_empty((count, steps if reorthogonalise else 0, starts.shape[1]))
    coupling = torch.zeros(count, dtype=starts.dtype, device=starts.device)
    scale = torch.zeros_like(coupling)
    lengths = np.where(norms.cpu().numpy() > 0, steps, 1)
    diagonal, off_diagonal = np.zeros((count, steps)), np.zeros((count, steps))
    rounding = 10 * torch.finfo(operator.dtype).eps
    for step in range(steps):
        image = scaled.matmat(current)
        if reorthogonalise:
            kept[:, step] = current
        centre = (current * image).sum(1)
        image = image - centre[:, None] * current - coupling[:, None] * previous
        if reorthogonalise:
            basis = kept[:, : step + 1]  # (K, step + 1, P)
            for _ in range(2):
                inside = torch.einsum("kjp,kp->kj", basis, image)
                image = image - torch.einsum("kj,kjp->kp", inside, basis)
        coupling = image.norm(dim=1)
        if not bool((centre + coupling).isfinite().all()):
            raise FloatingPointError(_NOT_FINITE)
        scale = torch.maximum(scale, centre.abs() + coupling)
        alive = coupling > rounding * scale
        diagonal[:, step] = centre.double().cpu().numpy()
        off_diagonal[:, step] = (coupling * alive).double().cpu().numpy()
        ended = ~alive.cpu().numpy() & (lengths > step + 1)
        lengths[ended] = step + 1
        if bool((lengths <= step + 1).all()):
            break
        coupling = torch.where(alive, coupling, torch.zeros_like(coupling))
        safe = torch.where(alive, coupling, torch.ones_like(coupling))
        previous, current = current, torch.where(alive[:, None], image / safe[:, None], 0.0)
    unit = scaled.unit if isinstance(scaled, Rescaled) else 1.0
    return [
        Chain(
            diagonal=diagonal[row, : lengths[row]] * unit,
            off_diagonal=off_diagonal[row, : lengths[row]] * unit,
            mass=float(norms[row].double() ** 2),
        )
        for row in range(count)
    ]
