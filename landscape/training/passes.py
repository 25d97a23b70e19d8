"""Passes of one training step: losses and gradients at offsets from the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from landscape.training.statistics import kept_statistics
from landscape.training.vectors import Vector

#: Forward and backward on one batch; returns the loss. Gradients are cleared before each call.
Closure = Callable[[], Tensor]
#: Forward alone: the losses (R,) of the rows (R,) of one batch.
RowLosses = Callable[[Tensor], Tensor]


class Overflow(Exception):  # noqa: N818 - a signal to skip the step, not an error of the user
    """A gradient overflowed under loss scaling."""


class Scaler(Protocol):
    """What is used of ``torch.amp.GradScaler``."""

    def scale(self, outputs: Tensor) -> Tensor:
        """Outputs times the scale."""

    def get_scale(self) -> float:
        """The scale."""


class Passes:
    """What a rule may ask for in one step: ∇L(w + ε) and L(w + ε) on the batch of that step.

    The weights are back at w after every pass, bit for bit and also after an exception. Running
    statistics of batch norm follow the passes at w, and no others unless the rule says so.

    Args:
        params: The parameters, in the order of the groups.
        model: Whose running statistics are kept; with ``DistributedDataParallel`` also what
            averages gradients over processes.
        closure: Forward and backward, or the losses of rows where ``size`` is given.
        size: Number of rows in the batch, for closures of rows.
        scaler: Scales the loss in the closure (or here, for closures of rows).
        local: Keeps gradients unaveraged over processes.
    """

    def __init__(
        self,
        params: Sequence[nn.Parameter],
        model: nn.Module,
        closure: Callable[..., Any],
        *,
        size: int | None = None,
        scaler: Scaler | None = None,
        local: bool = False,
    ) -> None:
        self._params, self._model, self._closure = list(params), model, closure
        self._size, self._scaler, self._local = size, scaler, local
        #: Which parameters got a gradient in any pass.
        self.touched = [False] * len(self._params)
        #: Of every pass so far, detached.
        self.losses: list[Tensor] = []
        #: Losses of the rows of the last pass.
        self.row_losses = torch.empty(0)

    @property
    def weights(self) -> Vector:
        """w, not to be written to."""
        return Vector([param.detach() for param in self._params])

    @property
    def rows(self) -> Tensor:
        """All rows of the batch."""
        return torch.arange(self._size or 0, device=self._params[0].device)

    def gradient(
        self,
        offset: Vector | None = None,
        *,
        rows: Tensor | None = None,
        statistics: bool | None = None,
    ) -> Vector:
        """∇L(w + ε) on the batch, or on some of its rows.

        Args:
            offset: ε; None is 0.
            rows: Of the batch; None is all. For closures of rows alone.
            statistics: Whether running statistics follow this pass; None is "where ε is None".

        Returns:
            The gradient, zero for parameters that got none.

        Raises:
            Overflow: If it is not finite under loss scaling.
        """
        update = offset is None if statistics is None else statistics
        self._clear()
        with self._at(offset, update), torch.enable_grad():
            self._backward(self.rows if rows is None else rows)
        gradient = self._collected()
        if self._scaler is not None:
            gradient *= 1 / self._scaler.get_scale()
            if not gradient.finite():
                raise Overflow
        return gradient

    def losses_of(self, rows: Tensor, offset: Vector) -> Tensor:
        """Losses of rows at w + ε, (R,), by a forward pass alone; statistics stay."""
        with self._at(offset, update=False), torch.no_grad():
            return self._row_losses(rows)

    def mean_loss(self) -> Tensor:
        """The last loss, averaged over processes unless the perturbation is local."""
        loss = self.losses[-1]
        if self._local or not distributed():
            return loss
        loss = loss.clone()
        torch.distributed.all_reduce(loss)
        return loss / torch.distributed.get_world_size()

    def _backward(self, rows: Tensor) -> None:
        if self._size is None:
            loss = self._closure()
            if not isinstance(loss, Tensor):
                raise TypeError(
                    f"the closure must return the loss as a tensor, got {type(loss).__name__}; "
                    "end it with `loss.backward(); return loss`"
                )
            self.losses.append(loss.detach())
            return
        values = self._row_losses(rows)
        loss = values.mean()
        self.losses.append(loss.detach())
        self.row_losses = values.detach()
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def _row_losses(self, rows: Tensor) -> Tensor:
        values = self._closure(rows)
        if not isinstance(values, Tensor) or values.shape != rows.shape:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the closure must return one loss for each of the {len(rows)} rows, got {got}; "
                'use reduction="none"'
            )
        return values

    @contextmanager
    def _at(self, offset: Vector | None, update: bool) -> Iterator[None]:
        """The weights moved by ε; back, with the statistics, when the block ends."""
        with ExitStack() as stack:
            if not update:
                stack.enter_context(kept_statistics(self._model))
            stack.enter_context(self._unaveraged())
            before = None if offset is None else [p.detach().clone() for p in self._params]
            try:
                if offset is not None and before is not None:
                    self._move(torch._foreach_add(before, offset.tensors))
                yield
            finally:
                if before is not None:
                    self._move(before)

    @torch.no_grad()
    def _move(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(list[Tensor](self._params), list(values))

    def _unaveraged(self) -> AbstractContextManager[None]:
        if self._local and isinstance(self._model, DistributedDataParallel):
            return self._model.no_sync()
        return nullcontext()

    def _clear(self) -> None:
        for param in self._params:
            param.grad = None

    def _collected(self) -> Vector:
        """Takes the gradients from the parameters."""
        # These views of communication buffers would be written to by the next backward.
        shared = getattr(self._model, "gradient_as_bucket_view", False)
        found = []
        for index, param in enumerate(self._params):
            grad = param.grad
            if grad is not None and grad.is_sparse:
                raise ValueError(
                    "sparse gradients are not supported; build layers with sparse=False"
                )
            self.touched[index] |= grad is not None
            found.append(torch.zeros_like(param) if grad is None else grad.detach())
            param.grad = None
        return Vector([grad.clone() for grad in found] if shared else found)


def bare(model: nn.Module) -> nn.Module:
    """The model without the wrapper of several processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def distributed() -> bool:
    """Whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()
