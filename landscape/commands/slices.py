"""``landscape slice`` and ``landscape plot``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape.commands.exits import (
    INTERRUPTED,
    check_writable,
    fail,
    or_exit,
    or_exit_with_place,
)
from landscape.commands.source import Source, takes_source

if TYPE_CHECKING:
    import xarray as xr

    from landscape.probing import Probe

FORMATS = (".png", ".pdf", ".svg")


@takes_source
def slice_(
    source: Source,
    directions: Annotated[
        str,
        typer.Option(
            help="random, eigen, gradient, momentum, pca:GLOB, to:CKPT or plane:CKPT,CKPT."
        ),
    ] = "random",
    dimensions: Annotated[int, typer.Option(min=1, max=2, help="A line or a plane.")] = 2,
    span: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Ends of the axes, in steps of the directions; -1 1, or what shows the "
            "checkpoints that are named, if left out."
        ),
    ] = None,
    points: Annotated[int, typer.Option(min=2, help="Points of each axis.")] = 51,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Interpolate up to this share of the range; every point if left out."
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(help="Range that the tolerance is a share of: log (as drawn) or linear."),
    ] = "log",
    metric: Annotated[
        str, typer.Option(help="Variable that is drawn, such as train_loss or test_accuracy.")
    ] = "train_loss",
    batch_norm: Annotated[
        str, typer.Option(help="eval, batch, recalibrate, or interpolate between checkpoints.")
    ] = "eval",
    seed: Annotated[int, typer.Option(min=0, help="Of random directions.")] = 0,
    out: Annotated[Path, typer.Option(help="NetCDF file; a figure is drawn beside it.")] = Path(
        "slice.nc"
    ),
) -> None:
    """Evaluate the loss on a line or a plane through a checkpoint, and draw it."""
    from tqdm import tqdm

    from landscape.slices import evaluate_slice
    from landscape.slices.evaluation import axes_of, check_tolerance
    from landscape.slices.rows import Rows
    from landscape.tasks import directions_of

    if out.suffix in FORMATS:
        fail(f"--out {out} is the data's file, such as slice.nc; a figure is drawn beside it")
    or_exit(lambda: check_tolerance(tolerance, scale))
    mode = "eval" if batch_norm == "interpolate" else batch_norm
    opened = source.open(batch_norm=mode)
    probe, test = opened.probe, None if opened.test is None else opened.test.batches
    axes, seen = or_exit_with_place(
        lambda: directions_of(directions, opened, dimensions=dimensions, seed=seed)
    )
    ends = _span(seen, directions, dimensions) if span is None else span
    or_exit(lambda: axes_of(dimensions, ends, points))  # type: ignore[arg-type]
    drawable = _drawable(probe, test)
    if metric not in drawable:
        fail(f"--metric must be one of {', '.join(drawable)}; got {metric}")
    total = points**dimensions
    seconds = or_exit_with_place(lambda: _seconds_a_point(probe, axes, test))
    or_exit(lambda: _writable(out))
    most = " at most" if tolerance is not None else ""
    typer.echo(f"{total} points,{most} about {total * seconds:.0f} s", err=True)

    def advance(count: int) -> None:
        bar.update(count)

    bar = tqdm(total=total, unit="point", desc="slice", leave=False, disable=None)
    try:
        with bar:
            found = or_exit_with_place(
                lambda: evaluate_slice(
                    probe,
                    axes,
                    ends,  # type: ignore[arg-type]
                    points,
                    tolerance,
                    scale=scale,  # type: ignore[arg-type]
                    test=test,
                    interpolate_buffers=batch_norm == "interpolate",
                    trajectory=seen,
                    path=out,
                    advance=advance,
                )
            )
    except KeyboardInterrupt:
        kept = Rows.beside(out).exists()
        told = f"the same command goes on from {Rows.beside(out)}" if kept else "nothing was kept"
        fail(f"interrupted; {told}", INTERRUPTED)
    _save(found, out)
    typer.echo(f"Slice: {out} ({found.attrs['evaluated_points']} of {total} points evaluated)")
    figure = out.with_suffix(".png")
    typer.echo(f"Figure: {or_exit(lambda: _draw(found, metric, figure))}")


def plot(
    file: Annotated[Path, typer.Argument(help="A slice written by landscape slice.")],
    metric: Annotated[str, typer.Option(help="Variable that is drawn.")] = "train_loss",
    out: Annotated[
        Path | None, typer.Option(help="Figure (.png, .pdf, .svg); beside the file if left out.")
    ] = None,
) -> None:
    """Draw a slice again from its file."""
    import xarray as xr

    def read() -> xr.Dataset:
        if not file.is_file():
            raise ValueError(f"there is no slice at {file}")
        try:
            return xr.load_dataset(file, engine="scipy")
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ValueError(f"{file} is no slice in NetCDF: {error}") from error

    found = or_exit(read)
    drawable = [name for name in map(str, found.data_vars) if f"{name}_stderr" in found.data_vars]
    if metric not in drawable:
        fail(f"--metric must be one of {', '.join(drawable)}; got {metric}")
    figure = file.with_suffix(".png") if out is None else out
    if figure.suffix not in FORMATS:
        fail(f"--out must end in {', '.join(FORMATS)}; got {figure}")
    or_exit(lambda: _writable(figure))
    typer.echo(f"Figure: {or_exit(lambda: _draw(found, metric, figure))}")


def _span(seen: object, directions: str, dimensions: int) -> object:
    """Ends of the axes where none are given: around the checkpoints in the plane."""
    from landscape.slices import Trajectory

    if not isinstance(seen, Trajectory):
        return (-0.5, 1.5) if directions.startswith("to:") and dimensions == 1 else (-1.0, 1.0)
    ends = []
    for place in seen.coordinates.T:
        low, high = min(float(place.min()), 0.0), max(float(place.max()), 0.0)
        margin = 0.2 * (high - low) or 1.0
        ends.append((low - margin, high + margin))
    return ends


def _drawable(probe: Probe, test: object) -> list[str]:
    """Variables that a slice of the probe will hold, errors aside."""
    from landscape.slices.evaluation import known_metrics

    splits = ["train"] if test is None else ["train", "test"]
    return [f"{split}_{name}" for split in splits for name in ("loss", *known_metrics(probe))]


def _seconds_a_point(probe: object, axes: object, test: object) -> float:
    import numpy as np

    from landscape.slices.evaluation import Plan, kept

    plan = Plan(
        probe=probe,  # type: ignore[arg-type]
        directions=axes,  # type: ignore[arg-type]
        test=None if test is None else kept(test, probe),  # type: ignore[arg-type]
    )
    evaluate = plan.evaluator()
    origin = np.zeros((1, len(plan.directions)))
    evaluate(origin)
    start = time.perf_counter()
    evaluate(origin)
    return time.perf_counter() - start


def _writable(path: Path) -> None:
    check_writable(path.parent, f"--out {path}")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; give a file, such as slice.nc")


def _save(found: xr.Dataset, path: Path) -> None:
    from landscape.slices.rows import Rows

    partial = path.with_name(f".{path.name}.partial")
    found.to_netcdf(partial, engine="scipy")
    partial.replace(path)
    Rows.discard(path)


def _draw(found: xr.Dataset, metric: str, path: Path) -> Path:
    from landscape.viz import plot_slice

    # A curve shows the losses on train and test data together.
    both = metric == "train_loss" and len(found.train_loss.dims) == 1
    return plot_slice(found, variable=None if both else metric).save(path)
