"""What the columns of a correlation are called in pictures, and in which order they stand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from landscape.viz.wording import typeset

if TYPE_CHECKING:
    import pandas as pd

    from landscape.correlation import Correlations

#: What ends the columns of a sweep that hold a layer's value.
LAYERS = (":first-layer", ":last-layer", ":mean-of-layers")
_DERIVED = re.compile(r"(.+)(@[-+.\deE]+|:first-layer|:last-layer|:mean-of-layers)")
_TARGETS = {
    "gap_accuracy": "gap in accuracy, train − test",
    "gap_loss": "gap in loss, test − train",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
    "train_loss": "train loss",
}
_LONGEST = 60


def axis_name(axis: str) -> str:
    """A hyper-parameter as readers know it: without the prefix of its column."""
    return axis.removeprefix("hp.")


def target_name(target: str) -> str:
    """The target in words where its column is a known one."""
    return _TARGETS.get(target, target)


def short(label: str, most: int = _LONGEST) -> str:
    """A long name without its middle, on one line and never hidden from a legend."""
    label = " ".join(label.split())
    label = f" {label}" if label.startswith("_") else label  # matplotlib skips such labels
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"


def lines(label: str, width: int) -> str:
    """A name on as many lines as it needs, its settings on lines of their own."""
    parts = re.split(r"(?=\[)|(?<=,)|(?<=_)|(?<=-)", " ".join(label.split()))
    rows = [""]
    for part in parts:
        settings = part.startswith("[")
        if rows[-1] and (settings or len(rows[-1]) + len(part) > width):
            rows.append("")
        rows[-1] += part
    return "\n".join(short(row, width + 4) for row in rows if row)


def two_digits(number: float) -> str:
    """A correlation as it is printed; a dash where there is none."""
    return "—" if math.isnan(number) else typeset(f"{round(number, 2) + 0.0:.2f}")


def interval_of(low: float, high: float) -> str:
    """An interval of a correlation; empty where there is none."""
    known = not (math.isnan(low) or math.isnan(high))
    return f"[{two_digits(low)}, {two_digits(high)}]" if known else ""


def is_derived(label: str, columns: Iterable[str]) -> bool:
    """Whether a column is a radius of a scan or a layer of another column."""
    found = _DERIVED.fullmatch(label)
    return found is not None and found[1] in set(columns)


def measures_of(correlations: Correlations) -> list[str]:
    """The measures in the order of a ranking, without controls and derived columns.

    Args:
        correlations: The correlations.

    Returns:
        Largest τ first; those without one last.
    """
    names = _own(correlations)
    radii = _stems_of_scans(names)
    return ranked(
        correlations,
        [name for name in names if not is_derived(name, names) and _stem(name) not in radii],
    )


def derived_of(correlations: Correlations) -> list[str]:
    """Radii of scans and layers, in the order of the table."""
    names, main = _own(correlations), set(measures_of(correlations))
    return [name for name in names if name not in main]


def controls_of(correlations: Correlations) -> list[str]:
    """The controls, in the order of the table."""
    table = correlations.table
    return [str(name) for name in table.index[table["control"].astype(bool)]]


def row_of(correlations: Correlations, name: str) -> pd.Series[Any]:
    """The row of a measure."""
    return correlations.table.loc[[name]].iloc[0]


def ranked(correlations: Correlations, names: Sequence[str]) -> list[str]:
    """Names by τ, the largest first; those without one last, in the order given."""
    tau = correlations.table["tau"].astype(float)
    known = [name for name in names if tau[name] == tau[name]]
    missing = [name for name in names if tau[name] != tau[name]]
    return [*sorted(known, key=lambda name: -tau[name]), *missing]


def _own(correlations: Correlations) -> list[str]:
    table = correlations.table
    return [str(name) for name in table.index[~table["control"].astype(bool)]]


def _stem(name: str) -> str | None:
    found = _DERIVED.fullmatch(name)
    return found[1] if found else None


def _stems_of_scans(names: Sequence[str]) -> set[str | None]:
    """Stems of several derived columns, whether or not the stem is a column itself."""
    stems = [_stem(name) for name in names]
    return {stem for stem in stems if stem is not None and stems.count(stem) > 1}
