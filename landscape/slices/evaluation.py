"""Slices: the loss and other means over the data on a line or a plane through a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from landscape.probing import Metric, Probe
from landscape.probing.batches import Batches
from landscape.slices.directions import Direction, cosine
from landscape.slices.rows import Rows
from landscape.slices.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
Span = tuple[float, float]
Scale = Literal["linear", "log"]

AXES = ("alpha", "beta")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a slice evaluates.

    Args:
        probe: At the origin.
        directions: One or more.
        metrics: Name to function of (outputs, batch) with one value an example.
        test: Further data, evaluated at the same points.
        interpolate: Whether buffers move along with the directions that change them.
    """

    probe: Probe
    directions: Sequence[Direction]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    test: Batches | None = None
    interpolate: bool = False

    @property
    def names(self) -> list[str]:
        """Variables in the order of the values: loss and metrics of each split, then errors."""
        splits = ("train",) if self.test is None else ("train", "test")
        means = [f"{split}_{name}" for split in splits for name in ("loss", *self.metrics)]
        return [*means, *(f"{name}_stderr" for name in means)]

    def evaluator(self) -> Callable[[Array], Array]:
        """A function of points (N, D) that gives values (N, variables)."""
        scratch = self.probe.scratch()
        vectors = [direction.vector for direction in self.directions]
        buffers = [direction.buffers for direction in self.directions] if self.interpolate else []
        splits = [self.probe.batches] if self.test is None else [self.probe.batches, self.test]

        def evaluate(points: Array) -> Array:
            found = [
                scratch.evaluate(
                    torch.from_numpy(points),
                    vectors,
                    batches,
                    self.metrics,
                    buffers=buffers,
                    calibration=self.probe.batches,
                )
                for batches in splits
            ]
            means = [values for part in found for values in part.mean.values()]
            errors = [values for part in found for values in part.stderr.values()]
            return torch.stack([*means, *errors], 1).numpy()

        return evaluate

    def about(self) -> dict[str, Any]:
        """What the values depend on besides the points."""
        return {
            **self.probe.identity(),
            "test_data": None if self.test is None else self.test.walk()[0],
            "directions": [direction.record() for direction in self.directions],
            "variables": self.names,
            # Names do not tell two functions apart: their means do.
            "metrics": {
                name: f"{float(self.probe.term_values(metric).double().mean()):.6e}"
                for name, metric in self.metrics.items()
            },
            "interpolate_buffers": self.interpolate,
        }


