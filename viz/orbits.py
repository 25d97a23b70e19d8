"""Measures along the orbit of a checkpoint: how far each moves while the function stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from landscape.viz.display import Display, display, new_axes
from landscape.viz.orbit_labels import INK, SOFT, Line, arranged, write_labels
from landscape.viz.orbit_ranges import (
    DEPENDS,
    KINDS,
    OrbitRow,
    kinds_of,
    orbit_rows,
    power_of_ten,
)
from landscape.viz.style import FAINT, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _REST = 0.19, 0.95  # inches
_ORDER_OF_MAGNITUDE = 10.0
_FURTHEST = 1e6  # from there on the edge; the column of numbers tells how far
_LANES = 0.25  # of a row's height, to both sides
_RULE = "#E8ECF0"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dvp"


def plot_orbits(
    check: Mapping[str, Any],
    ax: Axes | None = None,
    *,
    headings: Mapping[str, str] | None = None,
) -> Display:
    """Draws how far measures move over checkpoints that compute the same function.

    A row a measure, in the order of the check. A dot is its value at a changed checkpoint, divided
    by that at the checkpoint (of a measure that is a logarithm, e to the difference); the line
    joins the lowest and the highest. The band is an order of magnitude to both sides. A triangle
    on an edge is a value that no finite factor leads to (a change of sign, a lost number), or one
    further than 10⁶; the column on the right tells the largest factor of the changes that move a
    measure by more than chance. Bold are measures that depend on the parametrisation, grey those
    that do not move. Values under a multiplied loss are not drawn.

    Args:
        check: ``SymmetryCheck.to_dict()``, or ``report["extras"]["symmetry_check"]``.
        ax: Axes to draw on; None makes a figure of its own, as high as the rows need.
        headings: By name of a measure the heading that it stands under; None draws none.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If the check has no measure, or found no change that keeps the function.

    Example:
        >>> import landscape
        >>> check = landscape.symmetry_check(probe)  # doctest: +SKIP
        >>> landscape.viz.plot_orbits(check.to_dict())  # doctest: +SKIP
    """
    kinds = kinds_of(check)
    if not check["orbits"]:
        raise ValueError("the symmetry check holds no measure; give it at least one")
    if not kinds:
        raise ValueError(
            "no change of the weights that keeps the function was found on this model, so that "
            "there is no orbit to draw"
        )
    lines = arranged(orbit_rows(check, headings))
    with style():
        ax = new_axes(6.75, orbits_height(check, headings)) if ax is None else ax
        _axes(ax, lines, kinds)
        write_labels(ax, lines)
        for line in lines:
            if line.row is not None:
                _range(ax, line.place, line.row, kinds)
        for lane, kind in enumerate(kinds):
            _dots(ax, lines, kind, lane, len(kinds))
        _legend(ax, kinds)
        return display(ax)


def orbits_height(check: Mapping[str, Any], headings: Mapping[str, str] | None = None) -> float:
    """Height of a figure of a check, in inches."""
    lines = arranged(orbit_rows(check, headings))
    return _REST + _ROW * (lines[-1].place + 1)


def _axes(ax: Axes, lines: list[Line], kinds: list[str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ratios = [
        ratio
        for line in lines
        if line.row is not None
        for kind in kinds
        for ratio in line.row.ratios.get(kind, [])
        if 1 / _FURTHEST <= ratio <= _FURTHEST
    ]
    low = min([*ratios, 1 / _ORDER_OF_MAGNITUDE])
    high = max([*ratios, _ORDER_OF_MAGNITUDE])
    room = max((high / low) ** 0.04, 1.6)
    ax.set_xscale("log")
    ax.set_xlim(low / room, high * room)
    ax.set_ylim(lines[-1].place + 0.75, -0.75)
    first, last = math.ceil(math.log10(low / room)), math.floor(math.log10(high * room))
    ax.xaxis.set_major_locator(FixedLocator([10.0**power for power in range(first, last + 1)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("value at changed weights with the same function / value at the checkpoint")
    band = 1 / _ORDER_OF_MAGNITUDE, _ORDER_OF_MAGNITUDE
    ax.axvspan(*band, color=FAINT, alpha=0.13, zorder=0.3, label="_band")
    ax.axvline(1, color=SOFT, linewidth=0.7, zorder=0.6, label="_one")


def _tick(value: float) -> str:
    power = round(math.log10(value))
    return f"{value:g}" if abs(power) <= 3 else power_of_ten(power)


def _range(ax: Axes, place: float, row: OrbitRow, kinds: list[str]) -> None:
    """The rule of a row, and the line from its lowest to its highest value."""
    ax.axhline(place, color=_RULE, linewidth=0.5, zorder=0.4, label="_rule")
    left, right = ax.get_xlim()
    known = [ratio for kind in kinds for ratio in row.ratios.get(kind, []) if math.isfinite(ratio)]
    low, high = (min(max(end, left), right) for end in (min([1, *known]), max([1, *known])))
    color = INK if row.verdict == DEPENDS else SOFT if row.moved_by else FAINT
    ax.hlines(place, low, high, color=color, linewidth=1.1, zorder=1.5, label="_range")


def _dots(ax: Axes, lines: list[Line], kind: str, lane: int, lanes: int) -> None:
    """The values of a kind in a lane of their own, so that none hides another."""
    shift = _LANES * (2 * lane / (lanes - 1) - 1) if lanes > 1 else 0.0
    color, marker = _look(kind)
    left, right = ax.get_xlim()
    points = [
        (ratio, line.place + shift)
        for line in lines
        if line.row is not None
        for ratio in line.row.ratios.get(kind, [])
        if not math.isnan(ratio)
    ]
    inside = [point for point in points if left <= point[0] <= right]
    _mark(ax, inside, color, marker, kind)
    _mark(ax, [(left, y) for x, y in points if x < left], color, "<", "_left edge")
    _mark(ax, [(right, y) for x, y in points if x > right], color, ">", "_right edge")


def _look(kind: str) -> tuple[str, str]:
    rank = list(KINDS).index(kind) if kind in KINDS else len(KINDS)
    return _COLORS[rank], _MARKERS[rank]


def _mark(ax: Axes, at: list[tuple[float, float]], color: str, marker: str, label: str) -> None:
    if not at:
        return
    ax.plot(
        [x for x, _ in at],
        [y for _, y in at],
        color=color,
        linestyle="none",
        marker=marker,
        markersize=4.5 if marker in "<>" else 3.2,
        markeredgewidth=0,
        clip_on=False,
        zorder=3,
        label=label,
    )


def _legend(ax: Axes, kinds: list[str]) -> None:
    """Above the axes, in one line, by a distance that does not grow with them."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    above = ScaledTranslation(0, 13 / 72, ax.figure.dpi_scale_trans)
    handles = []
    for kind in kinds:
        color, marker = _look(kind)
        handles.append(Line2D([], [], color=color, linestyle="none", marker=marker, label=kind))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        bbox_transform=ax.transAxes + above,
        ncols=len(kinds),
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.2,
        columnspacing=1.4,
        labelcolor=INK,
        markerscale=0.75,
    )
