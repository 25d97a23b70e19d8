"""The two slices of a report, and slices as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.probing import Probe
from landscape.results.result import finite
from landscape.slices.directions import eigenvectors, orthogonalised, random
from landscape.slices.evaluation import evaluate_slice

if TYPE_CHECKING:
    import xarray as xr

# The plane of a report: enough for a picture of a few centimetres.
_POINTS, _TOLERANCE = 33, 0.01


def overview(probe: Probe, seed: int = 0) -> dict[str, Any]:
    """A line along the top eigenvector and a plane of two filter-normalised random directions.

    The line reaches as far as the parabola of its curvature rises by 1, 1/2 of a unit at least.

    Args:
        probe: At the checkpoint.
        seed: Of the directions; the eigenvector comes from the shared spectrum of this seed.

    Returns:
        "line" and "plane", each as ``to_record`` gives it.
    """
    top = eigenvectors(probe, 1, seed=seed)[0]
    reach = max((2 / max(abs(top.info["curvature"]), 1e-12)) ** 0.5, 0.5)
    line = evaluate_slice(probe, top, span=(-reach, reach), points=51)
    axes = orthogonalised([random(probe, seed), random(probe, seed + 1)])
    plane = evaluate_slice(probe, axes, points=_POINTS, tolerance=_TOLERANCE, scale="log")
    return {"line": to_record(line), "plane": to_record(plane)}


def to_record(dataset: xr.Dataset) -> dict[str, Any]:
    """A slice as JSON; NaN and infinities become None and text."""
    record: dict[str, Any] = dataset.to_dict()
    for part in (record["data_vars"], record["coords"]):
        for entry in part.values():
            entry["data"] = _told(np.asarray(entry["data"]))
            entry["attrs"] = finite(entry["attrs"])
    record["attrs"] = finite(record["attrs"])
    return record


def from_record(record: dict[str, Any]) -> xr.Dataset:
    """Inverse of ``to_record``."""
    import xarray as xr  # noqa: PLC0415 - a second that a bare import need not pay

    def parsed(part: dict[str, Any]) -> dict[str, Any]:
        return {name: {**entry, "data": _parsed(entry["data"])} for name, entry in part.items()}

    return xr.Dataset.from_dict(
        {**record, "data_vars": parsed(record["data_vars"]), "coords": parsed(record["coords"])}
    )


def _told(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        if values.dtype.kind != "f":
            return values.tolist()
        return [_told(entry) for entry in values]
    if np.isnan(values):
        return None
    return float(values) if np.isfinite(values) else str(float(values))


def _parsed(values: Any) -> Any:
    found = np.asarray(values, dtype=object)
    kinds = {type(entry) for entry in found.ravel()}
    if kinds <= {bool}:
        return found.astype(bool)
    if str in kinds and not all(_is_infinite(e) for e in found.ravel() if isinstance(e, str)):
        return found.astype(str)
    return np.vectorize(lambda entry: np.nan if entry is None else float(entry), otypes=[float])(
        found
    )


def _is_infinite(text: str) -> bool:
    return text in {"inf", "-inf"}
