"""What the rounding of curvature products does to eigenvalues and sums over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Vector operations of a run round as well, products aside: units in the last place.
_OWN = 0.5
# Where the rounding of products is unknown: what it is at least taken for.
_UNKNOWN = 4.0
# What is measured on the vectors of a run is enlarged for what they miss in second order.
_MARGIN = 1.1
# Standard errors that the estimate of a trace of rounding errors is enlarged by.
_REACH = 1.5

Layers = Mapping[str, Sequence[slice]]


@dataclass(frozen=True, kw_only=True)
class RoundingErrors:
    """Half-widths that cover the rounding of products, E = A in working precision - A.

    Args:
        largest: Of the largest eigenvalue.
        smallest: Of the smallest eigenvalue.
        eigenvalue: Of an eigenvalue in between, root mean square, ||E||_F / sqrt(P).
        trace: Of the trace.
        layers: Of the trace of each layer's diagonal block.
        squared: Of ||A||_F^2.
        measured: Whether E was measured; else a few units in the last place are allowed for.
    """

    largest: float = 0.0
    smallest: float = 0.0
    eigenvalue: float = 0.0
    trace: float = 0.0
    layers: Mapping[str, float]
    squared: float = 0.0
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Vectors with their products, of which the errors are told.

    Args:
        ends: Unit Ritz vectors of the largest and the smallest eigenvalue, (r, P), r at most 2.
        values: Their Ritz values.
        vectors: Draws from the sphere of squared norm n in the complement of ``ends``, (K, P).
        images: A applied to them.
    """

    ends: Tensor
    values: Sequence[float]
    vectors: Tensor
    images: Tensor


def rounding_errors(
    samples: Samples, errors: Tensor | None, *, norm: float, scale: float, layers: Layers
) -> RoundingErrors:
    """Half-widths from the measured errors of a few products.

    With u the Ritz vector of an end, its eigenvalue moves by u^T E u to first order. Rounded
    products are not symmetric, and a Lanczos run sees one triangle of T, so that what E u has
    across u enters as well: ||E u|| is taken. The trace of E is that of its ends plus Hutchinson's
    mean over the vectors, and half the move of ||A||_F^2 is tr(A E), found alike; the standard
    errors of these means are added, since a few vectors cannot tell them better.

    Args:
        samples: The vectors with their products.
        errors: E applied to ends and vectors, in this order, (r + K, P); None where unknown.
        norm: ||A||_F.
        scale: Largest |eigenvalue|.
        layers: Places of each layer's parameters.

    Returns:
        The half-widths.
    """
    size = samples.ends.shape[1]
    unit = torch.finfo(samples.ends.dtype).eps * (_UNKNOWN if errors is None else _OWN)
    # Unknown errors may add up over the entries; those of our own sums are random.
    spread = size**0.5 if errors is None else 2.0
    floor = RoundingErrors(
        largest=unit * scale,
        smallest=unit * scale,
        eigenvalue=unit * norm / size**0.5,
        trace=unit * norm * spread,
        layers=dict.fromkeys(layers, unit * norm * spread),
        squared=(2 if errors is None else 1) * unit * norm**2,
    )
    return floor if errors is None else _measured(samples, errors.double(), floor, layers)


def _measured(
    samples: Samples, errors: Tensor, floor: RoundingErrors, layers: Layers
) -> RoundingErrors:
    ends = samples.ends.double()
    count, size = ends.shape
    at_ends, rest = errors[:count], errors[count:]
    shifts = (ends * at_ends).sum(1)
    across = (at_ends - shifts[:, None] * ends).norm(dim=1)
    moves = [_MARGIN * float(move) for move in at_ends.norm(dim=1)]
    vectors, images = samples.vectors.double(), samples.images.double()
    bent = rest.square().sum(1)  # ||E w||^2, whose mean is ||E||_F^2 on the complement
    values = torch.tensor(samples.values, dtype=torch.float64, device=ends.device)
    total = _Sum.of((ends * at_ends).sum(1), vectors * rest, 2 * bent)
    cross = _Sum.of(
        values * shifts,
        images * rest,
        2 * images.square().sum(1) * bent / max(size - count, 1),
    )
    whole = float(at_ends.square().sum() + bent.mean() if len(bent) else at_ends.square().sum())

    def share(places: Sequence[slice]) -> float:
        inside = [
            torch.cat([block[:, place] for place in places], dim=1)
            for block in (ends, at_ends, vectors, rest)
        ]
        spread = 2 * inside[3].square().sum(1)
        return _Sum.of((inside[0] * inside[1]).sum(1), inside[2] * inside[3], spread).reach

    return RoundingErrors(
        largest=math.hypot(floor.largest, moves[0]),
        smallest=math.hypot(floor.smallest, moves[-1]),
        eigenvalue=floor.eigenvalue + (whole / size) ** 0.5,
        trace=math.hypot(floor.trace, total.reach),
        layers={
            layer: math.hypot(floor.layers[layer], share(places))
            for layer, places in layers.items()
        },
        squared=floor.squared + 2 * math.hypot(cross.reach, float(values.abs() @ across)) + whole,
        measured=True,
    )


@dataclass(frozen=True)
class _Sum:
    """A trace of errors: what the ends have of it, and a mean over vectors with its error."""

    exact: float
    mean: float
    error: float

    @classmethod
    def of(cls, exact: Tensor, products: Tensor, spreads: Tensor) -> _Sum:
        samples = products.sum(1).cpu().numpy()
        if not len(samples):
            return cls(float(exact.sum()), 0.0, 0.0)
        error = float(np.sqrt(float(spreads.mean()) / len(samples)))
        return cls(float(exact.sum()), float(samples.mean()), error)

    @property
    def reach(self) -> float:
        return _MARGIN * abs(self.exact + self.mean) + _REACH * self.error


def trace_rounding(vectors: Tensor, errors: Tensor) -> float:
    """Half-width of a trace by a few random vectors and the errors E v of their products.

    Args:
        vectors: Random signs, (K, P).
        errors: E applied to them, (K, P).

    Returns:
        What the rounding of products may have moved the trace by.
    """
    errors = errors.double()
    return _Sum.of(errors.new_zeros(0), vectors * errors, 2 * errors.square().sum(1)).reach


def layer_spread(trace: float, square: float, places: Sequence[slice], dimension: int) -> float:
    """Variance of a sample v^T E B v of a layer's trace, E the projection on its entries.

    It is ||E B||^2 + ||E B E||^2 - 2 tr(E B)^2 / n. The first is the mean of ||E B v||^2, and the
    second lies between tr(E B)^2 / n_l and the first; the middle is taken.

    Args:
        trace: v^T E B v.
        square: ||E B v||^2.
        places: The layer's entries, n_l of them.
        dimension: n, of the sphere of squared norm n that v is drawn from.

    Returns:
        The estimate.
    """
    width = max(sum(place.stop - place.start for place in places), 1)
    middle = (square + trace**2 / min(width, dimension)) / 2
    return max(float(square + middle - 2 * trace**2 / dimension), 0.0)
