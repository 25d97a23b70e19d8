"""``landscape train --population``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from landscape.commands.exits import INTERRUPTED, MEASURE_FAILED, check_writable, fail, or_exit

if TYPE_CHECKING:
    from landscape.populations import Workers

DEFAULT_OUT = Path("landscape-population")
# Options of the command that go together with --population.
_WORKERS = {"workers", "engine", "address"}
_OWN = {"population", "out", "config"} | _WORKERS


def train_population(
    context: typer.Context, population: str, out: Path | None, workers: Workers
) -> None:
    """Trains a population and tells how it went.

    Args:
        context: Of the command, which knows the options that were given.
        population: File or preset.
        out: Folder of the population; None for the default one.
        workers: Where to train.
    """
    from landscape.populations import read_design
    from landscape.populations import train_population as train_all

    if given := [name for name in _given(context) if name not in _OWN]:
        fail(
            f"{', '.join(map(_option, given))} cannot be used with --population, whose design says "
            "what is trained and how"
        )
    or_exit(workers.check)
    design = or_exit(lambda: read_design(population))
    folder = DEFAULT_OUT if out is None else out
    made = not folder.exists()
    or_exit(lambda: check_writable(folder, f"--out {folder}"))
    try:
        rows = or_exit(
            lambda: train_all(design, folder, workers=workers, progress=sys.stderr.isatty())
        )
    except KeyboardInterrupt:
        fail(
            f"interrupted; {folder} keeps every finished model, and the same command goes on",
            INTERRUPTED,
        )
    finally:
        if made and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    counts = rows["status"].value_counts()
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    typer.echo(f"{len(rows)} models: {told}")
    typer.echo(f"{folder}: manifest.csv, manifest.json, weights in models/")
    if broken := rows.loc[rows["status"] == "failed", ["name", "message"]].to_numpy().tolist():
        name, message = broken[0]
        fail(f"{len(broken)} models failed, such as {name}: {message}", MEASURE_FAILED)


def refuse_workers(context: typer.Context) -> None:
    """Without a population there is nothing for several workers to do."""
    if given := [name for name in _given(context) if name in _WORKERS]:
        fail(f"{', '.join(map(_option, given))} belongs to --population, which is missing")


def _given(context: typer.Context) -> Iterable[str]:
    """Options on the command line or in the file of options, in the order of the command."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # By name, since newer typers bring a click of their own.
    own = {"COMMANDLINE", "DEFAULT_MAP"}
    return [name for name, source in sources.items() if source and source.name in own]


def _option(name: str) -> str:
    return "a checkpoint" if name == "checkpoint" else f"--{name.replace('_', '-')}"
