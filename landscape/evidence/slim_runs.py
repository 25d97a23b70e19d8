"""A Spectrum in the memory of a few vectors, for models too large to keep a Krylov basis of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.linalg import Chain, SymmetricOperator, lanczos_chains

#: Vectors in use at a time: three of the recurrence, the image, the first one, and a product's.
VECTORS = 8

_DRAWN_AT_ONCE = 1 << 22


def slim_spectrum(
    operator: SymmetricOperator,
    request: SpectrumRequest,
    *,
    layers: dict[str, list[slice]],
) -> Spectrum:
    """Lanczos runs one after the other, none of whose vectors are kept.

    The extremes are Ritz values of one long run. Without re-orthogonalisation it finds a converged
    eigenvalue again and again, but its residuals still bound the errors (Paige 1980). No
    eigenvalue is projected out of the probes, so trace and Frobenius norm are plain means over
    them; the long run is one of them.

    Args:
        operator: The matrix.
        request: Budget and seed.
        layers: Slices of flat vectors by layer, for the layer traces.

    Returns:
        The spectrum, without eigenvectors.
    """
    generator = torch.Generator().manual_seed(request.seed)
    chains: list[Chain] = []
    shares = []
    for steps in (request.steps, *[request.probe_steps] * request.probes):
        watched = _FirstImage(operator, layers)
        chains += lanczos_chains(
            watched, _sphere(operator, generator), steps, reorthogonalise=False
        )
        shares.append(watched.shares)
    first = np.array([[chain.diagonal[0], chain.off_diagonal[0]] for chain in chains])
    values, bounds, rounding = _extremes(chains[0], torch.finfo(operator.dtype).eps)
    return Spectrum(
        size=operator.size,
        values=values,
        error_bounds=bounds,
        known=np.zeros(len(values), dtype=bool),
        vectors=torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device),
        trace_exact=0.0,
        trace_samples=operator.size * first[:, 0],
        frobenius_exact=0.0,
        frobenius_samples=operator.size * np.square(first).sum(1),
        layer_exact=dict.fromkeys(layers, 0.0),
        layer_samples={
            layer: operator.size * np.array([share[layer] for share in shares]) for layer in layers
        },
        chains=chains,
        rounding=rounding,
    )


def _extremes(chain: Chain, precision: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Ritz values of a run, bounds of their errors, and the rounding of its products."""
    off = chain.off_diagonal[:-1]
    matrix = np.diag(chain.diagonal) + np.diag(off, 1) + np.diag(off, -1)
    values, vectors = np.linalg.eigh(matrix)
    rounding = 4 * precision * float(np.abs(values).max())
    return values, np.abs(chain.off_diagonal[-1] * vectors[-1]) + rounding, rounding


class _FirstImage:
    """An operator that keeps what each layer adds to <v, A v> of the first vector, of length 1."""

    def __init__(self, operator: SymmetricOperator, layers: dict[str, list[slice]]) -> None:
        self._operator, self._layers = operator, layers
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.shares: dict[str, float] = {}

    def matmat(self, vectors: Tensor) -> Tensor:
        images = self._operator.matmat(vectors)
        if not self.shares:
            self.shares = {
                layer: sum(
                    float((vectors[0, place] * images[0, place]).sum(dtype=torch.float64))
                    for place in places
                )
                for layer, places in self._layers.items()
            }
        return images


def _sphere(operator: SymmetricOperator, generator: torch.Generator) -> Tensor:  # (1, P)
    """A uniform direction, of squared norm P; drawn in pieces, since draws are in float64."""
    drawn = torch.empty(1, operator.size, dtype=operator.dtype, device=operator.device)
    for piece in drawn[0].split(_DRAWN_AT_ONCE):
        piece.copy_(torch.randn(len(piece), generator=generator, dtype=torch.float64))
    return drawn.mul_(operator.size**0.5 / drawn.norm())
