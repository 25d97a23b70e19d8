"""The section of a report on a symmetry check: is it the function, or the parametrisation?"""

from __future__ import annotations

from functools import partial
from typing import Any

from landscape.viz.figures import WIDE, data_uri
from landscape.viz.measure_table import base_name, settings
from landscape.viz.orbit_ranges import (
    DEPENDS,
    KINDS,
    LOSS,
    MOVES,
    UNCHANGED,
    OrbitRow,
    headings_of,
    kinds_of,
    orbit_rows,
)
from landscape.viz.orbits import orbits_height, plot_orbits
from landscape.viz.sections import our_side
from landscape.viz.wording import typeset

_PLACES = 6  # that are named, of many
_WORDS = {DEPENDS: ("depends", "bad"), MOVES: ("moves", "unsure"), UNCHANGED: ("unchanged", "ok")}


def symmetry(report: dict[str, Any]) -> dict[str, Any] | None:
    """The section on the function and its parametrisation.

    Args:
        report: With ``extras["symmetry_check"]``.

    Returns:
        ``changes`` (what was done), ``kinds`` and ``groups`` (the table), ``counts`` of verdicts,
        ``broken`` (declared invariances that do not hold), ``settings`` and ``warnings`` of the
        check; None where none was made.
    """
    check = report["extras"].get("symmetry_check")
    if not check or not check["orbits"]:
        return None
    kinds = kinds_of(check)
    columns = [*kinds, LOSS] if LOSS in check["found"] else kinds
    orbits = {orbit["measure"]: orbit for orbit in check["orbits"]}
    rows = orbit_rows(check, headings_of(report))
    verdicts = [row.verdict for group in rows.values() for row in group]
    return {
        "changes": [_change(check, kind) for kind in kinds],
        "kinds": columns,
        "groups": [
            {
                "heading": heading,
                "rows": [_orbit(orbits[row.measure], row, columns) for row in group],
            }
            for heading, group in rows.items()
        ],
        "counts": {word: verdicts.count(verdict) for verdict, (word, _) in _WORDS.items()},
        "broken": [
            (row.measure, row.broken) for group in rows.values() for row in group if row.broken
        ],
        "settings": check["settings"],
        "warnings": check["warnings"],
    }


def _change(check: dict[str, Any], kind: str) -> dict[str, Any]:
    places = check["found"][kind]
    change = check["changes"].get(kind)
    return {
        "kind": kind,
        "what": KINDS.get(kind, kind),
        "places": places[:_PLACES],
        "more": max(len(places) - _PLACES, 0),
        "outputs": "—" if change is None else typeset(f"{change:.1e}") if change else "0",
    }


def _orbit(orbit: dict[str, Any], row: OrbitRow, kinds: list[str]) -> dict[str, Any]:
    base = orbit["base"]
    word, mark = _WORDS.get(row.verdict, (row.verdict, "none"))
    return {
        "name": base_name(row.measure),
        "settings": ", ".join(settings(row.measure)),
        "value": our_side(base["value"], base["low"], base["high"]),
        "ends": ["—" if end is None else typeset(f"{end:.4g}") for end in orbit["range"]],
        "factors": [
            {
                "text": row.factors.get(kind, "—"),
                "moved": kind in row.moved_by,
                "broken": kind in row.broken,
            }
            for kind in kinds
        ],
        "verdict": row.verdict,
        "word": word,
        "mark": mark,
    }


def orbits_figure(report: dict[str, Any]) -> str | None:
    """The picture of a report's symmetry check.

    Args:
        report: With ``extras["symmetry_check"]``.

    Returns:
        A data URI; None where no check was made, or no change was found that keeps the function.
    """
    check = report["extras"].get("symmetry_check")
    if not check or not check["orbits"] or not kinds_of(check):
        return None
    headings = headings_of(report)
    draw = partial(plot_orbits, check, headings=headings)
    return data_uri(WIDE, orbits_height(check, headings), draw)
