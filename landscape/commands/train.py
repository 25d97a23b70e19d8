"""``landscape train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape.commands.config import write_config
from landscape.commands.exits import INTERRUPTED, check_writable, fail, or_exit
from landscape.commands.population import refuse_workers, train_population
from landscape.commands.source import Source, takes_source
from landscape.commands.sweep import Engine

if TYPE_CHECKING:
    from landscape.callbacks import Monitor
    from landscape.tasks import Settings, Task
    from landscape.training import Observer, Recipe, Trained

_METHOD, _BUDGET, _POPULATION = "Method", "Budget", "Population"
_OUT = Path("landscape-run")


@takes_source
def train(
    source: Source,
    context: typer.Context,
    method: Annotated[
        str,
        typer.Option(
            help="sgd, adamw, sam, asam, gsam, ...; an unknown name lists them all.",
            rich_help_panel=_METHOD,
        ),
    ] = "sam",
    base: Annotated[
        str, typer.Option(help="sgd or adamw, which takes the step.", rich_help_panel=_METHOD)
    ] = "sgd",
    lr: Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=_METHOD)] = 0.05,
    rho: Annotated[
        float | None, typer.Option(help="Radius of the method.", rich_help_panel=_METHOD)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="key=value for the method (repeatable).", rich_help_panel=_METHOD),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of sgd.", rich_help_panel=_METHOD)] = 0.9,
    decay: Annotated[
        float,
        typer.Option(
            help="Weight decay of the base optimiser; --weight-decay is part of the loss.",
            rich_help_panel=_METHOD,
        ),
    ] = 0.0,
    schedule: Annotated[
        str, typer.Option(help="constant, cosine or step.", rich_help_panel=_METHOD)
    ] = "constant",
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs at most; 20 without --gradients.", rich_help_panel=_BUDGET),
    ] = None,
    gradients: Annotated[
        float | None,
        typer.Option(help="Gradients of the whole training data at most.", rich_help_panel=_BUDGET),
    ] = None,
    target_loss: Annotated[
        float | None, typer.Option(help="Stop at this train loss.", rich_help_panel=_BUDGET)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order of the data and noise.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder of the run; the same command goes on where it stopped.")
    ] = _OUT,
    save_every: Annotated[
        int, typer.Option(min=1, help="Epochs between two weights of the trajectory.")
    ] = 1,
    monitor: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measure the top eigenvalue every N epochs, beside the edge of stability."
        ),
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(
            help="Train all models of a design: a YAML file, digits-smoke, digits or digits-large.",
            rich_help_panel=_POPULATION,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Models at a time; one a core if left out, 0 without processes.",
            rich_help_panel=_POPULATION,
        ),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="local (if left out): processes of this machine; ray: a cluster.",
            rich_help_panel=_POPULATION,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Ray cluster, such as auto; one is started if left out.",
            rich_help_panel=_POPULATION,
        ),
    ] = None,
) -> None:
    """Train a task, by plain descent or a method for flat minima; weights start at random."""
    from landscape.tasks import parsed
    from landscape.training import Recipe

    if population is not None:
        from landscape.populations import Workers

        where = or_exit(
            lambda: Workers(engine=(engine or Engine.LOCAL).value, count=workers, address=address)
        )
        train_population(context, population, None if out == _OUT else out, where)
        return
    refuse_workers(context)
    if source.initial is not None:
        fail("--initial is for measuring; training starts from the checkpoint that is given first")
    settings = or_exit(lambda: parsed(setting or ())) | ({} if rho is None else {"rho": rho})
    recipe = or_exit(
        lambda: Recipe(
            method=method,
            settings=settings,
            base=base,
            lr=lr,
            momentum=momentum,
            weight_decay=decay,
            schedule=schedule,
            batch_size=source.batch_size or 50,
            epochs=20 if epochs is None and gradients is None else epochs,
            gradients=gradients,
            target_loss=target_loss,
            seed=seed,
        )
    )
    made = not out.exists()
    or_exit(lambda: check_writable(out, f"--out {out}"))

    def run(task: Task, opened: Settings) -> Trained:
        return _run(task, opened, recipe, source.checkpoint, out, save_every, monitor)

    try:
        trained = source.call(run)
    except typer.Exit:
        if made and not any(out.iterdir()):  # nothing could be loaded
            out.rmdir()
        raise
    except KeyboardInterrupt:
        fail(
            f"interrupted; {out} keeps every finished epoch, and the same command goes on",
            INTERRUPTED,
        )
    write_config(context, out / "config.yaml")
    _tell(trained, out)
    if trained.reason == "diverged":
        fail("the train loss is no longer finite; use a smaller --lr", 1)


def _run(
    task: Task,
    settings: Settings,
    recipe: Recipe,
    start: Path | None,
    out: Path,
    save_every: int,
    monitor: int | None,
) -> Trained:
    from landscape.callbacks import Monitor, edge_measures
    from landscape.tasks.data import batches_of
    from landscape.training import train as train_task

    watch, observe = None, None
    if monitor is not None:
        data = batches_of(task.train, samples=settings.samples, data_seed=settings.data_seed)
        watch = Monitor(
            settings.objective_of(task),
            data.batches,
            edge_measures(),
            every="epoch",
            out=out / "monitor.csv",
            device=settings.device,
        )
        observe = _observer(watch, monitor)
    trained = train_task(
        task,
        recipe,
        out,
        start=start,
        settings=settings,
        save_every=save_every,
        observe=observe,
        progress=sys.stderr.isatty(),
    )
    if watch is not None:
        _draw(watch, recipe, out)
    return trained


def _observer(watch: Monitor, every: int) -> Observer:
    def observe(model: Any, optimizer: Any, step: int, epoch: int) -> None:
        if epoch % every == 0:
            watch.measure(model, step, optimizer=optimizer, epoch=epoch)

    return observe


def _draw(watch: Monitor, recipe: Recipe, out: Path) -> None:
    from landscape.callbacks import edge_table
    from landscape.results import write_atomically
    from landscape.viz import plot_edge

    table = edge_table(watch.frame, recipe)
    write_atomically(out / "edge.csv", table.to_csv(index=False))
    if table["value"].notna().any():
        plot_edge(table).figure_.savefig(out / "edge.png", dpi=200)  # type: ignore[union-attr]


def _tell(trained: Trained, out: Path) -> None:
    last = trained.history[-1]
    told = ", ".join(
        f"{name.replace('_', ' ')} {value:.6g}"
        for name, value in last.items()
        if name not in {"lr", "seconds", "epoch"}
    )
    typer.echo(f"epoch {last['epoch']}, {told}; ended by {trained.reason}")
    typer.echo(f"{out}: last.pt, initial.pt, the weights of epochs, metrics.csv, recipe.yaml")
