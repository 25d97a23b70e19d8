"""Numbers and settings as a reader of a page or a picture sees them."""

from __future__ import annotations

import re
from typing import Any

from landscape.results import format_estimate, format_interval

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def typeset(text: str) -> str:
    """A number as it is printed: a real minus, and powers of ten raised."""
    text = re.sub(
        r"e([+-]\d+)", lambda found: f"×10{str(int(found[1])).translate(_SUPERSCRIPTS)}", text
    )
    return text.replace("-", "−")


def estimate(row: dict[str, Any]) -> str:
    """Value and error of a row with ``value``, ``stderr`` and ``interval``."""
    return typeset(format_estimate(row["value"], row["stderr"], row["interval"]))


def interval(ends: tuple[float | None, float | None]) -> str:
    """The ends of an interval; empty for an exact number."""
    return typeset(format_interval(ends))


def count(number: float | None) -> str:
    """A number of passes or things, with commas between thousands."""
    if number is None:
        return "—"
    whole = float(number).is_integer()
    return f"{int(number):,}" if whole else f"{number:,.1f}"


def seconds(number: float) -> str:
    """A duration: milliseconds, seconds or minutes."""
    if number == 0:
        return "0 s"
    if number < 0.0995:
        return f"{1000 * number:.1f} ms" if number < 0.00995 else f"{1000 * number:.0f} ms"
    if number < 99.5:
        return f"{number:.2g} s" if number < 9.95 else f"{number:.0f} s"
    minutes, rest = divmod(round(number), 60)
    return f"{minutes} min {rest} s"


def memory(number: float | None) -> str:
    """Bytes in MiB or GiB."""
    if number is None:
        return "—"
    mib = number / 2**20
    return f"{mib:.0f} MiB" if mib < 1000 else f"{mib / 1024:.1f} GiB"


def words(value: Any) -> str:
    """A value of the provenance as a person writes it."""
    if value is None or value in ([], {}):
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {words(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(words(entry) for entry in value)
    return str(value)
