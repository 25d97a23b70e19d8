"""The report of a correlation: ``report.json``, and a page, a table and figures made from it."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.results import environment, to_json, write_atomically
from landscape.viz import correlation_rows as told
from landscape.viz.correlation_colours import colour_column
from landscape.viz.correlation_coverage import Counts, gaps, plot_coverage
from landscape.viz.correlation_errors import plot_sign_errors
from landscape.viz.correlation_forest import plot_forest
from landscape.viz.correlation_heatmaps import clustered, plot_between, plot_granulated
from landscape.viz.correlation_names import (
    LAYERS,
    axis_name,
    controls_of,
    derived_of,
    measures_of,
    ranked,
    target_name,
)
from landscape.viz.correlation_scans import plot_scan_correlations, scans_of
from landscape.viz.correlation_scatters import drawable, plot_scatters
from landscape.viz.display import Display, svg
from landscape.viz.figures import WIDE
from landscape.viz.report import page_environment
from landscape.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from landscape.correlation import Correlations

_PANELS = 20  # scatters of one figure: a page of a paper
_SORTING = Path(__file__).parent / "templates" / "sorting.html"


def write_correlation_report(
    correlations: Correlations,
    folder: Path | str,
    *,
    source: Mapping[str, Any] | None = None,
    coverage: Counts | None = None,
    left_out: Sequence[tuple[str, str]] = (),
    descriptions: Mapping[str, Mapping[str, str]] | None = None,
    colour: str | None = None,
) -> Path:
    """Writes ``report.json``, ``report.html``, ``table.csv`` and ``figures/`` into a folder.

    Page and figures are drawn from the contents of ``report.json``. Each file is replaced
    atomically, and nothing is written before everything is drawn.

    Args:
        correlations: What ``landscape.correlate`` found.
        folder: Where to write; made if it does not exist.
        source: Where the values come from, such as what ``sweep.json`` holds; ``name`` is shown.
        coverage: By measure and status how many models there are; None counts values alone.
        left_out: (model, reason) of each model that was not used.
        descriptions: By name of a measure its ``meaning``, ``formula`` and ``source``.
        colour: Hyper-parameter that colours the scatters; None takes the one that explains most.

    Returns:
        Path of the page.

    Raises:
        ValueError: If there is no such column to colour by.
    """
    report = {
        "kind": "correlation",
        "source": dict(source or {}),
        "coverage": _counts(correlations) if coverage is None else coverage,
        "left_out": [list(entry) for entry in left_out],
        "descriptions": {key: dict(entry) for key, entry in (descriptions or {}).items()},
        "colour": colour_column(correlations, colour),
        "environment": environment(),
        "correlations": correlations.to_dict(),
    }
    figures = _figures(report)
    page = _page(report, figures)
    folder = Path(folder)
    for name, figure in figures.items():
        for kind in ("png", "pdf"):
            _write_figure(figure, folder / "figures" / f"{name}.{kind}")
    write_atomically(folder / "report.json", to_json(report))
    write_atomically(folder / "table.csv", correlations.table.to_csv())
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def render_correlation_report(report: Mapping[str, Any]) -> str:
    """The page of a report: one HTML file that loads nothing, with its pictures inside.

    Args:
        report: What ``report.json`` holds.

    Returns:
        HTML text. All names and messages in it are escaped.
    """
    return _page(report, _figures(report))


def _counts(correlations: Correlations) -> dict[str, dict[str, int]]:
    table = correlations.table[~correlations.table["control"].astype(bool)]
    found = {
        str(name): {"ok": int(row["models"]), "no value": int(row["missing"])}
        for name, row in table.iterrows()
    }
    return {
        name: {status: number for status, number in row.items() if number}
        for name, row in found.items()
    }


def _read(report: Mapping[str, Any]) -> Correlations:
    from landscape.correlation import Correlations

    return Correlations.from_dict(report["correlations"])


def _figures(report: Mapping[str, Any]) -> dict[str, Figure]:
    """All figures by the name of their file, in the order of the page."""
    with _quiet():
        return {name: _figure(display) for name, display in _displays(_read(report), report)}


def _displays(
    correlations: Correlations, report: Mapping[str, Any]
) -> Iterator[tuple[str, Display]]:
    yield "forest", plot_forest(correlations)
    layers = [name for name in derived_of(correlations) if name.endswith(LAYERS)]
    if layers:
        yield "forest-layers", plot_forest(correlations, measures=layers)
    names = drawable(correlations)
    pages = [names[start : start + _PANELS] for start in range(0, len(names), _PANELS)]
    for place, page in enumerate(pages, 1):
        label = f"scatters-{place}" if len(pages) > 1 else "scatters"
        yield label, plot_scatters(correlations, measures=page, colour=report["colour"])
    if len(correlations.granulated):
        yield "granulated", plot_granulated(correlations)
    errors = correlations.sign_errors
    shown = [*measures_of(correlations), *controls_of(correlations)]
    usable = (errors["axis"] == "all") & errors["error"].notna() & errors["measure"].isin(shown)
    if usable.any():
        yield "sign-errors", plot_sign_errors(correlations)
    scans = scans_of(correlations)
    if scans:
        yield "scans", plot_scan_correlations(correlations, scans=scans)
    if len(clustered(correlations.between, measures_of(correlations))) > 1:
        yield "between", plot_between(correlations)
    missing = gaps(report["coverage"])
    if missing:
        yield "coverage", plot_coverage(missing)


def _figure(display: Display) -> Figure:
    figure = display.ax_.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes of a drawn picture belong to no figure")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # solved once, not again for each format
    return figure


@contextmanager
def _quiet() -> Iterator[None]:
    """The house style, without a warning for each letter of a name that the font lacks."""
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph .* missing from font")
        yield


def _write_figure(figure: Figure, path: Path) -> None:
    kind = path.suffix[1:]
    with _quiet():
        stream = io.BytesIO()
        metadata = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(stream, format=kind, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(stream.getvalue())
    part.replace(path)


def _page(report: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    correlations = _read(report)
    with _quiet():
        uris = {name: _uri(figure) for name, figure in figures.items()}
    script = _SORTING.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    derived = derived_of(correlations)
    names = measures_of(correlations)
    return (
        page_environment()
        .get_template("correlation.html")
        .render(
            title=target_name(correlations.target),
            source=report["source"],
            facts=told.facts(correlations, report["source"]),
            notes=correlations.notes,
            columns=told.columns(correlations),
            ranking=told.rows(correlations, names),
            controls=told.controls(correlations),
            derived=told.rows(correlations, ranked(correlations, derived)),
            differences=told.differences(correlations),
            figures=uris,
            widths={name: _width(figure) for name, figure in figures.items()},
            scatters=[name for name in uris if name.startswith("scatters")],
            colour=axis_name(report["colour"]) if report["colour"] else None,
            coverage=told.coverage(report["coverage"]),
            left_out=report["left_out"],
            methods=correlations.methods,
            definitions=told.DEFINITIONS,
            descriptions=told.descriptions([*names, *derived], report["descriptions"]),
            settings=correlations.settings,
            environment=report["environment"],
            confidence=f"{100 * float(correlations.settings.get('confidence', 0.95)):g}",
            script=script,
            digest=digest,
        )
    )


def _width(figure: Figure) -> float:
    """Share of the page in percent, so that letters are equally large everywhere."""
    return round(min(100.0, 100 * float(figure.get_size_inches()[0]) / WIDE), 1)


def _uri(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode()).decode()
