"""A Spectrum in the memory of a few vectors, for models too large to keep a Krylov basis of."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from landscape.evidence.rounding import RoundingErrors, layer_spread
from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.linalg import Chain, Rescaled, SymmetricOperator, lanczos_chains

#: Vectors in use at a time: three of the recurrence, the image, the first one, and a product's.
VECTORS = 8
# Runs whose first product is compared with a more precise one.
_TOLD = 2

_DRAWN_AT_ONCE = 1 << 22


def slim_spectrum(
    operator: Rescaled,
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
        operator: The matrix, in units of its own size.
        request: Budget and seed.
        layers: Slices of flat vectors by layer, for the layer traces.

    Returns:
        The spectrum, without eigenvectors.
    """
    generator = torch.Generator().manual_seed(request.seed)
    chains: list[Chain] = []
    watched: list[_FirstImage] = []
    for steps in (request.steps, *[request.probe_steps] * request.probes):
        watched.append(_FirstImage(operator, layers, measured=len(watched) < _TOLD))
        chains += lanczos_chains(
            watched[-1],
            _sphere(operator, generator),
            steps,
            reorthogonalise=False,
            rescale=False,
        )
    heads = np.array([_head(chain) for chain in chains])
    first = heads[:, :2]
    values, residuals = _extremes(chains[0])
    rounding = _rounding(watched, operator, first, float(np.abs(values).max()))
    return Spectrum(
        size=operator.size,
        values=values,
        error_bounds=residuals + rounding.largest,
        known=np.zeros(len(values), dtype=bool),
        vectors=torch.empty(0, operator.size, dtype=operator.dtype, device=operator.device),
        trace_exact=0.0,
        trace_samples=operator.size * first[:, 0],
        frobenius_exact=0.0,
        frobenius_samples=operator.size * np.square(first).sum(1),
        layer_exact=dict.fromkeys(layers, 0.0),
        layer_samples={
            layer: operator.size * np.array([each.shares[layer] for each in watched])
            for layer in layers
        },
        chains=chains,
        # A v = a v + b q and A^2 v = (a^2 + b^2) v + b (a + a') q + b b' q', v, q, q' of length 1.
        trace_deviations=(2 * operator.size) ** 0.5 * heads[:, 1],
        frobenius_deviations=(2 * operator.size) ** 0.5
        * heads[:, 1]
        * np.hypot(heads[:, 0] + heads[:, 2], heads[:, 3]),
        layer_deviations={
            layer: np.sqrt([each.spreads[layer] for each in watched]) for layer in layers
        },
        rounding=rounding,
    ).in_units(operator.unit)


def _head(chain: Chain) -> tuple[float, float, float, float]:
    """The first two diagonal and off-diagonal entries of a run."""
    diagonal, off = np.zeros(2), np.zeros(2)
    count = min(len(chain.diagonal), 2)
    diagonal[:count], off[:count] = chain.diagonal[:count], chain.off_diagonal[:count]
    return float(diagonal[0]), float(off[0]), float(diagonal[1]), float(off[1])


def _extremes(chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values of a run and their residuals."""
    values, residuals, _ = chain.residuals()
    return values, residuals


def _rounding(
    watched: list[_FirstImage], operator: SymmetricOperator, first: np.ndarray, scale: float
) -> RoundingErrors:
    """Half-widths from the errors of the first products of two runs; no vector was kept."""
    size = operator.size
    norm = float(np.sqrt(size * np.square(first).sum(1).mean()))
    errors = [each.errors for each in watched if each.errors]
    unit = torch.finfo(operator.dtype).eps * (1.0 if errors else 4.0)
    layers = list(watched[0].shares)

    def mean(key: str) -> float:
        return float(np.mean([error[key] for error in errors])) if errors else 0.0

    # ||E|| / ||A|| of random directions stands for that of the extreme ones.
    bent = mean("squared") ** 0.5
    reach = 1.5 * (2 * size / max(len(errors), 1)) ** 0.5 * bent
    relative = unit + bent * size**0.5 / norm if norm else unit
    return RoundingErrors(
        largest=relative * scale,
        smallest=relative * scale,
        eigenvalue=unit * norm / size**0.5 + bent,
        trace=unit * norm * size**0.5 + abs(size * mean("trace")) + reach,
        layers={
            layer: unit * norm * size**0.5 + abs(size * mean(f"trace of {layer}")) + reach
            for layer in layers
        },
        squared=2 * unit * norm**2
        + 2 * abs(size * mean("product"))
        + 3 * bent * norm
        + size * bent**2,
        measured=bool(errors),
    )


class _FirstImage:
    """An operator that keeps what the first product, with v of length 1, says.

    What each layer adds to <v, A v> and the scatter of such samples; of the errors e of the product
    <v, e>, <A v, e> and ||e||^2, where they are to be measured.
    """

    def __init__(
        self, operator: Rescaled, layers: dict[str, list[slice]], *, measured: bool
    ) -> None:
        self._operator, self._layers, self._measured = operator, layers, measured
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.shares: dict[str, float] = {}
        self.spreads: dict[str, float] = {}
        self.errors: dict[str, float] = {}
        self._fresh = True

    def matmat(self, vectors: Tensor) -> Tensor:
        images = self._operator.matmat(vectors)
        if self._fresh:
            self._fresh = False
            self._look(vectors, images)
        return images

    def _look(self, vectors: Tensor, images: Tensor) -> None:
        for layer, places in self._layers.items():
            self.shares[layer] = _dot(vectors, images, places)
            self.spreads[layer] = layer_spread(
                self.size * self.shares[layer],
                self.size * _dot(images, images, places),
                places,
                self.size,
            )
        found = self._operator.rounding_errors(vectors) if self._measured else None
        if found is None:
            return
        everywhere = [slice(0, self.size)]
        found = found.to(vectors)
        self.errors = {
            "trace": _dot(vectors, found, everywhere),
            "product": _dot(images, found, everywhere),
            "squared": _dot(found, found, everywhere),
            **{
                f"trace of {layer}": _dot(vectors, found, places)
                for layer, places in self._layers.items()
            },
        }


def _dot(first: Tensor, second: Tensor, places: list[slice]) -> float:
    return sum(
        float((first[0, place] * second[0, place]).sum(dtype=torch.float64)) for place in places
    )


def _sphere(operator: SymmetricOperator, generator: torch.Generator) -> Tensor:  # (1, P)
    """A uniform direction, of squared norm P; drawn in pieces, since draws are in float64."""
    drawn = torch.empty(1, operator.size, dtype=operator.dtype, device=operator.device)
    for piece in drawn[0].split(_DRAWN_AT_ONCE):
        piece.copy_(torch.randn(len(piece), generator=generator, dtype=torch.float64))
    return drawn.mul_(operator.size**0.5 / drawn.norm())
