"""The Hessian's spectral density: bulk at zero, outliers to its right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landscape.results import Result
from landscape.viz.display import Display, display, new_axes
from landscape.viz.style import CURVE, EXTREME, FAINT, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OPERATORS = {"hessian": "Hessian", "ggn": "Gauss–Newton"}

# The axis starts at this share of the peak of one eigenvalue: what lies below is no eigenvalue.
_FLOOR = 0.1
_RUG = 0.035  # height of the ticks, as a share of the axes


@dataclass(frozen=True)
class _Curve:
    """The diagnostics of a density as arrays."""

    grid: NDArray[np.float64]
    density: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    width: float
    size: int

    @property
    def single(self) -> float:
        """Peak of one smoothed eigenvalue."""
        return float(1 / (self.size * self.width * np.sqrt(2 * np.pi)))


def plot_spectral_density(result: Result, ax: Axes | None = None) -> Display:
    """Draws the density of the eigenvalues, phi(x), on a logarithmic axis.

    The shaded band is the 95 % interval of the curve. Ticks on the axis mark the eigenvalues that
    are known one by one; the smallest and the largest are labelled where nothing lies beyond them.
    The dotted line is the peak that a single eigenvalue makes after smoothing,
    1 / (P width sqrt(2 pi)); the axis starts at a tenth of it.

    Args:
        result: Of the measure "hessian-spectral-density".
        ax: Axes to draw on; None makes a figure of its own, two journal columns wide.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If the result holds no density.

    Example:
        >>> import landscape
        >>> display = landscape.viz.plot_spectral_density(
        ...     table["hessian-spectral-density"]
        ... )  # doctest: +SKIP
        >>> display.figure_.savefig("density.pdf")  # doctest: +SKIP
    """
    curve = _curve_of(result)
    with style():
        ax = new_axes(6.75, 2.9) if ax is None else ax
        _draw_curve(ax, curve)
        _draw_eigenvalues(ax, curve)
        operator = _OPERATORS.get(result.config.get("operator", "hessian"), "Hessian")
        ax.set_xlabel(f"{operator} eigenvalue  λ")
        ax.set_ylabel("Density of eigenvalues  φ(λ)")
        return display(ax)


def _curve_of(result: Result) -> _Curve:
    found = result.diagnostics
    missing = {"grid", "density", "width", "size"} - set(found)
    if missing:
        raise ValueError(
            f"{result.measure!r} holds no spectral density (no {', '.join(sorted(missing))} in its "
            "diagnostics); give the result of the measure 'hessian-spectral-density'"
        )
    density = _array(found["density"])
    return _Curve(
        grid=_array(found["grid"]),
        density=density,
        low=_array(found.get("density_low", density)),
        high=_array(found.get("density_high", density)),
        eigenvalues=np.sort(_array(found.get("eigenvalues", []))),
        width=float(found["width"]),
        size=int(found["size"]),
    )


def _array(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _draw_curve(ax: Axes, curve: _Curve) -> None:
    floor = _FLOOR * curve.single
    top = max(float(np.nanmax(curve.high)), curve.single)
    ax.set_yscale("log")
    ax.set_ylim(floor, 8 * top)
    ax.set_xlim(float(curve.grid[0]), float(curve.grid[-1]))
    # Under the axis lies the floor, not zero, which a logarithm does not have.
    low, middle, high = (
        np.maximum(part, 0.1 * floor) for part in (curve.low, curve.density, curve.high)
    )
    ax.fill_between(curve.grid, 0.1 * floor, middle, color=CURVE, alpha=0.10, label="_area")
    ax.fill_between(curve.grid, low, high, color=CURVE, alpha=0.35, label="95 % band")
    ax.plot(curve.grid, middle, color=CURVE, label="density")
    ax.axhline(curve.single, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)
    ax.annotate(
        "one eigenvalue",
        (_widest_gap(curve), curve.single),
        xytext=(0, 2.5),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color="#5B6470",
        fontsize=7,
    )


def _widest_gap(curve: _Curve) -> float:
    """Where a word has room: the middle of the longest stretch without an eigenvalue."""
    ends = (float(curve.grid[0]), float(curve.grid[-1]))
    places = np.sort(np.concatenate([curve.eigenvalues, [*ends, np.clip(0.0, *ends)]]))
    widest = int(np.argmax(np.diff(places)))
    return float(places[widest] + places[widest + 1]) / 2


def _draw_eigenvalues(ax: Axes, curve: _Curve) -> None:
    values = curve.eigenvalues
    if not len(values):
        return
    ax.vlines(
        values,
        0,
        _RUG,
        transform=ax.get_xaxis_transform(),
        color=EXTREME,
        linewidth=0.9,
        label="known eigenvalues",
    )
    low, high = float(values[0]), float(values[-1])
    close = high - low < 0.4 * float(curve.grid[-1] - curve.grid[0])
    if _beyond(curve, curve.grid > high + 3 * curve.width) < 0.5:
        _label(ax, high, "max", "right", line=0)
    if low < high and _beyond(curve, curve.grid < low - 3 * curve.width) < 0.5:
        _label(ax, low, "min", "left", line=int(close))


def _beyond(curve: _Curve, where: NDArray[np.bool_]) -> float:
    """Number of eigenvalues there; with none beyond it, a known eigenvalue is an extreme one."""
    step = float(curve.grid[1] - curve.grid[0])
    return float(curve.density[where].sum()) * step * curve.size


def _label(ax: Axes, value: float, index: str, side: str, line: int) -> None:
    """A thin line through an extreme eigenvalue, with its value at the top."""
    ax.axvline(value, color=EXTREME, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0.6)
    text = f"{value:.4g}".replace("-", "−")
    ax.annotate(
        rf"$\lambda_\mathrm{{{index}}}$ = {text}",
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3 if side == "left" else -3, -1 - 11 * line),
        textcoords="offset points",
        ha=side,
        va="top",
        color=EXTREME,
        fontsize=8,
    )
