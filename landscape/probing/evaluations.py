"""What a probe evaluates: losses, gradients and curvature products at and near a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape.probing.batches import Batches, owned, place
from landscape.probing.checking import BasePass, GradientPass
from landscape.probing.derivative_checks import DerivativeChecks
from landscape.probing.graphs import HessianGraph, Operator, measured
from landscape.probing.parts import Parts, Products
from landscape.probing.products import CurvatureProducts, GradientDifferences
from landscape.probing.scratch import Scratch
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Meter


class Evaluations(ABC):
    """The evaluations of a probe; it says itself of what."""

    space: ParamSpace
    device: torch.device
    dtype: torch.dtype
    terms: float
    checks: DerivativeChecks
    _snapshot: Snapshot
    _batches: Batches
    _weights: Tensor
    _meter: Meter
    _way: Products
    _whole: Parts
    _curvature: CurvatureProducts

    @property
    @abstractmethod
    def _base(self) -> BasePass: ...

    @property
    @abstractmethod
    def _slope(self) -> GradientPass: ...

    @property
    @abstractmethod
    def _differences(self) -> GradientDifferences: ...

    @property
    def size(self) -> int:
        """P, the number of trainable parameters, tied ones counted once."""
        return self.space.size

    def modules(self) -> dict[str, nn.Module]:
        """The modules of the model by name, to look at only."""
        return dict(self._snapshot.model.named_modules())

    def model_copy(self) -> nn.Module:
        """A copy of the model as it is evaluated, with frozen parameters, to do anything with."""
        return self._snapshot.model_copy()

    def scratch(self) -> Scratch:
        """A copy whose weights are written in place, to evaluate many points."""
        return Scratch(self._snapshot, self.space, self._weights, self._meter)

    @property
    def batches(self) -> Iterable[Any]:
        """The data, on the probe's device."""
        return self._batches

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a loss depends on the other examples of its batch, through batch norm."""
        return self._snapshot.uses_batch_statistics

    def weights(self) -> Tensor:
        """A copy of the checkpoint's parameters, (P,)."""
        return self._weights.clone()

    def loss(self, delta: Tensor | None = None) -> float:
        """Mean loss over all terms at an offset from the checkpoint.

        Args:
            delta: Offset, (P,); None is the checkpoint itself (known, costs nothing).

        Returns:
            L(w + delta), summed in float64.

        Raises:
            ValueError: If the shape of ``delta`` is wrong.
        """
        if delta is None:
            return self._base.loss
        return float(self.losses(self._vector(delta, "delta")[None])[0])

    def losses(
        self,
        deltas: Tensor,  # (K, P)
    ) -> Tensor:  # (K,), float64, on the CPU
        """Mean losses at K offsets from the checkpoint.

        Args:
            deltas: Offsets, (K, P).

        Returns:
            L(w + delta) for each, (K,) float64.

        Raises:
            ValueError: If the shape of ``deltas`` is wrong.
        """
        deltas = self._rows(deltas, "deltas")
        return self._whole.losses(deltas, [0] * len(deltas))

    def term_losses(self, delta: Tensor | None = None) -> Tensor | None:
        """The loss of every term, times its weight, in the order of the data, (T,) float64.

        Args:
            delta: Offset, (P,); None is the checkpoint.

        Returns:
            One loss a term on the CPU, or None if the objective gives only sums.
        """
        found: list[Tensor] = []
        with self._evaluating(gradient=False, delta=self._offset(delta)) as point:
            for batch in self._batches:
                losses = self._snapshot.terms(self.space.split(point), batch).losses
                if losses is None:
                    return None
                found.append(losses.double().cpu())
        self._meter.count(forwards=1)
        return torch.cat(found)

    def loss_stderr(self) -> float | None:
        """Standard error of the mean loss over the terms, as an estimate of the expected loss.

        With weights w it is that of the ratio sum w l / sum w. One forward pass.

        Returns:
            The error; None where the objective gives sums only, or a single loss.
        """
        rests: list[Tensor] = []  # w_t (l_t - L)
        with self._evaluating(gradient=False) as point:
            for batch in self._batches:
                terms = self._snapshot.terms(self.space.split(point), batch)
                if terms.losses is None:
                    return None
                weights = 1.0 if terms.weights is None else terms.weights.double()
                rests.append((terms.losses.double() - weights * self._base.loss).cpu())
        self._meter.count(forwards=1)
        rest = torch.cat(rests)
        if len(rest) < 2:
            return None
        squares = rest.square().sum() * len(rest) / (len(rest) - 1)
        return float(squares.sqrt() / self.terms)

    def gradient(self, delta: Tensor | None = None) -> Tensor:  # (P,)
        """Gradient of the mean loss at an offset from the checkpoint.

        Args:
            delta: Offset, (P,); None is the checkpoint itself (evaluated once, then known).

        Returns:
            The gradient, (P,).

        Raises:
            ValueError: If the shape of ``delta`` is wrong.
        """
        self.checks.note("gradient")
        if delta is None:
            return self._slope.gradient.clone()
        offset = self._vector(delta, "delta")[None]
        return self._whole.losses_and_gradients(offset, [0])[1][0]

    def means(self, metric: Callable[[Tensor, Any], Tensor], deltas: Tensor) -> Tensor:
        """Means over the data of ``metric(outputs, batch)`` at K offsets from the checkpoint.

        Args:
            metric: Gives one value an example (or token), such as ``probe.objective.correct``,
                whose mean is the accuracy.
            deltas: Offsets, (K, P).

        Returns:
            One mean each, (K,) float64.

        Raises:
            TypeError: If the objective is a callable that gives no outputs.
            ValueError: If the shape of ``deltas`` is wrong.
        """
        return self._whole.means(metric, self._rows(deltas, "deltas"))

    def term_values(self, metric: Callable[[Tensor, Any], Tensor]) -> Tensor:
        """Values of ``metric(outputs, batch)`` at the checkpoint in the order of the data.

        Args:
            metric: Gives a tensor whose first dimension is that of the examples (or tokens).

        Returns:
            All of them, on the CPU. One forward pass.

        Raises:
            TypeError: If the objective is a callable that gives no outputs.
            ValueError: If the metric gives one number for a whole batch.
        """
        found: list[Tensor] = []
        with self._evaluating(gradient=False) as point:
            for batch in self._batches:
                outputs = self._snapshot.outputs(self.space.split(point), batch)
                values = metric(outputs, batch)
                if values.dim() == 0:
                    raise ValueError(
                        "a metric gives one number for a batch; it must give one an example, so "
                        "that batches of different sizes are weighted right"
                    )
                found.append(values.cpu())
        self._meter.count(forwards=1)
        return torch.cat(found)

    def outputs_of(self, model: nn.Module, *, first: bool = False) -> Tensor:
        """What another model, such as a changed copy, makes of the data.

        Args:
            model: Takes the same batches; they are cast to its floating type.
            first: Only the first batch; counted as a whole pass all the same.

        Returns:
            All outputs in a row, or the losses where the objective gives no outputs, on the CPU.
        """
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), self.dtype)
        found: list[Tensor] = []
        with self._snapshot.evaluating(gradient=False):
            for batch in self._batches:
                found.append(self._outputs(model, place(batch, self.device, dtype, copy=True)))
                if first:
                    break
        self._meter.count(forwards=1)
        return torch.cat(found)

    def _outputs(self, model: nn.Module, batch: Any) -> Tensor:
        objective = self._snapshot.objective
        if objective.has_outputs:
            return objective.outputs(model, batch).reshape(-1).cpu()
        terms = objective.evaluate(model, batch)
        return (terms.total if terms.losses is None else terms.losses).reshape(-1).cpu()

    def hvp(self, v: Tensor, delta: Tensor | None = None) -> Tensor:
        """Products of the Hessian of the mean loss with one or K vectors.

        Args:
            v: (P,) or (K, P).
            delta: Offset at which the Hessian is taken, (P,); None is the checkpoint.

        Returns:
            H v, shaped like ``v``. Exact up to rounding, unless the probe was made with
            ``products="finite_difference"``.

        Raises:
            ValueError: If a shape is wrong.
        """
        return self._product("hessian", v, delta)

    def ggnvp(self, v: Tensor, delta: Tensor | None = None) -> Tensor:
        """Products of the generalised Gauss-Newton matrix with one or K vectors.

        G = 1/T sum over terms of J^T (d2 loss / d outputs2) J, J the Jacobian of the outputs
        (Schraudolph 2002); positive semi-definite for losses convex in the outputs.

        Args:
            v: (P,) or (K, P).
            delta: Offset at which it is taken, (P,); None is the checkpoint.

        Returns:
            G v, shaped like ``v``.

        Raises:
            TypeError: If the objective is a callable that gives no outputs.
            ValueError: If a shape is wrong.
        """
        return self._product("ggn", v, delta)

    def _product(self, operator: Operator, v: Tensor, delta: Tensor | None) -> Tensor:
        vectors = self._rows(v[None] if v.dim() == 1 else v, "v")
        offset = self._offset(delta)
        if self._way == "finite_difference" and operator == "hessian":
            self.checks.note("gradient")
            product = self._differences.products(vectors, offset)
        else:
            self.checks.note(operator)
            with self._evaluating(gradient=True, delta=offset) as point:
                product = self._curvature.apply(operator, vectors, point, at_base=offset is None)
            self._meter.count(products=len(vectors))
        return product[0] if v.dim() == 1 else product

    def graph_bytes(self) -> list[int]:
        """Bytes that the graph of the gradient of each batch keeps alive; one gradient pass."""
        found = []
        with self._evaluating(gradient=True) as point:
            for batch in self._batches:
                graph, size = measured(
                    partial(HessianGraph, self._snapshot, self.space, point, batch)
                )
                del graph
                found.append(size)
        self._meter.count(gradients=1)
        return found

    @contextmanager
    def _evaluating(self, *, gradient: bool, delta: Tensor | None = None) -> Iterator[Tensor]:
        """Settings of an evaluation, and the point w + delta with its batch-norm statistics."""
        with ExitStack() as stack:
            stack.enter_context(self._snapshot.evaluating(gradient=gradient))
            point = self._weights.detach() + (0 if delta is None else delta)
            if delta is not None and self._snapshot.recalibrates:
                stack.enter_context(
                    self._snapshot.calibrated(self.space.split(point), self._batches)
                )
                self._meter.count(forwards=1)
            yield point

    def _offset(self, delta: Tensor | None) -> Tensor | None:
        return None if delta is None else self._vector(delta, "delta")

    def _vector(self, vector: Tensor, name: str) -> Tensor:
        if vector.shape != (self.size,):
            raise ValueError(
                f"{name} must have shape ({self.size},), one entry per trainable parameter, got "
                f"{tuple(vector.shape)}"
            )
        return owned(vector, self.device, self.dtype)

    def _rows(self, rows: Tensor, name: str) -> Tensor:
        if rows.dim() != 2 or rows.shape[1] != self.size:
            raise ValueError(
                f"{name} must have rows of {self.size} entries, one per trainable parameter, got "
                f"shape {tuple(rows.shape)}"
            )
        return owned(rows, self.device, self.dtype)
