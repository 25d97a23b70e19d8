"""Values on a grid with their coordinates: what the functions on slices share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = tuple[int, ...]
Axes = tuple[Array, ...]

# Losses in single precision are right to about 1e-7 of their value; a mean over examples to 1e-6.
ROUNDING = 1e-6
# Beyond it a value counts as infinite, so that products of two do not overflow.
HUGE = 1e150


def as_grid(values: ArrayLike) -> Array:
    """As float64 (n,) or (n, m)."""
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim not in {1, 2} or not grid.size:
        raise ValueError(f"values must be (n,) or (n, m) and not empty, got shape {grid.shape}")
    return grid


def with_axes(values: ArrayLike, coordinates: Sequence[ArrayLike]) -> tuple[Array, Axes]:
    """Values and coordinates, checked against each other."""
    grid = as_grid(values)
    axes = tuple(np.asarray(axis, dtype=np.float64) for axis in coordinates)
    if tuple(axis.shape for axis in axes) != tuple((n,) for n in grid.shape):
        raise ValueError(
            f"coordinates must be one array for each axis of values {grid.shape}, "
            f"got shapes {[axis.shape for axis in axes]}"
        )
    if not all(np.isfinite(axis).all() and (np.diff(axis) > 0).all() for axis in axes):
        raise ValueError("coordinates must be finite and strictly ascending")
    return grid, axes


def as_index(start: int | Index, shape: tuple[int, ...]) -> Index:
    """As a tuple inside the grid."""
    at = (start,) if isinstance(start, int) else tuple(start)
    if len(at) != len(shape) or not all(0 <= k < n for k, n in zip(at, shape, strict=False)):
        raise ValueError(f"start {start} is no index of a grid {shape}")
    return at


def unravel(point: int, shape: tuple[int, ...]) -> Index:
    """Grid index of a flat one."""
    return tuple(int(k) for k in np.unravel_index(point, shape))


def is_usable(values: Array) -> NDArray[np.bool_]:
    """Where the values are finite, and their squares too."""
    usable: NDArray[np.bool_] = np.abs(values) < HUGE
    return usable


def sentences(*parts: Any) -> str:
    """Those that are not empty, joined."""
    return " ".join(part for part in parts if part)
