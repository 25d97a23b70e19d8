"""Columns of a table that one result gives beside its value: radii of a scan, layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from landscape.results import Result


@dataclass(frozen=True)
class Derived:
    """A further column.

    Args:
        column: Its name.
        value: Of this checkpoint.
        facts: Where it comes from: the measure's label, and the radius or which layer.
    """

    column: str
    value: float
    facts: dict[str, Any]


def derived_of(result: Result) -> list[Derived]:
    """The further columns of a result.

    Args:
        result: With ``scan`` or ``layers`` in its diagnostics, or neither.

    Returns:
        ``LABEL@radius`` for the radii of a scan, the value's own among them, and
        ``LABEL:first-layer``, ``LABEL:last-layer`` and ``LABEL:mean-of-layers``. A mean over
        layers one of which has no value is NaN.
    """
    label = result.measure
    scan, layers = result.diagnostics.get("scan"), result.diagnostics.get("layers")
    found = []
    if isinstance(scan, dict):
        for point in scan.get("points", ()):
            facts = {"measure": label, "radius": point["at"]}
            found.append(Derived(f"{label}@{point['at']:g}", _number(point["value"]), facts))
    if isinstance(layers, dict) and layers:
        values = [
            _number(entry.get("value") if isinstance(entry, dict) else entry)
            for entry in layers.values()
        ]
        by_layer = {
            "first-layer": values[0],
            "last-layer": values[-1],
            "mean-of-layers": math.fsum(values) / len(values),
        }
        for layer, value in by_layer.items():
            facts = {"measure": label, "layer": layer}
            found.append(Derived(f"{label}:{layer}", value, facts))
    return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
