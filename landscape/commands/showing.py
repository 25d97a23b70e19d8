"""An audit on the screen, and its report on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from landscape.results import Table


def write_audit(table: Table, folder: Path, *, as_json: bool) -> None:
    """Writes the report, and prints the table or the report as JSON."""
    from landscape.measures import available
    from landscape.viz import write_report

    descriptions = {
        name: {
            "meaning": measure.meaning,
            "formula": measure.formula,
            "source": measure.source,
            "group": measure.group,
            "cost_class": measure.cost_class,
            "invariances": ", ".join(measure.invariances),
        }
        for name, measure in available().items()
    }
    report = write_report(table, folder, descriptions)
    if as_json:
        typer.echo(json.dumps(table.to_dict(), indent=1, allow_nan=False))
        return
    _show(table)
    typer.echo(f"Report: {report}")


def _show(table: Table) -> None:
    from rich.markup import escape
    from rich.table import Table as Grid

    from landscape.results import format_estimate, format_interval
    from landscape.viz.sections import edge

    console = Console(width=None if sys.stdout.isatty() else 120)
    grid = Grid(title=escape(str(table.extras["task"]["checkpoint"])), title_justify="left")
    for heading, side in (
        ("measure", "left"),
        ("value ± error", "right"),
        ("95 % interval", "right"),
        ("status", "left"),
        ("passes", "right"),
        ("seconds", "right"),
    ):
        grid.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for result in table:
        shared = "*" if result.evidence else ""
        grid.add_row(
            escape(result.measure),
            format_estimate(result.value, result.stderr, result.interval)
            if result.status.measured
            else "-",
            escape(format_interval(result.interval)) if result.status.measured else "",
            result.status.value,
            f"{round(result.cost.passes, 1):g}{shared}",
            f"{result.cost.seconds:.2f}{shared}",
        )
    console.print(grid)
    if "symmetry_check" in table.extras:
        _show_orbits(console, table.extras["symmetry_check"])
    cost = table.cost
    console.print(
        f"Total: {cost.products:g} curvature products, {round(cost.gradients, 1):g} gradients, "
        f"{round(cost.forwards, 1):g} forward passes, {cost.seconds:.1f} s. "
        "* computed once and shared by all rows with the same mark.",
        highlight=False,
    )
    if told := edge(table.to_dict()):
        console.print(f"Edge of stability of the optimiser: {told}.", highlight=False)
    for warning in table.warnings:
        console.print(f"Note: {escape(warning)}", highlight=False)


def _show_orbits(console: Console, check: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table as Grid

    from landscape.results import format_factor

    kinds = list(check["found"])
    grid = Grid(title="The same function, parametrised otherwise", title_justify="left")
    for heading in ("measure", "value", "range", *kinds, "verdict"):
        left = heading in ("measure", "verdict")
        grid.add_column(heading, justify="left" if left else "right", overflow="fold")
    for orbit in check["orbits"]:
        value = orbit["base"]["value"]
        ends = [f"{end:.3g}" for end in orbit["range"] if end is not None]
        grid.add_row(
            escape(orbit["measure"]),
            "-" if value is None else f"{value:.4g}",
            " to ".join(dict.fromkeys(ends)),
            *(format_factor(orbit["factors"][kind]) if ends else "-" for kind in kinds),
            f"[bold]{orbit['verdict']}[/]" if "depends" in orbit["verdict"] else orbit["verdict"],
        )
    console.print(grid)
    changes = ", ".join(
        f"{kind} at {len(check['found'][kind])} places ({check['changes'][kind]:.0e})"
        for kind in kinds
        if kind != "loss"
    )
    console.print(
        f"Factors by which values move. Largest change of an output: {changes or 'none found'}.",
        highlight=False,
    )
    for warning in check["warnings"]:
        console.print(f"Left out: {escape(warning)}", highlight=False)
