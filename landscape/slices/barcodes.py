"""Minima of a slice: zero-dimensional persistence of sublevel sets, and its merge tree."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from landscape.slices.grids import HUGE, Array, Index, as_grid, sentences, unravel

Kind = Literal["minimum", "saddle"]
# Of one death: the minimum that dies, the elder one and the saddle, as flat indices.
Merge = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The life of one minimum as the level rises.

    Args:
        birth: Value of the minimum.
        death: Level at which it joins a lower one; infinite for the lowest of a connected part.
        minimum: Its grid index; the first one of a plateau.
        saddle: Where it joins, None for the lowest of a connected part (the essential class).
        elder: The minimum that survives the merge, None with ``saddle``.
    """

    birth: float
    death: float
    minimum: Index
    saddle: Index | None
    elder: Index | None

    @property
    def persistence(self) -> float:
        """How far one has to climb to get to a lower place: death - birth."""
        return self.death - self.birth


@dataclass(frozen=True, kw_only=True)
class MergeTree:
    """Which minima join at which saddles; entry k of each tuple is about node k.

    Args:
        kinds: "minimum" for a leaf, "saddle" for an inner node, which always has two children.
        values: The level of the node.
        points: Its grid index.
        parents: Number of the saddle above it, larger than its own; -1 for the root of a
            connected part.
    """

    kinds: tuple[Kind, ...]
    values: tuple[float, ...]
    points: tuple[Index, ...]
    parents: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Persistence:
    """Minima of a grid with their persistence.

    Args:
        bars: The longest first, those that never die before all others.
        tree: The same as a merge tree.
        connectivity: Number of neighbours of a point.
        left_out: Number of NaN points.
        message: What a reader should know, in sentences; mostly empty.
    """

    bars: tuple[Bar, ...]
    tree: MergeTree
    connectivity: int
    left_out: int
    message: str

    @property
    def barcode(self) -> Array:
        """Birth and death of every bar, (N, 2)."""
        return np.array([(bar.birth, bar.death) for bar in self.bars]).reshape(-1, 2)

    def minima(self, threshold: float = 0.0, *, rounding: float = 0.0) -> int:
        """Number of minima that live longer than ``threshold + rounding * |birth|``."""
        return sum(
            bar.persistence > threshold + (rounding * abs(bar.birth) if bar.birth > -HUGE else 0.0)
            for bar in self.bars
        )


def persistence(values: ArrayLike, connectivity: int | None = None) -> Persistence:
    """Bars (birth, death) of the components of {values <= t} as t rises from -inf to +inf.

    A component is born at a minimum and dies where it meets one with a lower minimum (the elder
    rule). Points are taken in the order of (value, index), so ties are broken the same way each
    time; births and deaths do not depend on how. Bars of length zero are dropped: a plateau is one
    minimum if no neighbour of it lies lower, and none otherwise.

    NaN points are no part of the grid, which may fall into several connected parts, each with a
    bar that never dies. Points at +inf join last; a part of nothing else has no bar.

    Args:
        values: (n,) or (n, m).
        connectivity: Number of neighbours: 2 in 1-D; 4 or 8 in 2-D, default 8. A narrow valley
            oblique to the axes breaks into spurious minima with 4; with 8 two wells may be joined
            across a ridge that is one point thick and runs diagonally. Of these errors a minimum
            too few is the one that claims less.

    Returns:
        Bars, merge tree and what was left out.

    Raises:
        ValueError: If the grid is not 1-D or 2-D, is empty, or has no such neighbourhood.

    Source: Edelsbrunner and Harer, Computational Topology, 2010, section VII.1.

    >>> found = persistence([3.0, 0.0, 2.0, 1.0, 5.0])
    >>> found.barcode.tolist()
    [[0.0, inf], [1.0, 2.0]]
    >>> found.minima(threshold=1.5)
    1
    """
    grid = as_grid(values)
    connectivity = connectivity or (2 if grid.ndim == 1 else 8)
    if connectivity not in {1: (2,), 2: (4, 8)}[grid.ndim]:
        raise ValueError(f"connectivity is 2 in 1-D, 4 or 8 in 2-D, not {connectivity}")
    heights, minima, merges = _sweep(grid, connectivity)

    def bar(minimum: int, elder: int | None, saddle: int | None) -> Bar:
        return Bar(
            birth=heights[minimum],
            death=math.inf if saddle is None else heights[saddle],
            minimum=unravel(minimum, grid.shape),
            saddle=None if saddle is None else unravel(saddle, grid.shape),
            elder=None if elder is None else unravel(elder, grid.shape),
        )

    bars = [bar(root, None, None) for root in minima] + [bar(*merge) for merge in merges]
    left_out = int(np.isnan(grid).sum())
    parts = len(minima)
    return Persistence(
        bars=tuple(
            sorted(bars, key=lambda b: (b.saddle is not None, -b.persistence, b.birth, b.minimum))
        ),
        tree=_tree(heights, minima, merges, grid.shape),
        connectivity=connectivity,
        left_out=left_out,
        message=sentences(
            left_out and f"{left_out} of {grid.size} points are NaN and left out.",
            not parts and "No point has a finite value.",
            parts > 1 and f"The other points form {parts} parts that do not touch.",
        ),
    )


