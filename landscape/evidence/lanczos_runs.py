"""The Lanczos runs behind a Spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.rounding import (
    RoundingErrors,
    Samples,
    layer_spread,
    rounding_errors,
)
from landscape.evidence.slim_runs import VECTORS, slim_spectrum
from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.linalg import (
    Chain,
    Krylov,
    Rescaled,
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
# Images that the probes' second moments and their scatter need, A v and A^2 v.
_KEPT_IMAGES = 2
# Probes whose rounding is measured, beside both ends.
_TOLD = 2
# ... and of a matrix that is known completely, where rounding is all the error there is.
_TOLD_OF_ALL = 64


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
    scaled = Rescaled(operator)
    plan = _Plan.of(request, operator)
    if plan is None:
        return slim_spectrum(scaled, request, layers=layers)
    generator = torch.Generator().manual_seed(request.seed)
    start = rademacher(1, operator, generator)[0]
    # With the products of the whole budget a small matrix is known completely.
    steps = request.steps if operator.size > request.passes else operator.size + 1
    basis = krylov(scaled, start, steps, generator=generator, max_basis=plan.max_basis)
    scale = float(np.abs(basis.values).max())
    complete = len(basis.values) == operator.size
    settled = np.minimum(_KNOWN * scale, _SETTLED * np.abs(basis.values))
    known = (basis.residuals <= settled) | complete
    deflated = _Deflated(scaled, basis.combine(basis.vectors[:, known]))
    samples, chains = [], []
    told: Tensor | None = None
    for group in [] if complete else plan.groups:
        outside = _sphere(group, deflated.known, operator, generator)
        deflated.images = []
        found = lanczos_chains(
            deflated,
            outside,
            request.probe_steps,
            reorthogonalise=plan.reorthogonalise,
            rescale=False,
        )
        images = _Images.of(outside, deflated.images, found)
        if told is None:
            told = torch.stack([outside[:_TOLD], images.once[:_TOLD]])
        chains += found
        samples.append(_samples(basis, open_=~known, images=images, layers=layers))
    joined = np.concatenate(samples, axis=1) if samples else np.zeros((2 * (2 + len(layers)), 0))
    values, deviations = np.split(joined, 2)
    order = np.argsort(basis.values)[::-1][:_KEPT_VECTORS]
    frobenius = float((basis.projected**2).sum() + basis.remainder**2)
    told = torch.empty(2, 0, operator.size).to(basis.basis) if told is None else told
    sampled = _told(basis, known, told, generator)
    rounding = rounding_errors(
        sampled,
        scaled.rounding_errors(torch.cat([sampled.ends, sampled.vectors])),
        norm=(frobenius + (float(values[1].mean()) if samples else 0.0)) ** 0.5,
        scale=scale,
        layers=layers,
    )
    return Spectrum(
        size=operator.size,
        values=basis.values,
        error_bounds=_bounds(basis.residuals, rounding),
        known=known,
        vectors=basis.combine(basis.vectors[:, order]),
        trace_exact=float(np.trace(basis.projected)),
        trace_samples=values[0],
        frobenius_exact=frobenius,
        frobenius_samples=values[1],
        layer_exact=_inside(basis, layers),
        layer_samples=dict(zip(layers, values[2:], strict=True)),
        chains=chains,
        trace_deviations=deviations[0],
        frobenius_deviations=deviations[1],
        layer_deviations=dict(zip(layers, deviations[2:], strict=True)),
        rounding=rounding,
    ).in_units(scaled.unit)


def _bounds(residuals: Array, rounding: RoundingErrors) -> Array:
    """Residuals with the rounding: that of the ends at the ends, the larger one in between."""
    moved = np.full(len(residuals), max(rounding.largest, rounding.smallest))
    moved[0], moved[-1] = rounding.smallest, rounding.largest
    bounds: Array = residuals + moved
    return bounds


def _told(
    basis: Krylov,
    known: NDArray[np.bool_],
    outside: Tensor,  # (2, K, P): vectors outside the known ones, and their images
    generator: torch.Generator,
) -> Samples:
    """Vectors of all of the space whose products are known: both ends, and two probes.

    A probe outside the known eigenvectors becomes one of all directions by adding these with
    random signs; their images are known.

    Returns:
        The vectors with their images.
    """
    count = len(basis.values)
    ends = [count - 1] if count == 1 else [count - 1, 0]
    kept = basis.combine(basis.vectors[:, ends])
    inside = np.flatnonzero(known)
    inside = inside[~np.isin(inside, ends)]
    number = _TOLD if len(inside) or outside.shape[1] else 0
    if not outside.shape[1]:  # all is known but for rounding, which is then the whole error
        number = min(_TOLD_OF_ALL, len(inside))
    signs = 2.0 * torch.randint(0, 2, (len(inside), number), generator=generator).numpy() - 1
    columns = basis.vectors[:, inside] @ signs
    vectors, images = basis.combine(columns), basis.images(columns)
    if outside.shape[1]:
        out, image = outside[:, :number]
        for place in ends:  # an end that is not known is in the probes
            vector = basis.vectors[:, place : place + 1]
            share = out @ basis.combine(vector).T
            out = out - share @ basis.combine(vector)
            image = image - share @ basis.images(vector)
        vectors, images = vectors + out, images + image
    return Samples(
        ends=kept,
        values=[float(basis.values[place]) for place in ends],
        vectors=vectors,
        images=images,
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
        # A probe in work takes 10 vectors, and its steps where they are kept; known eigenvectors
        # take as many as the basis again.
        if 2 * request.steps + request.probes * (10 + request.probe_steps) <= room:
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
        size = max(1, min((room - 2 * max_basis) // 10, request.probes))
        groups = [size] * (request.probes // size)
        if rest := request.probes % size:
            groups.append(rest)
        return cls(max_basis, groups, reorthogonalise=False)


class _Deflated:
    """An operator with known eigenvectors projected out; keeps the first two blocks of images."""

    def __init__(self, operator: SymmetricOperator, known: Tensor) -> None:
        self._operator = operator
        self.known = known
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.images: list[Tensor] = []

    def matmat(self, vectors: Tensor) -> Tensor:
        images = self._operator.matmat(vectors)
        if len(self.images) < _KEPT_IMAGES:
            self.images.append(images)
        return project_out(images, self.known)


@dataclass(frozen=True)
class _Images:
    """Probes v with A v and A^2 v, each (K, P)."""

    vectors: Tensor
    once: Tensor
    twice: Tensor

    @classmethod
    def of(cls, vectors: Tensor, blocks: list[Tensor], chains: list[Chain]) -> _Images:
        # A v^ = a v^ + b q, so A^2 v^ = a A v^ + b A q, v^ of length one; q is the second vector.
        norms = vectors.norm(dim=1, keepdim=True)
        first = blocks[0] * norms
        heads = np.array([[chain.diagonal[0], chain.off_diagonal[0]] for chain in chains])
        a, b = torch.as_tensor(heads.T[:, :, None]).to(vectors)
        second = norms * blocks[1] if len(blocks) > 1 else torch.zeros_like(first)
        return cls(vectors, first, a * first + b * second)


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
    images: _Images,
    layers: dict[str, list[slice]],
) -> Array:
    """What each probe finds outside the whole Krylov basis.

    Returns:
        Rows for trace, Frobenius and each layer's trace, then in the same order what each probe
        says of the standard deviation of such a sample; (4 + 2 layers, probes).
    """
    # The chains start outside the known eigenvectors only, so that the bulk is complete; for
    # second moments all of the basis is exact, and its image is known without further products.
    rest, once, twice = images.vectors, images.once, project_out(images.twice, basis.basis)
    for column in np.flatnonzero(open_):
        vector = basis.vectors[:, column : column + 1]
        ritz = basis.combine(vector)
        inside = images.vectors @ ritz.T
        rest = rest - inside @ ritz
        once = once - inside @ basis.images(vector)
        # Of A^2 y outside the basis all but one vector of n, A q_next, is known.
        beyond = basis.remainder * float(vector[-1, 0]) * float(basis.values[column])
        twice = twice - inside * beyond * basis.following
    rest = project_out(rest, basis.basis)
    dimension = rest.shape[1] - len(basis.values)
    factor = _resphere(rest, dimension)[:, None]
    outside = project_out(once, basis.basis)
    weighted = factor * rest * outside  # v * P A P v, P projects out
    trace = weighted.sum(1, dtype=torch.float64)
    squared = (factor * once.square()).sum(1, dtype=torch.float64)
    rows = [trace, squared]
    spreads = [
        2 * (factor * (image - mean[:, None] * rest).square()).sum(1, dtype=torch.float64)
        for image, mean in (
            (outside, (trace / dimension).to(rest)),
            (twice, (squared / dimension).to(rest)),
        )
    ]
    shares = factor * outside.square()
    for places in layers.values():
        share = _over(weighted, places)
        rows.append(share)
        told = zip(share.tolist(), _over(shares, places).tolist(), strict=True)
        spread = [layer_spread(trace, square, places, dimension) for trace, square in told]
        spreads.append(torch.tensor(spread).to(share))
    deviations = torch.stack(spreads).sqrt()
    stacked: Array = torch.cat([torch.stack(rows), deviations]).cpu().numpy()
    return stacked


def _over(block: Tensor, places: list[slice]) -> Tensor:
    parts = [block[:, place].sum(1, dtype=torch.float64) for place in places]
    return torch.stack(parts).sum(0)


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
