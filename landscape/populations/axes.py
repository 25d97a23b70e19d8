"""The axes of a design: values to choose from, or a range to draw from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Value = str | int | float | bool | None

# 5e-4 is a text in YAML 1.1, which wants 5.0e-4.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+", re.IGNORECASE)
_RANGE = {"low", "high", "scale", "integer"}


@dataclass(frozen=True)
class Choices:
    """Values to choose from.

    Args:
        values: Each once.
    """

    values: tuple[Any, ...]

    def draw(self, source: np.random.Generator) -> Any:
        """One of the values."""
        return self.values[int(source.integers(len(self.values)))]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two ends.

    Args:
        low: Smallest number.
        high: Largest number.
        log: Whether the logarithm is drawn evenly, instead of the number.
        integer: Whether numbers are rounded.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def draw(self, source: np.random.Generator) -> Any:
        """One number."""
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(source.uniform(*ends))
        number = min(max(math.exp(drawn) if self.log else drawn, self.low), self.high)
        return round(number) if self.integer else number


Axis = Choices | Range


def axis_of(name: str, given: Any) -> Axis:
    """The axis that an entry of a design describes.

    Args:
        name: Of the hyper-parameter.
        given: A list of values, or ``{low, high, scale, integer}``.

    Returns:
        The axis.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(given, Mapping):
        return _range(name, given)
    if not isinstance(given, list):
        raise ValueError(f"axis {name} must be a list of values, got {given!r}; put it under fixed")
    if not given:
        raise ValueError(f"axis {name} has no values")
    values = tuple(value_of(name, value) for value in given)
    texts = [text_of(value) for value in values]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ValueError(f"axis {name} has the value {twice[0]} twice")
    return Choices(values)


def _range(name: str, given: Mapping[Any, Any]) -> Range:
    where = f"the range of axis {name}"
    if unknown := [str(key) for key in given if key not in _RANGE]:
        raise ValueError(f"{where} has no entry {', '.join(unknown)}; there are {_told(_RANGE)}")
    ends = {}
    for key in ("low", "high"):
        end = number_of(given.get(key))
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise ValueError(f"{where} needs a number {key}, got {given.get(key)!r}")
        ends[key] = end
    scale, integer = given.get("scale", "linear"), given.get("integer", False)
    if scale not in {"linear", "log"}:
        raise ValueError(f"{where} has scale {scale!r}; there are linear, log")
    if not isinstance(integer, bool):
        raise ValueError(f"{where} has integer {integer!r}; it is true or false")
    if integer and any(not float(end).is_integer() for end in ends.values()):
        raise ValueError(f"{where} is of whole numbers, so that its ends must be whole")
    if not ends["low"] < ends["high"] or (scale == "log" and ends["low"] <= 0):
        least = " above 0" if scale == "log" else ""
        raise ValueError(f"{where} needs low{least} and below high, got {_told_ends(ends)}")
    return Range(**ends, log=scale == "log", integer=integer)


def _told_ends(ends: Mapping[str, float]) -> str:
    return f"{ends['low']:g} and {ends['high']:g}"


def _told(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def value_of(name: str, given: Any) -> Any:
    """A value of a hyper-parameter as it is used; methods may be dictionaries.

    Args:
        name: Of the hyper-parameter.
        given: As the file has it.

    Returns:
        The value.

    Raises:
        ValueError: If it is of no kind that a hyper-parameter can have.
    """
    if name == "method" and isinstance(given, Mapping):
        return _method(given)
    value = number_of(given)
    plain = value is None or isinstance(value, str | int | float)
    if not plain or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(
            f"{name} takes a text, a finite number, true, false or null, got {given!r}"
        )
    return value


def number_of(given: Any) -> Any:
    """A number for a text such as 5e-4, which YAML leaves a text; all else as it is."""
    return float(given) if isinstance(given, str) and _NUMBER.fullmatch(given) else given


def _method(given: Mapping[Any, Any]) -> dict[str, Any]:
    if not isinstance(given.get("method"), str):
        raise ValueError(
            f"a method with settings is written {{method: sam, rho: 0.05}}, got {dict(given)!r}"
        )
    settings = {str(key): number_of(value) for key, value in given.items() if key != "method"}
    return {"method": given["method"], **settings}


def text_of(value: Any) -> str:
    """A value as text; a method with settings is ``sam(rho=0.05)``."""
    if isinstance(value, Mapping):
        settings = ", ".join(
            f"{key}={text_of(entry)}" for key, entry in value.items() if key != "method"
        )
        return f"{value['method']}({settings})" if settings else str(value["method"])
    return "none" if value is None else str(value)


def column_of(value: Any) -> Any:
    """A value as it stands in a table: numbers and truth values as they are, all else as text."""
    return value if isinstance(value, bool | int | float) else text_of(value)
