"""Few evaluations of a slice, the rest by splines whose error is measured.

The points of the picture form nested levels, of 13, 25, 49 ... points an axis. The coarsest is
evaluated; each finer one is predicted by cubic tensor-product splines from the one below, and where
a point was evaluated its value replaces the prediction: the hierarchical surplus of sparse grids
(Bungartz and Griebel 2004, section 3). Points that took no part in a prediction measure its error.
Where it fails, the cells around get the points of the next level, which are measurements in their
turn, so that refinement spreads as far as it must.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from landscape.slices.surface import Surface

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]
Scale = Literal["linear", "log"]

# Intervals an axis of the coarsest level. With 8 the easy slices need no fewer points, because
# more of them have to be refined, and the hard ones need more.
_COARSE = 12
# Held-out points have to be this much better than the tolerance, since the worst of some 40 is not
# the worst of the slice; docs/benchmarks/refinement.json counts how often that suffices.
_MARGIN = 3.0
# Held-out points of a round, by the number of axes: those where cubic and linear interpolation
# disagree most, one for every 16 evaluated points where that is more (a rough surface has more
# places to hide an error), and those spread over the slice.
_DOUBTED, _SPREAD = {1: 7, 2: 28}, {1: 3, 2: 12}
_KNOWN_A_DOUBTED = 16
# An error of this many times the tolerance, and this many times all disagreement within a coarse
# cell, comes from structure below the grid. On the nets of the record it stayed below 1.5.
_SURPRISE = 2.0
# Steps of a sequence of low discrepancy in one and two dimensions: powers of the roots of
# x^2 = x + 1 and x^3 = x + 1 (Roberts 2018).
_STEPS = {1: (0.6180339887498949,), 2: (0.7548776662466927, 0.5698402909980532)}


@dataclass(frozen=True, kw_only=True)
class Refined:
    """Values on a whole grid, and how they were found.

    Args:
        values: Of V variables, (V, *grid). NaN and infinities are evaluated ones.
        evaluated: Where they were evaluated; elsewhere they are interpolated, (*grid).
        error: Estimate of the largest error of the interpolated values, as a share of the range
            of the variable (of its logarithm for the scale ``"log"``), (V,): three times the
            largest error at a held-out point that led to no refinement. Zero if nothing is
            interpolated. An estimate, not a bound: what lies between all points is not seen.
        evaluations: Number of evaluated points.
        dense: Whether all points were evaluated.
    """

    values: Array
    evaluated: Mask
    error: Array
    evaluations: int
    dense: bool


def refine(
    evaluate: Callable[[Array], Array],
    axes: Sequence[Array],
    tolerance: float | Sequence[float],
    *,
    scale: Scale | Sequence[Scale] = "linear",
    most: float = 0.5,
) -> Refined:
    """Values on a grid, within a tolerance, from evaluations at as few of its points as that needs.

    Every point is evaluated if the surface has more detail than the tolerance allows to predict.
    The same function gives the same points every time.

    Args:
        evaluate: Takes coordinates (N, D) and gives the values of V variables, (N, V). It is
            called with several points at a time and never twice with the same.
        axes: Coordinates of the one or two axes of the grid, ascending, two points or more.
        tolerance: Largest error of an interpolated value as a share of the variable's range
            (largest minus smallest finite value); one number, or one for each variable. Infinity:
            the variable asks for no evaluations, its error is estimated all the same. That is the
            choice for accuracies, which are steps and not smooth.
        scale: ``"log"``: errors and range are those of the logarithm, for a picture with
            logarithmic levels; values that are not positive are then never interpolated. One for
            all variables, or one for each.
        most: Share of the points beyond which all are evaluated.

    Returns:
        The values with the mask of evaluated points and the estimated error. Cells that touch a
        value which is not finite are evaluated at all their points.

    Raises:
        ValueError: If an argument is not as described, or ``evaluate`` gives another shape.

    Example:
        >>> axis = np.linspace(-1.0, 1.0, 51)
        >>> bowl = lambda points: (points**2).sum(1, keepdims=True)
        >>> found = refine(bowl, [axis, axis], 0.005)
        >>> found.values.shape, found.evaluations, found.error.round(3).tolist()
        ((1, 51, 51), 209, [0.0])
    """
    axes = [np.asarray(axis, dtype=np.float64) for axis in axes]
    if len(axes) not in _STEPS:
        raise ValueError(f"a slice to refine has one or two axes, got {len(axes)}")
    for axis in axes:
        if axis.ndim != 1 or len(axis) < 2 or not (np.diff(axis) > 0).all():
            raise ValueError("an axis must hold two coordinates or more in ascending order")
    if not 0 <= most <= 1:
        raise ValueError(f"most must lie between 0 and 1, got {most}")
    return _Refinement(evaluate, axes, tolerance, scale, most).run()


class _Refinement:
    """The state of one call of ``refine``: everything inside is in the scale of the variable."""

    def __init__(
        self,
        evaluate: Callable[[Array], Array],
        axes: list[Array],
        tolerance: float | Sequence[float],
        scale: Scale | Sequence[Scale],
        most: float,
    ) -> None:
        self.evaluate, self.axes, self.most = evaluate, axes, most
        # The coarsest level does not depend on the number of variables, which it brings to light.
        first = Surface(axes, _COARSE, 0)
        where = np.argwhere(first.first == 0)
        raw = self._called(where)
        count = raw.shape[1]
        self.tolerance = _one_each("tolerance", tolerance, count).astype(np.float64)
        if not (self.tolerance > 0).all():
            raise ValueError(f"a tolerance must be positive, got {tolerance}")
        scales = _one_each("scale", scale, count)
        if not np.isin(scales, ("linear", "log")).all():
            raise ValueError(f'a scale is "linear" or "log", got {scale}')
        self.log = scales == "log"
        self.raw = np.full((count, *first.shape), np.nan)
        self.surface = Surface(axes, _COARSE, count)
        self._store(where, raw)
        # The largest error measured anywhere that led to no refinement, as a share of the range.
        self.stands = np.zeros(count)
        self.spread = _spread_order(first.shape)
        # Squares of the output to the side of a point that a coarse cell can reach.
        self.reach = max(int(np.diff(nodes).max()) for nodes in first.levels[0])

    def run(self) -> Refined:
        """Rounds of held-out points and of refinement, until a round of the former passes."""
        wanted = self._around_holes()
        while not self.surface.known.all():
            if self.surface.known.mean() > self.most:
                break
            if wanted.any():
                where, shares = self._measured(wanted)
                wanted = self._failed(where, shares)
                continue
            doubt = self._doubt()
            where, shares = self._measured(self._held_out(doubt))
            if self._surprised(where, shares, doubt):
                break
            wanted = self._failed(where, shares)
            if not wanted.any() and (shares <= self.tolerance / _MARGIN).all():
                return self._result(_MARGIN * self.stands)
        if not self.surface.known.all():
            self._measured(~self.surface.known)
        return self._result(np.zeros(len(self.raw)))

    def _failed(self, where: Indices, shares: Array) -> Mask:
        """The points to evaluate next: around errors that are too large, and around holes."""
        failed = (shares > self.tolerance / _MARGIN).any(1)
        self.stands = np.maximum(self.stands, shares[~failed].max(0, initial=0.0))
        return self.surface.divide(where[failed]) | self._around_holes()

    def _called(self, where: Indices) -> Array:  # (N, V)
        points = np.stack(
            [axis[index] for axis, index in zip(self.axes, where.T, strict=True)], axis=-1
        )
        found = np.asarray(self.evaluate(points), dtype=np.float64)
        if found.ndim != 2 or len(found) != len(where) or not found.shape[1]:
            raise ValueError(
                f"evaluate must give one row a point, ({len(where)}, V), got {found.shape}"
            )
        return found

    def _store(self, where: Indices, raw: Array) -> None:
        if raw.shape[1] != len(self.raw):
            raise ValueError(f"evaluate gave {len(self.raw)} variables, then {raw.shape[1]}")
        self.raw[(slice(None), *where.T)] = raw.T
        positive = np.where(raw > 0, raw, np.nan)
        self.surface.add(where, np.where(self.log, np.log(positive), raw))

    def _measured(self, wanted: Mask) -> tuple[Indices, Array]:  # (N, D), (N, V)
        """Evaluates points: how far predictions were from them, as shares of the ranges."""
        where = np.argwhere(wanted)
        predicted = self.surface.predicted(3)[(slice(None), *where.T)].T
        self._store(where, self._called(where))
        found = self.surface.values[(slice(None), *where.T)].T
        differences = np.abs(predicted - np.where(np.isfinite(found), found, predicted))
        return where, differences / self._ranges()

    def _ranges(self) -> Array:
        ranges = self.surface.ranges()
        return np.where(ranges > 0, ranges, 1.0)

    def _around_holes(self) -> Mask:
        """All points of the cells that touch a value which is not finite."""
        holes = self.surface.known & ~np.isfinite(self.surface.values).all(0)
        # And the cells beside them: a spline rings at the edge of what it does not know.
        near = self.surface.known & maximum_filter(holes, 2 * self.reach + 1)
        return self.surface.divide(np.argwhere(near), to_the_end=True)

    def _doubt(self) -> Array:  # (*grid)
        """By how many tolerances cubic and linear interpolation disagree."""
        apart = np.abs(self.surface.predicted(3) - self.surface.predicted(1))
        unit = (self._ranges() * self.tolerance).reshape(-1, *[1] * len(self.axes))
        return np.asarray((apart / unit).max(0))

    def _held_out(self, doubt: Array) -> Mask:  # (*grid)
        """Points to measure: the most doubted ones, one a cell, and a few that are spread."""
        surface = self.surface
        chosen = np.zeros(surface.shape, dtype=bool)
        taken = np.zeros([count - 1 for count in surface.shape], dtype=bool)
        # A cell of a line has a single next point, which may agree by luck.
        allowed = surface.next_nodes() if chosen.ndim > 1 else ~surface.known
        order = np.argsort(-np.where(allowed, doubt, -1.0), axis=None, kind="stable")
        count = max(_DOUBTED[chosen.ndim], int(surface.known.sum()) // _KNOWN_A_DOUBTED)
        for flat in order[: int(allowed.sum())]:
            point = tuple(int(i) for i in np.unravel_index(flat, surface.shape))
            cells = [box for _, box in surface.cells(point)]
            if any(taken[box].any() for box in cells):
                continue
            for box in cells:
                taken[box] = True
            chosen[point] = True
            if chosen.sum() == count:
                break
        free = self.spread[~(surface.known | chosen).flat[self.spread]]
        chosen.flat[free[: _SPREAD[chosen.ndim]]] = True
        return chosen

    def _surprised(self, where: Indices, shares: Array, doubt: Array) -> bool:
        worst = (shares / self.tolerance).max(1)
        around = maximum_filter(doubt, 2 * self.reach + 1)[tuple(where.T)]
        return bool((worst > _SURPRISE * np.maximum(around, 1.0)).any())

    def _result(self, error: Array) -> Refined:
        known = self.surface.known
        values = self.surface.predicted(3)
        values[self.log] = np.exp(values[self.log])
        return Refined(
            values=np.where(known, self.raw, values),
            evaluated=known,
            error=error,
            evaluations=int(known.sum()),
            dense=bool(known.all()),
        )


def _one_each(name: str, given: object, count: int) -> NDArray[np.generic]:
    values = np.asarray(given)
    if values.ndim > 1 or values.size not in {1, count}:
        raise ValueError(f"{name} must be one, or one for each of {count} variables, got {given}")
    return np.broadcast_to(values.reshape(-1), (count,))


def _spread_order(shape: tuple[int, ...]) -> Indices:
    """Flat indices of all points of a grid, each first part of them spread evenly over it."""
    size = int(np.prod(shape))
    turns = (0.5 + np.arange(8 * size)[:, None] * np.array(_STEPS[len(shape)])) % 1.0
    flat = np.ravel_multi_index(tuple((turns * shape).astype(np.intp).T), shape)
    _, first = np.unique(np.concatenate([flat, np.arange(size)]), return_index=True)
    return np.argsort(first).astype(np.intp)
