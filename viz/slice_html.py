"""The loss on a plane through the weights, as a surface to be turned by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.results import write_atomically
from landscape.viz.slice_data import (
    axis_text,
    coordinates,
    evaluated_of,
    main_variable,
    needs_dims,
    notes,
    value_text,
    values_of,
)
from landscape.viz.slice_scale import COLORS, Levels, Scale, scale_of, tick_texts
from landscape.viz.slice_surface import heights_of

if TYPE_CHECKING:
    from xarray import Dataset

_FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#1B2530"}


def write_slice_html(
    dataset: Dataset,
    path: Path | str,
    variable: str | None = None,
    *,
    levels: Levels = None,
    top: float | None = None,
) -> Path:
    """Writes a surface that can be turned and read off, as one HTML file that loads nothing.

    The file holds plotly's program (about 5 MB) and opens without a network. Height and colour are
    as in ``plot_slice_surface``; the point under the mouse shows its coordinates, its value before
    any cut, and whether it was interpolated.

    Args:
        dataset: A slice with dimensions ``alpha`` and ``beta``.
        path: Of the file; replaced atomically.
        variable: What to draw; None draws "train_loss".
        levels: As for ``plot_slice_surface``.
        top: The upper end; None shows all values.

    Returns:
        The path.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If the slice has one direction only or lacks the variable.

    Example:
        >>> import landscape
        >>> landscape.viz.write_slice_html(plane, "plane.html")  # doctest: +SKIP
    """
    needs_dims(dataset, 2, "plot_slice_line")
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError(
            "an interactive surface needs plotly: pip install 'landscape-toolkit[interactive]'"
        ) from error
    variable = main_variable(dataset) if variable is None else variable
    scale = scale_of([values_of(dataset, variable)], variable, levels, top)
    traces = [go.Surface(**_surface(dataset, variable, scale))]
    star = _star(dataset, variable, scale)
    if star is not None:
        traces.append(go.Scatter3d(**star))
    figure = go.Figure(traces, layout=_layout(dataset, variable, scale))
    path = Path(path)
    page = figure.to_html(include_plotlyjs=True, div_id="slice", config={"displaylogo": False})
    write_atomically(path, page)
    return path


def _surface(dataset: Dataset, variable: str, scale: Scale) -> dict[str, Any]:
    low, high = heights_of(scale.levels[[0, -1]], scale).tolist()
    # Rows of plotly run along the vertical axis of the plane.
    return {
        "x": coordinates(dataset, "alpha"),
        "y": coordinates(dataset, "beta"),
        "z": heights_of(values_of(dataset, variable), scale).T,
        "text": _texts(dataset, variable).T,
        "hoverinfo": "text",
        "colorscale": COLORS,
        "cmin": low,
        "cmax": high,
        "colorbar": {
            "title": {"text": _bar_text(dataset, variable, scale), "side": "right"},
            "thickness": 14,
            "len": 0.7,
            **_ticks(scale),
        },
    }


def _texts(dataset: Dataset, variable: str) -> Any:
    """What stands under the mouse, for every point."""
    values, known = values_of(dataset, variable), evaluated_of(dataset)
    name = value_text(dataset, variable)
    x, y = coordinates(dataset, "alpha"), coordinates(dataset, "beta")
    texts = np.empty(values.shape, dtype=object)
    for row, column in np.ndindex(values.shape):
        kind = "" if known[row, column] else "<br>interpolated"
        texts[row, column] = (
            f"α = {x[row]:.4g}<br>β = {y[column]:.4g}<br>{name} = {values[row, column]:.5g}{kind}"
        )
    return texts


def _bar_text(dataset: Dataset, variable: str, scale: Scale) -> str:
    text = value_text(dataset, variable)
    above = f", cut above {scale.levels[-1]:.4g}" if scale.extend in {"max", "both"} else ""
    return text + above


def _ticks(scale: Scale) -> dict[str, Any]:
    ticks = scale.ticks()
    places = [math.log10(tick) if scale.log else tick for tick in ticks]
    return {"tickvals": places, "ticktext": tick_texts(ticks)}


def _star(dataset: Dataset, variable: str, scale: Scale) -> dict[str, Any] | None:
    """The checkpoint, at the height of the nearest point."""
    x, y = coordinates(dataset, "alpha"), coordinates(dataset, "beta")
    row, column = int(np.argmin(np.abs(x))), int(np.argmin(np.abs(y)))
    height = float(heights_of(values_of(dataset, variable), scale)[row, column])
    if not (x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1] and math.isfinite(height)):
        return None
    return {
        "x": [0.0],
        "y": [0.0],
        "z": [height],
        "mode": "markers",
        "marker": {"size": 5, "color": "white", "line": {"color": "#1B2530", "width": 2}},
        "hovertext": "checkpoint",
        "hoverinfo": "text",
        "showlegend": False,
    }


def _layout(dataset: Dataset, variable: str, scale: Scale) -> dict[str, Any]:
    values, known = values_of(dataset, variable), evaluated_of(dataset)
    sentences = notes([(dataset, [variable])])
    holes = int((known & ~np.isfinite(values)).sum())
    if holes:
        sentences.append(f"{holes} points are NaN or infinite (holes)")
    axes = {
        side: {"title": {"text": axis_text(dataset, dim)}}
        for dim, side in (("alpha", "xaxis"), ("beta", "yaxis"))
    }
    height = {"title": {"text": value_text(dataset, variable)}, **_ticks(scale)}
    return {
        "template": "plotly_white",
        "font": _FONT,
        "title": {"text": ". ".join(sentences), "font": {"size": 12}},
        "margin": {"l": 0, "r": 0, "t": 50, "b": 0},
        "scene": {**axes, "zaxis": height, "aspectratio": {"x": 1, "y": 1, "z": 0.7}},
    }
