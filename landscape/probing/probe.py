"""The probe: the only place that evaluates a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.probing.batches import Batches, owned
from landscape.probing.checking import BasePass, checked_pass
from landscape.probing.objective import Objective, as_objective
from landscape.probing.operator import CurvatureOperator
from landscape.probing.products import CurvatureProducts, Operator, Products, finite_difference
from landscape.probing.requests import Evidence, Value_co
from landscape.probing.snapshot import BatchNormMode, Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Cost, Meter, environment

GIB = 1 << 30


class Probe:
    """Losses, gradients and curvature products of a model at and near a checkpoint.

    The probe is a snapshot: it holds its own copy of the model, so the model given is never
    modified, and training it further does not change what the probe says. L(w) is the mean loss
    over all terms of all batches, in evaluation mode.

    On construction the data are walked twice and loss and gradient compared, so that shuffling,
    augmentation or dropout is found before a number is wrong because of it.

    Args:
        model: The model; its trainable parameters span the space.
        objective: "cross_entropy", "mse", "bce", an ``Objective``, or a callable
            ``loss(model, batch)`` that returns one loss per term or (sum, number of terms).
        batches: Re-iterable of batches, in a fixed order.
        device: "cpu", "cuda", ...; None takes the model's.
        dtype: torch.float32 or torch.float64; None takes the model's (float32 for half types).
        batch_norm: "eval" (running statistics), "batch" (statistics of each batch, nothing
            stored) or "recalibrate" (running statistics re-estimated at every perturbed point).
        products: "auto", "loop", "batched", or "finite_difference" for models without a double
            backward.
        graph_memory: Bytes that autograd graphs kept between products may take.

    Raises:
        TypeError: If the batches cannot be walked many times, or the model cannot be copied.
        ValueError: If nothing is trainable, the loss is not finite, or two passes disagree.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(4, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(model, "cross_entropy", batches)
        >>> probe.size, probe.hvp(torch.ones(probe.size)).shape
        (15, torch.Size([15]))
    """

    def __init__(
        self,
        model: nn.Module,
        objective: str | Objective | Callable[[nn.Module, Any], Any],
        batches: Iterable[Any],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_norm: BatchNormMode = "eval",
        products: Products = "auto",
        graph_memory: int = GIB,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        space = ParamSpace.of(model)
        first = next(p for p in model.parameters() if p.requires_grad and p.numel())
        self.device = torch.device(device) if device is not None else first.device
        self.dtype = dtype or (torch.float64 if first.dtype == torch.float64 else torch.float32)
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self._snapshot = Snapshot(
            model,
            as_objective(objective),
            device=self.device,
            dtype=self.dtype,
            batch_norm=batch_norm,
        )
        self._batches = Batches(batches, self.device, self.dtype)
        self._meter = Meter(self.device)
        self._way: Products = products
        self._graph_memory = graph_memory
        self.model_hash = self._snapshot.content()
        base = checked_pass(self._snapshot, space, self._batches)
        self._meter.count(gradients=2, forwards=float(self._snapshot.recalibrates))
        self._span(space, base)

    def _span(self, space: ParamSpace, base: BasePass) -> None:
        """Sets everything that depends on which parameters are probed."""
        self.space = space
        self._base = base
        self._weights = space.flatten(dict(self._snapshot.model.named_parameters())).clone()
        self._curvature = CurvatureProducts(
            self._snapshot,
            space,
            self._batches,
            terms=base.terms,
            products=self._way,
            graph_memory=self._graph_memory,
        )
        self._evidence: dict[Hashable, tuple[Any, Cost]] = {}
        self._parts: dict[tuple[str, ...], Probe] = {}

    def restrict(self, patterns: str | Sequence[str]) -> Probe:
        """A probe on the subspace of parameters matching shell-style patterns.

        It shares model, data and meter with this probe; the other parameters stay at the
        checkpoint, so its Hessian is the diagonal block of this one's.

        Args:
            patterns: Such as "layer4.*" or ["*.weight"].

        Returns:
            The restricted probe; the same object for the same parameters.

        Raises:
            ValueError: If nothing matches.
        """
        part = self.space.select(patterns)
        if part.names == self.space.names:
            return self
        if part.names not in self._parts:
            probe = copy.copy(self)
            probe._span(part, self._base.restricted(self.space, part))
            self._parts[part.names] = probe
        return self._parts[part.names]

    @property
    def size(self) -> int:
        """P, the number of trainable parameters, tied ones counted once."""
        return self.space.size

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self._snapshot.objective

    @property
    def terms(self) -> int:
        """Number of loss terms (examples, tokens, entries) in one pass over the data."""
        return self._base.terms

    @property
    def unused(self) -> tuple[str, ...]:
        """Trainable parameters that no gradient reaches."""
        return self._base.unused

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
        sums = [0.0] * len(deltas)
        if self._snapshot.recalibrates:
            for row, delta in enumerate(deltas):
                with self._evaluating(gradient=False, delta=delta) as point:
                    sums[row] = sum(self._total(point, batch) for batch in self._batches)
        else:  # the batches outside, so that each is fetched once for all points
            with self._evaluating(gradient=False):
                for batch in self._batches:
                    for row, delta in enumerate(deltas):
                        sums[row] += self._total(self._weights + delta, batch)
        self._meter.count(forwards=len(deltas))
        return torch.tensor(sums, dtype=torch.float64) / self.terms

    def _total(self, point: Tensor, batch: Any) -> float:
        return float(self._snapshot.terms(self.space.split(point), batch).total)

    def term_losses(self, delta: Tensor | None = None) -> Tensor | None:
        """The loss of every term in the order of the data, (T,) float64.

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

    def gradient(self, delta: Tensor | None = None) -> Tensor:  # (P,)
        """Gradient of the mean loss at an offset from the checkpoint.

        Args:
            delta: Offset, (P,); None is the checkpoint itself (known, costs nothing).

        Returns:
            The gradient, (P,).

        Raises:
            ValueError: If the shape of ``delta`` is wrong.
        """
        if delta is None:
            return self._base.gradient.clone()
        with self._evaluating(gradient=True, delta=self._offset(delta)) as point:
            total = torch.zeros_like(point)
            point.requires_grad_()
            for batch in self._batches:
                terms = self._snapshot.terms(self.space.split(point), batch)
                if terms.total.requires_grad:
                    total += torch.autograd.grad(terms.total, point)[0]
        self._meter.count(gradients=1)
        return total / self.terms

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

            def gradient(step: Tensor) -> Tensor:
                return self.gradient(step if offset is None else offset + step)

            product = finite_difference(gradient, vectors, self._weights)
        else:
            with self._evaluating(gradient=True, delta=offset) as point:
                product = self._curvature.apply(operator, vectors, point, at_base=offset is None)
            self._meter.count(products=len(vectors))
        return product[0] if v.dim() == 1 else product

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

    def operator(self, name: Operator = "hessian") -> CurvatureOperator:
        """The Hessian ("hessian") or Gauss-Newton matrix ("ggn") as a symmetric operator."""
        return CurvatureOperator(self, name)

    def evidence(self, request: Evidence[Value_co]) -> Value_co:
        """The value of a request, computed once and kept.

        Args:
            request: A hashable description with ``compute(probe)``.

        Returns:
            Its value.
        """
        if request not in self._evidence:
            with self.meter() as cost:
                value = request.compute(self)
            self._evidence[request] = (value, cost)
        found: Value_co = self._evidence[request][0]
        return found

    def evidence_cost(self, request: Evidence[Any]) -> Cost:
        """What a piece of evidence cost when it was computed (zero if it was not yet)."""
        return self._evidence[request][1] if request in self._evidence else Cost()

    def meter(self) -> AbstractContextManager[Cost]:
        """Counts passes over the data, seconds and memory of a block: ``with ... as cost``."""
        return self._meter.block()

    def listen(self, listener: Callable[[float], None]) -> AbstractContextManager[None]:
        """Calls ``listener(passes)`` after every evaluation inside the block."""
        return self._meter.listen(listener)

    def release(self) -> None:
        """Drops the autograd graphs kept between products."""
        self._curvature.release()
        for part in self._parts.values():
            part.release()

    def identity(self) -> dict[str, Any]:
        """What a number depends on besides the measure: weights, data, objective, modes."""
        return {
            "weights": self.model_hash,
            "data": self._base.data_hash,
            "objective": self.objective.name,
            # Weights and names do not tell a ReLU from a Tanh, nor two lambdas: the loss does.
            "loss": f"{self._base.loss:.5e}",
            "parameters": list(self.space.names),
            "batch_norm": self._snapshot.batch_norm,
            "dtype": str(self.dtype).removeprefix("torch."),
            "products": self._way,
        }

    def provenance(self) -> dict[str, Any]:
        """Identity, size, settings, software and machine."""
        batched = {k: "batched" if on else "loop" for k, on in self._curvature.batched.items()}
        return {
            **self.identity(),
            "size": self.size,
            "terms": self.terms,
            "unused": list(self.unused),
            "products_used": batched if self._way != "finite_difference" else self._way,
            "attention": "math kernel",
            "device": str(self.device),
            **environment(),
        }
