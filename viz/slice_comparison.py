"""Slices of several models side by side, on shared scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from landscape.viz.slice_contour import Marks, draw_plane, panel_ratio
from landscape.viz.slice_data import (
    axis_text,
    dims_of,
    main_variable,
    notes,
    value_text,
    values_of,
)
from landscape.viz.slice_display import (
    DOUBLE,
    SINGLE,
    SliceDisplay,
    draw_colorbar,
    draw_key,
    label_axis,
    slice_display,
)
from landscape.viz.slice_line import (
    accuracies,
    common_text,
    draw_lines,
    line_variables,
    value_axis,
)
from landscape.viz.slice_scale import Levels, scale_of
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

_Pairs = list[tuple["Dataset", "Axes"]]
_RATIO = 0.8  # of height to width of a curve
_NAMES = 5.1  # inches for the names of axes in a row


def plot_slice_comparison(
    datasets: Mapping[str, Dataset],
    axes: Sequence[Axes] | None = None,
    variable: str | None = None,
    *,
    levels: Levels = None,
    top: float | None = None,
) -> SliceDisplay:
    """Draws slices side by side with one scale of values: one colour bar, or one vertical axis.

    Args:
        datasets: By the name that stands above each; all along one direction, or all along two.
        axes: Axes to draw on, one for each; None makes a figure of its own, two columns of a
            paper wide, with three slices in a row.
        variable: What to draw; None draws "train_loss", along one direction the losses on train
            and test data.
        levels: As for ``plot_slice_contour``; along one direction only "log" and "linear".
        top: The highest level or the upper end of the axis; None shows all values.

    Returns:
        The first axes, their figure, all axes and the colour bar; nothing is shown or saved.

    Raises:
        ValueError: If there is no slice, if some are along one direction and some along two, if
            there are fewer or more axes than slices, or if levels are given to slices along one
            direction.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_slice_comparison({"SGD": first, "SAM": second})  # doctest: +SKIP
    """
    from landscape.viz.slice_layout import fit, new_panels

    if not datasets:
        raise ValueError("there is no slice to draw; give at least one")
    numbers = {len(dims_of(dataset)) for dataset in datasets.values()}
    if len(numbers) > 1:
        raise ValueError("some slices have one direction and some two; draw them apart")
    flat = numbers == {2}
    with style():
        width = SINGLE if len(datasets) == 1 else DOUBLE
        axes = new_panels(width, _grid(len(datasets))) if axes is None else list(axes)
        if len(axes) != len(datasets):
            raise ValueError(f"{len(datasets)} slices need as many axes, got {len(axes)}")
        pairs = list(zip(datasets.values(), axes, strict=True))
        for name, ax in zip(datasets, axes, strict=True):
            ax.set_title(name, loc="left", parse_math=False)
        bar = None
        if flat:
            bar, handles, sentences = _planes(pairs, variable, levels, top)
        else:
            handles, sentences = _curves(pairs, variable, levels, top)
        draw_key(_lower_left(axes), handles, sentences)
        fit(axes[0], panel_ratio(axes[0]) if flat else _RATIO)
        return slice_display(axes[0], axes_=tuple(axes), colorbar_=bar)


def _grid(number: int) -> list[tuple[int, int]]:
    """Rows and columns: three in a row, four in a square."""
    columns = 2 if number == 4 else min(number, 3)
    return [divmod(place, columns) for place in range(number)]


def _planes(
    pairs: _Pairs, variable: str | None, levels: Levels, top: float | None
) -> tuple[Any, list[Artist], list[str]]:
    """Contours on common levels; the colour bar, handles for the key, and notes."""
    name = main_variable(pairs[0][0]) if variable is None else variable
    scale = scale_of([values_of(dataset, name) for dataset, _ in pairs], name, levels, top)
    handles: dict[str, Artist] = {}
    drawn = None
    for dataset, ax in pairs:
        found, more, _ = draw_plane(ax, dataset, name, scale, Marks(trajectory=False))
        drawn = drawn or found
        handles = {str(handle.get_label()): handle for handle in more} | handles
    _name_axes(pairs, "x", "alpha")
    _name_axes(pairs, "y", "beta")
    bar = None
    if drawn is not None:
        right = next(ax for _, ax in pairs if _last(ax, pairs))
        bar = draw_colorbar(right, drawn, scale, value_text(pairs[0][0], name))
    return bar, list(handles.values()), notes((dataset, [name]) for dataset, _ in pairs)


def _curves(
    pairs: _Pairs, variable: str | None, levels: Levels, top: float | None
) -> tuple[list[Artist], list[str]]:
    """Curves on common vertical axes; handles for the key, and notes."""
    if levels not in {"log", "linear", None}:
        raise ValueError('slices along one direction have no levels; give "log" or "linear"')
    slices = [(dataset, line_variables(dataset, variable)) for dataset, _ in pairs]
    kind: Any = levels
    handles: dict[str, Artist] = {}
    drawn = []
    for (dataset, ax), (_, names) in zip(pairs, slices, strict=True):
        value_axis(ax, slices, kind, top)
        twin, more = draw_lines(ax, dataset, names, accuracy=True, evaluated=False)
        handles |= {str(handle.get_label()): handle for handle in more}
        drawn.append((dataset, [*names, *(accuracies(dataset) if twin is not None else [])]))
        if _first(ax):
            ax.set_ylabel(common_text(dataset, names), parse_math=False)
        else:
            ax.tick_params(labelleft=False)
        if twin is not None and not _last(ax, pairs):
            twin.set_ylabel("")
            twin.tick_params(labelright=False)
    _name_axes(pairs, "x", "alpha")
    return list(handles.values()), notes(drawn)


def _name_axes(pairs: _Pairs, axis: Literal["x", "y"], dim: str) -> None:
    """Names and limits of an axis: shared where all slices have the same direction's name."""
    same = len({axis_text(dataset, dim) for dataset, _ in pairs}) == 1
    ends = [getattr(ax, f"get_{axis}lim")() for _, ax in pairs]
    columns = 1 + max((place[1] for place in (_place(ax) for _, ax in pairs) if place), default=0)
    for dataset, ax in pairs:
        label_axis(ax, dataset, dim, axis, _NAMES / columns)
        if same:
            limits = min(low for low, _ in ends), max(high for _, high in ends)
            getattr(ax, f"set_{axis}lim")(*limits)
            if not (_lowest(ax, pairs) if axis == "x" else _first(ax)):
                getattr(ax, f"set_{axis}label")("")
                ax.tick_params(axis, labelbottom=False, labelleft=False)


def _place(ax: Axes) -> tuple[int, int] | None:
    """Row and column of axes in a grid."""
    spec = ax.get_subplotspec()
    return None if spec is None else (spec.rowspan.start, spec.colspan.start)


def _first(ax: Axes) -> bool:
    """Whether axes stand at the left of their row."""
    place = _place(ax)
    return place is None or place[1] == 0


def _last(ax: Axes, pairs: _Pairs) -> bool:
    """Whether no axes stand to the right."""
    place, others = _place(ax), [_place(other) for _, other in pairs]
    return place is None or not any(
        other and other[0] == place[0] and other[1] > place[1] for other in others
    )


def _lowest(ax: Axes, pairs: _Pairs) -> bool:
    """Whether no axes stand below."""
    place, others = _place(ax), [_place(other) for _, other in pairs]
    return place is None or not any(
        other and other[1] == place[1] and other[0] > place[0] for other in others
    )


def _lower_left(axes: Sequence[Axes]) -> Axes:
    """The axes below which the key has room."""
    left = [ax for ax in axes if _first(ax)]
    return max(left or axes, key=lambda ax: (_place(ax) or (0, 0))[0])
