"""What pictures of slices share: how they are saved, their axes, key and notes."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.display import Display, display
from landscape.viz.slice_data import axis_text
from landscape.viz.slice_scale import Scale, set_ticks
from landscape.viz.style import style
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from xarray import Dataset

SINGLE, DOUBLE = 3.3, 6.8  # inches: one and two columns of a paper
GREY, HATCH = "#5B6470", "#8A939E"
#: A dark edge that lets a light line or text stand out on any colour.
INK = "#1B2530"

_LETTER = 0.53  # mean width of a letter, in sizes of the font
_SMALL = 6.5  # points
_HANDLE = 21.0  # points of a mark in the key, and to the next
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None},
    ".png": {"Software": None},
}


@dataclass(frozen=True)
class SliceDisplay(Display):
    """A drawn slice.

    Args:
        ax_: The axes that were drawn on.
        figure_: Their figure.
        accuracy_ax_: The second axis of a curve, for accuracies; None where there is none.
        colorbar_: The colour bar; None where there is none.
        axes_: All axes, where several slices are side by side.
    """

    accuracy_ax_: Axes | None = None
    colorbar_: Any = None
    axes_: tuple[Axes, ...] = ()

    def save(self, path: Path | str) -> Path:
        """Saves the figure; the same picture gives the same bytes.

        Args:
            path: With the ending of a format that matplotlib writes, as .pdf, .svg or .png.

        Returns:
            The path.

        Raises:
            ValueError: If the axes were removed from their figure.
        """
        path = Path(path)
        figure = self.ax_.get_figure(root=True)
        if figure is None:
            raise ValueError("the axes belong to no figure any more; draw the slice again")
        with style():
            figure.savefig(path, metadata=_METADATA.get(path.suffix.lower()))
        return path


def slice_display(ax: Axes, **more: Any) -> SliceDisplay:
    """The display of drawn axes, with what else was made."""
    found = display(ax)
    return SliceDisplay(ax_=found.ax_, figure_=found.figure_, **more)


def label_axis(ax: Axes, dataset: Dataset, dim: str, side: str, width: float) -> None:
    """Names an axis after its direction, in lines of some inches, with few short ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = getattr(ax, f"{side}axis")
    axis.set_label_text(in_lines(axis_text(dataset, dim), width), parse_math=False)
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: typeset(f"{value:.4g}")))


def in_lines(text: str, width: float, size: float = 8) -> str:
    """A text in lines of some inches, of letters of some points."""
    letters = max(int(72 * width / (_LETTER * size)), 12)
    lines = textwrap.wrap(text, letters, break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines)


def draw_colorbar(ax: Axes, drawn: Any, scale: Scale, text: str) -> Any:
    """A colour bar as high as the axes, with round ticks and an arrow where values are clipped."""
    figure = ax.get_figure(root=True)
    engine = None if figure is None else figure.get_layout_engine()
    if engine is None:
        from mpl_toolkits.axes_grid1 import make_axes_locatable

        # Takes room from the axes, as no layout engine makes any.
        place = make_axes_locatable(ax).append_axes("right", size="5%", pad=0.06)
    else:
        place = ax.inset_axes((1.04, 0, 0.05, 1))
    bar = ax.figure.colorbar(drawn, cax=place)
    finish_colorbar(bar, scale, text)
    return bar


def finish_colorbar(bar: Any, scale: Scale, text: str) -> None:
    """Ticks and name of a colour bar."""
    set_ticks(bar.ax.yaxis, scale.ticks())
    bar.set_label(text)
    bar.ax.yaxis.label.set_parse_math(False)
    bar.outline.set_linewidth(0.6)
    bar.outline.set_edgecolor(GREY)


def draw_key(ax: Axes, handles: list[Artist], sentences: list[str]) -> None:
    """A key of the marks and notes for the reader, below all that stands under the axes.

    Args:
        ax: The axes; names of axes have to be final.
        handles: Marks with their labels.
        sentences: Notes.
    """
    from matplotlib.transforms import ScaledTranslation

    from landscape.viz.slice_layout import ColumnLayout

    figure = ax.get_figure(root=True)
    if figure is None:
        return
    engine = figure.get_layout_engine()
    keys = engine.keys if isinstance(engine, ColumnLayout) else []
    if ax.name == "3d":
        figure.draw_without_rendering()  # its labels have no place before
    below, width = -_room_below(ax) - 4, _width(ax)
    anchor: Any = None
    if handles:
        anchor = ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=ax.transAxes + ScaledTranslation(0, below / 72, figure.dpi_scale_trans),
            borderaxespad=0,
            borderpad=0,
            fontsize=_SMALL + 0.5,
            ncols=_columns(handles, width),
            handlelength=1.4,
            handletextpad=0.5,
            columnspacing=1.2,
            labelspacing=0.3,
        )
        keys.append(anchor)
    if sentences:
        note = ax.annotate(
            "\n".join(in_lines(sentence, width, _SMALL) for sentence in sentences),
            (0, 0),
            xycoords="axes fraction" if anchor is None else ("axes fraction", anchor),
            xytext=(0, below if anchor is None else -2),
            textcoords="offset points",
            ha="left",
            va="top",
            color=GREY,
            fontsize=_SMALL,
            linespacing=1.25,
            parse_math=False,
            annotation_clip=False,
        )
        keys.append(note)


def _width(ax: Axes) -> float:
    """Room for a key below the axes, in inches."""
    figure, spec = ax.get_figure(root=True), ax.get_subplotspec()
    whole = SINGLE if figure is None else float(figure.get_figwidth())
    own = figure is not None and type(figure.get_layout_engine()).__name__ == "ColumnLayout"
    columns = 1 if spec is None or own else spec.get_gridspec().ncols
    return whole / columns - 0.6


def _columns(handles: list[Artist], width: float) -> int:
    """As many columns as fit; each is as wide as its longest entry."""
    letters = [len(str(handle.get_label())) for handle in handles]
    for columns in range(len(letters), 1, -1):
        parts = np.array_split(letters, columns)
        if sum(part.max() * _LETTER * (_SMALL + 0.5) + _HANDLE for part in parts) < 72 * width:
            return columns
    return 1


def _room_below(ax: Axes) -> float:
    """Height of ticks, their numbers and names below the axes, in points."""
    box = ax.get_tightbbox()
    below = 0.0 if box is None else ax.get_window_extent().y0 - box.y0
    return float(below / ax.figure.dpi * 72)
