"""A measure's values by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from landscape.results import Result, format_estimate
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import CURVE, style
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_NAME = 34
_NORMAL = 1.96  # standard errors in half of a 95 % interval


def plot_layers(result: Result, ax: Axes | None = None, *, most: int = 40) -> Display:
    """Draws a measure layer by layer: horizontal bars, the first layer on top.

    Error bars are 95 % intervals, 1.96 standard errors to both sides where a layer has no interval
    of its own; exact values have none. The numbers stand in a column on the right.

    Args:
        result: With ``diagnostics["layers"]``: name to ``value``, and where known ``stderr``,
            ``interval`` and ``size``.
        ax: Axes to draw on; None makes a figure of its own, as high as the layers need.
        most: Of a deeper network only this many layers are drawn, those with the largest
            absolute values, and the axis says so.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If the result has no layers.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_layers(table["hessian-trace"])  # doctest: +SKIP
    """
    layers = result.diagnostics.get("layers") or {}
    if not layers:
        raise ValueError(
            f"{result.measure!r} has no values by layer; 'hessian-trace' has them, and every "
            "spectral measure with layers=True"
        )
    shown = _largest(layers, most)
    with style():
        ax = new_axes(4.6, layers_height(len(shown))) if ax is None else ax
        for place, entry in enumerate(shown.values()):
            _draw(ax, place, entry)
        ax.axvline(0, color="#5B6470", linewidth=0.6)
        ax.set_yticks(range(len(shown)), [_shortened(name) for name in shown], parse_math=False)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.04)
        note = f"  ({len(shown)} largest of {len(layers)} layers)" * (len(shown) < len(layers))
        ax.set_xlabel(result.measure + note, parse_math=False)
        return display(ax)


def layers_height(count: int) -> float:
    """Height of a figure for some layers.

    Args:
        count: Number of bars.

    Returns:
        Inches.
    """
    return 0.62 + 0.24 * count


def _largest(layers: dict[str, Any], most: int) -> dict[str, Any]:
    """The layers with the largest absolute values, in the order of the network."""
    order = sorted(layers, key=lambda name: abs(_value(layers[name]) or 0.0), reverse=True)
    kept = set(order[:most])
    return {name: entry for name, entry in layers.items() if name in kept}


def _value(entry: dict[str, Any]) -> float | None:
    value = entry.get("value")
    return None if value is None or not math.isfinite(value) else float(value)


def _draw(ax: Axes, place: int, entry: dict[str, Any]) -> None:
    value = _value(entry)
    if value is None:
        _write(ax, place, f"— {entry.get('status', 'no value')}")
        return
    low, high = _ends(entry, value)
    ax.barh(place, value, height=0.62, color=CURVE, alpha=0.85)
    if low < high:
        # The value may lie outside an interval that was cut at a bound of the measure.
        error = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
        ax.errorbar(value, place, xerr=error, color="#1B2530", linewidth=0.9, capsize=2)
        _write(ax, place, typeset(format_estimate(value, entry.get("stderr"), (low, high))))
    else:
        _write(ax, place, typeset(f"{value:#.4g}".removesuffix(".")))


def _ends(entry: dict[str, Any], value: float) -> tuple[float, float]:
    ends = entry.get("interval")
    if ends is not None and all(end is not None and math.isfinite(end) for end in ends):
        return float(ends[0]), float(ends[1])
    stderr = entry.get("stderr")
    half = _NORMAL * stderr if stderr is not None and math.isfinite(stderr) else 0.0
    return value - half, value + half


def _write(ax: Axes, place: int, text: str) -> None:
    """The number in a column of its own, right of the bars."""
    ax.annotate(
        text,
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        fontsize=7,
        color="#3C4651",
        parse_math=False,
    )


def _shortened(name: str) -> str:
    """Long names keep their beginning and, as it tells more, most of their end."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME // 3]}…{name[-(2 * _LONGEST_NAME // 3) :]}"