def evaluate_slice(  # noqa: PLR0913 - settings, each with a default
    probe: Probe,
    directions: Direction | Sequence[Direction],
    span: Span | Sequence[Span] = (-1.0, 1.0),
    points: int | Sequence[int] = 51,
    tolerance: float | None = None,
    *,
    scale: Scale = "linear",
    metrics: Mapping[str, Metric] | None = None,
    test: Iterable[Any] | None = None,
    interpolate_buffers: bool = False,
    trajectory: Trajectory | None = None,
    path: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Loss, accuracy and other means on a line or a plane through the checkpoint.

    A point is w + alpha d_1 + beta d_2. The data are walked once for a block of points; weights
    are written in place of a copy of the model.

    Args:
        probe: At the checkpoint; batch norm is treated as the probe says.
        directions: One or two (or more) directions.
        span: Ends of the axes, one pair for all or one each; in steps of the directions.
        points: Points of each axis; with a tolerance, the resolution of the result.
        tolerance: Largest error of an interpolated loss as a share of its range; other variables
            are interpolated along with it, and their measured error is told. None evaluates every
            point.
        scale: Of the tolerance: "linear", or "log" for the range of the logarithm of losses, which
            a picture with logarithmic levels needs to be right near the minimum.
        metrics: Name to function of (outputs, batch) with one value an example; None takes the
            accuracy where the objective knows one.
        test: Further batches, evaluated at the same points.
        interpolate_buffers: Whether batch-norm statistics move along with ``between``.
        trajectory: Checkpoints to be drawn into the plane.
        path: Evaluated blocks are kept in a folder beside it and found again by the same call.
        advance: Called with the number of points after every block.

    Returns:
        A dataset with dimensions alpha (and beta): "train_loss", its "_stderr" over the terms, the
        same for every metric and for "test_", and "evaluated", false where a value is
        interpolated. Attributes hold directions, cosine, provenance and the measured error.

    Raises:
        ValueError: If a setting is wrong.
        SliceMismatchError: If the folder beside ``path`` holds points of another slice.

    Example:
        >>> import torch, landscape
        >>> from landscape.slices import evaluate_slice, random
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(torch.nn.Linear(4, 3), "cross_entropy", batches)
        >>> line = evaluate_slice(probe, random(probe), points=5)
        >>> bool(abs(line.train_loss.sel(alpha=0) - probe.loss()) < 1e-6)
        True
    """
    chosen = [directions] if isinstance(directions, Direction) else list(directions)
    axes = axes_of(len(chosen), span, points)
    check_tolerance(tolerance, scale)
    if metrics is None:
        metrics = known_metrics(probe)
    elif metrics and not probe.objective.has_outputs:
        raise ValueError("metrics need the network's outputs, and the objective gives losses only")
    for name in metrics:
        if name == "loss" or name.endswith("_stderr"):
            raise ValueError(f"metric {name!r} would stand for something else; choose another name")
    if interpolate_buffers and not any(direction.buffers for direction in chosen):
        raise ValueError(
            "none of the directions changes buffers, so that there is nothing to interpolate; only "
            "between() does; otherwise use a probe with batch_norm='recalibrate'"
        )
    plan = Plan(
        probe=probe,
        directions=chosen,
        metrics=metrics,
        test=None if test is None else kept(test, probe),
        interpolate=interpolate_buffers,
    )
    about = plan.about()
    rows = None if path is None else Rows(Rows.beside(path), about)
    evaluate = plan.evaluator()
    row = len(axes[-1])

    def values(wanted: Array) -> Array:
        found = []
        for start in range(0, len(wanted), row):
            block = np.ascontiguousarray(wanted[start : start + row])
            found.append(evaluate(block) if rows is None else rows.evaluated(block, evaluate))
            if advance is not None:
                advance(len(block))
        return np.concatenate(found)

    grid = _evaluated(values, axes, tolerance, plan.names, scale)
    dataset = _dataset(plan, axes, grid, about, tolerance)
    dataset.attrs["error_scale"] = scale
    return dataset if trajectory is None else with_trajectory(dataset, trajectory)


@dataclass(frozen=True)
class _Grid:
    values: Array  # (variables, *grid)
    evaluated: NDArray[np.bool_]
    errors: Array  # (variables,), as shares of the range


def _evaluated(
    evaluate: Callable[[Array], Array],
    axes: list[Array],
    tolerance: float | None,
    names: Sequence[str],
    scale: Scale,
) -> _Grid:
    shape = tuple(len(axis) for axis in axes)
    if tolerance is not None and len(axes) > 1:  # a line is cheap, and a jump on it easily missed
        from landscape.slices.refinement import refine  # noqa: PLC0415 - SciPy, a second to import

        # Accuracies are steps, which no spline follows: they ask for no points.
        smooth = np.array([name.endswith("_loss") for name in names])
        tolerances = np.where(smooth, tolerance, np.inf).tolist()
        scales: list[Scale] = [scale if entry else "linear" for entry in smooth]
        found = refine(evaluate, axes, tolerances, scale=scales)
        values = found.values
        for place in np.flatnonzero(~smooth):  # nor does a spline know their bounds
            known = values[place][found.evaluated]
            if np.isfinite(known).any():
                values[place] = np.clip(values[place], np.nanmin(known), np.nanmax(known))
        return _Grid(values, found.evaluated, found.error)
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    values = evaluate(mesh)
    return _Grid(
        values.T.reshape(values.shape[1], *shape),
        np.ones(shape, dtype=bool),
        np.zeros(values.shape[1]),
    )


def known_metrics(probe: Probe) -> dict[str, Metric]:
    """The accuracy, where the objective knows one."""
    known = probe.objective.has_accuracy and probe.objective.has_outputs
    return {"accuracy": probe.objective.correct} if known else {}


def kept(data: Iterable[Any], probe: Probe) -> Batches:
    """Data on the device of a probe."""
    batches = Batches(data, probe.device, probe.dtype)
    batches.keep(batches.walk()[1])
    return batches


def check_tolerance(tolerance: float | None, scale: str) -> None:
    """Raises ValueError where one of them has no meaning."""
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive or None, got {tolerance}")
    if scale not in get_args(Scale):
        raise ValueError(f"scale must be one of {get_args(Scale)}, got {scale!r}")


def axes_of(count: int, span: Span | Sequence[Span], points: int | Sequence[int]) -> list[Array]:
    """Coordinates of each axis.

    Returns:
        One array an axis.

    Raises:
        ValueError: If there is none, or a span or a number of points is wrong.
    """
    if not count:
        raise ValueError("a slice needs at least one direction")
    try:
        ends = np.broadcast_to(np.asarray(span, dtype=np.float64), (count, 2))
        counts = np.broadcast_to(np.asarray(points), (count,))
    except ValueError as error:
        raise ValueError(
            f"span must be a pair, or one for each of {count} axes, and points a number or one "
            f"for each; got {span!r} and {points!r}"
        ) from error
    if not (np.isfinite(ends).all() and (ends[:, 0] < ends[:, 1]).all()):
        raise ValueError(f"span must be ascending finite numbers, got {span!r}")
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 2).any():
        raise ValueError(f"points must be integers of at least 2, got {points!r}")
    return [
        np.linspace(low, high, number)
        for (low, high), number in zip(ends.tolist(), counts.tolist(), strict=True)
    ]


def _dataset(
    plan: Plan, axes: list[Array], grid: _Grid, about: dict[str, Any], tolerance: float | None
) -> xr.Dataset:
    import xarray as xr  # noqa: PLC0415 - a second that a bare import need not pay

    count = len(axes)
    dims = list(AXES[:count]) if count <= len(AXES) else [f"axis_{n}" for n in range(count)]
    coordinates = {
        dim: (dim, axis, {"label": direction.label, "units": direction.unit})
        for dim, axis, direction in zip(dims, axes, plan.directions, strict=True)
    }
    variables: dict[str, Any] = {
        name: (dims, values) for name, values in zip(plan.names, grid.values, strict=True)
    }
    variables["evaluated"] = (dims, grid.evaluated)
    told = [direction.record() for direction in plan.directions]
    attributes: dict[str, Any] = {
        "directions": json.dumps(told),
        "provenance": json.dumps({**about, "terms": plan.probe.terms, "size": plan.probe.size}),
        "tolerance": math.nan if tolerance is None else tolerance,
        "error_estimate": json.dumps(
            {
                name: float(error)
                for name, error in zip(plan.names, grid.errors, strict=True)
                if not name.endswith("_stderr")
            }
        ),
        "evaluated_points": int(grid.evaluated.sum()),
    }
    if count == 2:
        attributes["cosine"] = cosine(*plan.directions)
    if all("curvature" in entry for entry in told):
        attributes["curvatures"] = json.dumps([entry["curvature"] for entry in told])
    return xr.Dataset(variables, coordinates, attributes)


def with_trajectory(dataset: xr.Dataset, trajectory: Trajectory) -> xr.Dataset:
    """The dataset with checkpoints in its plane."""
    coordinates = trajectory.coordinates.numpy()
    added = {
        f"trajectory_{axis}": ("checkpoint", coordinates[:, place])
        for place, axis in enumerate(AXES[: coordinates.shape[1]])
    }
    added["trajectory_residual"] = ("checkpoint", trajectory.residuals.numpy())
    added["trajectory_label"] = ("checkpoint", np.array(trajectory.labels, dtype=str))
    found = dataset.assign(added)
    if trajectory.explained_variance is not None:
        found.attrs["explained_variance"] = json.dumps(trajectory.explained_variance)
    return found
