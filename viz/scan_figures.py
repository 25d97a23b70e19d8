"""The pictures of the section "Around the checkpoint" of a report."""

from __future__ import annotations

from functools import partial
from typing import Any

from landscape.results import Result
from landscape.viz.figures import NARROW, WIDE, data_uri
from landscape.viz.measure_table import base_name
from landscape.viz.noise_scan import plot_noise_scan
from landscape.viz.radius_scan import plot_radius_scan
from landscape.viz.scan_panels import (
    missing_points,
    panel_height,
    panel_title,
    scan_panels,
    space_of,
)
from landscape.viz.scans import has_scan

_FRAME = (0.62, 1.62, 0.45, 0.26)  # of a panel, with a column for the names of its lines
_ISOTROPIC = ("euclidean", "l2")  # noise that estimates the trace; any other weighs it
_WORST_CASE = ("max-sharpness", "min-sharpness", "bilateral-sharpness", "adaptive-sharpness")
_TRACE = "hessian-trace"


def scan_figures(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Panels of the loss around the checkpoint, one for radii that can be compared.

    Args:
        records: ``report["results"]``.

    Returns:
        ``panels``, each with ``uri``, ``title`` and the points that are ``missing``, and whether
        any value is a ``worst`` case; None where nothing was scanned.
    """
    results = [Result.from_dict(record) for record in records if _scanned(record)]
    panels = scan_panels(results)
    if not panels:
        return None
    found = [result for panel in panels.values() for result in panel]
    return {
        "panels": [
            {
                "uri": data_uri(
                    NARROW, panel_height(panel), partial(plot_radius_scan, panel), _FRAME
                ),
                "title": panel_title(key),
                "missing": missing_points(panel),
            }
            for key, panel in panels.items()
        ],
        "worst": any(base_name(result.measure) in _WORST_CASE for result in found),
    }


def noise_figure(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Estimates of the trace by noise, beside the trace where it was measured.

    Args:
        records: ``report["results"]``.

    Returns:
        ``uri``, ``regime`` (a sentence), whether the trace is ``compared``, and the points that
        are ``missing``; None where noise stability was not measured.
    """
    for record in records:
        if base_name(record["measure"]) == "noise-stability" and _scanned(record):
            result = Result.from_dict(record)
            trace = _trace(records) if space_of(result) == _ISOTROPIC else None
            return {
                "uri": data_uri(WIDE, 3.2, partial(plot_noise_scan, result, trace)),
                "regime": record["diagnostics"].get("regime", ""),
                "compared": trace is not None,
                "missing": missing_points([result]),
            }
    return None


def _scanned(record: dict[str, Any]) -> bool:
    return has_scan(Result.from_dict(record))


def _trace(records: list[dict[str, Any]]) -> Result | None:
    for record in records:
        plain = record["config"].get("operator", "hessian") == "hessian"
        if base_name(record["measure"]) == _TRACE and plain and record["value"] is not None:
            return Result.from_dict(record)
    return None
