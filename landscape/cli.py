"""The command line: ``landscape COMMAND``. Bad input ends in one line and exit code 2."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from landscape.exits import INTERRUPTED, MEASURE_FAILED, fail, or_exit
from landscape.slice_commands import plot, slice_

if TYPE_CHECKING:
    from landscape.measures import Measure
    from landscape.probing import Probe
    from landscape.results import Result, Table
    from landscape.tasks import Task

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Loss-landscape and sharpness analysis: every number with its error and its cost.",
)


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Floating type of weights and products."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.ERROR, format="%(name)s: %(message)s"
    )


@app.command()
def audit(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Weights file; the embedded checkpoint if left out.")
    ] = None,
    task: Annotated[str, typer.Option(help="What the checkpoint is of.")] = "digits",
    measures: Annotated[
        str, typer.Option(help="quick, standard, full, or names separated by commas.")
    ] = "standard",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random.")] = 0,
    device: Annotated[Device, typer.Option(help="auto takes CUDA if there is one.")] = Device.AUTO,
    dtype: Annotated[Precision, typer.Option(help="Precision.")] = Precision.FLOAT32,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("landscape-report"),
    samples: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N training examples.")
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(help="Weights before training, for measures of the distance from them."),
    ] = None,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Also run PyHessian and compare.")
    ] = False,
    symmetries: Annotated[
        bool,
        typer.Option(
            "--symmetry-check",
            help="Also measure random copies of the checkpoint that compute the same function.",
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what the folder already holds.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of a table.")
    ] = False,
) -> None:
    """Measure the sharpness of one checkpoint and write a report."""
    from landscape.auditing import table_of
    from landscape.crosscheck import consistency
    from landscape.measures import resolve

    wanted = or_exit(lambda: resolve(measures))
    where = _device(device)
    chosen, path, probe, facts = or_exit(
        lambda: _open(task, checkpoint, where, dtype, samples, initial)
    )
    folder = or_exit(lambda: _writable(out))
    results, interrupted = _measure(probe, wanted, seed, folder, fresh=fresh)
    if not results:
        fail("interrupted before the first measure; nothing was written", INTERRUPTED)
    table = table_of(probe, results, seed)
    table.extras["task"] = {"name": task, "checkpoint": str(path), **facts}
    checks = consistency(table)
    if interrupted:
        left = ", ".join(measure.label for measure in wanted[len(results) :])
        table.warnings.insert(0, f"Interrupted: not measured are {left}")
    else:
        try:
            if symmetries:
                check = _symmetry_check(probe, wanted, seed, folder, fresh=fresh)
                table.extras["symmetry_check"] = check
            if measures == "full":
                table.extras["slices"] = _slices(probe, seed)
            if cross_check:
                checks += _cross_check(chosen, path, samples, table)
        except KeyboardInterrupt:
            interrupted = True
            table.warnings.insert(
                0, "Interrupted during a check; its part of the report is missing"
            )
    if checks:
        table.extras["cross_check"] = checks
    _write(table, folder, as_json=as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if any(result.status.value == "failed" for result in results):
        raise typer.Exit(MEASURE_FAILED)


def _open(
    name: str,
    checkpoint: Path | None,
    device: str,
    dtype: Precision,
    samples: int | None,
    initial: Path | None,
) -> tuple[Task, Path, Probe, dict[str, float]]:
    import torch

    from landscape.probing import Probe
    from landscape.tasks import get_task, load_momentum, load_state

    task = get_task(name)
    path = task.default_checkpoint() if checkpoint is None else checkpoint
    model = task.load(path)
    probe = Probe(
        model,
        task.objective,
        task.train_batches(samples=samples),
        device=device,
        dtype=getattr(torch, dtype.value),
        momentum=load_momentum(path, model),
        initial=None if initial is None else load_state(initial),
    )
    return task, path, probe, task.metrics(model)


def _measure(
    probe: Probe, measures: list[Measure], seed: int, folder: Path, *, fresh: bool
) -> tuple[list[Result], bool]:
    """The results that could be had, and whether Ctrl-C cut them short."""
    from landscape.auditing import each_result
    from landscape.results import Store

    store = Store(folder / "records", reuse=not fresh)
    results: list[Result] = []
    try:
        for result in each_result(probe, measures, seed, store=store, progress=True):
            results.append(result)  # noqa: PERF402 - kept one by one, for Ctrl-C
    except KeyboardInterrupt:
        return results, True
    return results, False


def _slices(probe: Probe, seed: int) -> dict[str, object]:
    from landscape.slices.overview import overview

    typer.echo("slices: a line and a plane", err=True)
    return overview(probe, seed)


def _symmetry_check(
    probe: Probe, measures: list[Measure], seed: int, folder: Path, *, fresh: bool
) -> dict[str, object]:
    from landscape.orbits import symmetry_check
    from landscape.results import Store

    typer.echo("symmetry check: all measures on up to 3 copies for each kind of symmetry", err=True)
    store = Store(folder / "records", reuse=not fresh)
    return symmetry_check(probe, measures, seed, store=store, progress=True).to_dict()


def _cross_check(
    task: Task, path: Path, samples: int | None, table: Table
) -> list[dict[str, object]]:
    from landscape.crosscheck import cross_check

    return cross_check(
        task.load(path), task.objective, list(task.train_batches(samples=samples)), table
    )


def _write(table: Table, folder: Path, *, as_json: bool) -> None:
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


@app.command(name="measures")
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


def _device(device: Device) -> str:
    import torch

    if device is Device.CUDA and not torch.cuda.is_available():
        fail("--device cuda was asked for, but torch finds no CUDA device; use --device cpu")
    if device is Device.AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


def _writable(folder: Path) -> Path:
    try:
        (folder / "records").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be made: {error.strerror or error}") from error
    return folder


app.command(name="slice")(slice_)
app.command(name="plot")(plot)


def main() -> None:
    """Entry point of the console script."""
    app()
