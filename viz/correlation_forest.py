"""Rank correlations of all measures with the target, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from landscape.viz.correlation_names import (
    controls_of,
    interval_of,
    measures_of,
    ranked,
    row_of,
    short,
    target_name,
    two_digits,
)
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import CURVE, EXTREME, FAINT, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from landscape.correlation import Correlations

_ROW = 0.205  # inches
_PARTIALS = (EXTREME, "#009E73", "#CC79A7")
_SYMBOLS = "Dsv"


def plot_forest(
    correlations: Correlations,
    ax: Axes | None = None,
    *,
    measures: Sequence[str] | None = None,
    given: Sequence[str] | None = None,
) -> Display:
    """Draws τ-b of each measure with its interval, the largest on top, the controls below.

    Beside each stands the partial τ given other columns. Measures without a τ are named with the
    reason. Signs are kept: a positive τ says that larger values go with a larger target.

    Args:
        correlations: The correlations.
        ax: Axes to draw on; None makes a figure of its own, as high as the rows need.
        measures: Rows to draw; None draws every measure but the radii and layers of others.
        given: Columns whose partial τ is drawn, three at most; None takes all there are.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If a measure or a column of ``given`` is unknown, or there is nothing to draw.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_forest(correlations)  # doctest: +SKIP
    """
    table = correlations.table
    rows = _rows(correlations, measures)
    partials = partials_of(table) if given is None else list(given)
    unknown = [name for name in partials if f"partial[{name}]" not in table]
    if unknown:
        raise ValueError(
            f"there is no partial τ given {unknown[0]}; there are {partials_of(table)}"
        )
    partials = partials[: len(_PARTIALS)]
    with style():
        ax = new_axes(8.6, _height(len(rows), len(partials))) if ax is None else ax
        places = _places(rows, table)
        ax.axvline(0, color="#5B6470", linewidth=0.6, zorder=0)
        for name, place in places.items():
            _draw(ax, place, row_of(correlations, name), partials)
        _frame(ax, correlations, places)
        _key(ax, table, partials, correlations)
        return display(ax)


def partials_of(table: pd.DataFrame) -> list[str]:
    """The columns that a table has partial correlations given."""
    inside = [str(name)[8:-1] for name in table.columns if str(name).startswith("partial[")]
    return [name for name in inside if table[f"partial[{name}]"].notna().any()]


def _rows(correlations: Correlations, measures: Sequence[str] | None) -> list[str]:
    table = correlations.table
    if measures is None:
        own = measures_of(correlations)
    else:
        unknown = [name for name in measures if name not in table.index]
        if unknown:
            raise ValueError(f"there is no measure {unknown[0]!r} in these correlations")
        own = ranked(correlations, [name for name in measures if not table.loc[name, "control"]])
    rows = [*own, *ranked(correlations, controls_of(correlations))]
    if not rows:
        raise ValueError("there is no measure to draw; correlate at least one")
    return rows


def _height(rows: int, partials: int) -> float:
    """Inches of a figure; several partial τ need room one below the other."""
    return 1.0 + _ROW * (1 + 0.35 * max(partials - 1, 0)) * (rows + 1)


def _places(rows: list[str], table: pd.DataFrame) -> dict[str, float]:
    """Height of each row; a gap stands above the controls."""
    places, gap = {}, 0.0
    for index, name in enumerate(rows):
        if index and table.loc[name, "control"] and not table.loc[rows[index - 1], "control"]:
            gap = 0.7
        places[name] = index + gap
    return places


def _draw(ax: Axes, place: float, row: pd.Series, partials: list[str]) -> None:
    control = bool(row["control"])
    if math.isnan(row["tau"]):
        reason = short(str(row.get("note") or "no τ"), 88)
        ax.text(
            0.0,
            place,
            f" {reason} ",
            fontsize=6.5,
            color="#5B6470",
            style="italic",
            ha="center",
            va="center",
            parse_math=False,
            bbox={"facecolor": "white", "pad": 0.5},
        )
        return
    color = FAINT if control else CURVE
    drawn = [name for name in partials if not math.isnan(row[f"partial[{name}]"])]
    reach = 0.11 + 0.05 * len(drawn) if drawn else 0.0
    below = place + np.linspace(-reach, reach, len(drawn) + 1)
    ends = (row["tau"], row["tau_low"], row["tau_high"])
    _mark(ax, float(below[0]), ends, color, "o", full=True)
    for height, name in zip(below[1:], drawn, strict=True):
        ends = (row[f"partial[{name}]"], row[f"partial_low[{name}]"], row[f"partial_high[{name}]"])
        which = partials.index(name)
        _mark(ax, float(height), ends, _PARTIALS[which], _SYMBOLS[which], full=False)
    _tell(ax, place, row)


def _mark(
    ax: Axes, place: float, ends: tuple[float, ...], color: str, symbol: str, *, full: bool
) -> None:
    value, low, high = ends
    if not (math.isnan(low) or math.isnan(high)):
        ax.plot([low, high], [place, place], color=color, linewidth=1.3 if full else 0.7)
    ax.plot(
        value,
        place,
        symbol,
        color=color,
        markersize=4.2 if full else 3.0,
        markerfacecolor=color if full else "white",
        markeredgewidth=0.7,
    )


def _tell(ax: Axes, place: float, row: pd.Series) -> None:
    """The numbers in columns of their own, right of the drawing."""
    interval = interval_of(row["tau_low"], row["tau_high"])
    for text, offset in (
        (two_digits(row["tau"]), 26),
        (interval, 92),
        (f"{row['models']:.0f}", 122),
    ):
        ax.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(offset, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=6.8,
            color="#3C4651",
        )


def _frame(ax: Axes, correlations: Correlations, places: dict[str, float]) -> None:
    last = max(places.values())
    ax.set_ylim(last + 0.7, -0.7)
    ax.set_xlim(-1.02, 1.02)
    ax.set_xticks(np.linspace(-1, 1, 9))
    ax.grid(axis="x", color="#E6EAEE", linewidth=0.5)
    ax.set_yticks(list(places.values()), [short(name) for name in places], parse_math=False)
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(
        f"Kendall τ-b with {target_name(correlations.target)}   "
        "(right: larger measure, larger target)",
        parse_math=False,
    )
    for heading, offset in (("τ", 26), ("interval", 92), ("models", 124)):
        ax.annotate(
            heading,
            (1, 1),
            xycoords="axes fraction",
            xytext=(offset, 3),
            ha="right",
            va="bottom",
            textcoords="offset points",
            fontsize=6.8,
            color="#5B6470",
        )
    controls = [place for name, place in places.items() if correlations.table.loc[name, "control"]]
    if controls and len(controls) < len(places):
        ax.axhline(min(controls) - 0.85, color="#B4BCC5", linewidth=0.6)


def _key(ax: Axes, table: pd.DataFrame, partials: list[str], correlations: Correlations) -> None:
    from matplotlib.lines import Line2D

    share = 100 * float(correlations.settings.get("confidence", 0.95))
    marks = [Line2D([], [], color=CURVE, marker="o", markersize=4.2)]
    names = [f"τ, {share:g} % interval"]
    if table["control"].any():
        marks.append(Line2D([], [], color=FAINT, marker="o", markersize=4.2))
        names.append("control")
    for name, color, symbol in zip(partials, _PARTIALS, _SYMBOLS, strict=False):
        marks.append(
            Line2D(
                [],
                [],
                color=color,
                marker=symbol,
                markersize=3,
                markerfacecolor="white",
                linewidth=0.7,
            )
        )
        names.append(f"partial τ given {short(name, 30 if len(partials) == 1 else 24)}")
    key = ax.legend(
        marks,
        names,
        ncols=len(names) if len(partials) < 2 else 2,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.1,
        handlelength=1.6,
        columnspacing=1.4,
        fontsize=7,
    )
    for text in key.get_texts():
        text.set_parse_math(False)
