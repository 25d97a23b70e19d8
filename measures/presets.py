"""Presets of measures, ordered by cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscape.measures.base import Measure
from landscape.measures.registry import available, expand

_STANDARD = (
    "train-loss",
    "gradient-norm",
    "parameter-norm",
    "hessian-top-eigenvalue",
    "hessian-bottom-eigenvalue",
    "hessian-trace",
    "hessian-frobenius",
    "hessian-spectral-density",
    "effective-dimension",
    "renyi-sharpness",
)

#: Names and budget of each preset; in Hessian products: 90, 300, and 820 for the network and as
#: many (cheaper ones) for every layer's block.
PRESETS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "quick": (_STANDARD, {"steps": 30, "probes": 5, "probe_steps": 12}),
    "standard": (_STANDARD, {}),
    "full": (_STANDARD, {"steps": 100, "probes": 12, "probe_steps": 60, "layers": True}),
}


def resolve(measures: str | Sequence[str | Measure]) -> list[Measure]:
    """The measures of a preset, a name, or a list of names and Measures.

    Args:
        measures: "quick", "standard", "full", one measure's name, or a list.

    Returns:
        Configured measures.

    Raises:
        ValueError: If nothing is asked for or a name is unknown.
    """
    if isinstance(measures, str):
        if measures in PRESETS:
            names, budget = PRESETS[measures]
            return expand(names, **budget)
        if measures not in available():
            measures = [part.strip() for part in measures.split(",") if part.strip()]
        else:
            measures = [measures]
    found = expand(measures)
    if not found:
        raise ValueError(
            f"no measure asked for; give a preset ({', '.join(PRESETS)}) or names from "
            "landscape.measures.available()"
        )
    return found
