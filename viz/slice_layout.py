"""Figures of the width of a paper's column, as high as their contents need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

from landscape.viz.slice_data import Values

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_EDGE, _GAP = 0.03, 0.12  # inches around the picture and between its panels
_ROUNDS = 3  # what stands beside axes moves a little with their size


class ColumnLayout(LayoutEngine):
    """Panels of one size with what stands around them measured, not guessed.

    matplotlib's constrained layout mistakes the room beside axes of a fixed aspect for room that
    labels may take, and cuts them off.

    Args:
        places: Row and column of every panel.
    """

    _adjust_compatible = True
    _colorbar_gridspec = False

    def __init__(self, places: dict[Axes, tuple[int, int]]) -> None:
        super().__init__()
        self.places = places
        self.keys: list[Artist] = []

    def execute(self, fig: Figure) -> None:
        """Places the panels; matplotlib calls it before it draws."""
        for _ in range(2):
            self._place(fig, None)

    def fit(self, figure: Figure, ratio: float) -> None:
        """Makes the figure as high as panels of a given height over width need."""
        for _ in range(_ROUNDS):
            self._place(figure, ratio)

    def _place(self, figure: Figure, ratio: float | None) -> None:
        """Places the panels; with a ratio, the figure is made as high as they need."""
        margins = self._margins(figure)
        rows, columns = len(margins["top"]), len(margins["left"])
        beside = 2 * _EDGE + _GAP * (columns - 1) + sum(margins["left"]) + sum(margins["right"])
        above = 2 * _EDGE + _GAP * (rows - 1) + sum(margins["top"]) + sum(margins["bottom"])
        width = max((figure.get_figwidth() - beside) / columns, 0.2)
        if ratio is not None:
            figure.set_figheight(above + rows * ratio * width)
        size = figure.get_size_inches()
        height = max((size[1] - above) / rows, 0.2)
        for ax, (row, column) in self.places.items():
            left = _EDGE + column * (width + _GAP)
            left += sum(margins["left"][: column + 1]) + sum(margins["right"][:column])
            top = _EDGE + row * (height + _GAP)
            top += sum(margins["top"][: row + 1]) + sum(margins["bottom"][:row])
            bounds = (left, size[1] - top - height, width, height)
            ax.set_position((np.array(bounds) / [*size, *size]).tolist())

    def _margins(self, figure: Figure) -> dict[str, Values]:
        """The most that stands beside the panels of each row and column, in inches."""
        rows, columns = np.array(list(self.places.values())).max(axis=0) + 1
        margins: dict[str, Values] = {
            side: np.full(number, -np.inf)
            for side, number in (
                ("left", columns),
                ("right", columns),
                ("top", rows),
                ("bottom", rows),
            )
        }
        for key in self.keys:
            key.set_in_layout(False)
        for ax, (row, column) in self.places.items():
            for around, inner in ((_outer(other), _inner(other)) for other in _stack(figure, ax)):
                sides = (
                    ("left", column, inner[0] - around[0]),
                    ("bottom", row, inner[1] - around[1]),
                    ("right", column, around[2] - inner[2]),
                    ("top", row, around[3] - inner[3]),
                )
                for side, place, room in sides:
                    margins[side][place] = max(margins[side][place], room / figure.dpi)
        for key in self.keys:
            key.set_in_layout(True)
            row = self.places[key.axes][0] if key.axes in self.places else rows - 1
            bottom: Any = key.get_window_extent()
            below = (_inner(key.axes)[1] - bottom.y0) / figure.dpi
            margins["bottom"][row] = max(margins["bottom"][row], below)
        return margins


def _stack(figure: Figure, ax: Axes) -> list[Axes]:
    """Axes at one place: a panel and its second axis."""
    place = ax.get_position(original=True).bounds
    return [other for other in figure.axes if other.get_position(original=True).bounds == place]


def _outer(ax: Axes) -> Values:
    box = ax.get_tightbbox()
    return _inner(ax) if box is None else np.array(box.extents)


def _inner(ax: Any) -> Values:
    return np.array(ax.get_window_extent().extents)


def new_panels(
    width: float, places: Sequence[tuple[int, int]], *, solid: bool = False
) -> list[Axes]:
    """Panels in a figure of their own, which pyplot does not know.

    Args:
        width: Of the figure, in inches.
        places: Row and column of each.
        solid: Whether they are three-dimensional.

    Returns:
        The axes.
    """
    figure = Figure(figsize=(width, width))
    rows, columns = np.array(places).max(axis=0) + 1
    grid = figure.add_gridspec(rows, columns)
    kind: Any = {"projection": "3d"} if solid else {}
    axes: list[Axes] = [figure.add_subplot(grid[place], **kind) for place in places]
    figure.set_layout_engine(ColumnLayout(dict(zip(axes, places, strict=True))))
    return axes


def fit(ax: Axes, ratio: float) -> None:
    """Makes a figure of ``new_panels`` as high as it has to be; leaves others as they are."""
    figure = ax.get_figure(root=True)
    engine = None if figure is None else figure.get_layout_engine()
    if figure is not None and isinstance(engine, ColumnLayout):
        engine.fit(figure, ratio)
