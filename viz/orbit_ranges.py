"""How far measures move while the function of a model stays: the rows of a symmetry check."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landscape.results import format_factor
from landscape.viz.measure_table import base_name

#: Changes of the weights that keep the function, as a page names them.
KINDS = {
    "layer": "layers rescaled against the next",
    "neuron": "single hidden units rescaled",
    "norm": "weights before a normalisation layer rescaled",
    "attention": "query–key and value–output pairs changed by GL(h)",
    "permutation": "hidden units and heads permuted",
}
#: A multiple of the loss is another function, so its values belong to no range.
LOSS = "loss"
DEPENDS, MOVES, UNCHANGED = "depends on the parametrisation", "moves", "unchanged"

_SIGN, _ZERO, _LEAVES_ZERO = "changes sign", "becomes zero", "leaves zero"
_LOST, _GAINED = "number lost", "number gained"
_LARGEST = 700.0  # a difference of logarithms whose factor is a float
_OTHER = "Other"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class OrbitRow:
    """A measure along the orbit of a checkpoint.

    Args:
        measure: Its label.
        verdict: Whether the parametrisation moves it, in words.
        ratios: By kind, for each element the value over that at the checkpoint: 0 and infinity
            where there is no finite factor between the two, NaN where there is no number at all.
        factors: By kind, the largest factor as text: "×340", "1" or "changes sign".
        moved_by: Kinds that move it by more than chance.
        broken: Kinds that it declares to be unchanged by, and moves with.
        worst: The largest factor of the kinds that move it, empty where none does.
    """

    measure: str
    verdict: str
    ratios: dict[str, list[float]]
    factors: dict[str, str]
    moved_by: list[str]
    broken: list[str]
    worst: str


def kinds_of(check: Mapping[str, Any]) -> list[str]:
    """The kinds of changes of a check that keep the function, in the order of a page."""
    return sorted((kind for kind in check["found"] if kind != LOSS), key=_rank)


def _rank(kind: str) -> int:
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def headings_of(report: Mapping[str, Any]) -> dict[str, str]:
    """By name of a measure the heading that it stands under in a report."""
    descriptions = report["extras"].get("descriptions", {})
    return {name: about.get("group") or "" for name, about in descriptions.items()}


def orbit_rows(
    check: Mapping[str, Any], headings: Mapping[str, str] | None = None
) -> dict[str, list[OrbitRow]]:
    """The rows of a check under their headings.

    Args:
        check: ``SymmetryCheck.to_dict()``.
        headings: By name of a measure the heading that it stands under.

    Returns:
        Rows by heading, variants of a measure together, in order of first appearance; those
        without a heading last, under "Other", or under "" where none has one.
    """
    found: dict[str, dict[str, list[OrbitRow]]] = {}
    for orbit in check["orbits"]:
        name = base_name(orbit["measure"])
        under = found.setdefault((headings or {}).get(name) or "", {})
        under.setdefault(name, []).append(_row(orbit))
    unnamed = found.pop("", {})
    if unnamed:
        heading = _OTHER if found else ""
        found[heading] = found.pop(heading, {}) | unnamed
    return {
        heading: [row for rows in under.values() for row in rows]
        for heading, under in found.items()
    }


def _row(orbit: Mapping[str, Any]) -> OrbitRow:
    moves = {
        kind: [
            _move(orbit["base"]["value"], point["value"], logarithmic=orbit["logarithmic"])
            for point in points
        ]
        for kind, points in orbit["points"].items()
    }
    moved_by = list(orbit["moved_by"])
    sizes = {kind: _size(orbit["factors"][kind]) for kind in moves}
    factors = {
        kind: _told(orbit["factors"][kind], own, moved=kind in moved_by)
        for kind, own in moves.items()
    }
    return OrbitRow(
        measure=orbit["measure"],
        verdict=orbit["verdict"],
        ratios={kind: [ratio for ratio, _ in own] for kind, own in moves.items()},
        factors=factors,
        moved_by=moved_by,
        broken=list(orbit["broken"]),
        worst=factors[max(moved_by, key=sizes.__getitem__)] if moved_by else "",
    )


def _size(factor: float | None) -> float:
    return math.inf if factor is None else factor


def _move(here: float | None, there: float | None, *, logarithmic: bool) -> tuple[float, str]:
    """The ratio of two values, and where it is no finite factor the reason."""
    if here is None or there is None:
        return _missing(here, there)
    if logarithmic:
        return math.exp(max(min(there - here, _LARGEST), -_LARGEST)), ""
    if here == there:
        return 1.0, ""
    if here == 0 or there == 0:
        return (0.0, _ZERO) if there == 0 else (math.inf, _LEAVES_ZERO)
    if (here < 0) != (there < 0):
        return math.inf, _SIGN
    return there / here, ""


def _missing(here: float | None, there: float | None) -> tuple[float, str]:
    if here is None and there is None:
        return math.nan, ""
    return math.inf, _LOST if there is None else _GAINED


def _told(factor: float | None, moves: list[tuple[float, str]], *, moved: bool) -> str:
    reasons = {reason: None for _, reason in moves if reason}
    if reasons:
        return ", ".join(reasons)
    if factor is None:
        return "—"
    text = format_factor(factor)
    if moved and text == "1":
        text = f"×{factor:.4g}"  # a small move, but more than chance
    return re.sub(r"e(\d+)", lambda found: f"·{power_of_ten(int(found[1]))}", text)


def power_of_ten(power: int) -> str:
    """Ten to a power, such as "10⁴"."""
    return f"10{str(power).translate(_SUPERSCRIPTS)}"
