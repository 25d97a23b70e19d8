"""Nested levels of a slice's points, and what is known of the surface over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.ndimage import distance_transform_edt

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]
Box = tuple[slice, ...]


def nested_levels(count: int, intervals: int) -> list[Indices]:
    """Indices of an axis at levels of doubling fineness, both ends always among them.

    Args:
        count: Points of the axis.
        intervals: Of the first level; the last one has all points.

    Returns:
        Ascending indices of each level; each level holds all of the one before.

    Example:
        >>> [level.tolist() for level in nested_levels(7, 2)]
        [[0, 3, 6], [0, 2, 3, 4, 6], [0, 1, 2, 3, 4, 5, 6]]
    """
    last = count - 1
    levels = []
    while True:
        intervals = min(intervals, last)
        levels.append(np.round(np.arange(intervals + 1) * last / intervals).astype(np.intp))
        if intervals == last:
            return levels
        intervals *= 2


class Surface:
    """Values at some points of a grid, and predictions of the others.

    The cells between neighbouring points of a level are divided one by one into those of the next.

    Args:
        axes: Coordinates of each axis, ascending.
        intervals: Of the first level, for every axis.
        variables: Number V of values at a point.
    """

    def __init__(self, axes: Sequence[Array], intervals: int, variables: int) -> None:
        self.axes = axes
        self.shape = tuple(len(axis) for axis in axes)
        levels = [nested_levels(count, intervals) for count in self.shape]
        self.levels = [
            [axis[min(level, len(axis) - 1)] for axis in levels]
            for level in range(max(map(len, levels)))
        ]
        #: The level at which a point first appears, (*grid).
        self.first = np.full(self.shape, len(self.levels) - 1)
        for level in reversed(range(len(self.levels))):
            self.first[np.ix_(*self.levels[level])] = level
        #: (V, *grid); NaN where nothing is known.
        self.values: Array = np.full((variables, *self.shape), np.nan)
        self.known: Mask = np.zeros(self.shape, dtype=bool)
        # The level of the cell that covers each square between neighbouring points of the output.
        self._depth = np.zeros([count - 1 for count in self.shape], dtype=np.intp)

    def add(self, where: Indices, found: Array) -> None:
        """Takes evaluated values: at points of indices (N, D), (N, V)."""
        self.values[(slice(None), *where.T)] = found.T
        self.known[tuple(where.T)] = True

    def ranges(self) -> Array:  # (V,)
        """Largest minus smallest finite value of each variable; zero where there is none."""
        flat = self.values.reshape(len(self.values), -1)
        finite = np.isfinite(flat)
        spread = np.where(finite, flat, -np.inf).max(1) - np.where(finite, flat, np.inf).min(1)
        return np.asarray(np.maximum(spread, 0.0))

    def predicted(self, order: int) -> Array:  # (V, *grid)
        """Values everywhere, by splines from level to level.

        A value that is known replaces its prediction before the next level is predicted from it.
        Those that are not finite are stood in for by the nearest finite one of the level.

        Args:
            order: Of the splines, 1 or 3 for example; lower where a level has too few points.

        Returns:
            Finite values at all points, known ones as they are.
        """
        coarse = self.levels[0]
        every = np.arange(len(self.values))
        values = _filled(self.values[np.ix_(every, *coarse)])
        for before, nodes in pairwise(self.levels):
            for axis, (old, new) in enumerate(zip(before, nodes, strict=True)):
                if len(old) < len(new):
                    x = self.axes[axis]
                    most = min(order, len(old) - 1)
                    values = make_interp_spline(x[old], values, k=most, axis=axis + 1)(x[new])
            known = self.known[np.ix_(*nodes)]
            values = _filled(np.where(known, self.values[np.ix_(every, *nodes)], values))
        return np.asarray(values)

    def cells(self, point: Sequence[int]) -> Iterator[tuple[int, Box]]:
        """Level and squares of each cell that touches a point and has points left to evaluate."""
        sides = [
            sorted({max(i - 1, 0), min(i, count - 2)})
            for i, count in zip(point, self.shape, strict=True)
        ]
        for square in product(*sides):
            level = int(self._depth[square])
            if level + 1 < len(self.levels):
                yield level, self._box(level, square)

    def _box(self, level: int, square: tuple[int, ...]) -> Box:
        ends = []
        for nodes, place in zip(self.levels[level], square, strict=True):
            after = int(np.searchsorted(nodes, place, "right"))
            ends.append(slice(int(nodes[after - 1]), int(nodes[after])))
        return tuple(ends)

    def divide(self, points: Iterable[Sequence[int]], *, to_the_end: bool = False) -> Mask:
        """Divides the cells around points.

        Args:
            points: Indices. A cell is divided for a point that is none of its corners.
            to_the_end: Also those whose corner it is, and into single points at once.

        Returns:
            The points that the new cells need and that are not known, (*grid).
        """
        wanted = np.zeros(self.shape, dtype=bool)
        last = len(self.levels) - 1
        for point in points:
            for level, box in self.cells(point):
                if not to_the_end and self.first[tuple(point)] <= level:
                    continue
                self._depth[box] = last if to_the_end else level + 1
                closed = tuple(slice(side.start, side.stop + 1) for side in box)
                wanted[closed] |= self.first[closed] <= self._depth[box].flat[0]
        return wanted & ~self.known

    def next_nodes(self) -> Mask:
        """The unknown points at which the coarsest cell around them would be divided, (*grid)."""
        depth: Any = np.pad(self._depth, 1, mode="edge")
        for axis in range(depth.ndim):
            ahead = np.delete(depth, 0, axis)
            depth = np.minimum(np.delete(depth, -1, axis), ahead)
        return np.asarray(~self.known & (self.first <= depth + 1))


def _filled(values: Array) -> Array:  # (V, *grid)
    """A copy in which the nearest finite value stands in for those that are not."""
    values = values.copy()
    for one in values:
        holes = ~np.isfinite(one)
        if holes.all():
            one[...] = 0.0
        elif holes.any():
            nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
            one[...] = one[tuple(nearest)]
    return values
