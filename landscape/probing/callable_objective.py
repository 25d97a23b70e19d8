"""A user's own loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.probing.objective import Objective, Terms


class CallableObjective(Objective):
    """A user's ``loss(model, batch)``.

    Args:
        function: Returns one loss per term (T,), or the pair (sum of the terms, their number), or
            a scalar, whose meaning must then be declared.
        reduction: For a scalar: "mean" or "sum" over the terms of the batch.
        count: For a scalar: number of terms of a batch, ``count(batch)``.

    Raises:
        ValueError: If ``reduction`` is unknown or comes without ``count``.
    """

    has_outputs = False

    def __init__(
        self,
        function: Callable[[nn.Module, Any], Any],
        *,
        reduction: Literal["mean", "sum"] | None = None,
        count: Callable[[Any], int] | None = None,
    ) -> None:
        if reduction not in (None, "mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        if reduction is not None and count is None:
            raise ValueError(
                f"reduction={reduction!r} needs count, a function from a batch to its number of "
                "terms, such as count=lambda batch: len(batch[1])"
            )
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self._function = function
        self._reduction = reduction
        self._count = count

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ARG002
        """Not available: a callable gives losses only."""
        raise TypeError(
            "this needs the network's outputs, and the objective is a callable that gives losses "
            "only; subclass landscape.Objective with outputs() and losses()"
        )

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """Not available: a callable gives losses only."""
        return self.outputs(nn.Identity(), (outputs, batch))

    def evaluate_total(self, model: nn.Module, batch: Any) -> Tensor:
        """Sum of what the function returned."""
        return self.evaluate(model, batch).total

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Calls the function and reads what it returned.

        It may take derivatives by the inputs, also where none by the weights are asked for.

        Returns:
            The terms, with their graph where one is recorded.
        """
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            terms = self._read(self._function(model, batch), batch)
        if recording:
            return terms
        losses = None if terms.losses is None else terms.losses.detach()
        return Terms(terms.total.detach(), terms.count, losses)

    def _read(self, returned: Any, batch: Any) -> Terms:
        if isinstance(returned, tuple):
            total, count = returned
            return Terms(total.double(), int(count), None)
        if not isinstance(returned, Tensor):
            raise TypeError(
                "the loss must return a tensor of one loss per term or (sum, number of terms), "
                f"got {type(returned).__name__}"
            )
        if returned.dim() > 0:
            losses = returned.reshape(-1)
            return Terms(losses.sum(dtype=torch.float64), losses.numel(), losses)
        if self._reduction is None or self._count is None:
            raise ValueError(
                "the loss returned a bare scalar, so how batches are weighted is unknown; return "
                "one loss per term or (sum, number of terms), or declare it: "
                "CallableObjective(loss, reduction='mean', count=lambda batch: len(batch[1]))"
            )
        count = int(self._count(batch))
        total = returned.double() * (count if self._reduction == "mean" else 1)
        return Terms(total, count, None)
