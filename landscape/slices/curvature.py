"""Curvature of a slice: at the checkpoint by a fitted parabola, everywhere by its sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation

from landscape.slices.grids import (
    ROUNDING,
    Array,
    Axes,
    Index,
    as_index,
    is_usable,
    sentences,
    with_axes,
)


@dataclass(frozen=True, kw_only=True)
class Anisotropy:
    """Curvature of the slice at the checkpoint, per squared unit of its coordinates.

    Args:
        curvatures: Eigenvalues of the fitted Hessian, the largest in magnitude first.
        ratio: First over second, infinite for a perfect valley, negative at a saddle; NaN in 1-D.
        angle: Of the first principal direction against the first axis, degrees in [-90, 90); NaN
            in 1-D and where the curvatures are equal.
        residual: Root mean square of what the fit leaves, as a share of the range of the fitted
            values: far from 0 where the slice is no parabola there. NaN if nothing is left over.
        message: What a reader should know, in sentences; mostly empty.
    """

    curvatures: tuple[float, ...]
    ratio: float
    angle: float
    residual: float
    message: str


def anisotropy(
    values: ArrayLike, coordinates: Sequence[ArrayLike], start: int | Index, *, reach: int = 2
) -> Anisotropy:
    """Eigenvalues of H in the least-squares fit f(x) = c + g·x + x·H x / 2 around the checkpoint.

    They are those of the loss's Hessian restricted to the plane where the directions are
    orthonormal; otherwise they depend on the lengths of the directions and on their angle.

    Args:
        values: (n,) or (n, m); points that are not finite are left out.
        coordinates: One strictly ascending array per axis.
        start: Grid index of the checkpoint.
        reach: Grid steps to each side that the fit sees.

    Returns:
        Principal curvatures, their ratio and direction, and how well the parabola fits.

    Raises:
        ValueError: If shapes do not agree or ``reach`` is not positive.

    >>> x = np.linspace(-1, 1, 5)
    >>> found = anisotropy(2 * x[:, None] ** 2 + x**2 / 2, [x, x], (2, 2))
    >>> [round(float(value), 6) for value in (*found.curvatures, found.ratio)]
    [4.0, 1.0, 4.0]
    """
    grid, axes = with_axes(values, coordinates)
    at = as_index(start, grid.shape)
    if reach < 1:
        raise ValueError(f"reach must be at least 1, got {reach}")
    window = tuple(slice(max(k - reach, 0), k + reach + 1) for k in at)
    offsets = [axis[part] - axis[k] for axis, part, k in zip(axes, window, at, strict=True)]
    scales = np.array([np.abs(offset).max() or 1.0 for offset in offsets])
    x = np.stack(np.meshgrid(*offsets, indexing="ij"), -1).reshape(-1, grid.ndim) / scales
    y = grid[window].ravel()
    x, y = x[is_usable(y)], y[is_usable(y)]
    rows, columns = np.triu_indices(grid.ndim)
    squares = x[:, rows] * x[:, columns] * np.where(rows == columns, 0.5, 1.0)
    design = np.column_stack([np.ones(len(x)), x, squares])
    level = float(y.mean()) if len(y) else 0.0
    fit, _, rank, _ = np.linalg.lstsq(design, y - level, rcond=1e-10)
    if rank < design.shape[1]:
        return Anisotropy(
            curvatures=(math.nan,) * grid.ndim,
            ratio=math.nan,
            angle=math.nan,
            residual=math.nan,
            message=f"{len(y)} finite points around the checkpoint are too few for a parabola.",
        )
    H = np.zeros((grid.ndim, grid.ndim))
    H[rows, columns] = H[columns, rows] = fit[1 + grid.ndim :]
    curvatures, ratio, angle = _principal(H / np.outer(scales, scales))
    spare = len(y) - design.shape[1]
    left = float(np.sqrt(np.sum((y - level - design @ fit) ** 2) / spare)) if spare else math.nan
    spread = float(np.ptp(y))
    return Anisotropy(
        curvatures=curvatures,
        ratio=ratio,
        angle=angle,
        residual=left / spread if spread else left,
        message=sentences(
            grid.ndim == 2
            and math.isnan(angle)
            and "The curvatures are equal, no direction is principal."
        ),
    )


def _principal(H: Array) -> tuple[tuple[float, ...], float, float]:
    """Eigenvalues by magnitude, their ratio, and the angle of the first eigenvector."""
    eigenvalues, vectors = np.linalg.eigh(H)
    if len(H) == 1:
        return (float(eigenvalues[0]),), math.nan, math.nan
    low, high = (float(value) for value in eigenvalues)
    rounding = 1e-9 * max(abs(low), abs(high))
    # Of a pair ±c, equal up to roundings, the positive one comes first.
    first = 0 if abs(low) > abs(high) + rounding else 1
    large, small = (low, high) if first == 0 else (high, low)
    ratio = large / small if small else math.inf if large else math.nan
    if high - low <= rounding:
        return (large, small), ratio, math.nan
    angle = math.degrees(math.atan2(vectors[1, first], vectors[0, first]))
    return (large, small), ratio, (angle + 90) % 180 - 90


@dataclass(frozen=True, kw_only=True)
class Convexity:
    """How much of a slice is convex.

    Args:
        share: Share of the points with a positive semidefinite Hessian; NaN if there are none.
        points: Number of interior points that were judged.
        left_out: Interior points that are not finite or have such a neighbour.
    """

    share: float
    points: int
    left_out: int


def convexity(
    values: ArrayLike, coordinates: Sequence[ArrayLike], *, rounding: float = ROUNDING
) -> Convexity:
    """Share of the interior points where the Hessian of second differences has no eigenvalue < 0.

    In 1-D that is: second difference >= 0. Differences are divided ones, exact for parabolas on
    uneven grids too, and taken per grid step, so that the units of the axes do not matter.

    Args:
        values: (n,) or (n, m).
        coordinates: One strictly ascending array per axis.
        rounding: Relative error of a value. Negative eigenvalues that it can explain count as 0.

    Returns:
        The share, with the number of points it is a share of.

    Raises:
        ValueError: If shapes do not agree.

    >>> convexity([1.0, 0.0, 1.0, 1.5], [[0, 1, 2, 3]]).share
    0.5
    """
    grid, axes = with_axes(values, coordinates)
    interior = math.prod(max(n - 2, 0) for n in grid.shape)
    if not interior:
        return Convexity(share=math.nan, points=0, left_out=0)
    usable = is_usable(grid)
    judged = ~binary_dilation(~usable, np.ones((3,) * grid.ndim))[(slice(1, -1),) * grid.ndim]
    lowest, doubt = _lowest_curvature(np.where(usable, grid, 0.0), axes)
    convex = lowest >= -rounding * doubt
    points = int(judged.sum())
    return Convexity(
        share=float(convex[judged].mean()) if points else math.nan,
        points=points,
        left_out=interior - points,
    )


def _lowest_curvature(f: Array, axes: Axes) -> tuple[Array, Array]:
    """Smallest eigenvalue per squared grid step at interior points, and its rounding factor."""
    along = [_second(np.moveaxis(f, k, 0), axis) for k, axis in enumerate(axes)]
    if f.ndim == 1:
        return along[0]
    (xx, xx_doubt), (yy, yy_doubt) = along
    xx, xx_doubt, yy, yy_doubt = xx[:, 1:-1], xx_doubt[:, 1:-1], yy.T[1:-1], yy_doubt.T[1:-1]
    corners = f[2:, 2:], f[2:, :-2], f[:-2, 2:], f[:-2, :-2]
    xy = (corners[0] - corners[1] - corners[2] + corners[3]) / 4
    xy_doubt = sum(np.abs(corner) for corner in corners) / 4
    lowest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return lowest, np.maximum(xx_doubt, yy_doubt) + xy_doubt


def _second(f: Array, axis: Array) -> tuple[Array, Array]:
    """Second divided difference along axis 0 times the squared mean spacing, and its factor."""
    before, after = np.diff(axis)[:-1], np.diff(axis)[1:]
    tail = (slice(None),) + (None,) * (f.ndim - 1)
    left = ((before + after) / 2 / before)[tail]
    right = ((before + after) / 2 / after)[tail]
    parts = left * f[:-2], right * f[2:], -(left + right) * f[1:-1]
    return sum(parts[1:], parts[0]), sum((np.abs(p) for p in parts[1:]), np.abs(parts[0]))
