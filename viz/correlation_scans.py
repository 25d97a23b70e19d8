"""Rank correlation along a setting that was scanned: a radius, or a number in the label."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from landscape.viz.correlation_names import LAYERS, lines
from landscape.viz.display import Display, display
from landscape.viz.measure_table import base_name
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.correlation import Correlations

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SYMBOLS = "osD^vP"
_RADIUS = re.compile(r"(.+)@([-+.\deE]+)")
_SETTING = re.compile(r"(?<=[\[,])\s*(\w+)=([-+.\deE]+)(?=[,\]])")
_SYMBOL = {"rho": "ρ", "sigma": "σ", "alpha": "α"}
_COLUMNS = 3


class Scan(NamedTuple):
    """Columns that differ in one number alone.

    Args:
        name: Their label without it.
        parameter: What the number is called.
        points: (number, column), in order of the numbers.
    """

    name: str
    parameter: str
    points: tuple[tuple[float, str], ...]


def scans_of(correlations: Correlations) -> list[Scan]:
    """The scans among the columns, each with two numbers or more, those of layers with three.

    Args:
        correlations: The correlations.

    Returns:
        ``LABEL@radius`` by radius, and labels such as ``name[alpha=0.5]`` that differ in one
        number, in order of first appearance.
    """
    table = correlations.table
    found: dict[tuple[str, str], dict[float, str]] = {}
    for label in map(str, table.index[~table["control"].astype(bool)]):
        for key, number in _numbers(label):
            found.setdefault(key, {})[number] = label
    return [
        Scan(name, parameter, tuple(sorted(points.items())))
        for (name, parameter), points in found.items()
        if len(points) > (2 if name.endswith(LAYERS) else 1)
    ]


def _numbers(label: str) -> list[tuple[tuple[str, str], float]]:
    """Each number in a label, under the label without it and its name."""
    found = []
    radius = _RADIUS.fullmatch(label)
    if radius and (number := _float(radius[2])) is not None:
        found.append(((radius[1], "radius"), number))
    for setting in _SETTING.finditer(label):
        if (number := _float(setting[2])) is not None:
            rest = label[: setting.start()] + label[setting.end() :]
            rest = rest.replace("[,", "[").replace(",]", "]").replace(",,", ",").replace("[]", "")
            found.append(((rest, setting[1]), number))
    return found


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def plot_scan_correlations(
    correlations: Correlations, *, scans: Sequence[Scan] | None = None
) -> Display:
    """Draws τ along every scan with its interval: one panel a measure, one line a variant.

    A scan is shown whole. Its best point was chosen among several, so that the interval there
    does not hold for "the best radius".

    Args:
        correlations: The correlations.
        scans: What to draw; None draws all that ``scans_of`` finds.

    Returns:
        The first axes and their figure, whose ``axes`` are the panels; nothing is shown or saved.

    Raises:
        ValueError: If nothing was scanned.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_scan_correlations(correlations)  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    panels = _panels(scans_of(correlations) if scans is None else scans)
    if not panels:
        raise ValueError("no columns differ in one number alone, so that there is no scan to draw")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style():
        size = (0.4 + 2.75 * columns, 0.3 + 2.25 * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            _panel(ax, correlations, panel)
        for ax in axes[len(panels) :]:
            ax.remove()
        for ax in axes[: len(panels)]:
            ax.set_ylim(-1.02, 1.02)
        figure.supylabel("Kendall τ-b with the target", fontsize=8)
        return display(axes[0])


def _panels(scans: Sequence[Scan]) -> list[list[Scan]]:
    """Variants of one measure along one parameter together, as many as there are colours."""
    together: dict[tuple[str, str], list[Scan]] = {}
    for scan in scans:
        together.setdefault((base_name(scan.name).split(":")[0], scan.parameter), []).append(scan)
    return [
        group[start : start + len(_COLORS)]
        for group in together.values()
        for start in range(0, len(group), len(_COLORS))
    ]


def _panel(ax: Axes, correlations: Correlations, scans: list[Scan]) -> None:
    table = correlations.table
    ax.axhline(0, color="#5B6470", linewidth=0.6, zorder=0)
    every = sorted({number for scan in scans for number, _ in scan.points})
    for place, scan in enumerate(scans):
        numbers = [number for number, _ in scan.points]
        rows = table.loc[[column for _, column in scan.points]]
        tau, low, high = (rows[end].to_numpy(float) for end in ("tau", "tau_low", "tau_high"))
        color = _COLORS[place]
        ax.fill_between(numbers, low, high, color=color, alpha=0.16, linewidth=0)
        ax.plot(numbers, tau, color=color, marker=_SYMBOLS[place], markersize=3.2)
    _scale(ax, every)
    parameter = scans[0].parameter
    ax.set_xlabel(_SYMBOL.get(parameter, parameter), parse_math=False)
    ax.tick_params(labelsize=6.5)
    first = base_name(scans[0].name)
    ax.set_title(
        lines(scans[0].name if len(scans) == 1 else first, 34),
        fontsize=7.2,
        loc="left",
        parse_math=False,
    )
    if len(scans) > 1:
        _key(ax, [scan.name.removeprefix(first) or "plain" for scan in scans])


def _key(ax: Axes, names: list[str]) -> None:
    """Variants below the title, in their colours: inside the panel they would hide a line."""
    found = ax.legend(
        ax.get_lines()[1:],
        [lines(name.replace("]:", ", ").strip("[]:"), 36) for name in names],
        loc="best",
        fontsize=5.8,
        handlelength=1.4,
        labelspacing=0.25,
        borderaxespad=0.1,
        frameon=True,
        framealpha=0.75,
        edgecolor="none",
        facecolor="white",
    )
    for text in found.get_texts():
        text.set_parse_math(False)


def _scale(ax: Axes, numbers: list[float]) -> None:
    """A logarithmic axis for positive numbers that span a decade; one around zero with a zero."""
    from matplotlib.ticker import NullFormatter, NullLocator

    positive = [number for number in numbers if number > 0]
    spans = len(positive) > 1 and positive[-1] / positive[0] >= 9
    if spans and len(positive) == len(numbers):
        ax.set_xscale("log")
    elif spans and numbers[0] == 0:
        ax.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    shown = np.array(numbers)
    if len(shown) > 6:
        shown = shown[:: math.ceil(len(shown) / 6)]
    ax.set_xticks(shown, [f"{number:g}" for number in shown])
