"""The Hessian's trace from forward passes, against the scale of the noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from landscape.results import Result
from landscape.viz.display import Display, display, new_axes
from landscape.viz.measure_table import base_name
from landscape.viz.scans import Scan, draw_crosses, has_scan, parameter_of, radius_axis, scan_of
from landscape.viz.style import CURVE, EXTREME, style
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_ESTABLISHED = "no quadratic regime established"
_WIDE_RANGE = 30.0  # ratio of positive estimates from which the axis is logarithmic


def plot_noise_scan(result: Result, trace: Result | None = None, ax: Axes | None = None) -> Display:
    """Draws estimates of the Hessian's trace by noise of several scales.

    Each is the mean of L(w + U) + L(w − U) − 2 L(w), divided by sigma squared, with its 95 %
    interval; a cross on the lower edge is a scale without an estimate. The vertical line is the
    scale up to which the loss is quadratic within the errors. The horizontal band is the 95 %
    interval of the trace itself.

    Args:
        result: Of the measure "noise-stability".
        trace: Of the measure "hessian-trace", for comparison.
        ax: Axes to draw on; None makes a figure of its own.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If the result has no scan over sigma, or ``trace`` is of another measure.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_noise_scan(
        ...     table["noise-stability"], table["hessian-trace"]
        ... )  # doctest: +SKIP
    """
    if not has_scan(result) or parameter_of(result) != "sigma":
        raise ValueError(
            f"{result.measure!r} has no scan over sigma; give the result of 'noise-stability'"
        )
    if trace is not None and base_name(trace.measure) != "hessian-trace":
        raise ValueError(f"trace is a result of 'hessian-trace', got one of {trace.measure!r}")
    scan = scan_of(result)
    with style():
        ax = new_axes(6.75, 2.9) if ax is None else ax
        missing = scan.at[~scan.known].tolist()
        draw_crosses(ax, missing, [0] * len(missing), CURVE)
        note = "   (× no value)" if missing else ""
        radius_axis(ax, scan.at, "sigma", note)
        _draw_estimates(ax, scan)
        if trace is not None and math.isfinite(trace.value):
            _draw_trace(ax, trace)
        else:
            trace = None
        _set_limits(ax, scan, trace)
        _draw_regime(ax, result, scan)
        ax.set_ylabel("estimate of tr H")
        return display(ax)


def _draw_estimates(ax: Axes, scan: Scan) -> None:
    known = scan.known
    at, value = scan.at[known], scan.value[known]
    low, high = np.nan_to_num(scan.low[known], nan=0), np.nan_to_num(scan.high[known], nan=0)
    bounded = np.isfinite(scan.low[known])
    error = np.where(bounded, [np.maximum(value - low, 0), np.maximum(high - value, 0)], 0)
    ax.errorbar(
        at,
        value,
        yerr=error,
        color=CURVE,
        linestyle="none",
        marker="o",
        markersize=4,
        elinewidth=1.0,
        capsize=2.5,
        label="estimates",
    )
    sure = scan.sure[known]
    if not sure.all():
        ax.plot(at[~sure], value[~sure], "o", color=CURVE, markersize=4, markerfacecolor="white")


def _draw_trace(ax: Axes, trace: Result) -> None:
    low, high = trace.interval
    if math.isfinite(low + high):
        ax.axhspan(low, high, color=EXTREME, alpha=0.2, zorder=0.6, label="trace, 95 %")
    ax.axhline(trace.value, color=EXTREME, linewidth=0.8, zorder=0.7, label="trace")
    ax.annotate(
        trace.measure,
        (1, trace.value),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=EXTREME,
        fontsize=7,
        parse_math=False,
    )


def _set_limits(ax: Axes, scan: Scan, trace: Result | None) -> None:
    """Limits by the estimates; the error bar of a much too small scale may leave the picture."""
    values = scan.value[scan.known]
    extra = [] if trace is None else [trace.value, *trace.interval]
    values = np.concatenate([values, [part for part in extra if math.isfinite(part)]])
    if not len(values):
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        return
    low, high = float(values.min()), float(values.max())
    ends = np.concatenate([scan.low, scan.high])
    ends = ends[np.isfinite(ends)]
    if low > 0 and high > _WIDE_RANGE * low:
        ends = ends[ends > 0]
        bottom = max(float(np.min(ends, initial=low)), low / 4)
        top = min(float(np.max(ends, initial=high)), 4 * high)
        ax.set_yscale("log")
        ax.set_ylim(bottom / (top / bottom) ** 0.06, top * (top / bottom) ** 0.15)
        return
    room = max(high - low, 0.1 * abs(high), 1e-12)
    bottom = max(float(np.min(ends, initial=low)), low - room)
    top = min(float(np.max(ends, initial=high)), high + room)
    span = max(top - bottom, 0.1 * room)
    ax.set_ylim(bottom - 0.08 * span, top + 0.18 * span)


def _draw_regime(ax: Axes, result: Result, scan: Scan) -> None:
    limit = result.diagnostics.get("quadratic_up_to")
    x, side, text = 0.0, "left", _NOT_ESTABLISHED
    if limit is not None and math.isfinite(limit):
        x, text = float(limit), f"quadratic up to σ = {typeset(f'{limit:.3g}')}"
        ax.axvline(x, color="#5B6470", linewidth=0.7, linestyle=(0, (4, 3)), zorder=0.5)
        # On the side where there is room.
        side = "right" if x > math.sqrt(float(scan.at[0] * scan.at[-1])) else "left"
    ax.annotate(
        text,
        (x, 1),
        xycoords=("data" if x else "axes fraction", "axes fraction"),
        xytext=(4 if side == "left" else -4, -1),
        textcoords="offset points",
        ha=side,
        va="top",
        color="#5B6470",
        fontsize=7.5,
    )
