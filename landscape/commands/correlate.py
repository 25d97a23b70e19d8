"""``landscape correlate``."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.commands.exits import check_writable, or_exit
from landscape.commands.tables import check_target, dropped_columns, left_out, read_results, require

if TYPE_CHECKING:
    import pandas as pd

    from landscape.commands.tables import Results
    from landscape.correlation import Correlations

_SHOWN = 60  # rows on the screen
_COMMA = "\x1f"  # stands for a comma inside brackets, while others are split at
_GIVEN = "train_loss"


class EnvironmentChoice(StrEnum):
    """What an environment of the sign-error is."""

    AUTO = "auto"
    CONFIGURATIONS = "configurations"
    VALUES = "values"


def correlate(
    results: Annotated[
        Path,
        typer.Argument(help="Folder of landscape sweep, or a table: CSV, Parquet, JSON lines."),
    ],
    target: Annotated[
        str,
        typer.Option(help="gap_accuracy, gap_loss, test_loss, or any other column."),
    ] = "gap_accuracy",
    hyperparameters: Annotated[
        str | None,
        typer.Option(
            help="Columns separated by commas (quotes keep one together); "
            "all hp.* but the seed if left out."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Column that tells repetitions apart; hp.seed or seed if left out."),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(help="Columns, or names of measures for all their variants; all if left out."),
    ] = None,
    given: Annotated[
        str, typer.Option(help="Columns that partial tau is given; empty for none.")
    ] = _GIVEN,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Measures to compare with each other; all, without radii and layers, if left out."
        ),
    ] = None,
    strata: Annotated[
        str, typer.Option(help="Hyper-parameters within whose values the target is permuted.")
    ] = "",
    environment: Annotated[
        EnvironmentChoice,
        typer.Option(
            help="Of the sign-error: pairs of configurations, or pooled over values for few seeds."
        ),
    ] = EnvironmentChoice.AUTO,
    effective_size: Annotated[
        float, typer.Option(help="Least effective number of pairs of an environment.")
    ] = 12.0,
    test_examples: Annotated[
        int | None,
        typer.Option(help="Behind an accuracy, weighs pairs; a sweep knows it if left out."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Level of all intervals.")] = 0.95,
    bootstraps: Annotated[int, typer.Option(help="Resamples of the configurations.")] = 1000,
    permutations: Annotated[int, typer.Option(help="Permutations where p is sampled.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path(
        "landscape-correlation"
    ),
    colour: Annotated[
        str | None,
        typer.Option(
            help="Hyper-parameter that colours the scatters; else the one that explains most."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the correlations as JSON instead of a table.")
    ] = False,
) -> None:
    """Say which measures rank models as a target does, and write a report."""
    from landscape.viz.correlation_colours import colour_column

    found = or_exit(lambda: read_results(results))

    def compute() -> Correlations:
        from landscape.correlation import Options
        from landscape.correlation import correlate as rank

        frame = found.frame
        check_target(frame, target)
        asked = _columns(measures, found)
        own = [name for name in asked or [] if name != target]
        if asked is not None and not own:
            raise ValueError(
                f"there is no measure beside the target {target!r}; give others with --measures"
            )
        return rank(
            frame,
            target,
            None
            if hyperparameters is None
            else [_axis(frame, name) for name in _split(hyperparameters)],
            measures=own or None,
            given=_given(frame, given),
            seeds=None if seeds is None else _axis(frame, seeds),
            compare=_compared(compare, own, found),
            options=Options(
                bootstraps=bootstraps,
                permutations=permutations,
                seed=seed,
                confidence=confidence,
                test_examples=_test_examples(found) if test_examples is None else test_examples,
                effective_size=effective_size,
                environment=environment.value,
                strata=tuple(_axis(frame, name) for name in _split(strata)),
            ),
        )

    correlations = or_exit(compute)
    or_exit(lambda: colour_column(correlations, colour))
    or_exit(lambda: check_writable(out, f"--out {out}"))
    from landscape.viz import write_correlation_report

    page = or_exit(
        lambda: write_correlation_report(
            correlations,
            out,
            source={"name": results.name or str(results), "table": str(results), **found.facts},
            coverage=_coverage(found, correlations),
            left_out=left_out(found.frame, correlations.frame.index, target),
            descriptions=_descriptions(),
            colour=colour,
        )
    )
    if measures is None and found.measures is None:
        roles = {target, seeds or "", *correlations.hyperparameters, *_split(given)}
        if told := dropped_columns(found.frame, roles):
            typer.echo(f"landscape: {told}", err=True)
    if as_json:
        typer.echo(json.dumps(correlations.to_dict(), allow_nan=False))
        return
    _show(correlations)
    typer.echo(f"Report: {page}")


def _split(text: str) -> list[str]:
    """Names separated by commas; those in quotes, or in the brackets of a label, belong to one."""
    kept = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(",", _COMMA), text)
    rows = csv.reader(kept.splitlines(), skipinitialspace=True)
    parts = [part.replace(_COMMA, ",").strip() for row in rows for part in row]
    return [part for part in parts if part]


def _axis(frame: pd.DataFrame, name: str) -> str:
    """A hyper-parameter, with or without the prefix of a sweep's columns."""
    found = f"hp.{name}" if name not in frame and f"hp.{name}" in frame else name
    require(frame, found)
    return found


