"""Numbers as text, rounded to the digits that their error leaves meaningful."""

from __future__ import annotations

import math

#: Where the 95 % interval is wider than this many standard errors, the standard error does not
#: explain it (quadrature error, few probes), and the interval is shown instead.
_EXPLAINED = 3.0

_PLAIN = range(-4, 6)  # decimal exponents that are written without a power of ten
_MOST_DIGITS = 7  # single precision has no more
_EXACT_DIGITS = 6
_UNKNOWN_DIGITS = 4


def format_estimate(
    value: float | None,
    stderr: float | None,
    interval: tuple[float | None, float | None] = (None, None),
) -> str:
    """A number and its error: "8.93 ± 0.16", two digits of error and as many of the value.

    Args:
        value: The number; None or NaN where there is none.
        stderr: Its standard error, 0 for an exact number.
        interval: Its 95 % interval. Where it is wider than three standard errors, so that the
            standard error alone would promise too much, its half-width is shown in place of the
            standard error and marked: "-6.10 ± 0.32 (95 %)".

    Returns:
        The text: six digits and no error for an exact number, "± ?" where the error is unknown,
        an em dash where there is no number.

    Example:
        >>> format_estimate(8.9343, 0.1646, (8.545, 9.324))
        '8.93 ± 0.16'
        >>> format_estimate(13.6082318, 0.0)
        '13.6082'
    """
    number, error = _float(value), _float(stderr)
    if math.isnan(number):
        return "—"
    if math.isinf(number):
        return f"{number:g}"
    half = max((abs(_float(end) - number) for end in interval), default=math.nan)
    if error > 0 and not half > _EXPLAINED * error:
        return _with_error(number, error)
    if 0 < half < math.inf:
        return f"{_with_error(number, half)} (95 %)"
    if error == 0:
        return f"{number:.{_EXACT_DIGITS}g}"
    return f"{number:.{_UNKNOWN_DIGITS}g} ± ?"


def format_interval(interval: tuple[float | None, float | None]) -> str:
    """Ends of an interval, rounded to two digits of its half-width: "[8.54, 9.32]".

    Args:
        interval: Low and high end.

    Returns:
        The text; empty where an end is unknown or both are equal (an exact number).

    Example:
        >>> format_interval((8.545, 9.3236))
        '[8.54, 9.32]'
    """
    low, high = (_float(end) for end in interval)
    half = (high - low) / 2
    if not 0 < half < math.inf:
        return ""
    power, decimals = _layout(max(abs(low), abs(high)), half, most=_MOST_DIGITS + 2)
    ends = ", ".join(_rounded(end / 10**power, decimals) for end in (low, high))
    return f"[{ends}]" + _power(power)


def format_factor(factor: float | None) -> str:
    """A factor by which something moved: "×17", "1" where it is 1 to two digits.

    Args:
        factor: At least 1; None, as JSON has it, where it is infinite.

    Returns:
        The text.

    Example:
        >>> format_factor(341.4), format_factor(1.0004), format_factor(None)
        ('×340', '1', '×∞')
    """
    if factor is None or math.isinf(factor):
        return "×∞"
    text = f"{factor:.2g}"
    if text == "1":
        return text
    return (
        f"×{float(text):g}" if factor < 10**4 else f"×{text.replace('e+0', 'e').replace('e+', 'e')}"
    )


def _with_error(value: float, error: float) -> str:
    power, decimals = _layout(max(abs(value), error), error)
    scaled, doubt = value / 10**power, error / 10**power
    small = doubt < 10.0**_PLAIN.start
    text = f"{_rounded(scaled, decimals)} ± "
    text += f"{doubt:.1e}" if small else _rounded(doubt, decimals)
    return f"({text}){_power(power)}" if power else text


def _layout(size: float, error: float, most: int = _MOST_DIGITS) -> tuple[int, int]:
    """Power of ten to take out, and decimals that show two digits of the error."""
    exponent = _exponent(size)
    power = 0 if exponent in _PLAIN else exponent
    decimals = 1 - _exponent(float(f"{error:.1e}")) + power
    return power, min(decimals, most - 1 - (exponent - power))


def _exponent(number: float) -> int:
    return math.floor(math.log10(number)) if number > 0 else 0


def _power(power: int) -> str:
    return f"e{power:+03d}" if power else ""


def _rounded(number: float, decimals: int) -> str:
    text = f"{round(number, decimals):.{max(decimals, 0)}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _float(number: float | None) -> float:
    return math.nan if number is None else float(number)


def format_seconds(seconds: float) -> str:
    """A time to two digits: "0.012 s", "14 s", "12 min", "3.1 h".

    Returns:
        The text.

    Example:
        >>> format_seconds(0.0123), format_seconds(740), format_seconds(11000)
        ('0.012 s', '12 min', '3.1 h')
    """
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{float(f'{seconds / unit:.2g}'):g} {name}"
    return f"{float(f'{seconds / 86_400:.2g}'):g} days"


def format_bytes(count: float) -> str:
    """A size to two digits: "15 KiB", "1.2 GiB".

    Returns:
        The text.

    Example:
        >>> format_bytes(15000), format_bytes(1.3e9)
        ('15 KiB', '1.2 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1000 or unit == "TiB":
            break
        count /= 1024
    return f"{float(f'{count:.2g}'):g} {unit}"
