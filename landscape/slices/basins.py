"""The basin of a slice below a level, around the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from landscape.slices.grids import HUGE, Array, Axes, Index, as_index, sentences, with_axes


@dataclass(frozen=True, kw_only=True)
class Basin:
    """The connected part of {values <= threshold} around the checkpoint.

    Args:
        threshold: The level.
        size: Length in 1-D, area in 2-D, in units of the coordinates; 0 if the checkpoint lies
            above the threshold, NaN if it has no value.
        extent: Smallest and largest coordinate of it, per axis.
        touches_border: Whether it reaches the end of the grid; the size is then a lower bound.
        touches_missing: Whether it reaches a point that is NaN, beside which nothing is counted.
        message: What a reader should know, in sentences; mostly empty.
    """

    threshold: float
    size: float
    extent: tuple[tuple[float, float], ...]
    touches_border: bool
    touches_missing: bool
    message: str


def basin(
    values: ArrayLike, coordinates: Sequence[ArrayLike], start: int | Index, threshold: float
) -> Basin:
    """Size and extent of the component of {values <= threshold} that holds the checkpoint.

    Between grid points the values are interpolated linearly: on intervals in 1-D, in 2-D on the
    four triangles that each cell makes with its centre, whose value is the mean of the corners.
    Component, size and extent are those of the interpolant, exactly; against a smooth function
    they are off by O(spacing^2). Next to +inf the component ends at the last finite point.

    Args:
        values: (n,) or (n, m).
        coordinates: One strictly ascending array per axis.
        start: Grid index of the checkpoint.
        threshold: The level.

    Returns:
        Size, extent and whether it is cut off by the border or by missing points.

    Raises:
        ValueError: If shapes do not agree or the threshold is not a number.

    >>> found = basin([4.0, 1.0, 0.0, 1.0, 4.0], [[-2, -1, 0, 1, 2]], 2, 2.5)
    >>> found.size, found.extent, found.touches_border
    (3.0, ((-1.5, 1.5),), False)
    """
    grid, axes = with_axes(values, coordinates)
    at = as_index(start, grid.shape)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold}")
    if not grid[at] <= threshold:
        missing = bool(np.isnan(grid[at]))
        here = [math.nan if missing else float(axis[k]) for axis, k in zip(axes, at, strict=True)]
        return Basin(
            threshold=float(threshold),
            size=math.nan if missing else 0.0,
            extent=tuple((x, x) for x in here),
            touches_border=False,
            touches_missing=missing,
            message="The checkpoint has no value."
            if missing
            else "The checkpoint lies above the threshold.",
        )
    positions, above, simplices, volumes, edges = _mesh(grid, axes)
    above = above - threshold
    member = _component(above <= 0, edges, int(np.ravel_multi_index(at, grid.shape)))

    # The ends of the component: its vertices, and where the edges that leave it cross the level.
    leaving = np.concatenate([edges, edges[:, ::-1]])
    leaving = leaving[member[leaving[:, 0]] & (above[leaving[:, 1]] > 0)]
    a, b = leaving[:, 0], leaving[:, 1]
    share = above[a] / (above[a] - above[b])
    crossings = positions[a] + share[:, None] * (positions[b] - positions[a])
    ends = np.concatenate([positions[member], crossings])

    touched = member[simplices].any(1)
    size = float(volumes[touched] @ _shares(above[simplices[touched]]))
    inside = member[: grid.size].reshape(grid.shape)
    border = any(inside.take((0, -1), axis=axis).any() for axis in range(grid.ndim))
    gaps = binary_dilation(np.isnan(grid), np.ones((3,) * grid.ndim))
    at_gap = bool((inside & gaps).any())
    return Basin(
        threshold=float(threshold),
        size=size,
        extent=tuple(zip(ends.min(0).tolist(), ends.max(0).tolist(), strict=True)),
        touches_border=border,
        touches_missing=at_gap,
        message=sentences(
            border and "The basin reaches the border of the slice; its size is a lower bound.",
            at_gap and "The basin reaches points that are NaN; its size is a lower bound.",
        ),
    )


def _mesh(
    grid: Array, axes: Axes
) -> tuple[Array, Array, NDArray[np.intp], Array, NDArray[np.intp]]:
    """Positions (V, d), values (V,), simplices (S, d + 1) without NaN, volumes (S,), edges."""
    number = np.arange(grid.size).reshape(grid.shape)
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(grid.size, grid.ndim)
    values = np.clip(grid.ravel(), -HUGE, HUGE)  # keeps NaN
    if grid.ndim == 1:
        edges = np.stack([number[:-1], number[1:]], 1)
        whole = ~np.isnan(values[edges]).any(1)
        return positions, values, edges[whole], np.diff(axes[0])[whole], edges
    corners = [number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]]  # a way round
    cells = np.stack([corner.ravel() for corner in corners], 1)
    centres = grid.size + np.arange(len(cells))
    positions = np.concatenate([positions, positions[cells].mean(1)])
    values = np.concatenate([values, values[cells].mean(1)])
    sides = [(cells[:, k], cells[:, (k + 1) % 4], centres) for k in range(4)]
    triangles = np.concatenate([np.stack(side, 1) for side in sides])
    volumes = np.tile(np.outer(np.diff(axes[0]), np.diff(axes[1])).ravel() / 4, 4)
    whole = ~np.isnan(values[triangles[:, 2]])
    along = [np.stack([number[:-1].ravel(), number[1:].ravel()], 1)]
    across = [np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], 1)]
    spokes = [np.stack([cells[:, k], centres], 1) for k in range(4)]
    edges = np.concatenate(along + across + spokes)
    return positions, values, triangles[whole], volumes[whole], edges


def _component(inside: NDArray[np.bool_], edges: NDArray[np.intp], start: int) -> NDArray[np.bool_]:
    """The vertices that are joined to ``start`` inside."""
    a, b = edges[inside[edges].all(1)].T
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(inside),) * 2)
    labels = connected_components(graph, directed=False)[1]
    same: NDArray[np.bool_] = labels == labels[start]
    return same


def _shares(above: Array) -> Array:
    """Share of each simplex where the linear interpolant of its corners (S, d + 1) is <= 0."""
    above = np.sort(above, axis=1)
    inside = (above <= 0).sum(1)
    shares = np.ones(len(above))
    one = above[inside == 1]
    shares[inside == 1] = (one[:, :1] / (one[:, :1] - one[:, 1:])).prod(1)
    if above.shape[1] == 3:
        two = above[inside == 2]
        shares[inside == 2] = 1 - (two[:, 2:] / (two[:, 2:] - two[:, :2])).prod(1)
    return shares
