"""Colours of models by a hyper-parameter, and the key to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.correlation_names import axis_name, short

if TYPE_CHECKING:
    import pandas as pd

    from landscape.correlation import Correlations

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_FEW = 7  # values of an axis that get an entry each in the key
_BINS = 8
_KEY = 0.66  # inches above the bar of a key, as above the axes of the first row
SPANS = 30.0  # ratio of the ends from which a scale is logarithmic


def colour_column(correlations: Correlations, colour: str | None) -> str | None:
    """The column of the rows that colours the dots.

    Args:
        correlations: The correlations.
        colour: Its name, with or without "hp."; None takes the axis that explains most.

    Returns:
        The column; None where there is no hyper-parameter.

    Raises:
        ValueError: If there is no such column.
    """
    if colour is None:
        return explaining_axis(correlations)
    for name in (colour, f"hp.{colour}"):
        if name in correlations.frame:
            return name
    known = ", ".join(map(axis_name, correlations.hyperparameters)) or "no hyper-parameter"
    raise ValueError(f"there is no column {colour!r} to colour by; there are {known}")


def explaining_axis(correlations: Correlations) -> str | None:
    """The hyper-parameter that explains most of the target's ranks.

    The share of their variance between the groups of equal values (eight quantiles of an axis of
    many numbers), corrected for the number of groups as adjusted R² is.

    Args:
        correlations: The correlations.

    Returns:
        Its column; None where there is none.
    """
    frame = correlations.frame
    ranks = frame[correlations.target].rank()
    shares = {axis: _explained(frame[axis], ranks) for axis in correlations.hyperparameters}
    return max(shares, key=shares.__getitem__) if shares else None


def _explained(axis: pd.Series, ranks: pd.Series) -> float:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(axis) and axis.nunique() > _BINS:
        axis = pd.qcut(axis, _BINS, duplicates="drop")
    groups = ranks.groupby(axis.astype(str))
    total, freedom = ranks.var(ddof=0), len(ranks) - groups.ngroups
    if not total > 0 or freedom <= 0 or groups.ngroups < 2:
        return -math.inf
    within = (ranks - groups.transform("mean")).var(ddof=0)
    return float(1 - within / total * (len(ranks) - 1) / freedom)


def model_colors(frame: pd.DataFrame, column: str | None) -> tuple[Any, Any]:
    """Colours of the rows, and what draws their key."""
    import pandas as pd

    if column is None:
        return np.full(len(frame), _COLORS[0], dtype=object), None
    values = frame[column]
    numeric = pd.api.types.is_numeric_dtype(values) and values.dtype != bool
    if numeric and values.nunique() > _FEW:
        return _continuous(values)
    return _discrete(values, numeric=numeric)


def _continuous(values: pd.Series) -> tuple[Any, Any]:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    found = finite(values)
    spans = found.min() > 0 and found.max() / found.min() > SPANS
    scale = (LogNorm if spans else Normalize)(found.min(), found.max())
    mapping = ScalarMappable(scale, colormaps["cividis"])

    def key(figure: Any, name: str) -> None:
        width, height = figure.get_size_inches()
        long = min(2.4, height - 1.2)
        box = (1 - 0.55 / width, 1 - (_KEY + long) / height, 0.1 / width, long / height)
        bar = figure.colorbar(mapping, cax=figure.add_axes(box))
        bar.ax.set_title(name, fontsize=6.8, loc="right", parse_math=False)
        bar.ax.tick_params(labelsize=6.3)

    return mapping.to_rgba(values.to_numpy(float)), key


def _discrete(values: pd.Series, *, numeric: bool) -> tuple[Any, Any]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    present = values.dropna().unique()
    counted = values.value_counts()
    several = sorted(present) if numeric else sorted(present, key=lambda value: -counted[value])
    if numeric and len(several) > 2:
        shades = [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.0, 0.92, len(several))]
    else:
        shades = list(_COLORS)
    given = dict(zip(several, shades, strict=False))  # further values share a grey
    names = [_value(value) for value in given]
    marks = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=c) for c in given.values()
    ]
    if len(several) > len(given):
        names.append("others")
        marks.append(Line2D([], [], marker="o", linestyle="", markersize=4, color="#B4BCC5"))

    def key(figure: Any, name: str) -> None:
        # A title of the same line would be centred above; the first entry is one instead.
        blank = Line2D([], [], linestyle="")
        found = figure.legend(
            [blank, *marks],
            [name, *names],
            loc="upper center",
            bbox_to_anchor=(0.5, 1.0),
            borderaxespad=0.2,
            ncols=len(names) + 1,
            handletextpad=0.1,
            columnspacing=1.2,
        )
        for text in found.get_texts():
            text.set_parse_math(False)

    return np.array([given.get(value, "#B4BCC5") for value in values], dtype=object), key


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else short(str(value), 24)


def finite(values: pd.Series) -> Any:
    """The finite values of a column."""
    found = values.to_numpy(float)
    return found[np.isfinite(found)]
