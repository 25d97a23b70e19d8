"""What pictures of radius scans share: the points, the marks of missing values, the radii."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from landscape.results import Result
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

_NORMAL = 1.96  # standard errors in half of a 95 % interval
_LETTER = 5.0  # width of a letter of a tick label with the gap to the next label, in points
_STEP = 0.045  # height of a row of crosses, as a share of the axes

#: Names of the scanned parameter on an axis.
PARAMETERS = {"rho": ("radius", "ρ"), "sigma": ("noise scale", "σ")}


@dataclass(frozen=True)
class Scan:
    """The points of a scan as arrays, NaN where a value is undefined."""

    at: Values
    value: Values
    low: Values
    high: Values
    sure: Flags

    @property
    def known(self) -> Flags:
        """Where there is a value."""
        return np.isfinite(self.value)


def has_scan(result: Result) -> bool:
    """Whether a result was measured at several radii, or tried to be."""
    return bool((result.diagnostics.get("scan") or {}).get("points"))


def parameter_of(result: Result) -> str:
    """What a scan runs over: "rho" or "sigma"."""
    return str(result.diagnostics["scan"].get("parameter", "rho"))


def symbol_of(parameter: str) -> str:
    """The letter of a scanned parameter."""
    return PARAMETERS.get(parameter, ("", parameter))[1]


def scan_of(result: Result) -> Scan:
    """The points of a scan in ascending order; unknown intervals are 1.96 standard errors wide."""
    points = sorted(result.diagnostics["scan"]["points"], key=lambda point: point["at"])
    rows = np.array([(point["at"], _number(point.get("value")), *_ends(point)) for point in points])
    at, value, low, high = rows.T.astype(np.float64)
    return Scan(
        at=at,
        value=value,
        low=low,
        high=high,
        sure=np.array([point.get("status", "ok") == "ok" for point in points]),
    )


def is_known(point: dict[str, Any]) -> bool:
    """Whether a point of a scan has a value."""
    return not math.isnan(_number(point.get("value")))


def _number(value: Any) -> float:
    """A float, NaN for None and for infinities, which no axis holds."""
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def _ends(point: dict[str, Any]) -> tuple[float, float]:
    low, high = (_number(end) for end in point.get("interval") or (None, None))
    if math.isnan(low + high):
        value, half = _number(point.get("value")), _NORMAL * _number(point.get("stderr"))
        low, high = value - half, value + half
    return low, high


def draw_crosses(ax: Axes, at: list[float], rows: list[int], color: str) -> None:
    """Crosses on the lower edge where values are missing, those of one radius above each other."""
    if at:
        ax.plot(
            at,
            [_STEP * row for row in rows],
            transform=ax.get_xaxis_transform(),
            color=color,
            linestyle="none",
            marker="x",
            markersize=5,
            markeredgewidth=1.4,
            clip_on=False,
            zorder=4,
            label="_no value",
        )


def radius_axis(
    ax: Axes, at: Values, parameter: str, note: str = "", *, noise: bool = False
) -> None:
    """A logarithmic axis with its ticks at the radii that were measured."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    low, high = float(at.min()), float(at.max())
    pad = max((high / low) ** 0.05, 1.15)
    ax.set_xscale("log")
    ax.set_xlim(low / pad, high * pad)
    points = ax.get_window_extent().width / ax.figure.dpi * 72
    scale = points / math.log(high / low * pad**2)
    kept: list[float] = []
    for radius in sorted(set(at.tolist())):
        room = scale * math.log(radius / kept[-1]) if kept else math.inf
        if room > _LETTER * (len(_tick(radius)) + len(_tick(kept[-1] if kept else radius))) / 2:
            kept.append(radius)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FixedFormatter([_tick(radius) for radius in kept]))
    word, letter = PARAMETERS.get(parameter, ("", parameter))
    word = "noise scale" if noise else word
    ax.set_xlabel(f"{word} {letter}{note}".strip(), parse_math=False)


def _tick(radius: float) -> str:
    return typeset(f"{radius:.3g}")
