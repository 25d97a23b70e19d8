"""Losses of logits without their scale."""

from __future__ import annotations

import copy
from typing import Any, Self

from torch import Tensor, nn

from landscape.probing.entries import Entries
from landscape.probing.objective import NotApplicableError, Objective


class NormalisedLogits(Objective):
    """An objective on logits z -> (z - mean z) / max(||z - mean z||_2, 1e-10), per example.

    The scale of the last layer then no longer matters (Andriushchenko et al. 2023).

    Args:
        objective: The objective behind it; logits (N, C, ...).

    Raises:
        TypeError: If the objective gives no outputs.
    """

    def __init__(self, objective: Objective) -> None:
        if not objective.has_outputs:
            raise TypeError(
                "logit normalisation needs the network's outputs, and the objective gives losses "
                "only; subclass landscape.Objective with outputs() and losses()"
            )
        self.name = f"{objective.name}, normalised logits"
        self.has_accuracy = objective.has_accuracy
        self.couples_examples = objective.couples_examples
        self.curvature = objective.curvature
        self._objective = objective

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Normalised logits."""
        logits = self._objective.outputs(model, batch)
        if logits.dim() < 2 or logits.shape[1] < 2:
            raise NotApplicableError(
                "logit normalisation needs at least two logits an example, got outputs of shape "
                f"{tuple(logits.shape)}"
            )
        centred = logits - logits.mean(1, keepdim=True)
        normalised: Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-10)
        return normalised

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
        """Losses of the objective behind it."""
        return self._objective.losses(outputs, batch)

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the losses of the objective behind it."""
        return self._objective.total(outputs, batch)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Unchanged by the normalisation."""
        return self._objective.correct(outputs, batch)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Unchanged by the normalisation."""
        return self._objective.penalty(model)
