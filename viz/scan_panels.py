"""Which scans share a panel, and what a panel is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from landscape.results import Result
from landscape.viz.direct_labels import label_height
from landscape.viz.measure_table import base_name, settings
from landscape.viz.scans import has_scan, is_known, parameter_of, symbol_of
from landscape.viz.wording import typeset

_GEOMETRIES = {
    "euclidean": "Euclidean",
    "elementwise": "relative to each weight",
    "filterwise": "relative to the norm of each filter",
    "geodesic": "along geodesics, attention up to GL(h)",
    "layerwise": "relative to the norm of each layer",
}
_NORMS = {"l2": "2-norm", "linf": "∞-norm"}
_NOISES = {"l2": "Gaussian noise", "linf": "Uniform noise"}
_NO_RISE = "noise-stability"  # its scan estimates a trace
_NO_PANEL = "curvature"
#: What the values of a scan are, by its ``quantity``.
QUANTITIES = {
    "rise": "rise of the loss",
    "loss": "mean loss under noise",
    "entropy": "local entropy",
    "percent": "rise of the loss, % of 1 + L",
}
_KINDS = ("ball", "step", "noise")
_TOLD = ("geometry", "norm")  # settings that the title tells


class Panel(NamedTuple):
    """What scans must have in common to share axes.

    Args:
        parameter: "rho" or "sigma".
        kind: "ball", "step" or "noise": a distance, or a scale of each parameter's noise.
        quantity: A key of QUANTITIES.
        geometry: Geometry of the distances.
        norm: Norm of the distances.
    """

    parameter: str
    kind: str
    quantity: str
    geometry: str
    norm: str


def scan_panels(results: Iterable[Result]) -> dict[Panel, list[Result]]:
    """Results whose radii can be compared, together.

    Args:
        results: Any; those without a scan of the loss are left out.

    Returns:
        The results of each panel, radii before noise scales.
    """
    panels: dict[Panel, list[Result]] = {}
    for result in results:
        if has_scan(result) and base_name(result.measure) != _NO_RISE:
            panel = _panel(result)
            if panel.quantity != _NO_PANEL:
                panels.setdefault(panel, []).append(result)
    return dict(sorted(panels.items(), key=lambda panel: _KINDS.index(panel[0].kind)))


def _panel(result: Result) -> Panel:
    scan, parameter = result.diagnostics["scan"], parameter_of(result)
    kind = scan.get("kind") or ("noise" if parameter == "sigma" else "ball")
    quantity = str(scan.get("quantity") or "rise")
    return Panel(parameter, kind if kind in _KINDS else "ball", quantity, *space_of(result))


def space_of(result: Result) -> tuple[str, str]:
    """Geometry and norm that a result's radii are measured in."""
    usual = "elementwise" if base_name(result.measure).startswith("adaptive-") else "euclidean"
    return str(result.config.get("geometry") or usual), str(result.config.get("norm") or "l2")


def missing_points(results: list[Result]) -> list[str]:
    """What to say about each radius without a value: line, radius and reason."""
    found: dict[str, None] = {}  # in order, each once
    for result in results:
        for point in result.diagnostics["scan"]["points"]:
            if not is_known(point):
                radius = (
                    f"{symbol_of(parameter_of(result))} = {typeset(format(point['at'], '.3g'))}"
                )
                reason = point.get("message") or point.get("status") or "no value"
                found[f"{line_label(result)} at {radius}: {reason}"] = None
    return list(found)


def panel_height(results: list[Result]) -> float:
    """Height of a panel in inches, with room for a label of each line."""
    names = {line_label(result) for result in results}
    return max(2.8, 0.8 + sum(map(label_height, names)) / 72)


def panel_title(panel: Panel) -> str:
    """The geometry of a panel in words."""
    words = _GEOMETRIES.get(panel.geometry, panel.geometry)
    if panel.kind == "noise":
        noise = _NOISES.get(panel.norm, f"{panel.norm} noise")
        even = panel.geometry == "euclidean"
        return f"{noise}, every weight alike" if even else f"{noise} {words}"
    ball = f"{words[0].upper()}{words[1:]}, {_NORMS.get(panel.norm, panel.norm)} ball"
    return f"One step. {ball}" if panel.kind == "step" else ball


def line_label(result: Result) -> str:
    """Name of a line: the measure's, with the settings that the panel does not tell."""
    told = {*_TOLD, parameter_of(result)}
    kept = [part for part in settings(result.measure) if part.split("=")[0] not in told]
    return ", ".join([base_name(result.measure), *kept])