def _given(frame: pd.DataFrame, asked: str) -> tuple[str, ...]:
    names = tuple(_split(asked))
    if names != (_GIVEN,):  # the default may be no column
        for name in names:
            require(frame, name)
    return names


def _columns(asked: str | None, found: Results) -> list[str] | None:
    """The columns that are asked for; None leaves the choice to the table."""
    from landscape.viz.measure_table import base_name

    known = found.measures
    if asked is None:
        return known
    frame, columns = found.frame, []
    for name in _split(asked):
        stems = known if known is not None else list(map(str, frame.columns))
        variants = [column for column in stems if re.split(r"[@:]", base_name(column))[0] == name]
        if name not in frame and not variants:
            require(frame, name)
        columns += [name] if name in frame and known is None else variants or [name]
    if not columns:
        raise ValueError("--measures names no column; leave it out for all")
    return list(dict.fromkeys(columns))


def _compared(asked: str | None, own: list[str], found: Results) -> list[str] | None:
    if asked is not None:
        names = _split(asked)
        for name in names:
            require(found.frame, name)
        return names
    radii_and_layers = found.facts.get("derived", {})
    return [name for name in own if name not in radii_and_layers] or None


def _test_examples(found: Results) -> int | None:
    number = found.facts.get("test_examples")
    return number if isinstance(number, int) and number > 0 else None


def _coverage(found: Results, correlations: Correlations) -> dict[str, dict[str, int]] | None:
    if found.coverage is None:
        return None
    used = set(correlations.table.index)
    return {name: row for name, row in found.coverage.items() if name in used} or None


def _descriptions() -> dict[str, dict[str, str]]:
    from landscape.measures import available

    return {
        name: {"meaning": about.meaning, "formula": about.formula, "source": about.source}
        for name, about in available().items()
    }


def _show(correlations: Correlations) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    from landscape.viz.correlation_forest import partials_of
    from landscape.viz.correlation_names import controls_of, measures_of, row_of, target_name

    console = Console(width=None if sys.stdout.isatty() else 120)
    title = f"Kendall's tau-b with {target_name(correlations.target)}"
    grid = Grid(title=escape(title), title_justify="left")
    partials = partials_of(correlations.table)
    headings = ("measure", "tau", "interval", *(f"tau | {name}" for name in partials))
    for heading in (*headings, "psi", "sign error", "p (Holm)", "models"):
        left = heading == "measure"
        grid.add_column(escape(heading), justify="left" if left else "right", overflow="fold")
    names, controls = measures_of(correlations), controls_of(correlations)
    for name in names[:_SHOWN]:
        grid.add_row(*_cells(name, row_of(correlations, name), partials))
    grid.add_section()
    for name in controls:
        grid.add_row(*_cells(name, row_of(correlations, name), partials), style="dim")
    console.print(grid)
    more = len(correlations.table) - len(names[:_SHOWN]) - len(controls)
    if more:
        console.print(f"{more} more rows (radii, layers) in the report.", highlight=False)
    for note in correlations.notes:
        console.print(f"Note: {escape(note)}", highlight=False)


def _cells(name: str, row: pd.Series[Any], partials: Sequence[str]) -> list[str]:
    from rich.markup import escape

    from landscape.viz.correlation_names import interval_of, two_digits
    from landscape.viz.correlation_rows import probability

    shown = [two_digits(row["tau"]), escape(interval_of(row["tau_low"], row["tau_high"]))]
    shown += [two_digits(row[f"partial[{given}]"]) for given in partials]
    shown += [two_digits(row["psi"]), two_digits(row["sign_error_mean"])]
    return [escape(name), *shown, probability(row["p_holm"]), f"{row['models']:.0f}"]
