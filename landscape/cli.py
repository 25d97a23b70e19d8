"""The command line: ``landscape COMMAND``. Bad input ends in one line and exit code 2."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from landscape.commands.audit import audit
from landscape.commands.correlate import correlate
from landscape.commands.measures import list_measures
from landscape.commands.slices import plot, slice_
from landscape.commands.sweep import sweep
from landscape.commands.train import train
from landscape.commands.validate import validate

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Loss-landscape and sharpness analysis: every number with its error and its cost.",
)


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.ERROR, format="%(name)s: %(message)s"
    )


app.command()(audit)
app.command()(validate)
app.command()(train)
app.command()(correlate)
app.command(name="measures")(list_measures)
app.command(name="slice")(slice_)
app.command()(sweep)
app.command(name="plot")(plot)


def main() -> None:
    """Entry point of the console script."""
    app()
