"""The loss on a plane through the weights, as filled contours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.slice_data import (
    Flags,
    Values,
    coordinates,
    direction_lengths,
    evaluated_of,
    main_variable,
    needs_dims,
    notes,
    read_json,
    same_unit,
    value_text,
    values_of,
)
from landscape.viz.slice_display import (
    GREY,
    HATCH,
    INK,
    SINGLE,
    SliceDisplay,
    draw_colorbar,
    draw_key,
    label_axis,
    slice_display,
)
from landscape.viz.slice_scale import COLORS, Levels, Scale, scale_of
from landscape.viz.slice_trajectory import (
    draw_residual_bar,
    draw_trajectory,
    has_trajectory,
    outside,
)
from landscape.viz.style import EXTREME, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

_NARROW = 4.0  # ratio of the sides up to which one step is drawn equally long on both axes


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is drawn over the contours.

    Args:
        evaluated: Dots at the points that were evaluated.
        trajectory: The checkpoints on the plane, where the slice holds any.
        quadratic: Contours of the quadratic model, where the directions are eigenvectors.
    """

    evaluated: bool = False
    trajectory: bool = True
    quadratic: bool = False


def plot_slice_contour(
    dataset: Dataset,
    ax: Axes | None = None,
    variable: str | None = None,
    *,
    levels: Levels = None,
    top: float | None = None,
    evaluated: bool = False,
    trajectory: bool = True,
    quadratic: bool = False,
) -> SliceDisplay:
    """Draws a slice along two directions, L(w + alpha d1 + beta d2), as filled contours.

    Levels of a loss are even steps of its logarithm where all values are positive and differ by
    more than a factor of three, else even steps. Points without a finite value are hatched, and
    values above the highest level are clipped, with an arrow on the colour bar. The star is the
    checkpoint. Both axes have the same scale where their directions have the same unit. A note
    says which share of the points was evaluated, and the measured error of the others.

    Args:
        dataset: A slice with dimensions ``alpha`` and ``beta``.
        ax: Axes to draw on; None makes a figure of its own, one column of a paper wide.
        variable: What to draw; None draws "train_loss".
        levels: "log", "linear", a number of levels, or the levels themselves; None chooses.
        top: The highest level; None shows all values.
        evaluated: Whether dots mark the points that were evaluated.
        trajectory: Whether to draw the checkpoints that the slice holds, coloured by their
            distance from the plane.
        quadratic: Whether to draw, dashed and on the same levels, the quadratic model
            L(w) + (lambda_1 alpha² ‖d1‖² + lambda_2 beta² ‖d2‖²) / 2 of a slice along
            eigenvectors of the Hessian.

    Returns:
        The axes, their figure and the colour bar; nothing is shown or saved.

    Raises:
        ValueError: If the slice has one direction only or lacks the variable, if levels do not
            ascend, or if a quadratic model is asked for without its curvatures.

    Example:
        >>> import landscape
        >>> display = landscape.viz.plot_slice_contour(plane)  # doctest: +SKIP
        >>> display.save("plane.pdf")  # doctest: +SKIP
    """
    from landscape.viz.slice_layout import fit, new_panels

    needs_dims(dataset, 2, "plot_slice_line")
    variable = main_variable(dataset) if variable is None else variable
    scale = scale_of([values_of(dataset, variable)], variable, levels, top)
    marks = Marks(evaluated=evaluated, trajectory=trajectory, quadratic=quadratic)
    with style():
        way = trajectory and has_trajectory(dataset)
        ax = new_panels(SINGLE, [(0, 0)])[0] if ax is None else ax
        drawn, handles, markers = draw_plane(ax, dataset, variable, scale, marks)
        label_axis(ax, dataset, "alpha", "x", 2.4)
        label_axis(ax, dataset, "beta", "y", 2.1)
        bar = None
        if drawn is not None:
            bar = draw_colorbar(ax, drawn, scale, value_text(dataset, variable))
        if markers is not None:
            draw_residual_bar(ax, markers)
        sentences = notes([(dataset, [variable])])
        sentences += [text for text in [outside(dataset) if way else ""] if text]
        draw_key(ax, handles, sentences)
        fit(ax, panel_ratio(ax))
        return slice_display(ax, colorbar_=bar)


def draw_plane(
    ax: Axes, dataset: Dataset, variable: str, scale: Scale, marks: Marks
) -> tuple[Any, list[Artist], Any]:
    """Draws contours and marks, without names of axes.

    Args:
        ax: The axes.
        dataset: A slice along two directions.
        variable: What to draw.
        scale: The levels.
        marks: What to draw over the contours.

    Returns:
        The contours (None without any finite value), handles for the key, and the markers of
        checkpoints where their colour has a meaning.
    """
    x, y = coordinates(dataset, "alpha"), coordinates(dataset, "beta")
    values, known = values_of(dataset, variable), evaluated_of(dataset)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    sides = (x[-1] - x[0]) / (y[-1] - y[0])
    if same_unit(dataset) and 1 / _NARROW <= sides <= _NARROW:
        ax.set_aspect("equal", adjustable="box")
    handles = _draw_missing(ax, x, y, values, known)
    drawn = _draw_contours(ax, x, y, values, scale)
    if marks.quadratic:
        handles.append(_draw_quadratic(ax, dataset, variable, scale))
    if marks.evaluated:
        handles.append(_draw_dots(ax, x, y, known))
    markers = None
    star = _draw_star(ax)
    if marks.trajectory and has_trajectory(dataset):
        ax.apply_aspect()
        line, markers = draw_trajectory(ax, dataset)
        star.append(line)
    return drawn, [*star, *handles], markers


