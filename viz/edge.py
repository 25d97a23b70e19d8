"""The top eigenvalue along a training, and the edges of stability it may rise to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from landscape.viz.direct_labels import label_lines
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import CURVE, EXTREME, FAINT, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TOP = "λ max"
_COLUMNS = ("step", "value", "low", "high", "edge")


def plot_edge(frame: pd.DataFrame, ax: Axes | None = None) -> Display:
    """Draws λ_max against the steps of a training, with the edges of stability.

    The band is the interval of λ_max. The edge of the base optimiser is dashed, that of SAM, which
    moves with the gradient, solid. An edge far above λ_max leaves the picture.

    Args:
        frame: Columns step, value, low, high, edge and, for SAM, sam_edge, as ``edge.csv`` of
            ``landscape train --monitor`` has them.
        ax: Axes to draw on; None makes a figure of its own.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If a column is missing or no eigenvalue is known.

    Example:
        >>> import landscape, pandas
        >>> landscape.viz.plot_edge(pandas.read_csv("run/edge.csv"))  # doctest: +SKIP
    """
    if missing := [name for name in _COLUMNS if name not in frame.columns]:
        raise ValueError(f"the table lacks {', '.join(missing)}; give the one of edge.csv")
    frame = frame[np.isfinite(frame["value"])].sort_values("step")
    if frame.empty:
        raise ValueError("the table holds no finite eigenvalue; there is nothing to draw")
    with style():
        ax = new_axes(5.2, 2.9) if ax is None else ax
        ax.fill_between(frame["step"], frame["low"], frame["high"], color=CURVE, alpha=0.25, lw=0)
        ax.plot(frame["step"], frame["value"], "o-", color=CURVE, markersize=2.5, label=_TOP)
        names = [(_TOP, CURVE, "value")]
        for name, color, column, line in (
            ("edge of the base optimiser", FAINT, "edge", (0, (4, 2))),
            ("edge of SAM", EXTREME, "sam_edge", "-"),
        ):
            if column in frame.columns and np.isfinite(frame[column]).any():
                ax.plot(frame["step"], frame[column], color=color, linestyle=line, lw=1, label=name)
                names.append((name, color, column))
        _set_limits(ax, frame)
        ax.set_xlabel("step")
        ax.set_ylabel("largest eigenvalue of the Hessian")
        label_lines(ax, [(name, color, _end(ax, frame, column)) for name, color, column in names])
        return display(ax)


def _set_limits(ax: Axes, frame: pd.DataFrame) -> None:
    """All of λ_max, and the edges where they are within reach of it."""
    top = float(frame["value"].max())
    for column in ("edge", "sam_edge"):
        if column in frame.columns:
            near = frame[column][frame[column] <= 3 * top]
            top = max(top, float(near.max()) if len(near) else 0.0)
    ax.set_ylim(min(0.0, 1.08 * float(frame["value"].min())), 1.08 * top or 1.0)


def _end(ax: Axes, frame: pd.DataFrame, column: str) -> tuple[float, float] | None:
    """The last point of a line, brought into the picture."""
    known = frame[np.isfinite(frame[column])]
    if known.empty:
        return None
    low, high = ax.get_ylim()
    height = float(known[column].iloc[-1])
    return float(known["step"].iloc[-1]), min(max(height, low), high)
