"""Names beside the ends of lines, moved apart where they would overlap."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE, _LINE = 7, 9.0  # points
_WIDTH = 26  # letters
_GAP = 3.0  # points between two names


def label_lines(ax: Axes, lines: list[tuple[str, str, tuple[float, float] | None]]) -> None:
    """Writes the names of lines in a column on the right, each joined to its line.

    Limits and scales of the axes have to be final.

    Args:
        ax: The axes.
        lines: For each its name, its colour and its last point; a line without any is listed at
            the bottom.
    """
    names = [_wrapped(name) for name, _, _ in lines]
    points = ax.get_window_extent().height / ax.figure.dpi * 72
    heights = [label_height(name) / points for name, _, _ in lines]
    wanted = [0.0 if end is None else _share(ax, end) for _, _, end in lines]
    for name, (_, color, end), place in zip(names, lines, spread(wanted, heights), strict=True):
        joint = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 3, "shrinkB": 4}
        ax.annotate(
            name if end is not None else f"{name}: no value",
            (1, place) if end is None else end,
            xycoords="axes fraction" if end is None else "data",
            xytext=(1.05, place),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=_SIZE,
            linespacing=1.15,
            parse_math=False,
            annotation_clip=False,
            arrowprops=None if end is None else {**joint, "relpos": (0, 0.5), "patchA": None},
        )


def label_height(name: str) -> float:
    """Height of a name with the gap to the next, in points."""
    return _LINE * (_wrapped(name).count("\n") + 1) + _GAP


def spread(wanted: list[float], heights: list[float]) -> list[float]:
    """Places of names near the wanted ones, none over another.

    Args:
        wanted: Where each would stand, from 0 to 1.
        heights: Of each.

    Returns:
        The centre of each, within 0 and 1 as long as there is room.
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = list(wanted)
    top = -np.inf
    for index in order:
        places[index] = max(places[index], top + heights[index] / 2, heights[index] / 2)
        top = places[index] + heights[index] / 2
    bottom = 1.0
    for index in reversed(order):
        places[index] = min(places[index], bottom - heights[index] / 2)
        bottom = places[index] - heights[index] / 2
    return places


def _share(ax: Axes, point: tuple[float, float]) -> float:
    """Height of a point as a share of the axes."""
    return float(ax.transAxes.inverted().transform(ax.transData.transform(point))[1])


def _wrapped(name: str) -> str:
    first, *rest = name.split(", ", 1)
    return "\n".join(line for part in (first, *rest) for line in textwrap.wrap(part, _WIDTH))
