"""``landscape audit``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.commands.config import write_config
from landscape.commands.exits import (
    INTERRUPTED,
    MEASURE_FAILED,
    check_writable,
    fail,
    or_exit,
    or_exit_with_place,
)
from landscape.commands.source import Source, takes_source

if TYPE_CHECKING:
    from landscape.measures import Measure
    from landscape.probing import Probe
    from landscape.results import Result, Store, Table
    from landscape.tasks import Opened

# Below it nobody waits for the end.
_WORTH_TELLING = 10

logger = logging.getLogger(__name__)


@takes_source
def audit(
    source: Source,
    context: typer.Context,
    measures: Annotated[
        str,
        typer.Option(
            help="quick, standard, full, names separated by commas, or JSON of names and settings."
        ),
    ] = "standard",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything random.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("landscape-report"),
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Also run PyHessian and compare.")
    ] = False,
    symmetry_check: Annotated[
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
    from landscape.commands.showing import write_audit
    from landscape.crosscheck import consistency
    from landscape.measures import resolve
    from landscape.results import Store

    or_exit(lambda: resolve(measures))
    opened = source.open()
    probe, facts = opened.probe, or_exit_with_place(opened.facts)
    wanted = or_exit(lambda: resolve(measures, probe.size))
    or_exit(lambda: check_writable(out / "records", f"--out {out}"))
    write_config(context, out / "config.yaml")
    store = Store(out / "records", reuse=not fresh)
    results, interrupted = _measure(probe, wanted, seed, store)
    if not results:
        fail("interrupted before the first measure; nothing was measured", INTERRUPTED)
    table = table_of(probe, results, seed)
    table.extras["task"] = facts
    checks = consistency(table)
    if interrupted:
        left = ", ".join(measure.label for measure in wanted[len(results) :])
        table.warnings.insert(0, f"Interrupted: not measured are {left}")
    else:
        try:
            if symmetry_check:
                table.extras["symmetry_check"] = _orbits(probe, wanted, seed, store)
            if measures == "full":
                table.extras["slices"] = _slices(probe, seed)
            if cross_check:
                checks += _cross_check(opened, table)
        except KeyboardInterrupt:
            interrupted = True
            table.warnings.insert(
                0, "Interrupted during a check; its part of the report is missing"
            )
    if checks:
        table.extras["cross_check"] = checks
    write_audit(table, out, as_json=as_json)
    _end(results, interrupted=interrupted)


def _end(results: list[Result], *, interrupted: bool) -> None:
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if not any(result.status.measured for result in results):
        fail("nothing could be measured; the report says why", MEASURE_FAILED)
    if any(result.status.value == "failed" for result in results):
        raise typer.Exit(MEASURE_FAILED)


def _measure(
    probe: Probe, measures: list[Measure], seed: int, store: Store
) -> tuple[list[Result], bool]:
    """The results that could be had, and whether Ctrl-C cut them short."""
    from landscape.auditing import each_result

    results: list[Result] = []
    try:
        _tell_cost(probe, measures, seed, store)
        for result in each_result(probe, measures, seed, store=store, progress=True):
            results.append(result)  # noqa: PERF402 - kept one by one, for Ctrl-C
    except KeyboardInterrupt:
        return results, True
    return results, False


def _tell_cost(probe: Probe, measures: list[Measure], seed: int, store: Store) -> None:
    from landscape.auditing import expected_cost, pace
    from landscape.results import format_seconds

    try:
        paces = pace(probe)
    except Exception:
        logger.debug("no pace", exc_info=True)
        return  # the measures that need such a pass say why it fails, and the others go on
    cost = expected_cost(probe, measures, seed, paces, store=store)
    if cost.seconds > _WORTH_TELLING:
        typer.echo(f"{cost.passes:.0f} passes, about {format_seconds(cost.seconds)}", err=True)


def _slices(probe: Probe, seed: int) -> dict[str, object]:
    from landscape.slices.overview import overview

    typer.echo("slices: a line and a plane", err=True)
    return overview(probe, seed)


def _orbits(probe: Probe, measures: list[Measure], seed: int, store: Store) -> dict[str, object]:
    from landscape.orbits import symmetry_check

    typer.echo("symmetry check: all measures on up to 3 copies for each kind of symmetry", err=True)
    return symmetry_check(probe, measures, seed, store=store, progress=True).to_dict()


def _cross_check(opened: Opened, table: Table) -> list[dict[str, object]]:
    from landscape.crosscheck import cross_check

    objective = opened.settings.objective_of(opened.task).name
    return cross_check(opened.model, objective, list(opened.train.batches), table)
