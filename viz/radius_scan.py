"""The loss around a checkpoint: its rise against the radius, one line a measure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from landscape.results import Result
from landscape.viz.direct_labels import label_lines
from landscape.viz.display import Display, display, new_axes
from landscape.viz.scan_panels import (
    QUANTITIES,
    line_label,
    panel_height,
    panel_title,
    scan_panels,
)
from landscape.viz.scans import (
    Flags,
    Scan,
    draw_crosses,
    radius_axis,
    scan_of,
    symbol_of,
)
from landscape.viz.style import FAINT, style
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^DvP"  # one less than colours, so that many lines all differ
_SHORT = math.log(15)  # an axis that holds less has too few powers of ten


@dataclass(frozen=True)
class _Line:
    label: str
    scan: Scan
    color: str
    marker: str


def plot_radius_scan(results: Result | Iterable[Result], ax: Axes | None = None) -> Display:
    """Draws the rise of the loss against the radius of a neighbourhood or the scale of a noise.

    Every radius of each scan is drawn. The band is the 95 % interval of the estimates. Hollow
    markers are values that are uncertain or not converged; a cross on the lower edge is a radius
    without a value, where the line has a gap. Both axes are logarithmic where all values are
    positive, with a dashed line that rises with the square of the radius, as a quadratic loss does.

    Args:
        results: With ``diagnostics["scan"]``, of one parameter, geometry and norm; those without a
            scan are left out.
        ax: Axes to draw on; None makes a figure of its own.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If no result has a scan of the loss, or if their radii cannot be compared.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_radius_scan(table["max-sharpness"])  # doctest: +SKIP
    """
    panels = scan_panels([results] if isinstance(results, Result) else results)
    if not panels:
        raise ValueError(
            "no result has a scan of the loss over radii; 'max-sharpness' and the other "
            "neighbourhood measures have one (draw 'noise-stability' with plot_noise_scan)"
        )
    if len(panels) > 1:
        raise ValueError(
            f"these radii cannot share an axis ({'; '.join(map(panel_title, panels))}); draw each "
            "on axes of its own"
        )
    (key, found), *_ = panels.items()
    with style():
        ax = new_axes(4.6, panel_height(found)) if ax is None else ax
        lines = _lines(found)
        note = _missing(ax, lines)
        radii = np.concatenate([line.scan.at for line in lines])
        radius_axis(ax, radii, key.parameter, note, noise=key.kind == "noise")
        power = _value_axis(ax, lines)
        for line in lines:
            _draw(ax, line)
        if power and key.quantity == "rise":
            _draw_square(ax, lines, symbol_of(key.parameter))
        ax.set_ylim(*ax.get_ylim())
        label_lines(ax, [(line.label, line.color, _last(line.scan)) for line in lines])
        ax.set_ylabel(QUANTITIES.get(key.quantity, key.quantity))
        ax.set_title(panel_title(key), loc="left")
        return display(ax)


def _lines(results: list[Result]) -> list[_Line]:
    """A line for each scan; results that differ in the reported radius only share one."""
    from matplotlib import rcParams

    scans: dict[str, list[Result]] = {}
    for result in results:
        scans.setdefault(line_label(result), []).append(result)
    named = {
        name if _same(found) else result.measure: result
        for name, found in scans.items()
        for result in found
    }
    colors = cycle(rcParams["axes.prop_cycle"].by_key()["color"])
    return [
        _Line(name, scan_of(result), color, marker)
        for (name, result), color, marker in zip(
            named.items(), colors, cycle(_MARKERS), strict=False
        )
    ]


def _same(results: list[Result]) -> bool:
    first, *others = (result.diagnostics["scan"]["points"] for result in results)
    return all(points == first for points in others)


def _missing(ax: Axes, lines: list[_Line]) -> str:
    """Marks radii without a value; returns what the axis has to say about marks."""
    seen: Counter[float] = Counter()
    for line in lines:
        at = line.scan.at[~line.scan.known].tolist()
        draw_crosses(ax, at, [seen[radius] for radius in at], line.color)
        seen.update(at)
    notes = ["× no value"] if seen else []
    if any((line.scan.known & ~line.scan.sure).any() for line in lines):
        notes.append("hollow: not certain")
    return f"   ({', '.join(notes)})" if notes else ""


def _value_axis(ax: Axes, lines: list[_Line]) -> bool:
    """Scale and limits of the values; whether a power of the radius is a straight line on it."""
    values = np.concatenate([line.scan.value[line.scan.known] for line in lines])
    if not len(values):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return False
    ends = np.concatenate([part for line in lines for part in (line.scan.low, line.scan.high)])
    ends = ends[np.isfinite(ends)]
    low, high, room = float(values.min()), float(values.max()), 0.05
    if low > 0:
        # A band may end far below, on a logarithmic axis at minus infinity.
        bottom = max(float(np.min(ends[ends > 0], initial=low)), low / 8)
        top = min(float(np.max(ends, initial=high)), 8 * high)
        span = max(np.log(top / bottom), np.log(2.0))
        ax.set_yscale("log")
        ax.set_ylim(bottom * np.exp(-2 * room * span), top * np.exp(room * span))
        if span < _SHORT:
            _fine_ticks(ax)
        return True
    sizes = np.abs(values[values != 0])
    if len(sizes) and sizes.max() > 30 * sizes.min():
        # A power of ten, so that no tick stands between it and zero.
        smallest = max(float(sizes.min()), 1e-4 * float(sizes.max()))
        threshold = 10 ** math.floor(math.log10(smallest))
        ax.set_yscale("symlog", linthresh=threshold)
    else:
        _short_ticks(ax)
    ax.axhline(0, color="#5B6470", linewidth=0.6)
    ax.margins(y=0.1)
    return False


def _short_ticks(ax: Axes) -> None:
    """Few and short numbers on a linear axis, whose label they would push out of the picture."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: typeset(f"{value:.3g}")))


