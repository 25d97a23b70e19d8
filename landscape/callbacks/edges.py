"""The top eigenvalue along a training, beside the edges of stability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from landscape.measures import Measure, get
from landscape.training import Recipe, sam_edge

if TYPE_CHECKING:
    import pandas as pd

_SHARPEST, _GRADIENT = "hessian-top-eigenvalue", "gradient-norm"


def edge_measures() -> list[Measure]:
    """What a monitor has to measure for ``edge_table``: λ_max by few products, and ‖∇L‖."""
    # The largest eigenvalue alone: the probes serve the rest of the spectrum.
    return [get(_SHARPEST, steps=24, probes=2, probe_steps=2), get(_GRADIENT)]


def edge_table(frame: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The top eigenvalue beside the edges of stability, a row a measured step.

    Args:
        frame: Of a `Monitor` with `edge_measures`.
        recipe: Of the training.

    Returns:
        Columns step, epoch, value, low, high, edge (of the base optimiser) and sam_edge; NaN for
        AdamW, whose edge is that of another matrix, and sam_edge NaN for methods other than SAM.
    """
    by_measure = {name: rows.set_index("step") for name, rows in frame.groupby("measure")}
    columns = ["epoch", "value", "low", "high", "edge"]
    table: pd.DataFrame = by_measure[_SHARPEST][columns].copy()
    norms = by_measure[_GRADIENT]["value"].reindex(table.index)
    table["sam_edge"] = [
        _sam_edge(edge, norm, recipe) for edge, norm in zip(table["edge"], norms, strict=True)
    ]
    return table.reset_index()


def _sam_edge(edge: float, norm: float, recipe: Recipe) -> float:
    if recipe.method not in {"sam", "wasam"} or not (math.isfinite(edge) and math.isfinite(norm)):
        return math.nan
    rho: Any = recipe.settings.get("rho", 0.05)
    return sam_edge(edge, rho, norm)
