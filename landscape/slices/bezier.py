"""Trained curves of low loss between two checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from landscape.probing import Metric, Parts, Probe
from landscape.probing.batches import Batches
from landscape.slices.directions import Direction, State, between
from landscape.slices.evaluation import Plan
from landscape.slices.paths import differing_buffers, fitted_state

if TYPE_CHECKING:
    import xarray as xr

Optimizer = Literal["adam", "sgd"]

_NODES = 64  # of the quadrature of the length, whose integrand is smooth


@dataclass(frozen=True, kw_only=True)
class Bezier:
    """A quadratic curve φ(t) = (1-t)² w1 + 2t(1-t) θ + t² w2 of low loss.

    Args:
        start: w1, (P,).
        bend: θ, (P,).
        end: w2, (P,).
        path: Losses on the curve, alpha being t, in the format of ``interpolate``.
        highest: Largest training loss among its points.
        position: The t of it.
        length: Length of the curve.
        distance: ||w2 - w1||.
        training: Loss at every step, each at a random t on a mini-batch.
    """

    start: Tensor = field(repr=False)
    bend: Tensor = field(repr=False)
    end: Tensor = field(repr=False)
    path: xr.Dataset = field(repr=False)
    highest: float
    position: float
    length: float
    distance: float
    training: tuple[float, ...] = field(repr=False)

    def point(self, t: float) -> Tensor:
        """φ(t), (P,)."""
        return (1 - t) ** 2 * self.start + 2 * t * (1 - t) * self.bend + t**2 * self.end


def bezier(  # noqa: PLR0913 - settings, each with a default
    probe: Probe,
    other: State,
    *,
    steps: int = 500,
    batch_size: int | None = 128,
    optimizer: Optimizer = "adam",
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    points: int = 61,
    metrics: Mapping[str, Metric] | None = None,
    test: Iterable[Any] | None = None,
    seed: int = 0,
) -> Bezier:
    """Trains a quadratic Bézier curve between two checkpoints.

    min over θ of E_{t ~ U[0, 1]} L(φ(t)), φ(t) = (1-t)² w1 + 2t(1-t) θ + t² w2 (Garipov et al.
    2018, section 3): every step draws one t and one mini-batch, and follows 2t(1-t) ∇L(φ(t)). The
    ends stay, θ starts in the middle of the line. The rate falls to zero along a half cosine. With
    batch norm, make the probe with batch_norm="recalibrate": its statistics are then those of the
    mini-batch in training, and of all data at the points of the result.

    Args:
        probe: At w1.
        other: w2 by name, or a model; not modified.
        steps: Of the optimiser.
        batch_size: Examples a step; None takes all of them.
        optimizer: "adam", or "sgd" with momentum 0.9.
        learning_rate: At the start.
        weight_decay: c of a further loss c/2 ||φ(t)||².
        points: Equidistant in t, of the result.
        metrics: As in ``evaluate_slice``.
        test: Further batches, evaluated at the same points.
        seed: Of the draws.

    Returns:
        The curve and the losses on it.

    Raises:
        ValueError: If the other checkpoint does not fit the model, or a setting is wrong.
        RuntimeError: If the training diverges.

    Example:
        >>> import torch, landscape
        >>> from landscape.slices.bezier import bezier
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(torch.nn.Linear(4, 3), "cross_entropy", batches)
        >>> curve = bezier(probe, torch.nn.Linear(4, 3), steps=10, points=5)
        >>> curve.path.sizes["alpha"], curve.length >= curve.distance
        (5, True)
    """
    _check(steps=steps, batch_size=batch_size, points=points)
    if optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer must be one of {get_args(Optimizer)}, got {optimizer!r}")
    if not 0 < learning_rate < math.inf or not 0 <= weight_decay < math.inf:
        raise ValueError(
            "learning_rate must be positive and weight_decay not negative, got "
            f"{learning_rate} and {weight_decay}"
        )
    state = fitted_state(probe, other)
    if not probe.uses_batch_statistics and (names := differing_buffers(probe, state)):
        raise ValueError(
            f"the checkpoints differ in buffers ({', '.join(names[:5])}), and those of neither fit "
            "the curve between them; make the probe with batch_norm='recalibrate'"
        )
    line = between(probe, {name: state[name] for name in probe.space.names})
    bend = (line.vector / 2).clone()  # θ - w1
    training = _Training(probe, line.vector, bend, weight_decay)
    if optimizer == "adam":
        stepper: torch.optim.Optimizer = torch.optim.Adam([bend], lr=learning_rate)
    else:
        stepper = torch.optim.SGD([bend], lr=learning_rate, momentum=0.9)
    losses = training.run(stepper, probe.parts(batch_size), steps, seed)

    path = _measured(probe, bend, line, points, metrics, test)
    top = int(path["train_loss"].values.argmax())
    length = _length(bend, line.vector)
    about: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    path.attrs |= {"length": length, "distance": line.norm, "training": json.dumps(about)}
    start = probe.weights()
    return Bezier(
        start=start,
        bend=start + bend,
        end=start + line.vector,
        path=path,
        highest=float(path["train_loss"].values[top]),
        position=float(path["alpha"].values[top]),
        length=length,
        distance=line.norm,
        training=losses,
    )


def _check(*, steps: int, batch_size: int | None, points: int) -> None:
    if steps < 1 or points < 2 or (batch_size is not None and batch_size < 1):
        raise ValueError(
            "steps and batch_size must be positive and points at least 2, got "
            f"{steps}, {batch_size} and {points}"
        )


class _Training:
    """Steps of an optimiser on the bend, in offsets from w1."""

    def __init__(self, probe: Probe, line: Tensor, bend: Tensor, weight_decay: float) -> None:
        self._weights = probe.weights()
        self._line, self._bend = line, bend
        self._decay = weight_decay

    def run(
        self, stepper: torch.optim.Optimizer, parts: Parts, steps: int, seed: int
    ) -> tuple[float, ...]:
        source = torch.Generator().manual_seed(seed)
        full = [group["lr"] for group in stepper.param_groups]
        chosen, losses = _shuffled(len(parts), source), []
        for step in range(steps):
            for group, rate in zip(stepper.param_groups, full, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            t = float(torch.rand((), generator=source, dtype=torch.float64))
            share = 2 * t * (1 - t)
            offset = share * self._bend + t**2 * self._line
            found, gradients = parts.losses_and_gradients(offset[None], [next(chosen)])
            losses.append(float(found[0]))
            slope = gradients[0] + self._decay * (self._weights + offset)
            self._bend.grad = share * slope
            stepper.step()
            if not (math.isfinite(losses[-1]) and self._bend.isfinite().all()):
                raise RuntimeError(
                    f"the training of the curve diverged in step {step + 1}; lower learning_rate"
                )
        self._bend.grad = None
        return tuple(losses)


def _shuffled(count: int, source: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(count, generator=source).tolist()


def _measured(  # noqa: PLR0917 - one caller
    probe: Probe,
    bend: Tensor,
    line: Direction,
    points: int,
    metrics: Mapping[str, Metric] | None,
    test: Iterable[Any] | None,
) -> xr.Dataset:
    import xarray as xr  # noqa: PLC0415 - a second that a bare import need not pay

    if metrics is None:
        known = probe.objective.has_accuracy and probe.objective.has_outputs
        metrics = {"accuracy": probe.objective.correct} if known else {}
    elif metrics and not probe.objective.has_outputs:
        raise ValueError("metrics need the network's outputs, and the objective gives losses only")
    up = Direction(kind="bend", vector=bend, label="bend", unit="")
    more = None if test is None else Batches(test, probe.device, probe.dtype)
    plan = Plan(probe=probe, directions=[up, line], metrics=metrics, test=more)
    t = np.linspace(0, 1, points)
    values = plan.evaluator()(np.stack([2 * t * (1 - t), t**2], 1))
    variables: dict[str, Any] = {
        name: ("alpha", column) for name, column in zip(plan.names, values.T, strict=True)
    }
    variables["evaluated"] = ("alpha", np.ones(points, dtype=bool))
    attributes = {
        "directions": json.dumps([up.record(), line.record()]),
        "provenance": json.dumps({**plan.about(), "terms": probe.terms, "size": probe.size}),
        "tolerance": math.nan,
        "error_estimate": json.dumps(dict.fromkeys(plan.names[: len(plan.names) // 2], 0.0)),
        "evaluated_points": points,
    }
    axis = ("alpha", t, {"label": "t along the quadratic curve", "units": ""})
    return xr.Dataset(variables, {"alpha": axis}, attributes)


def _length(bend: Tensor, line: Tensor) -> float:
    """∫ ||φ'|| dt, φ' = 2 (1-t) u + 2 t (v - u) for the offsets u of the bend and v of the end."""
    first, last = 2 * bend.double(), 2 * (line.double() - bend.double())
    products = (float(first @ first), float(first @ last), float(last @ last))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    t = (nodes + 1) / 2
    squares = (1 - t) ** 2 * products[0] + 2 * t * (1 - t) * products[1] + t**2 * products[2]
    return float(weights @ np.sqrt(squares.clip(0))) / 2
