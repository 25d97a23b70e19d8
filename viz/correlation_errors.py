"""How often a measure orders two models the wrong way, environment by environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from landscape.viz.correlation_names import controls_of, measures_of, short
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import CURVE, EXTREME, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from landscape.correlation import Correlations

_ALL = "all"


def plot_sign_errors(
    correlations: Correlations,
    ax: Axes | None = None,
    *,
    measures: Sequence[str] | None = None,
    axis: str = _ALL,
) -> Display:
    """Draws the robust sign-error of each measure: a dot an environment, and mean, 90 % and worst.

    0 means that every pair is ordered as the target orders it, 1 that every pair is reversed, and
    0.5 is chance.

    Args:
        correlations: The correlations.
        ax: Axes to draw on; None makes a figure of its own, as high as the rows need.
        measures: Rows to draw; None draws every measure but the radii and layers of others, and
            the controls. Those without an environment are left out.
        axis: The hyper-parameter whose environments are drawn; "all" for all.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If no measure has an environment there.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_sign_errors(correlations)  # doctest: +SKIP
    """
    errors = correlations.sign_errors
    errors = errors[(errors["axis"] == axis) & errors["error"].notna()]
    wanted = measures or [*measures_of(correlations), *controls_of(correlations)]
    groups = {name: errors.loc[errors["measure"] == name, "error"] for name in wanted}
    found = {name: group.to_numpy(float) for name, group in groups.items() if len(group)}
    if not found:
        raise ValueError(
            f"no environment of axis {axis!r} has enough pairs of models for a sign-error"
        )
    controls = set(controls_of(correlations))
    rows = sorted(found, key=lambda name: (name in controls, float(found[name].mean())))
    with style():
        ax = new_axes(8.6, 0.95 + 0.19 * len(rows)) if ax is None else ax
        scatter = np.random.default_rng(0)
        ax.axvline(0.5, color="#5B6470", linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
        for place, name in enumerate(rows):
            _row(ax, place, found[name], scatter, faint=name in controls)
        _frame(ax, rows, controls)
        _key(ax)
        return display(ax)


def _row(
    ax: Axes, place: int, errors: np.ndarray, scatter: np.random.Generator, *, faint: bool
) -> None:
    jitter = place + scatter.uniform(-0.26, 0.26, len(errors))
    many = len(errors) > 200
    ax.scatter(errors, jitter, s=5, color="#8A939E", alpha=0.45, linewidths=0, rasterized=many)
    mean, high, worst = errors.mean(), np.quantile(errors, 0.9), errors.max()
    ax.plot([mean, worst], [place, place], color="#3C4651", linewidth=0.6, zorder=2)
    color = "#5B6470" if faint else CURVE
    ax.plot(mean, place, "o", color=color, markersize=4.6, zorder=3)
    ax.plot(high, place, "|", color="#1B2530", markersize=7, markeredgewidth=1.4, zorder=3)
    ax.plot(worst, place, ">", color=EXTREME, markersize=4.2, zorder=3)


def _frame(ax: Axes, rows: list[str], controls: set[str]) -> None:
    ax.set_ylim(len(rows) - 0.3, -0.7)
    ax.set_xlim(-0.02, 1.03)
    ax.set_xticks(np.linspace(0, 1, 11))
    ax.grid(axis="x", color="#E6EAEE", linewidth=0.5)
    ax.set_yticks(range(len(rows)), [short(name) for name in rows], parse_math=False)
    ax.tick_params(axis="y", length=0, labelsize=7)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("sign-error   (0: as the target orders, 0.5: chance, 1: reversed)")
    own = sum(name not in controls for name in rows)
    if 0 < own < len(rows):
        ax.axhline(own - 0.5, color="#B4BCC5", linewidth=0.6)


def _key(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", color="#8A939E", alpha=0.6, markersize=2.4, linestyle=""),
        Line2D([], [], marker="o", color=CURVE, markersize=4.6, linestyle=""),
        Line2D(
            [], [], marker="|", color="#1B2530", markersize=7, markeredgewidth=1.4, linestyle=""
        ),
        Line2D([], [], marker=">", color=EXTREME, markersize=4.2, linestyle=""),
    ]
    ax.legend(
        marks,
        ["environment", "mean", "90th percentile", "worst"],
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        borderaxespad=0.1,
        handletextpad=0.2,
        fontsize=7,
    )
