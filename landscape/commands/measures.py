"""``landscape measures``."""

from __future__ import annotations

import sys

from rich.console import Console

from landscape.commands.exits import or_exit


def list_measures() -> None:
    """List the measures: what each says, what it costs, what leaves it unchanged."""
    from rich.markup import escape
    from rich.table import Table as Grid

    from landscape.measures import PRESETS, TRANSFORMATIONS, available

    console = Console(width=None if sys.stdout.isatty() else 120)
    grid = Grid()
    for heading in ("name", "meaning", "cost", "unchanged by"):
        grid.add_column(heading, no_wrap=heading == "name")
    found = or_exit(available)
    for group in dict.fromkeys(measure.group for measure in found.values()):
        grid.add_section()
        grid.add_row(f"[bold]{escape(group)}[/]")
        for name, measure in found.items():
            if measure.group == group:
                unchanged = ", ".join(measure.invariances) or "-"
                grid.add_row(name, escape(measure.meaning), measure.cost_class, unchanged)
    console.print(grid)
    for key, text in TRANSFORMATIONS.items():
        console.print(f"  {key}: {text}", highlight=False)
    console.print(f"Presets, by cost: {', '.join(PRESETS)}", highlight=False)
