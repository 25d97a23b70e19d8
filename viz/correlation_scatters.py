"""Each measure against the target, one dot a model, coloured by a hyper-parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.correlation_colours import SPANS, colour_column, finite, model_colors
from landscape.viz.correlation_names import (
    axis_name,
    lines,
    measures_of,
    row_of,
    short,
    target_name,
    two_digits,
)
from landscape.viz.display import Display, display
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.correlation import Correlations

_COLUMNS = 4
# Inches: of a panel's axes, from one panel to the next, of its title, and around all.
_SIZE, _PITCH, _HEADING = (1.72, 1.16), (1.93, 1.78), 0.36
_LEFT, _RIGHT, _TOP = 0.6, 0.62, 0.3
_TAILS = 100.0  # the same for the outer over the middle of values of both signs
_MANY = 400  # dots from which a panel is an image inside a vector file


def plot_scatters(
    correlations: Correlations,
    *,
    measures: Sequence[str] | None = None,
    colour: str | None = None,
) -> Display:
    """Draws small multiples: the target against each measure, in the order of the ranking.

    An axis is logarithmic where its values span decades. Values that are missing or infinite are
    not drawn; the count in the corner says how many are.

    Args:
        correlations: The correlations.
        measures: Panels to draw; None draws all that vary, but the radii and layers of others.
        colour: The hyper-parameter that colours the dots; None takes the one that explains most
            of the target (``explaining_axis``).

    Returns:
        The first axes and their figure, whose ``axes`` are the panels and the key; nothing is
        shown or saved.

    Raises:
        ValueError: If ``colour`` is no column, or no measure varies.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_scatters(correlations, colour="hp.lr")  # doctest: +SKIP
    """
    names = drawable(correlations) if measures is None else list(measures)
    if not names:
        raise ValueError("there is no measure to draw: none has two values that differ")
    frame = correlations.frame
    unknown = [name for name in names if name not in frame]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r} in these correlations")
    shown = colour_column(correlations, colour)
    with style():
        figure, axes = _grid(len(names))
        colors, key = model_colors(frame, shown)
        for ax, name in zip(axes, names, strict=True):
            _panel(ax, correlations, name, colors)
        figure.supylabel(
            short(target_name(correlations.target)), x=0.005, fontsize=8, parse_math=False
        )
        if shown is not None:
            key(figure, short(axis_name(shown), 30))
        return display(axes[0])


def _grid(count: int) -> tuple[Any, list[Axes]]:
    """Panels at fixed places, in inches: a layout that is solved takes seconds for many."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    width, height = _LEFT + columns * _PITCH[0] + _RIGHT, _TOP + rows * _PITCH[1]
    figure = Figure(figsize=(width, height))
    axes: list[Axes] = []
    for place in range(count):
        row, column = divmod(place, columns)
        left = (_LEFT + column * _PITCH[0]) / width
        bottom = 1 - (_TOP + row * _PITCH[1] + _HEADING + _SIZE[1]) / height
        box = (left, bottom, _SIZE[0] / width, _SIZE[1] / height)
        ax = figure.add_axes(box, sharey=axes[0] if axes else None)
        if column:
            ax.tick_params(labelleft=False)
        axes.append(ax)
    return figure, axes


def drawable(correlations: Correlations) -> list[str]:
    """The measures that have two values that differ, in the order of the ranking."""
    return [
        name
        for name in measures_of(correlations)
        if name in correlations.frame and len(np.unique(finite(correlations.frame[name]))) > 1
    ]


def _panel(ax: Axes, correlations: Correlations, name: str, colors: Any) -> None:
    frame = correlations.frame
    x, y = frame[name].to_numpy(float), frame[correlations.target].to_numpy(float)
    there = np.isfinite(x) & np.isfinite(y)
    # Mixed, so that no colour lies on top of all others.
    order = np.random.default_rng(0).permutation(np.flatnonzero(there))
    many = len(order) > _MANY
    ax.scatter(
        x[order],
        y[order],
        s=float(np.clip(2500 / max(len(order), 1), 1.5, 12)),
        c=colors[order],
        alpha=0.75 if not many else 0.5,
        linewidths=0,
        rasterized=many,
    )
    scale_axis(ax, x[there])
    ax.set_title(lines(name, 28), fontsize=6.8, loc="left", parse_math=False, linespacing=1.05)
    tau = float(row_of(correlations, name)["tau"]) if name in correlations.table.index else np.nan
    told = "no τ" if math.isnan(tau) else f"τ = {two_digits(tau)}"
    missing = f"   {len(order)} of {len(x)}" * (len(order) < len(x))
    ax.annotate(
        told + missing,
        (1, 1),
        xycoords="axes fraction",
        xytext=(-1, -1),
        ha="right",
        va="top",
        textcoords="offset points",
        fontsize=6.5,
        bbox={"facecolor": "white", "alpha": 0.75, "pad": 0.8},
    )
    ax.tick_params(labelsize=6.3)


def scale_axis(ax: Axes, values: Any) -> None:
    """Makes the horizontal axis logarithmic where the values span decades.

    Args:
        ax: The axes.
        values: All finite.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if not len(values):
        return
    sizes = np.abs(values)
    if values.min() > 0 and values.max() / values.min() > SPANS:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
        ax.xaxis.set_minor_locator(NullLocator())
    elif threshold := _threshold(values, sizes):
        ax.set_xscale("symlog", linthresh=threshold)
        ax.xaxis.set_minor_locator(NullLocator())
        _thin_symmetric(ax)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))


def _threshold(values: Any, sizes: Any) -> float:
    """Below which size a scale of both signs is linear; 0 where a linear scale will do."""
    if values.max() < 0 and sizes.max() / sizes.min() > SPANS:
        return float(sizes.min())
    middle = float(np.median(sizes))
    return middle if middle > 0 and sizes.max() / middle > _TAILS else 0.0


def _thin_symmetric(ax: Axes) -> None:
    """Few enough powers of ten that their names keep apart, zero among them."""
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    step = math.ceil(len(ticks) / 5) if ticks else 1
    middle = next((place for place, tick in enumerate(ticks) if tick == 0), 0)
    ax.set_xticks(ticks[middle % step :: step])