def _sweep(grid: Array, connectivity: int) -> tuple[list[float], list[int], list[Merge]]:
    """Union-find over the sorted points: heights, the roots, (minimum, elder, saddle) of merges."""
    padded = np.pad(np.arange(grid.size).reshape(grid.shape), 1, constant_values=-1)
    shifts = [
        shift
        for shift in itertools.product((0, 1, 2), repeat=grid.ndim)
        if (steps := sum(entry != 1 for entry in shift)) == 1 or (steps and connectivity == 8)
    ]
    windows = [
        padded[tuple(slice(s, s + n) for s, n in zip(shift, grid.shape, strict=True))].ravel()
        for shift in shifts
    ]
    neighbours: list[list[int]] = np.stack(windows, 1).tolist()
    heights: list[float] = grid.ravel().tolist()
    order: list[int] = np.argsort(grid.ravel(), kind="stable").tolist()  # NaN comes last
    order = [point for point in order if not math.isnan(heights[point])]
    rank = {point: k for k, point in enumerate(order)}
    above = [-1] * (grid.size + 1)  # the last entry is read for the border, index -1

    def root(point: int) -> int:
        while above[point] != point:
            above[point] = above[above[point]]
            point = above[point]
        return point

    merges = []
    for point in order:
        found = {root(other) for other in neighbours[point] if above[other] >= 0}
        elder, *others = sorted(found, key=rank.__getitem__) or [point]
        above[point] = elder
        for other in others:
            above[other] = elder
            if heights[other] < heights[point]:
                merges.append((other, elder, point))
    roots = [point for point in order if above[point] == point and heights[point] < math.inf]
    return heights, roots, merges


def _tree(
    heights: list[float], roots: list[int], merges: list[Merge], shape: tuple[int, ...]
) -> MergeTree:
    leaves = sorted([*roots, *(minimum for minimum, _, _ in merges)])
    points = leaves + [saddle for _, _, saddle in merges]
    parents = [-1] * len(points)
    top = {minimum: k for k, minimum in enumerate(leaves)}
    for node, (minimum, elder, _) in enumerate(merges, start=len(leaves)):
        parents[top[minimum]] = parents[top[elder]] = node
        top[elder] = node
    kinds: list[Kind] = ["minimum" for _ in leaves]
    kinds += ["saddle" for _ in merges]
    return MergeTree(
        kinds=tuple(kinds),
        values=tuple(heights[point] for point in points),
        points=tuple(unravel(point, shape) for point in points),
        parents=tuple(parents),
    )
