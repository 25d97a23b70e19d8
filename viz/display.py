"""What a plot function gives back, and the axes it draws on."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@dataclass(frozen=True)
class Display:
    """A drawn picture, to be changed or saved by the caller.

    A notebook shows it; ``display.figure_.savefig("density.pdf")`` keeps it.

    Args:
        ax_: The axes that were drawn on.
        figure_: Their figure.
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def _repr_svg_(self) -> str | None:
        figure = self.ax_.get_figure(root=True)
        # A figure of pyplot is shown by pyplot; twice would be once too often.
        if figure is None or figure.canvas.manager is not None:
            return None
        return svg(figure)


def new_axes(width: float, height: float) -> Axes:
    """Axes in a figure of their own, which pyplot does not know.

    Args:
        width: Of the figure, in inches.
        height: Of the figure, in inches.

    Returns:
        The axes.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def display(ax: Axes) -> Display:
    """The display of drawn axes.

    Args:
        ax: The axes.

    Returns:
        The axes with their figure.

    Raises:
        ValueError: If the axes were removed from their figure.
    """
    figure = ax.get_figure()
    if figure is None:
        raise ValueError("the axes belong to no figure; give axes that were not removed")
    return Display(ax_=ax, figure_=figure)


def svg(figure: Figure) -> str:
    """A figure as SVG text, the same bytes for the same picture.

    Args:
        figure: The figure.

    Returns:
        The SVG document.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()
