"""The shape of a slice: minima and saddles, the basin, its anisotropy and convexity.

All functions read values on a grid, 1-D or 2-D, and know no model. What they say holds for the
slice: a minimum of a slice need not be one of the loss, nor a convex slice lie in a convex region.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results.result import finite
from landscape.slices.barcodes import Bar, MergeTree, Persistence, persistence
from landscape.slices.basins import Basin, basin
from landscape.slices.curvature import Anisotropy, Convexity, anisotropy, convexity
from landscape.slices.grids import ROUNDING, Array, Index, is_usable, sentences, with_axes

if TYPE_CHECKING:
    import xarray


__all__ = [
    "Anisotropy",
    "Bar",
    "Basin",
    "Convexity",
    "MergeTree",
    "Persistence",
    "Topology",
    "anisotropy",
    "basin",
    "convexity",
    "persistence",
    "topology",
]


@dataclass(frozen=True, kw_only=True)
class Topology:
    """All about the shape of one slice.

    Args:
        variable: The variable of the dataset.
        axes: Names of the axes.
        start: Grid index of the checkpoint, the point nearest to the origin.
        position: Its coordinates.
        value: Its value.
        minima: Number of minima that live longer than ``threshold``.
        threshold: Persistence below which a minimum may be an artefact.
        persistence: Bars and merge tree; indices in the order of ``axes``.
        basin: Basin of the checkpoint.
        anisotropy: Curvature at the checkpoint.
        convexity: Convex share of the slice.
        message: What a reader should know, in sentences; mostly empty.
    """

    variable: str
    axes: tuple[str, ...]
    start: Index
    position: tuple[float, ...]
    value: float
    minima: int
    threshold: float
    persistence: Persistence
    basin: Basin
    anisotropy: Anisotropy
    convexity: Convexity
    message: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; NaN and infinity become None."""
        cleaned: dict[str, Any] = finite(asdict(self))
        return cleaned


def topology(
    dataset: xarray.Dataset,
    variable: str = "train_loss",
    *,
    rise: float = 0.1,
    threshold: float | None = None,
    connectivity: int | None = None,
) -> Topology:
    """Minima, basin {f <= f(checkpoint) + rise}, anisotropy and convex share of a slice.

    Args:
        dataset: An evaluated slice over ``alpha``, or ``alpha`` and ``beta``.
        variable: What is looked at; smaller is better.
        rise: Height of the basin's level above the checkpoint, in units of the variable, so that
            basins of several models compare whatever the span of their slices.
        threshold: Persistence above which minima are counted. Default: twice the measured error
            of the interpolated points, 0 where all are evaluated. Two functions that differ by at
            most e have the same bars longer than 2e up to shifts of their ends by e
            (Cohen-Steiner, Edelsbrunner and Harer 2007), so such minima are not made by
            interpolation.
        connectivity: See ``persistence``.

    Returns:
        Everything in one record, with what is special about this slice in sentences.

    Raises:
        ValueError: If the variable is missing or does not lie over alpha (and beta).

    >>> import xarray
    >>> x = np.linspace(-1, 1, 9)
    >>> found = topology(xarray.Dataset({"train_loss": ("alpha", x**2)}, {"alpha": x}))
    >>> found.minima, found.convexity.share, found.basin.touches_border
    (1, 1.0, False)
    """
    if variable not in dataset:
        raise ValueError(f"no variable {variable!r}; there are {sorted(map(str, dataset))}")
    names = tuple(name for name in ("alpha", "beta") if name in dataset[variable].dims)
    if set(names) != set(dataset[variable].dims) or not names:
        raise ValueError(f"{variable!r} must lie over alpha (and beta) alone")
    grid, axes = with_axes(
        dataset[variable].transpose(*names).values, [dataset[name].values for name in names]
    )
    start = tuple(int(np.abs(axis).argmin()) for axis in axes)
    position = tuple(float(axis[k]) for axis, k in zip(axes, start, strict=True))
    value = float(grid[start])
    # Up to roundings, as of linspace(-0.5, 0.7, 25).
    off_grid = any(abs(x) > 1e-9 * np.ptp(axis) for x, axis in zip(position, axes, strict=True))
    interpolated = 0 if "evaluated" not in dataset else int((~dataset["evaluated"]).sum())
    error = _error(dataset, variable, grid) if interpolated else 0.0
    if threshold is None:
        threshold = 0.0 if math.isnan(error) else 2 * error
    found = persistence(grid, connectivity)
    level = value + rise if math.isfinite(value) else rise  # not used without a value
    return Topology(
        variable=variable,
        axes=names,
        start=start,
        position=position,
        value=value,
        minima=found.minima(threshold, rounding=ROUNDING),
        threshold=float(threshold),
        persistence=found,
        basin=basin(grid, axes, start, level),
        anisotropy=anisotropy(grid, axes, start),
        convexity=convexity(grid, axes),
        message=sentences(
            off_grid and f"The checkpoint is no grid point; the nearest, {position}, is used.",
            interpolated and f"{interpolated} of {grid.size} points are interpolated.",
            math.isnan(error) and "The file gives no error of the interpolation.",
            found.message,
        ),
    )


def _error(dataset: xarray.Dataset, variable: str, grid: Array) -> float:
    """Measured error of the interpolation in units of the variable, NaN if there is none."""
    shares = json.loads(dataset.attrs.get("error_estimate", "{}"))
    usable = grid[is_usable(grid)]
    share = shares.get(variable)
    return math.nan if share is None else float(share) * float(np.ptp(usable)) if len(usable) else 0
