"""The way of a training run over a plane, coloured by its distance from the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.slice_data import Values, dims_of, read_json
from landscape.viz.slice_display import GREY, INK
from landscape.viz.slice_scale import round_ticks, set_ticks

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

# Light to dark red: reads on any map, and by its lightness alone.
_COLORS = "Reds"
_APART = 15.0  # points between two labels
_LETTER = 3.6  # points of width of a letter of a label
_SIDE = 0.38  # sine of the angle from which a label stands beside its point
_FLAT = 1e-6  # of the extent of the way: residuals below it are rounding


def has_trajectory(dataset: Dataset) -> bool:
    """Whether a slice holds checkpoints on its plane."""
    return {"trajectory_alpha", "trajectory_beta"} <= set(dataset.data_vars)


def outside(dataset: Dataset) -> str:
    """A note on checkpoints beyond the picture; empty where there are none."""
    ways = _way(dataset)
    ends = [(float(dataset[dim].min()), float(dataset[dim].max())) for dim in dims_of(dataset)]
    beyond = np.zeros(len(ways), dtype=np.bool_)
    for place, (low, high) in zip(ways.T, ends, strict=True):
        beyond |= (place < low) | (place > high)
    many = int(beyond.sum())
    if not many:
        return ""
    verb = "lies" if many == 1 else "lie"
    return f"{many} of {len(ways)} checkpoints {verb} outside the picture"


def draw_trajectory(ax: Axes, dataset: Dataset) -> tuple[Artist, Any]:
    """Draws the checkpoints in order, joined by a line.

    Args:
        ax: With final limits.
        dataset: A slice with a trajectory.

    Returns:
        A handle for the key, and the markers where they are coloured by the distance from the
        plane, else None.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    way, joined = _way(dataset), not _apart(dataset)
    if joined:
        ax.plot(
            *way.T,
            color="white",
            linewidth=0.9,
            path_effects=[Stroke(linewidth=1.9, foreground=INK), Normal()],
            zorder=5,
            label="_trajectory",
        )
    residual = _residual(dataset, way)
    markers = ax.scatter(
        way[:, 0],
        way[:, 1],
        s=13,
        c="white" if residual is None else residual,
        cmap=None if residual is None else _COLORS,
        vmin=None if residual is None else 0.0,
        edgecolors=INK,
        linewidths=0.5,
        zorder=6,
        label="_checkpoints",
    )
    _label(ax, dataset, way)
    face = "white" if residual is None else "#FC8A6A"
    handle = Line2D(
        [],
        [],
        color=INK,
        linewidth=0.9 if joined else 0.0,
        marker="o",
        markersize=3.6,
        markerfacecolor=face,
        markeredgewidth=0.5,
        label="checkpoints of the run" if joined else "other checkpoints",
    )
    return handle, None if residual is None else markers


def draw_residual_bar(ax: Axes, markers: Any) -> Any:
    """A flat colour bar above the axes for distances from the plane."""
    bar = ax.figure.colorbar(
        markers, cax=ax.inset_axes((0, 1.03, 1, 0.035)), orientation="horizontal"
    )
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.xaxis.set_label_position("top")
    low, high = markers.get_clim()
    set_ticks(bar.ax.xaxis, round_ticks(low, high, log=False, most=5))
    bar.set_label("distance of the checkpoint from the plane")
    bar.outline.set_linewidth(0.6)
    bar.outline.set_edgecolor(GREY)
    return bar


def _apart(dataset: Dataset) -> bool:
    """Whether the plane goes through single checkpoints, not along a run."""
    told = read_json(dataset, "directions") or []
    return any(entry.get("kind") == "plane" for entry in told if isinstance(entry, dict))


def _way(dataset: Dataset) -> Values:
    """Places of the checkpoints, (T, 2)."""
    return np.stack(
        [np.array(dataset[f"trajectory_{dim}"].values, float) for dim in dims_of(dataset)], axis=1
    )


def _residual(dataset: Dataset, way: Values) -> Values | None:
    """Distances from the plane; None where all checkpoints lie in it, or none is known."""
    if "trajectory_residual" not in dataset.data_vars:
        return None
    residual = np.array(dataset["trajectory_residual"].values, dtype=np.float64)
    largest = np.max(residual, initial=0.0, where=np.isfinite(residual))
    return residual if largest > _FLAT * float(np.abs(np.nan_to_num(way)).max()) else None


def _label(ax: Axes, dataset: Dataset, way: Values) -> None:
    """Names of checkpoints: the last and the first, then those with room between them."""
    from matplotlib.patheffects import Normal, Stroke

    if "trajectory_label" not in dataset.data_vars:
        return
    names = [str(name) for name in dataset["trajectory_label"].values]
    points = ax.transData.transform(way) / ax.figure.dpi * 72
    low, high = ax.transAxes.transform([(0, 0), (1, 1)]) / ax.figure.dpi * 72
    kept: list[int] = []
    for index in (len(names) - 1, *range(len(names) - 1)):
        inside = bool(np.isfinite(points[index]).all())
        inside = inside and bool(((low <= points[index]) & (points[index] <= high)).all())
        clear = all(np.hypot(*(points[index] - points[other])) > _APART for other in kept)
        here = not way[index].any()  # the star says what this is
        if inside and clear and names[index] and not (here and _apart(dataset)):
            kept.append(index)
    middle = np.nanmean(points, axis=0)
    for index in kept:
        # Outside of the bend, where the way does not pass.
        away = points[index] - middle
        away = away / (np.hypot(*away) or 1.0)
        width = _APART + _LETTER * len(names[index])
        beyond = points[index] + np.array([width, _APART]) * away
        if not bool(((low <= beyond) & (beyond <= high)).all()):
            away = -away
        ax.annotate(
            names[index],
            (float(way[index, 0]), float(way[index, 1])),
            xytext=(6.5 * away[0], 6.5 * away[1]),
            textcoords="offset points",
            ha="left" if away[0] > _SIDE else "right" if away[0] < -_SIDE else "center",
            va="bottom" if away[1] > _SIDE else "top" if away[1] < -_SIDE else "center",
            color="white",
            fontsize=6.5,
            path_effects=[Stroke(linewidth=1.6, foreground=INK), Normal()],
            parse_math=False,
            zorder=7,
        )
