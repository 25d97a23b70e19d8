"""How many models have a value of each measure, and why the others have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from landscape.viz.correlation_names import short
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Statuses in the order of a bar; values come before what has none.
STATUSES = ("ok", "not converged", "uncertain", "undefined", "declined", "failed", "no value")
_COLORS = ("#0072B2", "#E69F00", "#56B4E9", "#8A939E", "#D9DEE4", "#D55E00", "#FFFFFF")
_VALUED = STATUSES[:3]

Counts = Mapping[str, Mapping[str, int]]


def plot_coverage(counts: Counts, ax: Axes | None = None) -> Display:
    """Draws for each measure how many models have it, by status.

    Args:
        counts: By measure and status the number of models. The statuses are those of a result,
            and "no value".
        ax: Axes to draw on; None makes a figure of its own, as high as the rows need.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If there is nothing to draw or a status is unknown.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_coverage({"trace": {"ok": 40, "failed": 8}})  # doctest: +SKIP
    """
    if not counts:
        raise ValueError("there is no measure whose coverage could be drawn")
    unknown = {status for row in counts.values() for status in row} - set(STATUSES)
    if unknown:
        raise ValueError(f"unknown status {min(unknown)!r}; there are {', '.join(STATUSES)}")
    rows = sorted(counts, key=lambda name: _share(counts[name]))
    with style():
        ax = new_axes(8.6, 0.95 + 0.19 * len(rows)) if ax is None else ax
        for place, name in enumerate(rows):
            start = 0
            for status, color in zip(STATUSES, _COLORS, strict=True):
                number = counts[name].get(status, 0)
                if number:
                    _bar(ax, place, start, number, color)
                start += number
        _frame(ax, rows, counts)
        return display(ax)


def gaps(counts: Counts) -> Counts:
    """The measures that are not "ok" for every model."""
    return {
        name: row
        for name, row in counts.items()
        if any(number for status, number in row.items() if status != "ok")
    }


def valued(row: Mapping[str, int]) -> int:
    """How many models have a value."""
    return sum(row.get(status, 0) for status in _VALUED)


def _share(row: Mapping[str, int]) -> float:
    return valued(row) / max(sum(row.values()), 1)


def _bar(ax: Axes, place: int, start: int, number: int, color: str) -> None:
    empty = color == "#FFFFFF"
    ax.barh(
        place,
        number,
        left=start,
        height=0.68,
        color=color,
        linewidth=0.4 if empty else 0,
        edgecolor="#8A939E" if empty else "none",
        hatch="////" if empty else None,
    )


def _frame(ax: Axes, rows: list[str], counts: Counts) -> None:
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    for place, name in enumerate(rows):
        ax.annotate(
            f"{valued(counts[name])} of {sum(counts[name].values())}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.8,
            color="#3C4651",
        )
    ax.set_yticks(range(len(rows)), [short(name) for name in rows], parse_math=False)
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, max(sum(row.values()) for row in counts.values()))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("models")
    present = [
        (status, color)
        for status, color in zip(STATUSES, _COLORS, strict=True)
        if any(row.get(status) for row in counts.values())
    ]
    marks = [
        Patch(
            facecolor=color,
            edgecolor="#8A939E",
            linewidth=0.4,
            hatch="////" if status == "no value" else None,
        )
        for status, color in present
    ]
    ax.legend(
        marks,
        [status for status, _ in present],
        ncols=len(present),
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.1,
        handlelength=1.2,
        fontsize=7,
    )
