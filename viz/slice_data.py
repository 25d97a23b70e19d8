"""What pictures read of an evaluated slice: arrays in the order of the axes, names, notes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xarray import Dataset

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]

DIMS = ("alpha", "beta")
_SAME = 0.01  # lengths of directions that differ by less share a unit
_SHEARED = 0.05  # a cosine above it makes a picture with right angles misleading


def dims_of(dataset: Dataset) -> tuple[str, ...]:
    """The axes of a slice, in the order in which they are drawn."""
    found = tuple(dim for dim in DIMS if dim in dataset.sizes)
    if not found or found[0] != "alpha":
        raise ValueError(
            "this dataset has no dimension 'alpha', so it is no slice; give one that "
            "evaluate_slice made"
        )
    for dim in found:
        if dataset.sizes[dim] < 2:
            raise ValueError(f"{dim!r} has one point only; a picture needs at least two")
    return found


def needs_dims(dataset: Dataset, number: int, other: str) -> None:
    """Refuses a slice with another number of directions."""
    found = len(dims_of(dataset))
    if found != number:
        has = "one direction" if found == 1 else "two directions"
        raise ValueError(f"this slice has {has}, not {number}; draw it with {other}")


def main_variable(dataset: Dataset) -> str:
    """The variable that is drawn when none is named: the train loss where there is one."""
    drawable = [str(name) for name in dataset.data_vars if _drawable(dataset, str(name))]
    for name in ("train_loss", "test_loss", *drawable):
        if name in drawable:
            return name
    raise ValueError("this slice holds no values; give one that evaluate_slice made")


def _drawable(dataset: Dataset, name: str) -> bool:
    same = set(dataset[name].dims) == set(dims_of(dataset))
    return same and name != "evaluated" and not name.endswith("_stderr")


def coordinates(dataset: Dataset, dim: str) -> Values:
    """The places of the points along an axis."""
    return np.array(dataset[dim].values, dtype=np.float64)


def values_of(dataset: Dataset, variable: str) -> Values:
    """The values of a variable, alpha first, in a copy."""
    if variable not in dataset.data_vars or not _drawable(dataset, variable):
        names = ", ".join(
            repr(str(name)) for name in dataset.data_vars if _drawable(dataset, str(name))
        )
        raise ValueError(f"this slice holds no values {variable!r}; it holds {names}")
    return np.array(dataset[variable].transpose(*dims_of(dataset)).values, dtype=np.float64)


def half_width(dataset: Dataset, variable: str) -> Values | None:
    """Half of the 95 % interval of a variable, 1.96 standard errors."""
    name = f"{variable}_stderr"
    if name not in dataset.data_vars:
        return None
    return 1.96 * np.array(dataset[name].transpose(*dims_of(dataset)).values, dtype=np.float64)


def evaluated_of(dataset: Dataset) -> Flags:
    """Where values were evaluated; elsewhere they are interpolated, or not there yet."""
    dims = dims_of(dataset)
    if "evaluated" not in dataset.data_vars:
        return np.ones([dataset.sizes[dim] for dim in dims], dtype=np.bool_)
    return np.array(dataset["evaluated"].transpose(*dims).values, dtype=np.bool_)


def value_text(dataset: Dataset, variable: str) -> str:
    """The name of a variable beside its axis."""
    attrs = dataset[variable].attrs
    return str(attrs.get("label") or attrs.get("long_name") or variable.replace("_", " "))


def axis_text(dataset: Dataset, dim: str) -> str:
    """The name of a direction, the share of the variance it explains, and its unit."""
    attrs, place = dataset[dim].attrs, DIMS.index(dim)
    text = str(attrs.get("label") or f"direction {place + 1}")
    shares = read_json(dataset, "explained_variance")
    if isinstance(shares, list) and len(shares) > place and "%" not in text:
        text += f", {percent(float(shares[place]))} of the variance"
    if not attrs.get("units"):
        return text
    # No line breaks within a unit.
    unit = str(attrs["units"]).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{text} ({unit})"


def same_unit(dataset: Dataset) -> bool:
    """Whether one step is equally long along both axes, as far as the dataset says."""
    units = [str(dataset[dim].attrs.get("units", "")) for dim in DIMS]
    lengths = direction_lengths(dataset)
    alike = lengths is None or abs(lengths[0] - lengths[1]) <= _SAME * max(lengths)
    return units[0] == units[1] and (units[0] != "" or alike)


def direction_lengths(dataset: Dataset) -> list[float] | None:
    """Euclidean lengths of the directions, where all are recorded."""
    directions = read_json(dataset, "directions")
    if not isinstance(directions, list):
        return None
    lengths = [_number(entry.get("norm")) for entry in directions if isinstance(entry, dict)]
    known = [length for length in lengths if math.isfinite(length)]
    return known if len(known) == len(dims_of(dataset)) else None


def read_json(dataset: Dataset, name: str) -> Any:
    """An attribute that holds JSON; None where it is missing."""
    text = dataset.attrs.get(name)
    return json.loads(text) if isinstance(text, str) and text else None


def percent(share: float) -> str:
    """A share with two digits, as a person writes it."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def notes(datasets: Iterable[tuple[Dataset, Iterable[str]]]) -> list[str]:
    """What a reader has to know of slices: the interpolated share, its error, skewed directions.

    Args:
        datasets: Each with the variables that are drawn.

    Returns:
        Sentences without a full stop; where slices differ, with the range over them.
    """
    shares: list[float] = []
    errors: list[tuple[float, float]] = []  # as a share, and in units of the variable
    cosines: list[float] = []
    for dataset, variables in datasets:
        flags = evaluated_of(dataset)
        known = [np.isfinite(values_of(dataset, name)).any(where=~flags) for name in variables]
        if any(known):
            shares.append(float(flags.mean()))
            found = read_json(dataset, "error_estimate")
            measured = [_number((found or {}).get(name)) for name in variables]
            logarithmic = dataset.attrs.get("error_scale") == "log"
            errors += [
                (error, math.nan if logarithmic else error * _range(dataset, name))
                for name, error in zip(variables, measured, strict=True)
                if math.isfinite(error)
            ]
        cosine = _number(dataset.attrs.get("cosine"))
        if len(dims_of(dataset)) == 2 and abs(cosine) > _SHEARED:
            cosines.append(cosine)
    sentences = []
    if shares:
        low, high = percent(min(shares)), percent(max(shares))
        share = low if low == high else f"{low.removesuffix(' %')} to {high}"
        error = ""
        if errors:
            share_, amount = max(errors)
            of = "range" if math.isfinite(amount) else "range of its logarithm"
            absolute = f", {amount:.1g}" if math.isfinite(amount) and amount > 0 else ""
            error = f"; measured error {percent(share_)} of the {of}{absolute}"
        sentences.append(f"{share} of the points evaluated, the rest interpolated{error}")
    if cosines:
        # At a right angle on paper, not in the space of the weights.
        steepest = max(cosines, key=abs)
        sentences.append(f"directions not orthogonal: cosine {steepest:.2g}".replace("-", "−"))
    return sentences


def _range(dataset: Dataset, name: str) -> float:
    values = np.asarray(dataset[name].values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.ptp(values)) if values.size else 0.0


def _number(value: Any) -> float:
    """A float, NaN for anything else."""
    return float(value) if isinstance(value, int | float | np.number) else math.nan
