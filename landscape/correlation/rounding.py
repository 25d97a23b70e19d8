"""Values that differ by rounding alone are made equal, so that they count as ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Neighbours that differ by less than this, relatively, are one value: 12 significant digits.
TOLERANCE = 1e-12
#: Larger values are scaled, so that sums and differences of them stay finite.
HUGE = 1e290


def largest(values: Array) -> float:
    """Largest absolute value; 0 where all are missing."""
    return float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def scale(values: Array) -> float:
    """Largest absolute value, or 1000 times the median one, so that one outlier ties no others."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(min(sizes.max(), 1000 * np.median(sizes))) if len(sizes) else 0.0


def finite(values: Array) -> Array:
    """The values, or all times 2^-40 where one is near the end of the range of floats."""
    return np.ldexp(values, -40) if largest(values) > HUGE else values


def joined(values: Array, size: float | None = None) -> Array:
    """Every value replaced by the least of those that it cannot be told from.

    In order of size, a value belongs to the one below it where they differ by 1e-12 of ``size`` at
    most. Unlike a grid, this has no edges that part two neighbours.

    Args:
        values: Any; missing ones stay.
        size: What differences are measured by; None takes the larger of the two values.

    Returns:
        An array of the same shape.
    """
    known = np.flatnonzero(np.isfinite(values))
    found = values.copy()
    if not len(known):
        return found
    order = known[np.argsort(values[known], kind="stable")]
    ordered = values[order]
    sizes = np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1])) if size is None else size
    new = np.concatenate([[True], np.diff(ordered) > TOLERANCE * sizes])
    found[order] = ordered[new][np.cumsum(new) - 1]
    return found
