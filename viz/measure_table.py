"""The table of measures: rows of one measure together, measures of one group together."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

_PASSES = ("forwards", "gradients", "products")
_BLANK = dict.fromkeys(("meaning", "formula", "source", "invariances"), "")
_UNNAMED = "Other"
_RANK = ("ok", "uncertain", "not converged", "undefined", "declined", "failed")


def base_name(label: str) -> str:
    """Name of a measure without its settings: "renyi-sharpness[alpha=2]" is "renyi-sharpness"."""
    return label.split("[", 1)[0]


def groups(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The measures of a report under their headings.

    Args:
        report: ``Table.to_dict()``; ``extras["descriptions"][name]["group"]`` is the heading of a
            measure.

    Returns:
        For each group ``heading`` and ``measures``, in order of first appearance, those without a
        heading last under "Other". One group with an empty heading where no measure has one.
    """
    descriptions = report["extras"].get("descriptions", {})
    marks = {keys: mark for mark, keys, _ in _marks(report)}
    places = {name: place for place, name in enumerate(_by_measure(report), 1)}
    found = []
    for heading, measures in _arranged(report).items():
        entries = []
        for name, records in measures.items():
            rows = [
                {
                    **record,
                    "settings": settings(record["measure"]),
                    "passes": sum(record["cost"][kind] for kind in _PASSES),
                    "mark": marks.get(tuple(record["evidence"]), ""),
                }
                for record in records
            ]
            parts = sum(1 + bool(row["settings"]) + bool(row["message"]) for row in rows)
            entries.append(
                {
                    "name": name,
                    "anchor": f"measure-{places[name]}",
                    "height": parts,
                    "about": _BLANK | descriptions.get(name, {}),
                    "rows": rows,
                    "status": _worst(records),
                }
            )
        found.append({"heading": heading, "measures": entries})
    return found


def _worst(records: list[dict[str, Any]]) -> str:
    """The status of the least trusted row."""
    found = [str(record["status"]) for record in records]
    return max(found, key=_RANK.index)


def _by_measure(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for record in report["results"]:
        by_name.setdefault(base_name(record["measure"]), []).append(record)
    return by_name


def _arranged(report: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records by heading and name."""
    descriptions = report["extras"].get("descriptions", {})
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, records in _by_measure(report).items():
        heading = descriptions.get(name, {}).get("group") or ""
        found.setdefault(heading, {})[name] = records
    unnamed = found.pop("", {})
    if unnamed:
        heading = _UNNAMED if found else ""
        found[heading] = found.pop(heading, {}) | unnamed
    return found


def settings(label: str) -> list[str]:
    """What stands in a label's brackets: "a[b=1,c=2]" has "b=1" and "c=2"."""
    inside = label[len(base_name(label)) :].removeprefix("[").removesuffix("]")
    return [part for part in re.split(r",\s*(?=\w+=)", inside) if part]


def _marks(report: dict[str, Any]) -> list[tuple[str, tuple[str, ...], int]]:
    """A footnote mark for each set of evidence that several results rest on, and how many do."""
    uses: dict[tuple[str, ...], int] = {}
    for measures in _arranged(report).values():
        for record in chain.from_iterable(measures.values()):
            keys = tuple(record["evidence"])
            if keys:
                uses[keys] = uses.get(keys, 0) + 1
    several = [(keys, number) for keys, number in uses.items() if number > 1]
    return [
        (chr(ord("a") + place) if place < 26 else str(place + 1), keys, number)
        for place, (keys, number) in enumerate(several)
    ]


def shared(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Footnotes: what each mark of the table stands for."""
    costs = {key: cost for record in report["results"] for key, cost in record["evidence"].items()}
    return [
        {
            "mark": mark,
            "uses": number,
            "passes": sum(costs[key][kind] for key in keys for kind in _PASSES),
            "seconds": sum(costs[key]["seconds"] for key in keys),
            "keys": keys,
        }
        for mark, keys, number in _marks(report)
    ]
