"""A user's own loss."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from landscape.probing.calling import as_tensor
from landscape.probing.entries import Entries
from landscape.probing.objective import Objective, Terms, checked_number

logger = logging.getLogger(__name__)


class CallableObjective(Objective):
    """A user's ``loss(model, batch)``.

    Args:
        function: Returns one loss per term (T,), or the pair (sum of the terms, their number or the
            sum of their weights), or a scalar, whose meaning must then be declared.
        reduction: For a scalar: "mean" or "sum" over the terms of the batch.
        count: For a scalar: number of terms of a batch, ``count(batch)``, or the sum of their
            weights.
        entries: Where the weights w of the examples stand, for functions that return one loss per
            example or several in rows; the mean loss is sum w l / sum w then.
        couples_examples: Whether the loss of an example depends on the others of its batch.

    Raises:
        TypeError: If ``entries`` names inputs or targets, which the function takes itself.
        ValueError: If ``reduction`` is unknown or comes without ``count``.
    """

    has_outputs = False

    def __init__(
        self,
        function: Callable[[nn.Module, Any], Any],
        *,
        reduction: Literal["mean", "sum"] | None = None,
        count: Callable[[Any], float] | None = None,
        entries: Entries | None = None,
        couples_examples: bool = False,
    ) -> None:
        if reduction not in (None, "mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        if reduction is not None and count is None:
            raise ValueError(
                f"reduction={reduction!r} needs count, a function from a batch to its number of "
                "terms, such as count=lambda batch: len(batch[1])"
            )
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.couples_examples = couples_examples
        self._function = function
        self._reduction = reduction
        self._count = count
        self._entries = _weights_only(entries or Entries(), self.name)
        self._looked = False

    def reading(self, entries: Entries) -> Self:
        """The same loss with weights of the examples, which alone ``entries`` may name."""
        other = copy.copy(self)
        other._entries = _weights_only(entries, self.name)
        return other

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
        total, _, _, _ = self._called(model, batch)
        return total

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Calls the function and reads what it returned.

        It may take derivatives by the inputs, also where none by the weights are asked for.

        Returns:
            The terms, with their graph where one is recorded.
        """
        return Terms(*self._called(model, batch))

    def _called(
        self, model: nn.Module, batch: Any
    ) -> tuple[Tensor, Any, Tensor | None, Tensor | None]:
        """Sum, number, losses and weights of the terms."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad():
            if self._looked:
                returned = self._function(model, batch)
            else:
                returned, self._looked = self._first(model, batch), True
            total, count, losses, weights = self._read(returned, batch)
        if recording:
            return total, count, losses, weights
        return total.detach(), count, None if losses is None else losses.detach(), weights

    def _first(self, model: nn.Module, batch: Any) -> Any:
        """The first call, which notices where what the model gave is returned as the loss."""
        given: list[Any] = []
        if isinstance(model, torch.jit.ScriptModule):
            return self._function(model, batch)
        hook = model.register_forward_hook(lambda *seen: given.append(seen[-1]))
        try:
            returned = self._function(model, batch)
        finally:
            hook.remove()
        rows = isinstance(returned, Tensor) and returned.dim() > 1 and returned.shape[-1] > 1
        if rows and any(returned is output for output in given):
            logger.warning(
                "the loss %s returns the model's output of shape %s as it is, and every entry is "
                "taken for a loss; if that is not meant, return one loss per example",
                self.name,
                tuple(returned.shape),
            )
        return returned

    def _read(self, returned: Any, batch: Any) -> tuple[Tensor, Any, Tensor | None, Tensor | None]:
        if isinstance(returned, tuple) and not hasattr(returned, "_fields"):
            return (*_pair(returned, weighted=bool(self._entries)), None, None)
        if not isinstance(returned, Tensor):
            raise TypeError(_wrong_return(returned))
        _refuse_types(returned)
        if returned.dim() > 0:
            weights = self._weights(returned, batch)
            losses = returned.reshape(-1)
            if weights is None:
                return losses.sum(dtype=torch.float64), losses.numel(), losses, None
            losses = weights * losses
            return (
                losses.sum(dtype=torch.float64),
                weights.sum(dtype=torch.float64),
                losses,
                weights,
            )
        if self._entries:
            raise ValueError(_UNWEIGHTED)
        if self._reduction is None or self._count is None:
            raise ValueError(
                "the loss returned a bare scalar, so how batches are weighted is unknown; return "
                "one loss per term or (sum, number of terms), or declare it: "
                "CallableObjective(loss, reduction='mean', count=lambda batch: len(batch[1]))"
            )
        count: Any = self._count(batch)
        if not isinstance(count, Tensor):  # which vmap may not look at
            count = checked_number(count)
        return returned.double() * (count if self._reduction == "mean" else 1), count, None, None

    def _weights(self, returned: Tensor, batch: Any) -> Tensor | None:
        """The weight of every loss that was returned, (T,)."""
        given = self._entries.weights_of(batch)
        if given is None:
            return None
        weights = as_tensor(given, returned).to(returned).detach()
        if weights.shape == returned.shape:
            return weights.reshape(-1)
        weights = weights.reshape(-1)
        if len(weights) != len(returned):
            raise ValueError(
                f"weights must be one for each of the losses that {self.name} returns, of shape "
                f"{tuple(returned.shape)}, or one for each of its rows; got {len(weights)}"
            )
        return weights.repeat_interleave(returned[0].numel())


_UNWEIGHTED = (
    "weights of the examples need one loss for each, and the loss returns a sum; return one loss "
    "per example, or weigh them inside and return (sum, sum of the weights) without weights=..."
)


def _weights_only(entries: Entries, name: str) -> Entries:
    if entries.inputs is not None or entries.targets is not None:
        raise TypeError(
            f"the loss {name} takes inputs and targets out of the batch itself, so that inputs=... "
            "and targets=... have no meaning for it; give weights=... alone, or a named objective"
        )
    return entries


def _pair(returned: tuple[Any, ...], *, weighted: bool) -> tuple[Tensor, Any]:
    """Sum and number of the terms of a pair."""
    if len(returned) != 2 or not isinstance(returned[0], Tensor):
        raise TypeError(_wrong_return(returned))
    if weighted:
        raise ValueError(_UNWEIGHTED)
    total, count = returned
    _refuse_types(total)
    if total.numel() != 1 or (isinstance(count, Tensor) and count.numel() != 1):
        shape = tuple(count.shape) if isinstance(count, Tensor) else "a number"
        raise TypeError(
            "a loss that returns a pair must return (sum of the terms, their number), two scalars; "
            f"got the shapes {tuple(total.shape)} and {shape}; return one loss per term alone, or "
            "the two sums"
        )
    if isinstance(count, Tensor):
        return total.double().reshape(()), count.detach().reshape(())
    return total.double().reshape(()), checked_number(count)


def _refuse_types(losses: Tensor) -> None:
    if not losses.is_floating_point():
        raise TypeError(
            "the loss must return real floating numbers, which have a gradient, got "
            f"{losses.dtype}; accuracies and counts are no losses"
        )


def _wrong_return(returned: Any) -> str:
    """What was expected, what came and what to do."""
    advice = ""
    named: dict[str, Any] = {}
    if isinstance(returned, Mapping):
        named = {str(key): value for key, value in returned.items()}
    elif dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        named = {f.name: getattr(returned, f.name) for f in dataclasses.fields(returned)}
    elif hasattr(returned, "_asdict"):
        named = returned._asdict()
    got = type(returned).__name__
    if returned is None:
        advice = "; is a return missing at its end?"
    elif named:
        got = f"{got} with {', '.join(named)}"
        advice = "; return the losses out of it alone"
    elif isinstance(returned, list | tuple):
        got = f"{got} of {len(returned)} ({', '.join(type(part).__name__ for part in returned)})"
        advice = "; join tensors by torch.stack or torch.cat"
    elif isinstance(returned, int | float):
        advice = "; a plain number has no gradient: leave out .item() or float()"
    return (
        "the loss must return a tensor of one loss per term or (sum, number of terms), "
        f"got {got}{advice}"
    )
