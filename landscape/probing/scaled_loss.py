"""A multiple of a loss."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from landscape.probing.entries import Entries
from landscape.probing.objective import Objective, Terms


class ScaledLoss(Objective):
    """An objective whose terms are c times those of another.

    Args:
        objective: The other.
        factor: c, positive.

    Raises:
        ValueError: If the factor is not positive.
    """

    def __init__(self, objective: Objective, factor: float) -> None:
        if not factor > 0:
            raise ValueError(f"factor must be positive, got {factor}")
        self.name = f"{factor:g} x {objective.name}"
        self.has_outputs = objective.has_outputs
        self.has_accuracy = objective.has_accuracy
        self.couples_examples = objective.couples_examples
        self.samples_targets = objective.samples_targets
        self.has_margins = objective.has_margins
        self.curvature = factor * objective.curvature
        self._objective, self._factor = objective, factor

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Outputs of the objective behind it."""
        return self._objective.outputs(model, batch)

    def check(self, batch: Any) -> None:
        """As the objective behind it."""
        self._objective.check(batch)

    @property
    def notes(self) -> frozenset[str]:
        """Those of the objective behind it."""
        return self._objective.notes

    def reading(self, entries: Entries) -> Self:
        """The same on the objective behind it, on batches with these entries."""
        other = copy.copy(self)
        other._objective = self._objective.reading(entries)
        return other

    def term_weights(self, outputs: Tensor, batch: Any) -> Tensor | None:
        """Those of the objective behind it."""
        return self._objective.term_weights(outputs, batch)

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """Multiples of the losses of the objective behind it."""
        return self._factor * self._objective.losses(outputs, batch)

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Multiple of the sum."""
        return self._factor * self._objective.total(outputs, batch)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Unchanged by the scale."""
        return self._objective.correct(outputs, batch)

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """Unchanged by the scale."""
        return self._objective.margins(outputs, batch)

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Targets of the distribution of the unscaled objective."""
        return self._objective.sampled(outputs, batch, generator)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Multiple of the penalty."""
        penalty = self._objective.penalty(model)
        return None if penalty is None else self._factor * penalty

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Multiples of the terms."""
        terms = self._objective.evaluate(model, batch)
        losses = None if terms.losses is None else self._factor * terms.losses
        return Terms(self._factor * terms.total, terms.count, losses, terms.weights)

    def evaluate_total(self, model: nn.Module, batch: Any) -> Tensor:
        """Multiple of the sum of the terms."""
        total: Tensor = torch.as_tensor(self._factor * self._objective.evaluate_total(model, batch))
        return total
