"""Levels and ticks of a picture of a slice: round ones, logarithmic where losses allow it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from landscape.viz.slice_data import Values
from landscape.viz.wording import typeset

if TYPE_CHECKING:
    from matplotlib.colors import Normalize

Extend = Literal["neither", "min", "max", "both"]
#: How levels are asked for: a kind of scale, their number, or the levels themselves.
Levels = Literal["log", "linear"] | int | Sequence[float] | None

COLORS = "viridis"
_COUNT = 14
_LEAST_RATIO = 3.0  # of the ends of a range that a logarithmic scale still serves
_DIVISIONS = (30, 20, 15, 10, 8, 6, 5, 4, 3, 2, 1)  # levels in a decade
_SHORT = 0.4  # a step before the top that is shorter than this share is dropped


@dataclass(frozen=True)
class Scale:
    """The levels of a picture.

    Args:
        levels: Ascending, at least two.
        log: Whether colours follow the logarithm.
        extend: On which sides values lie beyond the levels.
        value: The one value where all are alike.
    """

    levels: Values
    log: bool
    extend: Extend
    value: float | None = None

    def norm(self) -> Normalize:
        """From values to colours."""
        from matplotlib.colors import LogNorm, Normalize

        kind = LogNorm if self.log else Normalize
        return kind(float(self.levels[0]), float(self.levels[-1]))

    def clipped(self, values: Values) -> Values:
        """Values that a logarithm takes: those at or below zero lie below the lowest level."""
        low = 0.5 * float(self.levels[0])
        return np.where(values < low, low, values) if self.log else values

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers between the ends."""
        if self.value is not None:
            return [self.value]
        return round_ticks(float(self.levels[0]), float(self.levels[-1]), log=self.log, most=most)


def scale_of(values: Iterable[Values], variable: str, levels: Levels, top: float | None) -> Scale:
    """The scale that pictures share.

    Args:
        values: Of all pictures.
        variable: A loss is drawn on logarithmic levels where all values are positive and differ
            by more than a factor of three; anything else on even ones.
        levels: "log" or "linear" to choose, a number of levels, or the levels; None chooses.
        top: The highest level; values above it are clipped. None shows all.

    Returns:
        The scale.

    Raises:
        ValueError: If levels do not ascend, if no value is positive where a logarithm is asked
            for, or if ``top`` lies below all values.
    """
    known = np.concatenate([np.ravel(array) for array in values])
    known = known[np.isfinite(known)]
    if not len(known):
        known = np.array([0.0, 1.0])
    low, high = float(known.min()), float(known.max())
    if levels is not None and not isinstance(levels, str | int):
        return _given(np.array(levels, dtype=np.float64), variable, low, high)
    if top is not None and top <= low:
        raise ValueError(f"top = {top:g} lies below all values; the lowest is {low:.4g}")
    log = _is_log(low, high if top is None else min(top, high), variable)
    if isinstance(levels, str):
        log = levels == "log"
    bottom = low
    if log:
        if high <= 0:
            raise ValueError("no value is positive, so levels cannot be logarithmic; use 'linear'")
        bottom = float(known[known > 0].min())
    count = levels if isinstance(levels, int) else _COUNT
    return _round(bottom, low, high, top, log=log, count=count)


def _given(levels: Values, variable: str, low: float, high: float) -> Scale:
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) > 0).all():
        raise ValueError("levels have to ascend, and there have to be two at least")
    log = _is_log(float(levels[0]), float(levels[-1]), variable)
    return Scale(levels, log, _extend(levels, low, high))


def _round(
    bottom: float, low: float, high: float, top: float | None, *, log: bool, count: int
) -> Scale:
    end = high if top is None else min(top, high)
    if end - bottom <= 1e-12 * max(abs(end), abs(bottom)):
        # All values alike: one colour.
        half = 1e-3 * abs(bottom) or 1e-12
        ends = np.array([bottom - half, bottom + half])
        return Scale(ends, log=False, extend="neither", value=bottom)
    levels = _log_levels(bottom, end, count) if log else _even_levels(bottom, end, count)
    # The outer levels may lie inside by a rounding.
    levels[0], levels[-1] = min(levels[0], bottom), max(levels[-1], end)
    if top is not None and top < high:
        inner = levels[levels < top]
        steps = np.diff(np.log(np.append(inner, top)) if log else np.append(inner, top))
        if len(steps) > 1 and steps[-1] < _SHORT * steps[-2]:
            inner = inner[:-1]
        levels = np.append(inner, top)
    return Scale(levels, log, _extend(levels, low, high))


def _extend(levels: Values, low: float, high: float) -> Extend:
    below, above = low < levels[0], high > levels[-1]
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def _is_log(low: float, high: float, variable: str) -> bool:
    return variable.endswith("loss") and low > 0 and high > _LEAST_RATIO * low


def _log_levels(low: float, high: float, count: int) -> Values:
    """Even steps of the logarithm that meet the powers of ten."""
    decades = math.log10(high / low)
    division = next((float(each) for each in _DIVISIONS if each * decades <= count), 0.0)
    division = division or 1 / math.ceil(decades / count)
    first = math.floor(division * math.log10(low) + 1e-9)
    last = math.ceil(division * math.log10(high) - 1e-9)
    levels: Values = 10.0 ** (np.arange(first, max(last, first + 1) + 1) / division)
    return levels


def _even_levels(low: float, high: float, count: int) -> Values:
    from matplotlib.ticker import MaxNLocator

    return np.array(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))


def round_ticks(low: float, high: float, *, log: bool, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about ``most``."""
    if not log:
        from matplotlib.ticker import MaxNLocator

        found = MaxNLocator(max(most - 1, 1), steps=[1, 2, 5, 10]).tick_values(low, high)
        room = 1e-9 * (high - low)
        return [float(tick) for tick in found if low - room <= tick <= high + room]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        ticks = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Ticks in as few digits as tell them apart; powers of ten as such."""
    for digits in range(3, 13):
        texts = [f"{tick:.{digits}g}" for tick in ticks]
        if len(set(texts)) == len(set(ticks)):
            break
    return [typeset(text).removeprefix("1×") for text in texts]


def set_ticks(axis: Any, ticks: list[float]) -> None:
    """Puts exactly these ticks on an axis or a colour bar."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter(tick_texts(ticks)))
    axis.set_minor_locator(NullLocator())
