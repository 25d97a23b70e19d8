"""Heat maps of rank correlations: measure by hyper-parameter, and measure by measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.viz.correlation_names import (
    axis_name,
    controls_of,
    lines,
    measures_of,
    short,
    two_digits,
)
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from landscape.correlation import Correlations

# Vermilion to blue through white: the two ends differ for readers of any colour vision.
_COLORS = ("#8C3B00", "#D55E00", "#F3B98D", "#FFFFFF", "#9CC9E8", "#0072B2", "#003F66")
_MOST_LEVEL = 6  # hyper-parameters whose names have room side by side
_MOST_NUMBERS = 22  # measures whose matrix has room for numbers


def plot_granulated(
    correlations: Correlations,
    ax: Axes | None = None,
    *,
    measures: Sequence[str] | None = None,
) -> Display:
    """Draws the granulated ψ: one row a measure, one column a hyper-parameter, and their mean Ψ.

    Args:
        correlations: The correlations.
        ax: Axes to draw on; None makes a figure of its own, as high as the rows need.
        measures: Rows to draw; None draws every measure but the radii and layers of others, and
            the controls.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If no hyper-parameter was given.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_granulated(correlations)  # doctest: +SKIP
    """
    long = correlations.granulated
    if not len(long):
        raise ValueError("there is no granulated ψ without hyper-parameters; name at least one")
    rows = list(measures or [*measures_of(correlations), *controls_of(correlations)])
    axes = [axis for axis in correlations.hyperparameters if axis in set(long["axis"])]
    square = long.pivot_table(index="measure", columns="axis", values="psi", dropna=False)
    values = square.reindex(index=rows, columns=axes).to_numpy(float)
    means = correlations.table.loc[rows, "psi"].to_numpy(float)[:, None]
    with style():
        width = min(8.6, 4.6 + 0.62 * (len(axes) + 1))
        ax = new_axes(width, 1.1 + 0.19 * len(rows)) if ax is None else ax
        _cells(ax, np.hstack([values, np.full((len(rows), 1), np.nan), means]), skip=len(axes))
        _write(ax, np.hstack([values, np.full((len(rows), 1), np.inf), means]))
        names = [lines(axis_name(axis), 9) for axis in axes]
        ax.set_xticks([*range(len(axes)), len(axes) + 1], [*names, "mean Ψ"], parse_math=False)
        if len(axes) > _MOST_LEVEL:
            ax.tick_params(axis="x", labelrotation=60, labelsize=6.5)
        ax.set_yticks(range(len(rows)), [short(name) for name in rows], parse_math=False)
        _above(ax)
        return display(ax)


def plot_between(
    correlations: Correlations,
    ax: Axes | None = None,
    *,
    measures: Sequence[str] | None = None,
) -> Display:
    """Draws τ between all measures, those that order the models alike side by side.

    Columns carry the numbers of the rows. The order is that of average-linkage clustering by
    1 − |τ|.

    Args:
        correlations: The correlations.
        ax: Axes to draw on; None makes a figure of its own.
        measures: Which to draw; None draws every measure but the radii and layers of others.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If fewer than two measures vary.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_between(correlations)  # doctest: +SKIP
    """
    names = clustered(correlations.between, list(measures or measures_of(correlations)))
    if len(names) < 2:
        raise ValueError(f"a heat map between measures needs two that vary; got {len(names)}")
    values = correlations.between.loc[names, names].to_numpy(float)
    with style():
        size = float(np.clip(0.2 * len(names), 1.6, 5.4))
        beside = 1.15 + 0.054 * (3 + max(len(short(name, 52)) for name in names))
        ax = new_axes(size + beside, size + 0.35) if ax is None else ax
        _cells(ax, values)
        if len(names) <= _MOST_NUMBERS:
            _write(ax, values, size=5.4)
        numbers = [f"{place + 1}" for place in range(len(names))]
        ax.set_xticks(range(len(names)), numbers, fontsize=6 if len(names) < 40 else 5)
        ax.set_yticks(
            range(len(names)),
            [f"{short(name, 52)}  {number}" for name, number in zip(names, numbers, strict=True)],
            parse_math=False,
            fontsize=7 if len(names) < 40 else 6,
        )
        _above(ax)
        return display(ax)


def clustered(between: pd.DataFrame, names: list[str]) -> list[str]:
    """Names in the order of a clustering by 1 − |τ|; those without any τ are left out."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    square = between.reindex(index=names, columns=names).to_numpy(float)
    others = ~np.eye(len(names), dtype=bool)
    known = [bool(np.isfinite(row[other]).any()) for row, other in zip(square, others, strict=True)]
    names = [name for name, there in zip(names, known, strict=True) if there]
    if len(names) < 3:
        return names
    distance = 1 - np.abs(np.nan_to_num(between.loc[names, names].to_numpy(float), nan=0.0))
    distance = np.clip((distance + distance.T) / 2, 0, 1)
    np.fill_diagonal(distance, 0)
    order = leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))
    return [names[place] for place in order]


def _cells(ax: Axes, values: Any, skip: int | None = None) -> None:
    """Coloured squares from −1 to 1 with their colour bar; a missing value is hatched."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    colors = LinearSegmentedColormap.from_list("sign", _COLORS)
    image = ax.imshow(values, cmap=colors, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(np.isnan(values)):
        if column != skip:
            ax.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor="#F1F3F5",
                    edgecolor="#B4BCC5",
                    hatch="////",
                    linewidth=0,
                )
            )
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.035, pad=0.02, shrink=0.6, aspect=24)
    bar.outline.set_visible(False)
    bar.set_label("Kendall τ-b   (hatched: none)" if np.isnan(values).any() else "Kendall τ-b")
    for side in ax.spines.values():
        side.set_visible(False)


def _write(ax: Axes, values: Any, size: float = 6.3) -> None:
    """The numbers in the squares."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.55 else "#1B2530"
            text = two_digits(value)
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _above(ax: Axes) -> None:
    """Names of the columns on top, where a reader of a long table looks for them."""
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
