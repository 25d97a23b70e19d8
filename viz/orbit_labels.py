"""The lines of a picture of orbits, and what is written beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from landscape.viz.measure_table import base_name, settings
from landscape.viz.orbit_ranges import DEPENDS, UNCHANGED, OrbitRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT = "#1B2530", "#5B6470"

_APART = 0.35  # above a heading, in rows
_SIZE = 7.0  # points
_GAP, _INDENT = 8.0, 10.0  # points
_LONGEST_NAME = 44


@dataclass(frozen=True)
class Line:
    """A line of the picture.

    Args:
        place: From the top, in rows.
        text: The name, or a heading.
        indent: From the left, in points.
        row: What is drawn; None for a heading.
    """

    place: float
    text: str
    indent: float = 0.0
    row: OrbitRow | None = None

    @property
    def color(self) -> str:
        """Grey where nothing moves."""
        return INK if self.row is None or self.row.moved_by else SOFT

    @property
    def weight(self) -> str:
        """Bold where the parametrisation decides."""
        return "bold" if self.row is not None and self.row.verdict == DEPENDS else "normal"

    @property
    def size(self) -> float:
        """Of letters, in points."""
        return _SIZE + (self.row is None)


def arranged(groups: Mapping[str, list[OrbitRow]]) -> list[Line]:
    """Headings and rows from top to bottom; variants tell their settings below the first."""
    lines: list[Line] = []
    place = 0.0
    for heading, rows in groups.items():
        if heading:
            place += _APART if lines else 0.0
            lines.append(Line(place, heading))
            place += 1
        before = ""
        for row in rows:
            name, own = base_name(row.measure), settings(row.measure)
            again = name == before and bool(own)
            text = _shortened(", ".join(own if again else [name, *own]))
            lines.append(Line(place, text, _INDENT if again else 0.0, row))
            place, before = place + 1, name
    return lines


def _shortened(text: str) -> str:
    """Long names keep both ends."""
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}…{text[-half:]}"


def write_labels(ax: Axes, lines: list[Line]) -> None:
    """Names in a column on the left, as wide as the longest, and factors on the right.

    Args:
        ax: The axes; their limits have to be final.
        lines: Of the picture.
    """
    width = max(line.indent + _width(line) for line in lines)
    across = ("axes fraction", "data")
    for line in lines:
        look: dict[str, Any] = {"color": line.color, "weight": line.weight}
        left = line.indent - width - _GAP
        _write(ax, line.text, (0, line.place), across, (left, 0), size=line.size, **look)
        if line.row is not None:
            verdict = line.row.verdict
            text = line.row.worst or ("" if verdict == UNCHANGED else verdict)
            _write(ax, text, (1, line.place), across, (_GAP, 0), **look)
    top: dict[str, Any] = {"va": "bottom", "color": SOFT}
    _write(ax, "within ×10", (1, 1), ("data", "axes fraction"), (0, 3), ha="center", **top)
    _write(ax, "moves by", (1, 1), "axes fraction", (_GAP, 3), **top)


def _width(line: Line) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=line.size, weight=line.weight)
    return float(text_to_path.get_text_width_height_descent(line.text, font, ismath=False)[0])


def _write(
    ax: Axes,
    text: str,
    at: tuple[float, float],
    units: Any,
    offset: tuple[float, float],
    *,
    size: float = _SIZE,
    ha: Any = "left",
    va: Any = "center",
    **look: Any,
) -> None:
    ax.annotate(
        text,
        at,
        xycoords=units,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va=va,
        fontsize=size,
        annotation_clip=False,
        parse_math=False,
        **look,
    )
