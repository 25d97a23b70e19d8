"""The loss along a direction through the weights, with its error and the accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from landscape.viz.slice_contour import missing_text
from landscape.viz.slice_data import (
    Values,
    coordinates,
    evaluated_of,
    half_width,
    main_variable,
    needs_dims,
    notes,
    value_text,
    values_of,
)
from landscape.viz.slice_display import (
    GREY,
    INK,
    SINGLE,
    SliceDisplay,
    draw_key,
    label_axis,
    slice_display,
)
from landscape.viz.slice_scale import round_ticks, set_ticks
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

_SPLITS = ("train", "test")
_HIDDEN = 0.02  # of the range: a median below it is a curve that even steps cannot show
_RATIO = 0.62  # of height to width
_WIDE = 10.0  # least ratio of the ends of a logarithmic axis

Dashes = str | tuple[float, tuple[float, ...]]
_DASHES: Dashes = (0, (3, 1.5))


def plot_slice_line(
    dataset: Dataset,
    ax: Axes | None = None,
    variables: str | Sequence[str] | None = None,
    *,
    scale: Literal["log", "linear"] | None = None,
    top: float | None = None,
    accuracy: bool = True,
    evaluated: bool = False,
) -> SliceDisplay:
    """Draws a slice along one direction, L(w + alpha d1), with the accuracy on a second axis.

    Bands are 95 % intervals, 1.96 standard errors to each side. A cross on the lower edge is a
    point without a finite value, where the curve has a gap; a triangle on the upper edge a value
    above it. The vertical line is the checkpoint. A note says which share of the points was
    evaluated, and the measured error of the others.

    Args:
        dataset: A slice with the dimension ``alpha``.
        ax: Axes to draw on; None makes a figure of its own, one column of a paper wide.
        variables: What to draw; None draws the losses on train and test data.
        scale: Of the values; None is linear unless most of the curve would lie on the axis.
        top: The upper end of the axis; None shows all values.
        accuracy: Whether to draw accuracies, dashed, on a second axis.
        evaluated: Whether dots mark the points that were evaluated.

    Returns:
        The axes, their figure and the second axis; nothing is shown or saved.

    Raises:
        ValueError: If the slice has two directions or lacks a variable, or if ``top`` lies below
            all values.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_slice_line(line)  # doctest: +SKIP
    """
    from landscape.viz.slice_layout import fit, new_panels

    needs_dims(dataset, 1, "plot_slice_contour")
    names = line_variables(dataset, variables)
    with style():
        ax = new_panels(SINGLE, [(0, 0)])[0] if ax is None else ax
        value_axis(ax, [(dataset, names)], scale, top)
        twin, handles = draw_lines(ax, dataset, names, accuracy=accuracy, evaluated=evaluated)
        label_axis(ax, dataset, "alpha", "x", 2.6)
        ax.set_ylabel(common_text(dataset, names), parse_math=False)
        drawn = [*names, *(accuracies(dataset) if twin is not None else [])]
        draw_key(ax, handles, notes([(dataset, drawn)]))
        fit(ax, _RATIO)
        return slice_display(ax, accuracy_ax_=twin)


def line_variables(dataset: Dataset, variables: str | Sequence[str] | None) -> list[str]:
    """The variables of the main axis."""
    if variables is not None:
        return [variables] if isinstance(variables, str) else list(variables)
    losses = [f"{split}_loss" for split in _SPLITS if f"{split}_loss" in dataset.data_vars]
    return losses or [main_variable(dataset)]


def accuracies(dataset: Dataset) -> list[str]:
    """The variables of the second axis."""
    names = [f"{split}_accuracy" for split in _SPLITS]
    return [name for name in names if name in dataset.data_vars]


def common_text(dataset: Dataset, names: Sequence[str]) -> str:
    """The name of an axis with several variables: what they share, as "loss"."""
    if len(names) == 1:
        return value_text(dataset, names[0])
    ends = {name.split("_", 1)[-1] for name in names}
    return ends.pop().replace("_", " ") if len(ends) == 1 else "value"


def value_axis(
    ax: Axes,
    slices: Iterable[tuple[Dataset, Sequence[str]]],
    scale: Literal["log", "linear"] | None,
    top: float | None,
) -> None:
    """Scale and limits of the main axis for all values and bands of some slices.

    Args:
        ax: The axes.
        slices: Each with its variables.
        scale: Of the values; None chooses.
        top: The upper end; None shows all.

    Raises:
        ValueError: If ``top`` lies below all values, or if no value is positive where a logarithm
            is asked for.
    """
    known, low_ends, high_ends = _extent(slices)
    if not len(known):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return
    low, high = float(known.min()), float(known.max())
    if top is not None and top <= low:
        raise ValueError(f"top = {top:g} lies below all values; the lowest is {low:.4g}")
    if scale == "log" and high <= 0:
        raise ValueError("no value is positive, so the axis cannot be logarithmic; use 'linear'")
    upper = float(np.max(high_ends, initial=high)) if top is None else top
    hidden = float(np.median(known)) - low < _HIDDEN * (upper - low)
    if scale == "log" or (scale is None and hidden and low > 0 and upper > _WIDE * low):
        least = float(known[known > 0].min())
        # A band may end far below, on a logarithmic axis at minus infinity.
        lower = max(float(np.min(low_ends[low_ends > 0], initial=least)), least / 2)
        room = (upper / lower) ** 0.05
        ax.set_yscale("log")
        ax.set_ylim(lower / room, upper * room if top is None else top)
        set_ticks(ax.yaxis, round_ticks(*ax.get_ylim(), log=True))
        return
    lower = float(np.min(low_ends, initial=low))
    room = 0.05 * (upper - lower) or 1e-3 * abs(upper) or 1e-12
    ax.set_ylim(lower - room, upper + room if top is None else top)
    set_ticks(ax.yaxis, round_ticks(*ax.get_ylim(), log=False))


def _extent(slices: Iterable[tuple[Dataset, Sequence[str]]]) -> tuple[Values, Values, Values]:
    """All finite values, and the finite ends of their bands."""
    parts: list[tuple[Values, Values]] = []
    for dataset, names in slices:
        for name in names:
            half = half_width(dataset, name)
            values = values_of(dataset, name)
            parts.append((values, np.zeros_like(values) if half is None else half))
    values, half = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    half = np.where(np.isfinite(half), half, 0.0)
    finite = np.isfinite(values)
    return values[finite], (values - half)[finite], (values + half)[finite]


def draw_lines(
    ax: Axes, dataset: Dataset, names: Sequence[str], *, accuracy: bool, evaluated: bool
) -> tuple[Axes | None, list[Artist]]:
    """Draws curves, bands and marks on axes with final limits of the values.

    Args:
        ax: The axes.
        dataset: A slice along one direction.
        names: Variables of the main axis.
        accuracy: Whether to draw accuracies on a second axis.
        evaluated: Whether to mark evaluated points.

    Returns:
        The second axis, or None, and handles for the key.
    """
    at = coordinates(dataset, "alpha")
    ax.set_xlim(at[0], at[-1])
    handles = [
        _draw(ax, dataset, name, _color(name, place), "-") for place, name in enumerate(names)
    ]
    marks = _draw_marks(ax, dataset, names, evaluated=evaluated)
    twin = None
    if accuracy and accuracies(dataset):
        twin = ax.twinx()
        for place, name in enumerate(accuracies(dataset)):
            handles.append(_draw(twin, dataset, name, _color(name, place), _DASHES))
        twin.set_ylim(0, 1.02)
        set_ticks(twin.yaxis, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
        twin.set_ylabel("accuracy")
        twin.spines["right"].set_visible(True)
    if ax.get_xlim()[0] <= 0 <= ax.get_xlim()[1]:
        marks.insert(0, _draw_checkpoint(ax))
    return twin, [*handles, *marks]


def _color(name: str, place: int) -> str:
    """A colour for each split, so that its loss and its accuracy share one."""
    from matplotlib import rcParams

    colors = rcParams["axes.prop_cycle"].by_key()["color"]
    split = name.split("_", 1)[0]
    return str(colors[_SPLITS.index(split) if split in _SPLITS else (place + 2) % len(colors)])


def _draw(ax: Axes, dataset: Dataset, name: str, color: str, dashes: Dashes) -> Artist:
    """A curve with its band; the curve, for the key."""
    at, values, half = (
        coordinates(dataset, "alpha"),
        values_of(dataset, name),
        half_width(dataset, name),
    )
    values[~np.isfinite(values)] = np.nan
    if half is not None:
        ax.fill_between(at, values - half, values + half, color=color, alpha=0.2, label="_95 %")
    width = 1.2 if dashes == "-" else 0.9
    (line,) = ax.plot(
        at,
        values,
        color=color,
        linestyle=dashes,
        linewidth=width,
        label=value_text(dataset, name),
    )
    return line


def _draw_marks(
    ax: Axes, dataset: Dataset, names: Sequence[str], *, evaluated: bool
) -> list[Artist]:
    """Marks of points without a value, above the axis, or evaluated; handles for the key."""
    from matplotlib.lines import Line2D

    at, known, top = coordinates(dataset, "alpha"), evaluated_of(dataset), ax.get_ylim()[1]
    missing: list[Values] = []
    handles: list[Artist] = []
    above = dots = False
    for place, name in enumerate(names):
        values, color = values_of(dataset, name), _color(name, place)
        bad = known & ~np.isfinite(values)
        if bad.any():
            _draw_at_edge(ax, at[bad], 0.02 + 0.04 * place, "x", color)
        missing.append(values[bad])
        high = np.isfinite(values) & (values > top)
        if high.any():
            _draw_at_edge(ax, at[high], 0.985, "^", color)
            above = True
        if evaluated:
            good = known & np.isfinite(values)
            ax.plot(at[good], values[good], "o", color=color, markersize=2, label="_evaluated")
            dots = True
    plain: dict[str, Any] = {"color": GREY, "linestyle": "none"}
    if sum(map(len, missing)):
        text = missing_text(np.concatenate(missing))
        handles.append(Line2D([], [], marker="x", markersize=4, **plain, label=text))
    if above:
        handles.append(Line2D([], [], marker="^", markersize=4, **plain, label="above the axis"))
    if dots:
        handles.append(Line2D([], [], marker="o", markersize=2, **plain, label="evaluated"))
    return handles


def _draw_at_edge(ax: Axes, at: Values, height: float, marker: str, color: str) -> None:
    """Marks at a share of the height of the axes."""
    ax.plot(
        at,
        np.full(len(at), height),
        transform=ax.get_xaxis_transform(),
        color=color,
        linestyle="none",
        marker=marker,
        markersize=3,
        markeredgewidth=0.8 if marker == "x" else 0,
        clip_on=False,
        zorder=4,
        label="_missing" if marker == "x" else "_above",
    )


def _draw_checkpoint(ax: Axes) -> Artist:
    """A star on the lower edge, and a thin line through it."""
    ax.axvline(0, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0.5, label="_at")
    (star,) = ax.plot(
        [0],
        [0],
        transform=ax.get_xaxis_transform(),
        linestyle="none",
        marker="*",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=INK,
        markeredgewidth=0.7,
        clip_on=False,
        zorder=8,
        label="checkpoint",
    )
    return star
