"""The report of an audit: ``report.json``, and a page and a spreadsheet made from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.results import Table, to_json, write_atomically
from landscape.viz import measure_table, sections, wording
from landscape.viz.figures import density_figure, layer_figures
from landscape.viz.orbit_section import orbits_figure, symmetry
from landscape.viz.scan_figures import noise_figure, scan_figures
from landscape.viz.slice_section import slice_figures

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"

Descriptions = Mapping[str, Mapping[str, str]]


def write_report(table: Table, folder: Path, descriptions: Descriptions) -> Path:
    """Writes ``report.json``, ``results.csv`` and ``report.html`` into a folder.

    The page is rendered from the contents of ``report.json``, so that the two cannot disagree.
    Each file is replaced atomically.

    Args:
        table: The results of an audit.
        folder: Where to write; made if it does not exist.
        descriptions: By name of a measure its ``meaning``, ``formula``, ``source``,
            ``cost_class``, ``invariances`` and, where it has one, ``group``, the heading it stands
            under; kept in the report under ``extras["descriptions"]``.

    Returns:
        Path of the page.

    Raises:
        ValueError: If the table is empty.
    """
    report = described(table.to_dict(), descriptions)
    page = render_report(report)
    folder = Path(folder)
    write_atomically(folder / "report.json", to_json(report))
    write_atomically(folder / "results.csv", table.to_frame().to_csv())
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def render_report(report: dict[str, Any], descriptions: Descriptions | None = None) -> str:
    """The page of a report: one HTML file that loads nothing, with its pictures inside.

    Args:
        report: ``Table.to_dict()``, or what ``report.json`` holds.
        descriptions: As for ``write_report``; None takes those in the report.

    Returns:
        HTML text. All names and messages in it are escaped.

    Raises:
        ValueError: If the report holds no result.
    """
    if not report["results"]:
        raise ValueError("an audit that measured nothing has no report; measure at least one thing")
    if descriptions is not None:
        report = described(report, descriptions)
    return (
        page_environment()
        .get_template("report.html")
        .render(
            title=sections.title(report),
            facts=sections.facts(report),
            headlines=sections.headlines(report["results"]),
            task=sections.task_metrics(report),
            groups=measure_table.groups(report),
            shared=measure_table.shared(report),
            symmetry=symmetry(report),
            orbits=orbits_figure(report),
            scans=scan_figures(report["results"]),
            slices=slice_figures(report),
            noise=noise_figure(report["results"]),
            density=density_figure(report["results"]),
            layers=layer_figures(report["results"]),
            checks=sections.checks(report),
            evidence=sections.evidence(report),
            cost=report["cost"],
            derivatives=sections.derivatives(report),
            disagreements=(wrong := sections.disagreements(report)),
            warnings=[text for text in report["warnings"] if text not in wrong],
            provenance=sections.provenance(report),
        )
    )


def described(report: dict[str, Any], descriptions: Descriptions) -> dict[str, Any]:
    """A report with the descriptions of its own measures in it.

    Args:
        report: ``Table.to_dict()``.
        descriptions: By name of a measure; others than those in the report are left out.

    Returns:
        A new dictionary; the given one is not changed.
    """
    orbits = (report["extras"].get("symmetry_check") or {}).get("orbits", [])
    records = [*report["results"], *orbits]
    names = {measure_table.base_name(record["measure"]) for record in records}
    own = {name: dict(entry) for name, entry in descriptions.items() if name in names}
    return {**report, "extras": {**report["extras"], "descriptions": own}}


def formula(text: str) -> Markup:
    """A plain-text formula with its indices lowered and its powers raised, escaped.

    Args:
        text: Such as "λ_max", "|λ|^α" or "max_{‖δ‖≤ρ}".

    Returns:
        Safe markup.
    """
    import markupsafe

    safe = str(markupsafe.escape(text))
    # Only tags around whole pieces of what was escaped are added: none holds half an entity.
    for sign, tag, plain in (("_", "sub", r"\w+"), (r"\^", "sup", r"[\w½]+")):
        safe = re.sub(rf"{sign}\{{([^{{}}]*)\}}", rf"<{tag}>\1</{tag}>", safe)
        safe = re.sub(rf"{sign}({plain})", rf"<{tag}>\1</{tag}>", safe)
    return markupsafe.Markup(safe)


def page_environment() -> Environment:
    """Templates of pages: everything is escaped, and a name that is not given is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "estimate": wording.estimate,
        "interval": wording.interval,
        "formula": formula,
        "count": wording.count,
        "seconds": wording.seconds,
        "memory": wording.memory,
        "words": wording.words,
    }
    environment.filters.update(filters)
    return environment