def panel_ratio(ax: Axes) -> float:
    """Height over width of a plane: that of its data where steps are equally long, else one."""
    if ax.get_aspect() == "auto":
        return 1.0
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return (high - low) / (right - left)


def _draw_contours(ax: Axes, x: Values, y: Values, values: Values, scale: Scale) -> Any:
    finite = np.ma.masked_invalid(values)
    if finite.count() == 0:
        return None
    shown = np.ma.masked_array(scale.clipped(finite.filled(math.inf)), mask=finite.mask).T
    drawn = ax.contourf(
        x, y, shown, levels=scale.levels, norm=scale.norm(), cmap=COLORS, extend=scale.extend
    )
    # Without an edge of their own colour, viewers show white seams between areas.
    drawn.set_edgecolor("face")
    drawn.set_linewidth(0.3)
    low, high = float(finite.min()), float(finite.max())
    inner = scale.levels[(scale.levels > low) & (scale.levels < high)]
    if len(inner):
        ax.contour(
            x,
            y,
            shown,
            levels=inner,
            colors="white",
            linestyles="solid",
            linewidths=0.35,
            alpha=0.6,
        )
    return drawn


def _draw_missing(ax: Axes, x: Values, y: Values, values: Values, known: Flags) -> list[Artist]:
    """Hatches the surroundings of points without a finite value, which contours leave out."""
    from matplotlib import rc_context
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Patch, Rectangle

    handles: list[Artist] = []
    bad = known & ~np.isfinite(values)
    if bad.any():
        patches = [
            Rectangle((left, bottom), right - left, upper - bottom)
            for row, column in zip(*np.nonzero(bad), strict=True)
            for left, right in [(x[max(row - 1, 0)], x[min(row + 1, len(x) - 1)])]
            for bottom, upper in [(y[max(column - 1, 0)], y[min(column + 1, len(y) - 1)])]
        ]
        look: dict[str, Any] = {"facecolor": "#E4E7EA", "edgecolor": HATCH, "hatch": 6 * "/"}
        with rc_context({"hatch.linewidth": 0.5}):
            cells = PatchCollection(patches, **look, linewidth=0, zorder=0.5, label="_missing")
            ax.add_collection(cells, autolim=False)
            handles.append(Patch(**look, linewidth=0, label=missing_text(values[bad])))
    if (~known & ~np.isfinite(values)).any():
        handles.append(
            Patch(facecolor="white", edgecolor=GREY, linewidth=0.5, label="not evaluated yet")
        )
    return handles


def missing_text(values: Values) -> str:
    """What values that are not finite are, in a key."""
    kinds = ["NaN"] if np.isnan(values).any() else []
    kinds += ["infinite"] if np.isinf(values).any() else []
    return " or ".join(kinds)


def _draw_dots(ax: Axes, x: Values, y: Values, known: Flags) -> Artist:
    rows, columns = np.nonzero(known)
    (dots,) = ax.plot(
        x[rows],
        y[columns],
        linestyle="none",
        marker="o",
        markersize=1.3,
        markerfacecolor="white",
        markeredgecolor=INK,
        markeredgewidth=0.25,
        clip_on=False,
        zorder=3,
        label="evaluated",
    )
    return dots


def _draw_quadratic(ax: Axes, dataset: Dataset, variable: str, scale: Scale) -> Artist:
    from matplotlib.lines import Line2D

    x = np.linspace(*ax.get_xlim(), 201)
    y = np.linspace(*ax.get_ylim(), 201)
    model = _quadratic(dataset, variable, x[:, None], y[None, :])
    inner = scale.levels[(scale.levels > model.min()) & (scale.levels < model.max())]
    look: dict[str, Any] = {"linestyles": [(0, (3, 1.5))], "linewidths": 0.9}
    if len(inner):
        ax.contour(x, y, model.T, levels=inner, colors=EXTREME, **look)
    return Line2D([], [], color=EXTREME, linestyle=(0, (3, 1.5)), label="quadratic model")


def _quadratic(dataset: Dataset, variable: str, alpha: Values, beta: Values) -> Values:
    curvatures = read_json(dataset, "curvatures")
    if not isinstance(curvatures, list) or len(curvatures) != 2 or not variable.endswith("loss"):
        raise ValueError(
            "a quadratic model needs a loss and the curvatures of both directions, which slices "
            "along eigenvectors of the Hessian hold; draw others with quadratic=False"
        )
    lengths = direction_lengths(dataset) or [1.0, 1.0]
    base = float(dataset[variable].interp(alpha=0.0, beta=0.0))
    first, second = (
        float(curvature) * length**2 for curvature, length in zip(curvatures, lengths, strict=True)
    )
    model: Values = base + 0.5 * (first * alpha**2 + second * beta**2)
    return model


def _draw_star(ax: Axes) -> list[Artist]:
    """The checkpoint, where it lies in the picture."""
    if not all(low <= 0 <= high for low, high in (ax.get_xlim(), ax.get_ylim())):
        return []
    (star,) = ax.plot(
        [0],
        [0],
        linestyle="none",
        marker="*",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=INK,
        markeredgewidth=0.7,
        zorder=8,
        clip_on=False,
        label="checkpoint",
    )
    return [star]
