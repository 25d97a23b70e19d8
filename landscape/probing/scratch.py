"""A copy of the model whose weights are written in place: many points, no traffic between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from landscape.probing.batches import place
from landscape.probing.nesting import tensors
from landscape.probing.objective import Terms
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Meter

Metric = Callable[[Tensor, Any], Tensor]


@dataclass(frozen=True)
class PointStatistics:
    """Means over the data at N points, and their standard errors over its terms.

    Args:
        mean: By name, (N,) float64.
        stderr: By name, (N,) float64; NaN where the objective gives sums only.
    """

    mean: dict[str, Tensor]
    stderr: dict[str, Tensor]


class Scratch:
    """Evaluates a model at w + sum_i a_i d_i for many a, the data read once for all of them.

    Args:
        snapshot: Model and objective; copied.
        space: The parameters that move.
        weights: The checkpoint, (P,).
        meter: Counts passes, each point on each data as one.
    """

    def __init__(
        self, snapshot: Snapshot, space: ParamSpace, weights: Tensor, meter: Meter
    ) -> None:
        self._meter = meter
        self._snapshot = Snapshot(
            snapshot.model_copy(),
            snapshot.objective,
            device=snapshot.device,
            dtype=snapshot.dtype,
            batch_norm=snapshot.batch_norm,
        )
        self._space = space
        self._weights = self._spaced(weights)
        self._flat = self._weights.clone()
        named = dict(self._snapshot.model.named_parameters())
        start = 0
        for name, shape in zip(space.names, space.shapes, strict=True):
            named[name].data = self._flat[start : start + shape.numel()].view(shape)
            start += _evened(shape.numel())
        self._buffers = dict(self._snapshot.model.named_buffers())
        self._base = {name: tensor.clone() for name, tensor in self._buffers.items()}

    def evaluate(
        self,
        coordinates: Tensor,  # (N, D)
        directions: Sequence[Tensor],  # D of (P,)
        batches: Iterable[Any],
        metrics: Mapping[str, Metric],
        *,
        buffers: Sequence[Mapping[str, Tensor]] = (),
        calibration: Iterable[Any] = (),
    ) -> PointStatistics:
        """Mean loss, metrics and their standard errors at N points.

        Args:
            coordinates: a, (N, D).
            directions: d, D vectors.
            batches: The data.
            metrics: Name to function of (outputs, batch) with one value an example.
            buffers: For each direction, changes of buffers that go along with it.
            calibration: Data from which batch norm is re-estimated in mode "recalibrate".

        Returns:
            "loss" and the metrics.
        """
        rows = coordinates.tolist()
        directions = [self._spaced(direction) for direction in directions]
        names = ("loss", *metrics)
        found = [[_Moments() for _ in rows] for _ in names]

        def add(number: int, batch: Any) -> None:
            for column, moments in zip(found, self._one(batch, metrics), strict=True):
                column[number].add(moments)

        with self._snapshot.evaluating(gradient=False):
            if self._snapshot.recalibrates:
                for number, row in enumerate(rows):
                    self._move(row, directions, buffers)
                    self._snapshot.recalibrate({}, calibration)
                    for batch in batches:
                        add(number, _Own(batch, self._snapshot).untouched())
            else:
                for batch in batches:
                    own = _Own(batch, self._snapshot)
                    for number, row in enumerate(rows):
                        self._move(row, directions, buffers)
                        add(number, own.untouched())
        self._meter.count(forwards=len(rows) * (1 + self._snapshot.recalibrates))
        mean = torch.tensor([[m.mean for m in column] for column in found], dtype=torch.float64)
        stderr = torch.tensor([[m.stderr for m in column] for column in found], dtype=torch.float64)
        return PointStatistics(
            dict(zip(names, mean, strict=True)), dict(zip(names, stderr, strict=True))
        )

    def _spaced(self, vector: Tensor) -> Tensor:
        """A flat vector in which every parameter begins at an even place, as complex views need."""
        if all(size == _evened(size) for size in self._space.sizes):
            return vector.clone()
        pieces = vector.split(list(self._space.sizes))
        return torch.cat(
            [functional.pad(piece, (0, _evened(len(piece)) - len(piece))) for piece in pieces]
        )

    def _move(
        self,
        row: Sequence[float],
        directions: Sequence[Tensor],
        buffers: Sequence[Mapping[str, Tensor]],
    ) -> None:
        self._flat.copy_(self._weights)
        for coordinate, direction in zip(row, directions, strict=True):
            self._flat.add_(direction, alpha=coordinate)
        for name, tensor in self._buffers.items():
            tensor.copy_(self._base[name])  # also what a forward pass has written there
            for coordinate, changes in zip(row, buffers, strict=False):
                if name in changes:
                    tensor.add_(changes[name], alpha=coordinate)

    def _one(self, batch: Any, metrics: Mapping[str, Metric]) -> list[_Moments]:
        snapshot, model = self._snapshot, self._snapshot.model
        objective = snapshot.objective
        if not objective.has_outputs:
            return [_Moments.of_terms(objective.evaluate(model, batch))]
        outputs = objective.outputs(model, batch)
        found = [_Moments.of_terms(objective.penalised(objective.reduce(outputs, batch), model))]
        for name, metric in metrics.items():
            values = metric(outputs, batch)
            if values.dim() == 0:
                raise ValueError(
                    f"metric {name!r} gives one number for a batch; it must give one an example, "
                    "so that batches of different sizes are weighted right"
                )
            found.append(_Moments.of(values))
        return found


class _Own:
    """A copy of a batch, made anew where a model with an in-place first layer has written in it."""

    def __init__(self, batch: Any, snapshot: Snapshot) -> None:
        self._source, self._snapshot = batch, snapshot
        self._copy: Any = None
        self._versions: list[int] | None = None

    def untouched(self) -> Any:
        if self._versions is None or self._versions != _versions(self._copy):
            device, dtype = self._snapshot.device, self._snapshot.dtype
            self._copy = place(self._source, device, dtype, copy=True)
            self._versions = _versions(self._copy)
        return self._copy


def _evened(size: int) -> int:
    return size + size % 2


def _versions(batch: Any) -> list[int]:
    """How often each tensor was written to."""
    return [tensor._version for tensor in tensors(batch)]


@dataclass
class _Moments:
    """Sums that add up without cancellation, of terms x_t that weigh w_t, around their mean m.

    Args:
        number: Of the terms, n.
        count: sum w.
        mean: m = sum w x / sum w.
        squares: sum w^2 (x - m)^2.
        cross: sum w^2 (x - m).
        weights: sum w^2.
    """

    number: float = 0
    count: float = 0
    mean: float = 0.0
    squares: float = 0.0
    cross: float = 0.0
    weights: float = 0.0

    @classmethod
    def of(cls, values: Tensor) -> _Moments:
        values = values.reshape(-1).double()
        count = values.numel()
        if not count:
            return cls()
        # Apart: var_mean loses infinite means.
        spread, mean = torch.stack([values.var(correction=0), values.mean()]).tolist()
        return cls(count, count, mean, spread * count, 0.0, count)

    @classmethod
    def of_terms(cls, terms: Terms) -> _Moments:
        if not terms.count:
            return cls()
        mean = float(terms.total) / terms.count
        if terms.losses is None:
            return cls(terms.count, terms.count, mean, math.nan, math.nan, math.nan)
        if terms.weights is None:
            return cls.of(terms.losses)
        weights = terms.weights.reshape(-1).double()
        rest = terms.losses.reshape(-1).double() - weights * mean  # w (x - m)
        sums = [rest.square().sum(), (weights * rest).sum(), weights.square().sum()]
        return cls(len(weights), terms.count, mean, *torch.stack(sums).tolist())

    def add(self, other: _Moments) -> None:
        if not other.count:
            return
        count = self.count + other.count
        if not self.count:
            mean = other.mean
        elif math.isfinite(self.mean) and math.isfinite(other.mean):
            mean = self.mean + (other.mean - self.mean) * other.count / count
        else:
            mean = self.mean + other.mean
        here, there = self._around(mean), other._around(mean)
        self.squares, self.cross = here[0] + there[0], here[1] + there[1]
        self.number, self.weights = self.number + other.number, self.weights + other.weights
        self.count, self.mean = count, mean

    def _around(self, mean: float) -> tuple[float, float]:
        """Squares and cross around another mean; NaN where a mean is not finite."""
        if not self.count:
            return 0.0, 0.0
        gap = self.mean - mean
        return (
            self.squares + 2 * gap * self.cross + gap * gap * self.weights,
            self.cross + gap * self.weights,
        )

    @property
    def stderr(self) -> float:
        if self.number < 2:
            return math.nan
        return math.sqrt(self.squares * self.number / (self.number - 1)) / self.count