def _fine_ticks(ax: Axes) -> None:
    """Numbers within a decade, where powers of ten alone are too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: typeset(f"{value:.3g}")))


def _draw(ax: Axes, line: _Line) -> None:
    scan, color = line.scan, line.color
    ax.fill_between(scan.at, scan.low, scan.high, color=color, alpha=0.15, label="_95 % band")
    # Between two gaps a band has no width.
    lonely = scan.known & ~_beside(scan.known)
    ax.vlines(scan.at[lonely], scan.low[lonely], scan.high[lonely], color=color, linewidth=0.9)
    ax.plot(scan.at, scan.value, color=color, label=line.label)
    for sure, face in ((True, color), (False, "white")):
        chosen = scan.known & (scan.sure == sure)
        if chosen.any():
            ax.plot(
                scan.at[chosen],
                scan.value[chosen],
                color=color,
                linestyle="none",
                marker=line.marker,
                markersize=4,
                markerfacecolor=face,
                label="_sure" if sure else "_not sure",
            )


def _beside(known: Flags) -> Flags:
    """Where a neighbour has a value."""
    padded = np.concatenate([[False], known, [False]])
    beside: Flags = np.logical_or(padded[:-2], padded[2:])
    return beside


def _last(scan: Scan) -> tuple[float, float] | None:
    """The last point with a value, where a line's name stands."""
    known = np.flatnonzero(scan.known)
    return (float(scan.at[known[-1]]), float(scan.value[known[-1]])) if len(known) else None


def _draw_square(ax: Axes, lines: list[_Line], letter: str) -> None:
    """A line of slope two on logarithmic axes, below all others."""
    at = np.concatenate([line.scan.at[line.scan.known] for line in lines])
    value = np.concatenate([line.scan.value[line.scan.known] for line in lines])
    factor = 0.6 * float(np.min(value / at**2))
    bottom, right = ax.get_ylim()[0], ax.get_xlim()[1]
    left = max(math.sqrt(bottom / factor), ax.get_xlim()[0])
    if len(set(at)) < 2 or left > right:
        return
    ends = np.array([left, right])
    ax.plot(ends, factor * ends**2, color=FAINT, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.5)
    place = left**0.6 * right**0.4
    ax.annotate(
        f"∝ {letter}²",
        (place, factor * place**2),
        xytext=(3, -2),
        textcoords="offset points",
        ha="left",
        va="top",
        color="#5B6470",
        fontsize=7,
    )
