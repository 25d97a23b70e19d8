"""The loss on a plane through the weights, as a surface on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.slice_contour import missing_text
from landscape.viz.slice_data import (
    Flags,
    Values,
    axis_text,
    coordinates,
    evaluated_of,
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
    finish_colorbar,
    in_lines,
    slice_display,
)
from landscape.viz.slice_scale import (
    COLORS,
    Levels,
    Scale,
    round_ticks,
    scale_of,
    set_ticks,
)
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

_RATIO = 0.8  # of height to width
_LABEL = 1.4  # inches for a line of the name of an axis


def plot_slice_surface(
    dataset: Dataset,
    ax: Axes | None = None,
    variable: str | None = None,
    *,
    levels: Levels = None,
    top: float | None = None,
    view: tuple[float, float] = (32.0, -60.0),
) -> SliceDisplay:
    """Draws a slice along two directions as a surface.

    Height and colour follow the logarithm where contours would. Points without a finite value
    are holes; values above the highest level are cut off flat, with an arrow on the colour bar.

    Args:
        dataset: A slice with dimensions ``alpha`` and ``beta``.
        ax: Three-dimensional axes to draw on; None makes a figure of its own, one column wide.
        variable: What to draw; None draws "train_loss".
        levels: "log" or "linear", a number of levels, or levels whose ends are those of the
            vertical axis; None chooses.
        top: The upper end; None shows all values.
        view: Height and direction of the eye, in degrees.

    Returns:
        The axes, their figure and the colour bar; nothing is shown or saved.

    Raises:
        ValueError: If the slice has one direction only or lacks the variable, or if the axes are
            flat.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_slice_surface(plane).save("surface.pdf")  # doctest: +SKIP
    """
    from matplotlib import rc_context

    from landscape.viz.slice_layout import fit, new_panels

    needs_dims(dataset, 2, "plot_slice_line")
    if ax is not None and ax.name != "3d":
        raise ValueError('a surface needs axes made with projection="3d"')
    variable = main_variable(dataset) if variable is None else variable
    values = values_of(dataset, variable)
    scale = scale_of([values], variable, levels, top)
    with style():
        if ax is None:
            with rc_context({"grid.color": "#DDE1E5", "grid.linewidth": 0.4}):
                ax = new_panels(SINGLE, [(0, 0)], solid=True)[0]
        space: Any = ax
        space.set_box_aspect(None, zoom=1.12)  # less white around the box
        _draw(space, dataset, values, scale)
        space.view_init(*view)
        _label(space, dataset, scale)
        bar = _bar(space, scale, value_text(dataset, variable))
        draw_key(ax, _key(space, values, evaluated_of(dataset)), notes([(dataset, [variable])]))
        fit(ax, _RATIO)
        return slice_display(ax, colorbar_=bar)


def heights_of(values: Values, scale: Scale) -> Values:
    """Values on the vertical axis: cut at the ends, their logarithm on a logarithmic one."""
    cut = np.clip(values, scale.levels[0], scale.levels[-1])
    cut[~np.isfinite(values)] = np.nan
    return np.log10(cut) if scale.log else cut


def _draw(space: Any, dataset: Dataset, values: Values, scale: Scale) -> None:
    from matplotlib import colormaps

    x, y = np.meshgrid(coordinates(dataset, "alpha"), coordinates(dataset, "beta"), indexing="ij")
    heights = heights_of(values, scale)
    # A face has the mean of the corners that it has.
    corners = [heights[:-1, :-1], heights[1:, :-1], heights[:-1, 1:], heights[1:, 1:]]
    cells = np.ma.masked_invalid(corners).mean(axis=0).filled(np.nan)
    ends = [float(end) for end in np.log10(scale.levels[[0, -1]])] if scale.log else scale.levels
    shares = (cells - ends[0]) / (ends[-1] - ends[0])
    colors = np.zeros((*heights.shape, 4))
    colors[:-1, :-1] = colormaps[COLORS](np.nan_to_num(shares))
    space.computed_zorder = False
    space.plot_surface(
        x,
        y,
        heights,
        facecolors=colors,
        rstride=1,
        cstride=1,
        shade=False,
        linewidth=0.15,
        edgecolor=(1, 1, 1, 0.25),
        zorder=1,
    )
    space.set_xlim(x[0, 0], x[-1, 0])
    space.set_ylim(y[0, 0], y[0, -1])
    space.set_zlim(float(ends[0]), float(ends[-1]))
    _draw_star(space, heights, x[:, 0], y[0])


def _draw_star(space: Any, heights: Values, x: Values, y: Values) -> None:
    """The checkpoint, at the height of the nearest point."""
    height = heights[np.argmin(np.abs(x)), np.argmin(np.abs(y))]
    if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1] and np.isfinite(height):
        space.plot(
            [0],
            [0],
            [height],
            linestyle="none",
            marker="*",
            markersize=8,
            markerfacecolor="white",
            markeredgecolor=INK,
            markeredgewidth=0.7,
            zorder=5,
            label="checkpoint",
        )


def _label(space: Any, dataset: Dataset, scale: Scale) -> None:
    """Names and few ticks; the colour bar names the values."""
    from matplotlib.ticker import NullFormatter

    for dim, side in (("alpha", "x"), ("beta", "y")):
        axis = getattr(space, f"{side}axis")
        text = in_lines(axis_text(dataset, dim), _LABEL, 7)
        axis.set_label_text(text, parse_math=False, fontsize=7, linespacing=1.1)
        axis.labelpad = -6.0 + 4.0 * text.count("\n")
        set_ticks(axis, round_ticks(*getattr(space, f"get_{side}lim")(), log=False, most=5))
    ticks = scale.ticks()
    set_ticks(space.zaxis, [math.log10(tick) if scale.log else tick for tick in ticks])
    space.zaxis.set_major_formatter(NullFormatter())
    for axis in (space.xaxis, space.yaxis, space.zaxis):
        axis.set_tick_params(pad=-3, labelsize=6.5)
        axis.set_pane_color((1, 1, 1, 0))
        axis.line.set_linewidth(0.5)


def _bar(space: Any, scale: Scale, text: str) -> Any:
    from matplotlib.cm import ScalarMappable

    mappable = ScalarMappable(scale.norm(), COLORS)
    bar = space.figure.colorbar(
        mappable, cax=space.inset_axes((1.06, 0.34, 0.035, 0.6)), extend=scale.extend
    )
    finish_colorbar(bar, scale, text)
    return bar


def _key(space: Any, values: Values, known: Flags) -> list[Artist]:
    from matplotlib.patches import Patch

    handles: list[Artist] = [line for line in space.lines if line.get_label() == "checkpoint"]
    look: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.5}
    bad = known & ~np.isfinite(values)
    if bad.any():
        handles.append(Patch(**look, label=f"hole: {missing_text(values[bad])}"))
    if (~known & ~np.isfinite(values)).any():
        handles.append(Patch(**look, label="hole: not evaluated yet"))
    return handles
