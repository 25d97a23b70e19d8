"""``landscape sweep``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.commands.config import write_config
from landscape.commands.exits import (
    INTERRUPTED,
    MEASURE_FAILED,
    check_writable,
    fail,
    or_exit,
)
from landscape.commands.source import Source, takes_source

if TYPE_CHECKING:
    from landscape.populations import Kind, Rows, Sweep, Swept
    from landscape.tasks import Settings, Task

_RUN = "How it is run"
# Options that say how a task is opened, which is known apart from what it is.
_OPENING = {
    *("checkpoint", "config", "initial", "ema", "weights_key", "allow_missing", "trust_pickle"),
    *("samples", "batch_size", "label_smoothing", "class_weights", "ignore_index"),
    *("weight_decay", "device", "dtype", "products"),
}
# Checkpoints that are opened to see whether they are of the task that is assumed.
_TRIED = 3
# What a manifest says for every model.
_IN_MANIFEST = ("task", "model", "objective", "arg", "data", "test_data", "initial")


class Engine(StrEnum):
    """Where the workers run."""

    LOCAL = "local"
    RAY = "ray"


def _takes_many(command: Callable[..., None]) -> Callable[..., None]:
    """``takes_source`` for several checkpoints: its first argument becomes a list of texts."""
    wrapped = takes_source(command)
    many = Annotated[
        list[str],
        typer.Argument(
            help="A manifest (its folder), or checkpoints: files, a pattern in quotes, a folder.",
            metavar="MANIFEST_OR_CHECKPOINTS...",
        ),
    ]
    parameters = [
        parameter.replace(annotation=many, default=inspect.Parameter.empty)
        if name == "checkpoint"
        else parameter
        for name, parameter in inspect.signature(wrapped).parameters.items()
    ]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


@_takes_many
def sweep(
    source: Source,
    context: typer.Context,
    measures: Annotated[
        str, typer.Option(help="quick, standard, full, or names separated by commas.")
    ] = "standard",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of every measure.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder of the results; the same command goes on where it stopped.")
    ] = Path("landscape-sweep"),
    everything: Annotated[
        bool, typer.Option("--all", help="Also measure models that did not converge.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure again what failed before.")
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option(
            help="local: processes of this machine; ray: a cluster.", rich_help_panel=_RUN
        ),
    ] = Engine.LOCAL,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Checkpoints at a time; one a CPU or GPU if left out, 0 without processes.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Of each worker; part of the settings.", rich_help_panel=_RUN)
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Ray cluster, such as auto; one is started if left out.",
            rich_help_panel=_RUN,
        ),
    ] = None,
) -> None:
    """Measure many checkpoints into one table; what is measured already is not measured again."""
    from landscape.populations import EngineError, Sweep, Workers

    where = or_exit(
        lambda: Workers(engine=engine.value, count=workers, threads=threads, address=address)
    )
    or_exit(where.check)

    def prepared(task: Task | None, settings: Any) -> Sweep:
        ready = Sweep(
            _rows(source, everything=everything),
            measures,
            out,
            settings=settings,
            seed=seed,
            workers=where,
            retry_failed=retry_failed,
        )
        if task is not None and source.task is None and source.model is None:
            _check_assumed(source, task, ready, settings)
        return ready

    ready = replace(source, checkpoint=None).call(prepared)
    or_exit(lambda: check_writable(out / "records", f"--out {out}"))
    write_config(context, out / "config.yaml")
    typer.echo(str(ready), err=True)
    try:
        swept = ready.run(progress=True)
    except EngineError as error:
        fail(str(error))
    _tell(swept)


def _rows(source: Source, *, everything: bool) -> Rows:
    from landscape.populations import is_manifest, rows_of

    sources: list[str] = source.checkpoint  # type: ignore[assignment]
    if not is_manifest(sources):
        return rows_of(sources, _kind(source), initial=source.initial)
    if idle := [name for name in _IN_MANIFEST if getattr(source, name)]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ValueError(f"{options}: the manifest says it for every model; leave it out")
    return rows_of(sources, everything=everything)


def _check_assumed(source: Source, task: Task, ready: Sweep, settings: Settings) -> None:
    """Refuses files none of which fits the task that is taken where none is named."""
    from landscape.populations import is_manifest
    from landscape.tasks import open_task
    from landscape.tasks.kept import Kept

    if is_manifest(source.checkpoint):  # type: ignore[arg-type]
        return
    kept, reasons = Kept(task), []
    for job in ready.todo[:_TRIED]:
        try:
            open_task(task, job.checkpoint, settings, kept=kept)
        except (ValueError, TypeError, OSError) as error:
            reasons.append(str(error))
        else:
            return
    if reasons:
        raise ValueError(
            "the embedded task digits is assumed, since neither --task nor --model is given, but "
            f"{reasons[0]}; name the task, or say --task digits to record the failures"
        )


def _kind(source: Source) -> Kind:
    """The kind of task that the options describe."""
    import functools

    from landscape.populations import Kind, code_of
    from landscape.tasks import folder_of, is_reference

    told = {
        entry.name: getattr(source, entry.name)
        for entry in fields(source)
        if entry.name not in _OPENING and getattr(source, entry.name) is not None
    }
    files = [source.data, source.test_data, source.tokenizer, source.processor]
    if source.model and ":" in source.model:  # hf:DIR, hub:DIR:ENTRY
        files.append(source.model.split(":")[1])
    texts = [source.task, source.model, source.objective, source.data, source.test_data]
    references = [text for text in texts if text and is_reference(text)]
    return Kind(
        make=functools.partial(_task_of, replace(source, checkpoint=None)),
        facts={name: str(value) for name, value in told.items()},
        folders=tuple(folder_of(text) for text in references),
        code=tuple(path for text in references for path in code_of(text)),
        data=tuple(Path(text).resolve() for text in files if text and Path(text).exists()),
    )


def _task_of(source: Source) -> Task:
    """The task of the options; at the top of the module, so that workers find it."""
    return source._task()


def _tell(swept: Swept) -> None:
    from landscape.results import format_seconds

    counts = swept.report["counts"]
    told = [f"{counts['measured']} of {counts['checkpoints']} checkpoints measured"]
    told += [
        f"{counts[name]} {name}" for name in ("failed", "skipped", "unfinished") if counts[name]
    ]
    if counts["failed_measures"]:
        told.append(f"{counts['failed_measures']} measures failed")
    line = f"{', '.join(told)}; {format_seconds(swept.seconds)}; {swept.folder / 'table.csv'}"
    if swept.interrupted:
        typer.echo(f"landscape: interrupted; {line}; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(line)
    if swept.failed:
        raise typer.Exit(MEASURE_FAILED)
