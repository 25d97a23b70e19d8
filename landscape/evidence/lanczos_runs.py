"""The Lanczos runs behind a Spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.slim_runs import VECTORS, slim_spectrum
from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.linalg import (
    Krylov,
    SymmetricOperator,
    krylov,
    lanczos_chains,
    project_out,
    rademacher,
)

Array = NDArray[np.float64]

# A Ritz pair whose residual is this share of the largest |eigenvalue| counts as known: its value
# is then off by the square of that, and it is projected out of the probes.
_KNOWN = 1e-4
# ... and small against the value itself, or one huge eigenvalue would make all others known.
_SETTLED = 1e-2
_KEPT_VECTORS = 5
_LEAST_BASIS = 8


def compute_spectrum(
    operator: SymmetricOperator,
    request: SpectrumRequest,
    *,
    layers: dict[str, list[slice]],
) -> Spectrum:
    """Runs the Lanczos chains of a request on any symmetric operator.

    Args:
        operator: The matrix.
        request: Budget and seed.
        layers: Slices of flat vectors by layer, for the layer traces.

    Returns:
        The spectrum.
    """
    plan = _Plan.of(request, operator)
    if plan is None:
        return slim_spectrum(operator, request, layers=layers)
    generator = torch.Generator().manual_seed(request.seed)
    start = rademacher(1, operator, generator)[0]
    basis = krylov(operator, start, request.steps, generator=generator, max_basis=plan.max_basis)
    scale = float(np.abs(basis.values).max())
    complete = len(basis.values) == operator.size
    settled = np.minimum(_KNOWN * scale, _SETTLED * np.abs(basis.values))
    known = (basis.residuals <= settled) | complete
    deflated = _Deflated(operator, basis.combine(basis.vectors[:, known]))
    samples, chains = [], []
    for group in [] if complete else plan.groups:
        outside = _sphere(group, deflated.known, operator, generator)
        deflated.first = outside[:0]
        chains += lanczos_chains(
            deflated, outside, request.probe_steps, reorthogonalise=plan.reorthogonalise
        )
        samples.append(
            _samples(
                basis,
                open_=~known,
                outside=outside,
                first=deflated.first,
                layers=layers,
            )
        )
    joined = np.concatenate(samples, axis=1) if samples else np.zeros((2 + len(layers), 0))
    order = np.argsort(basis.values)[::-1][:_KEPT_VECTORS]
    return Spectrum(
        size=operator.size,
        values=basis.values,
        error_bounds=basis.error_bounds(),
        known=known,
        vectors=basis.combine(basis.vectors[:, order]),
        trace_exact=float(np.trace(basis.projected)),
        trace_samples=joined[0],
        frobenius_exact=float((basis.projected**2).sum() + basis.remainder**2),
        frobenius_samples=joined[1],
        layer_exact=_inside(basis, layers),
        layer_samples=dict(zip(layers, joined[2:], strict=True)),
        chains=chains,
        rounding=4 * torch.finfo(operator.dtype).eps * scale,
    )


@dataclass(frozen=True)
class _Plan:
    """How a request is run inside its memory: vectors in the basis, probes at a time."""

    max_basis: int | None
    groups: list[int]
    reorthogonalise: bool

    @classmethod
    def of(cls, request: SpectrumRequest, operator: SymmetricOperator) -> _Plan | None:
        """The plan; None where only a few vectors have room."""
        room = request.memory // (operator.size * torch.finfo(operator.dtype).bits // 8)
        # A probe in work takes 8 vectors, and its steps where they are kept; known eigenvectors
        # take as many as the basis again.
        if 2 * request.steps + request.probes * (8 + request.probe_steps) <= room:
            return cls(None, [request.probes], reorthogonalise=True)
        max_basis = min(room // 4, request.steps)
        if room < VECTORS:
            needed = VECTORS * operator.size * torch.finfo(operator.dtype).bits // 8
            raise ValueError(
                f"a spectrum of {operator.size} parameters needs memory of at least "
                f"{needed / 2**30:.2f} GiB, got {request.memory / 2**30:.2f} GiB"
            )
        if max_basis < _LEAST_BASIS:
            return None
        size = max(1, min((room - 2 * max_basis) // 8, request.probes))
        groups = [size] * (request.probes // size)
        if rest := request.probes % size:
            groups.append(rest)
        return cls(max_basis, groups, reorthogonalise=False)


class _Deflated:
    """An operator with known eigenvectors projected out; keeps the first block of its images."""

    def __init__(self, operator: SymmetricOperator, known: Tensor) -> None:
        self._operator = operator
        self.known = known
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.first = known[:0]

    def matmat(self, vectors: Tensor) -> Tensor:
        images = self._operator.matmat(vectors)
        if not len(self.first):
            self.first = images
        return project_out(images, self.known)


def _sphere(
    count: int, known: Tensor, operator: SymmetricOperator, generator: torch.Generator
) -> Tensor:  # (count, P)
    """Uniform draws from the complement of the known vectors, of squared norm its dimension."""
    # Gaussian draws keep a uniform direction in any subspace, so that the dimension, which is
    # known, takes the place of the random squared norm: what is alike in all directions has no
    # variance.
    draws = torch.randn(count, operator.size, generator=generator, dtype=torch.float64)
    outside = project_out(draws.to(dtype=operator.dtype, device=operator.device), known)
    return outside * _resphere(outside, operator.size - len(known)).sqrt()[:, None]


def _resphere(vectors: Tensor, dimension: int) -> Tensor:
    """Dimension over squared norm of each vector, (K,)."""
    squares = vectors.square().sum(1, dtype=torch.float64)
    return (dimension / squares.clamp_min(torch.finfo(vectors.dtype).tiny)).to(vectors.dtype)


def _samples(
    basis: Krylov,
    *,
    open_: NDArray[np.bool_],
    outside: Tensor,
    first: Tensor,
    layers: dict[str, list[slice]],
) -> Array:
    """Rows: trace, Frobenius, each layer's trace outside the whole Krylov basis; (., probes)."""
    # The chains start outside the known eigenvectors only, so that the bulk is complete; for
    # second moments all of the basis is exact, and its image is known without further products.
    images = first * outside.norm(dim=1, keepdim=True)  # A applied to ``outside`` itself
    rest = outside
    for column in np.flatnonzero(open_):
        vector = basis.vectors[:, column : column + 1]
        ritz = basis.combine(vector)
        inside = outside @ ritz.T
        rest = rest - inside @ ritz
        images = images - inside @ basis.images(vector)
    rest = project_out(rest, basis.basis)
    factor = _resphere(rest, rest.shape[1] - len(basis.values))[:, None]
    weighted = factor * rest * project_out(images, basis.basis)  # v * P A P v, P projects out
    rows = [
        weighted.sum(1, dtype=torch.float64),
        (factor * images.square()).sum(1, dtype=torch.float64),
    ]
    for places in layers.values():
        parts = [weighted[:, place].sum(1, dtype=torch.float64) for place in places]
        rows.append(torch.stack(parts).sum(0))
    stacked: Array = torch.stack(rows).cpu().numpy()
    return stacked


def _inside(basis: Krylov, layers: dict[str, list[slice]]) -> dict[str, float]:
    """tr(E_l Q Q^T A) + tr(E_l P A Q Q^T): what the basis says of each layer's trace."""
    count = len(basis.values)
    # The second term lives in the remainder alone: A q_k = ... + remainder * q_next.
    diagonal = basis.basis[-1] * basis.following * basis.remainder
    for row in range(count):
        unit = np.zeros((count, 1))
        unit[row] = 1.0
        diagonal += basis.basis[row] * basis.images(unit)[0]
    return {
        layer: sum(float(diagonal[place].sum(dtype=torch.float64)) for place in places)
        for layer, places in layers.items()
    }
