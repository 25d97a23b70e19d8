"""Values of hyper-parameters as numbers, independent of the order of the rows."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscape.correlation.rounding import joined

Codes = NDArray[np.int64]


def level_codes(column: pd.Series[Any]) -> tuple[Codes, list[str]]:
    """Number of every value, by size for numbers and by text otherwise, missing ones last.

    Floats that differ by rounding alone, such as 0.3 and 0.1 + 0.2, are one value.

    Args:
        column: One value a run.

    Returns:
        Numbers, and the values as text by number.

    Raises:
        ValueError: Where values are no scalars.
    """
    values: Any = column
    if pd.api.types.is_float_dtype(column):
        values = joined(column.to_numpy(dtype=np.float64, na_value=np.nan))
    try:
        codes, unique = pd.factorize(values, use_na_sentinel=False)
    except TypeError:
        raise ValueError(f"column {column.name!r} holds values that are no scalars") from None
    levels = list(unique)
    order = sorted(range(len(levels)), key=lambda index: _key(levels[index]))
    place = np.empty(len(levels), dtype=np.int64)
    place[order] = np.arange(len(levels))
    return place[codes], [_text(levels[index]) for index in order]


def configurations(
    part: pd.DataFrame, axes: list[str]
) -> tuple[dict[str, Codes], dict[str, list[str]], Codes]:
    """Levels by configuration, their texts, and the configuration of every row.

    Args:
        part: One row a run.
        axes: The hyper-parameters; without any, every row is its own configuration.

    Returns:
        As said; configurations are numbered in the order of their levels.
    """
    if not axes:
        return {}, {}, np.arange(len(part))
    codes, labels = [], {}
    for name in axes:
        code, labels[name] = level_codes(part[name])
        codes.append(code)
    unique, configuration = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    levels = {name: unique[:, index].astype(np.int64) for index, name in enumerate(axes)}
    return levels, labels, configuration.reshape(-1)


def _key(value: Any) -> tuple[int, float, str]:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return 2, 0.0, str(value)
    if isinstance(value, numbers.Real | np.bool_):
        return 0, float(value), str(value)
    return 1, 0.0, str(value)


def _text(value: Any) -> str:
    """Floats to 12 digits: which of several equal ones is kept must not show."""
    return str(float(f"{value:.12g}")) if isinstance(value, float) else str(value)
