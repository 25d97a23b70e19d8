"""What a correlation report says in words and numbers: plain values for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from landscape.viz.correlation_coverage import STATUSES, Counts, gaps
from landscape.viz.correlation_forest import partials_of
from landscape.viz.correlation_names import (
    axis_name,
    controls_of,
    interval_of,
    measures_of,
    ranked,
    row_of,
    two_digits,
)
from landscape.viz.measure_table import base_name
from landscape.viz.wording import count, typeset

if TYPE_CHECKING:
    import pandas as pd

    from landscape.correlation import Correlations

_FEW = 10  # compared measures, of which all pairs stand on the page
_TOP = 6  # measures whose differences stand on the page
_BLANK = {"meaning": "", "formula": "", "source": ""}

#: The columns of the ranking in one line each.
DEFINITIONS = {
    "τ-b": "Kendall's rank correlation over configurations, values averaged over seeds: concordant "
    "minus discordant pairs, over the number of pairs, corrected for ties. Intervals come from "
    "resampling whole configurations.",
    "τ-a": "The same over all pairs, without the correction: a tie counts as 0.",
    "partial τ": "τ-b of what is left of measure and target after a regression of their normal "
    "scores on the given column: near 0 for a measure that only follows that column.",
    "Ψ": "Granulated τ: τ among models that differ in one hyper-parameter alone, averaged over the "
    "settings of the others (ψ of an axis), then over the axes.",
    "Spearman": "Pearson's correlation of the ranks.",
    "CMI": "Mutual information between the order of the measure and the order of the target in a "
    "pair of models, given at most two hyper-parameters, over the entropy of the latter; the least "
    "over those sets, whose names stand below. It has no sign.",
    "sign-error": "Share of pairs ordered the other way than the target, in each environment: two "
    "configurations that differ in one hyper-parameter, over their seeds. 0.5 is chance.",
    "p": "Two-sided p-value of τ under permutations of the target.",
    "Holm, BH": "The p-value adjusted for all rows that were correlated, radii and layers too: for "
    "any false discovery (Holm), or for their share (Benjamini and Hochberg).",
    "oracle": "The target with Gaussian noise: about the most that can be expected.",
    "random": "Gaussian noise: what chance gives.",
    "parameter count": "Number of trainable parameters, that knows nothing of the weights.",
}


def facts(correlations: Correlations, source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Population and settings, in a line."""
    table, settings = correlations.table, correlations.settings
    axes = ", ".join(map(axis_name, correlations.hyperparameters))
    found = {
        "Models": count(len(correlations.frame)),
        "Configurations": count(_most(table["configurations"])),
        "Columns correlated": count(int((~table["control"].astype(bool)).sum())),
        "Hyper-parameters": axes or "none given",
        "Test examples": count(source["test_examples"]) if source.get("test_examples") else None,
        "Bootstraps": count(settings["bootstraps"]) if "bootstraps" in settings else None,
        "Permutations": count(settings["permutations"]) if "permutations" in settings else None,
        "Seed": settings.get("seed"),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def _most(column: pd.Series) -> int:
    known = column.dropna()
    return int(known.max()) if len(known) else 0


def columns(correlations: Correlations) -> list[str]:
    """Headings of the ranking after the measure's."""
    partials = [f"partial τ given {name}" for name in partials_of(correlations.table)]
    errors = ["sign-error, mean", "90 %", "worst"]
    tests = ["p", "p, Holm", "p, BH", "models"]
    return ["τ-b", *partials, "mean Ψ", "Spearman", "τ-a", "CMI", *errors, *tests]


def rows(correlations: Correlations, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the ranking.

    Args:
        correlations: The correlations.
        names: Which measures, in order.

    Returns:
        For each ``name``, ``note`` and ``cells``, each with ``text``, what stands ``below`` it,
        and the ``key`` to sort by.
    """
    partials = partials_of(correlations.table)
    return [_row(name, row_of(correlations, name), partials) for name in names]


def controls(correlations: Correlations) -> list[dict[str, Any]]:
    """Rows of the controls."""
    return rows(correlations, ranked(correlations, controls_of(correlations)))


def _row(name: str, row: pd.Series, partials: list[str]) -> dict[str, Any]:
    def estimate(value: str, low: str, high: str) -> dict[str, Any]:
        return _cell(row[value], interval_of(row[low], row[high]))

    note = row.get("note")
    cells = [
        estimate("tau", "tau_low", "tau_high"),
        *(estimate(f"partial[{z}]", f"partial_low[{z}]", f"partial_high[{z}]") for z in partials),
        estimate("psi", "psi_low", "psi_high"),
        estimate("spearman", "spearman_low", "spearman_high"),
        _cell(row["tau_a"]),
        _cell(row["cmi"], _given(row["cmi_given"]) if not math.isnan(row["cmi"]) else ""),
        _cell(row["sign_error_mean"], _environments(row["environments"])),
        _cell(row["sign_error_p90"]),
        _cell(row["sign_error_max"]),
        *(_probability(row[name]) for name in ("p", "p_holm", "p_bh")),
        _models(row),
    ]
    return {"name": name, "note": note if isinstance(note, str) else "", "cells": cells}


def _cell(value: float, below: str = "") -> dict[str, Any]:
    known = not math.isnan(value)
    return {"text": two_digits(value), "below": below, "key": float(value) if known else None}


def _given(names: Any) -> str:
    text = str(names) if isinstance(names, str) else ""
    return (
        ", ".join(axis_name(name.strip()) for name in text.split(",")) if text else "nothing given"
    )


def _environments(number: float) -> str:
    return "" if math.isnan(number) or not number else f"{number:.0f} env."


def _models(row: pd.Series) -> dict[str, Any]:
    missing = f"{row['missing']:.0f} missing" if row["missing"] else ""
    return {"text": count(row["models"]), "below": missing, "key": float(row["models"])}


def _probability(value: float) -> dict[str, Any]:
    return {"text": probability(value), "below": "", "key": None if math.isnan(value) else value}


def probability(value: float) -> str:
    """A p-value to two digits, a very small one to its size."""
    if math.isnan(value):
        return "—"
    if value < 1e-12:
        return "<10⁻¹²"
    return typeset(f"{value:.0e}") if value < 0.001 else f"{value:.2g}"


def differences(correlations: Correlations) -> list[dict[str, Any]]:
    """All pairs of a few compared measures, or of those with the largest |τ|."""
    long, tau = correlations.differences, correlations.table["tau"].astype(float)
    compared = list(dict.fromkeys([*long["first"], *long["second"]]))
    top = (
        compared
        if len(compared) <= _FEW
        else (
            tau[measures_of(correlations)]
            .dropna()
            .abs()
            .sort_values(ascending=False, kind="stable")
            .index[:_TOP]
        )
    )
    pairs = long[long["first"].isin(top) & long["second"].isin(top)]
    return [
        {
            "first": row["first"],
            "second": row["second"],
            "difference": two_digits(row["difference"]),
            "interval": interval_of(row["low"], row["high"]),
            "p": probability(row["p"]),
            "holm": probability(row["p_holm"]),
        }
        for _, row in pairs.iterrows()
    ]


def coverage(counts: Counts) -> dict[str, Any]:
    """Numbers for the section on missing values: rows of measures that are not ok everywhere."""
    partial = gaps(counts)
    present = [name for name in STATUSES if any(row.get(name) for row in partial.values())]
    return {
        "complete": len(counts) - len(partial),
        "partial": len(partial),
        "statuses": present,
        "rows": [
            (name, [row.get(status, 0) for status in present]) for name, row in partial.items()
        ],
    }


def descriptions(
    names: Sequence[str], about: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, dict[str, str]]]:
    """What each measure is, once a name without its settings; those that are known."""
    bases = dict.fromkeys(base_name(name).split("@")[0].split(":")[0] for name in names)
    return [(name, _BLANK | dict(about[name])) for name in bases if name in about]
