"""Spectral density from Lanczos runs, smoothed by a Gaussian, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from landscape.linalg.lanczos import Chain
from landscape.linalg.trace import student_quantile

Array = NDArray[np.float64]

# Shorter runs that the density is compared with, as shares of the steps.
_SHORTER = (0.75, 0.5)
# A node that reaches less than this share of the smoothing is a point.
_NARROW = 1e-3
# In residuals, how far from a node its eigenvalues may lie; nodes of smooth spectra then meet.
_REACH = 1.5
# A weight above this multiple of its neighbours' is that of a cluster of eigenvalues.
_USUAL = 1.5
_NORMAL = student_quantile(1_000_000)


@dataclass(frozen=True, kw_only=True)
class Density:
    """A smoothed spectral density with its 95 % band, each (G,)."""

    values: Array
    low: Array
    high: Array


def density(
    chains: Sequence[Chain],
    grid: Array,
    width: float,
    *,
    eigenvalues: Array,
    size: int,
    rounding: float = 0.0,
) -> Density:
    """Spectral density smoothed by a Gaussian of a given width, with a 95 % band.

    phi(x) = 1/P sum_i N(x; lambda_i, width^2), with the known eigenvalues exact and the rest from
    the chains (Ghorbani et al. 2019, but with the outliers taken out first). A node that has
    converged is an eigenvalue, or a tight cluster; any other stands for its surroundings, since the
    number of eigenvalues up to a node is known to lie between the sums of the weights before and
    behind it (Chebyshev, Markov and Stieltjes). So each half of its weight is spread evenly over
    the way to the next node, as far as its residual reaches.

    A weight far above its neighbours' is that of a cluster: what it has more stays at the node.

    The band combines in quadrature the errors of sampling, by Student's t over the chains; of the
    quadrature, by what shorter runs find and by the difference that spreading the clusters would
    make; and of the places of single eigenvalues between nodes that are not resolved, taken as
    independent, whose variance at x is phi(x) / (2 sqrt(pi) width P).

    Args:
        chains: Lanczos runs with the known eigenvectors projected out.
        grid: Points, (G,).
        width: Standard deviation of the smoothing.
        eigenvalues: Known eigenvalues.
        size: P.
        rounding: How far eigenvalues may be off by the rounding of products.

    Returns:
        Density and band; the density integrates to 1.
    """
    # In units of the width: no scale under- or overflows then.
    points = grid / width
    exact = _bumps(points, eigenvalues / width).sum(1) / size
    if not chains:
        return _banded(exact, np.zeros_like(exact), points, width, rounding)
    rest = max(size - len(eigenvalues), 0)
    scaled = [chain.scaled(1 / width) for chain in chains]
    # The mass of a projected probe scatters around the rest's dimension, which is known.
    share = rest / size
    curves = share * np.array([_spread(chain, points) for chain in scaled])  # (N, 3, G)
    middle, loose, piled = curves.mean(0)
    count = len(chains)
    sampling = np.zeros_like(points)
    if count > 1:
        sampling = student_quantile(count - 1) * curves[:, 0].std(0, ddof=1) / np.sqrt(count)
    lengths = np.zeros_like(points)
    for steps in _SHORTER:
        shorter = share * np.mean([_spread(chain, points, steps)[0] for chain in scaled], axis=0)
        lengths = np.maximum(lengths, np.abs(middle - shorter))
    places = _NORMAL * np.sqrt(loose / (2 * np.sqrt(np.pi) * size))
    half = np.sqrt(sampling**2 + lengths**2 + places**2 + piled**2)
    return _banded(exact + middle, half, points, width, rounding)


def _banded(curve: Array, half: Array, points: Array, width: float, rounding: float) -> Density:
    if rounding > 0:
        half = half + np.abs(np.gradient(curve, points)) * (rounding / width)
    return Density(
        values=curve / width, low=np.maximum(curve - half, 0.0) / width, high=(curve + half) / width
    )


def _bumps(points: Array, centres: Array) -> Array:
    offsets = points[:, None] - centres[None, :]
    curves: Array = np.exp(-0.5 * offsets**2) / np.sqrt(2 * np.pi)
    return curves


def _spread(chain: Chain, points: Array, steps: float = 1.0) -> Array:
    """Density of a run's measure, of mass 1, at points in units of the width.

    Returns:
        Three rows, (3, G): the density; the part of nodes that reach farther than the smoothing;
        what is higher because clusters stay at their nodes.
    """
    if chain.mass <= 0:
        return np.zeros((3, len(points)))
    count = max(int(np.ceil(steps * len(chain.diagonal))), 1)
    part = Chain(diagonal=chain.diagonal[:count], off_diagonal=chain.off_diagonal[:count], mass=1.0)
    nodes, residuals, overlaps = part.residuals()
    weights = overlaps**2
    beside = np.stack([np.append(0.0, weights[:-1]), np.append(weights[1:], 0.0)])
    usual = np.minimum(weights, _USUAL * beside.sum(0) / np.maximum((beside > 0).sum(0), 1))
    gaps = np.diff(nodes)
    ways = np.stack([np.append(np.inf, gaps), np.append(gaps, np.inf)], axis=1)
    nearest = np.maximum(ways.min(axis=1, keepdims=True), 1e-300)
    off = _REACH * residuals[:, None]
    reach = np.minimum(np.minimum(ways, off), off**2 / nearest).ravel()  # left and right of a node
    starts = np.repeat(nodes, 2) + np.tile([-1.0, 0.0], len(nodes)) * reach
    narrow = reach < _NARROW
    first, last = starts[~narrow], (starts + reach)[~narrow]
    boxes = special.ndtr(points[:, None] - first) - special.ndtr(points[:, None] - last)
    boxes /= reach[~narrow]
    narrows = _bumps(points, starts[narrow] + reach[narrow] / 2)

    def even(masses: Array) -> Array:
        halves = np.repeat(masses / 2, 2)
        found: Array = narrows @ halves[narrow] + boxes @ halves[~narrow]
        return found

    wide = reach[~narrow] > 1
    loose = boxes[:, wide] @ np.repeat(usual / 2, 2)[~narrow][wide]
    sharp = _bumps(points, nodes) @ (weights - usual)
    return np.stack([even(usual) + sharp, loose, sharp - even(weights - usual)])
