"""A penalty on the weights, added to an objective."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from landscape.probing.entries import Entries
from landscape.probing.objective import Objective, Terms


class WeightDecay(Objective):
    """L(w) + c/2 ||w||^2, the loss whose gradient is that of SGD with weight decay c.

    w are all parameters of the model, also frozen ones, which add a constant. Every term carries
    the whole penalty, so that the mean does. Gauss-Newton products get c v.

    Args:
        objective: The data loss.
        coefficient: c, positive.

    Raises:
        ValueError: If the coefficient is not positive.
    """

    def __init__(self, objective: Objective, coefficient: float) -> None:
        if not 0 < coefficient < math.inf:
            raise ValueError(f"weight decay must be positive, got {coefficient}")
        self.name = f"{objective.name} + {coefficient / 2:g} |w|^2"
        self.has_outputs = objective.has_outputs
        self.has_accuracy = objective.has_accuracy
        self.couples_examples = objective.couples_examples
        self.has_margins = objective.has_margins
        self.curvature = coefficient
        #: The data loss.
        self.inner, self._coefficient = objective, coefficient

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Outputs of the objective behind it."""
        return self.inner.outputs(model, batch)

    def check(self, batch: Any) -> None:
        """As the objective behind it."""
        self.inner.check(batch)

    @property
    def notes(self) -> frozenset[str]:
        """Those of the objective behind it."""
        return self.inner.notes

    def reading(self, entries: Entries) -> Self:
        """The same on the objective behind it, on batches with these entries."""
        other = copy.copy(self)
        other.inner = self.inner.reading(entries)
        return other

    def term_weights(self, outputs: Tensor, batch: Any) -> Tensor | None:
        """Those of the objective behind it."""
        return self.inner.term_weights(outputs, batch)

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """Losses of the data alone: outputs do not know the weights."""
        return self.inner.losses(outputs, batch)

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the losses of the data alone."""
        return self.inner.total(outputs, batch)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Unchanged by the penalty."""
        return self.inner.correct(outputs, batch)

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """Unchanged by the penalty."""
        return self.inner.margins(outputs, batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Terms with the penalty in each."""
        return self.penalised(self.inner.evaluate(model, batch), model)

    def penalty(self, model: nn.Module) -> Tensor:
        """c/2 ||w||^2."""
        squares = [parameter.square().sum(dtype=torch.float64) for parameter in model.parameters()]
        own: Tensor = self._coefficient / 2 * torch.stack(squares).sum()
        return own
