"""The pictures of a report, as data URIs that a page can hold."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from landscape.results import Result
from landscape.viz.display import new_axes, svg
from landscape.viz.layers import layers_height, plot_layers
from landscape.viz.measure_table import base_name
from landscape.viz.spectral_density import plot_spectral_density
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, NARROW = 8.6, 4.6  # inches: the page's full and half width
_MAIN_LAYERS = "hessian-trace"
_MOST_LAYERS = 40


def density_figure(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The spectral density of the first result that has one.

    Args:
        records: ``report["results"]``.

    Returns:
        ``uri``, ``result`` and what the caption needs, or None.
    """
    for record in records:
        if record["diagnostics"].get("density"):
            result = Result.from_dict(record)
            return {
                "uri": data_uri(WIDE, 3.6, partial(plot_spectral_density, result)),
                "result": record,
                "known": len(record["diagnostics"].get("eigenvalues", [])),
                "size": record["diagnostics"]["size"],
                "width": record["diagnostics"]["width"],
            }
    return None


def layer_figures(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bars by layer of every result that has layers, the trace first.

    Args:
        records: ``report["results"]``.

    Returns:
        For each ``uri``, ``name`` and whether it is a ``main`` one, that needs the page's width.
    """
    with_layers = [record for record in records if record["diagnostics"].get("layers")]
    with_layers.sort(key=lambda record: base_name(record["measure"]) != _MAIN_LAYERS)
    figures = []
    for place, record in enumerate(with_layers):
        result = Result.from_dict(record)
        layers = record["diagnostics"]["layers"]
        main = place == 0 or len(layers) > 12 or max(map(len, layers)) > 20
        height = layers_height(min(len(layers), _MOST_LAYERS))
        uri = data_uri(
            WIDE if main else NARROW,
            height,
            partial(plot_layers, result, most=_MOST_LAYERS),
        )
        figures.append({"uri": uri, "name": record["measure"], "main": main})
    return figures


def data_uri(
    width: float,
    height: float,
    draw: Callable[[Axes], object],
    frame: tuple[float, float, float, float] | None = None,
) -> str:
    """A picture as a data URI; an image cannot run scripts or clash with the page's ids.

    Args:
        width: Of the figure, in inches.
        height: Of the figure, in inches.
        draw: Draws on given axes.
        frame: Where the axes stand, in inches from the left, right, bottom and top edges, so that
            those of a row of pictures are alike; None takes the room that is left.

    Returns:
        The URI.
    """
    with style():
        ax = new_axes(width, height)
        figure = ax.get_figure(root=True)
        if frame is not None and figure is not None:
            left, right, bottom, top = frame
            figure.set_layout_engine("none")
            size = (width - left - right) / width, (height - bottom - top) / height
            ax.set_position((left / width, bottom / height, *size))
        draw(ax)
        text = "" if figure is None else svg(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
