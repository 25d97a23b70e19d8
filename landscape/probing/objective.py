"""Objectives: how a model and a batch give losses, one per term."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from landscape.probing.entries import Entries


@dataclass(frozen=True)
class Terms:
    """The losses of one batch; their mean is the sum over the number.

    Args:
        total: Their sum, a float64 scalar with its graph.
        count: How many terms were summed, or the sum of their weights: a real number.
        losses: One loss per term where the objective gives them, times its weight, (T,).
        weights: Weight of each term, (T,); None where all are 1.

    Raises:
        TypeError: If the number of terms is no number.
        ValueError: If it is negative or not finite.
    """

    total: Tensor
    count: float
    losses: Tensor | None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", checked_number(self.count))


def checked_number(count: Any) -> float:
    """A number of terms, refused in words where it is none.

    Args:
        count: A number, or a tensor of one.

    Returns:
        The number, an integer where it is whole.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is negative or not finite.
    """
    if type(count) is int and count >= 0:
        return count
    try:
        number = float(count)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "the number of terms must be a number, or the sum of their weights, got "
            f"{type(count).__name__}"
        ) from error
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(
            f"the number of terms, or the sum of their weights, must not be negative, got {number}"
        )
    return int(number) if number.is_integer() else number


class NotApplicableError(ValueError):
    """What was asked for has no meaning for this model or objective."""


class Objective(ABC):
    """A loss that is a mean over terms (examples, tokens, entries) of the whole data.

    Subclasses give ``outputs`` and ``losses``. The data loss is the sum of all terms of all
    batches over their number, so an uneven last batch or masked tokens are weighted right. Terms
    that have weights w_t give w_t l_t as ``losses`` and w_t as ``term_weights``; the mean is
    sum w_t l_t / sum w_t then.
    """

    name: str = "objective"
    #: False if ``outputs`` cannot be had; measures that need it then decline.
    has_outputs: bool = True
    #: True if ``correct`` is there.
    has_accuracy: bool = False
    #: True if ``sampled`` is there.
    samples_targets: bool = False
    #: True if ``margins`` is there.
    has_margins: bool = False
    #: c of a penalty c/2 ||w||^2, whose curvature the outputs do not know.
    curvature: float = 0.0
    #: True if the loss of an example depends on the other examples of its batch, as contrastive
    #: losses do: such a batch cannot be cut into examples.
    couples_examples: bool = False

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """The network's outputs on a batch, first dimension the examples."""

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per term, times its weight, (T,)."""

    def term_weights(self, outputs: Tensor, batch: Any) -> Tensor | None:  # noqa: ARG002
        """Weight of each term, (T,); None where all are 1. To override along with ``losses``."""
        return None

    def reading(self, entries: Entries) -> Self:
        """The same objective on batches whose entries are what ``entries`` says; to override.

        Raises:
            TypeError: If the objective reads batches itself.
        """
        raise TypeError(
            f"objective {self.name!r} reads batches itself, so that inputs, targets and weights "
            f"({entries}) have no meaning for it; take them out of the batch in its outputs() and "
            "losses()"
        )

    @property
    def notes(self) -> frozenset[str]:
        """What of the batches was left out, in words."""
        return frozenset()

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the terms, float64; to override where ``losses`` selects terms by the data.

        It runs under vmap, which forbids results whose shape depends on the data.

        Returns:
            A scalar.
        """
        return self.losses(outputs, batch).sum(dtype=torch.float64)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:  # noqa: ARG002
        """Whether each prediction is right, (N,) bool; to override where that has a meaning.

        Raises:
            TypeError: If the objective knows no accuracy.
        """
        raise TypeError(f"objective {self.name!r} knows no accuracy")

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:  # noqa: ARG002
        """By how much the right class outdoes the best other one, (T,); to override.

        Raises:
            TypeError: If the objective knows no classes.
        """
        raise TypeError(f"objective {self.name!r} knows no margins")

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:  # noqa: ARG002
        """The batch with random targets whose gradients have the Fisher information as covariance.

        To override. Labels drawn from the model's own distribution would do, but where the model is
        sure of itself the labels that matter are never drawn. With F = J' A J for the covariance A
        of the gradient by the outputs, targets with that gradient equal to A^(1/2) r for random
        signs r have the same second moments and no rare events.

        Raises:
            TypeError: If the objective is no likelihood.
        """
        raise TypeError(
            f"objective {self.name!r} has no targets to draw from the model's distribution"
        )

    def check(self, batch: Any) -> None:  # noqa: B027 - to override
        """Refuses batches that would be misread; called once for each, at construction."""

    def penalty(self, model: nn.Module) -> Tensor | None:  # noqa: ARG002
        """What is added to the mean loss for the weights themselves, float64; to override."""
        return None

    def penalised(self, terms: Terms, model: nn.Module) -> Terms:
        """Terms with the penalty in each, so that their mean has it once."""
        penalty = self.penalty(model)
        if penalty is None:
            return terms
        losses = terms.losses
        if losses is not None:
            each = penalty.to(losses.dtype)
            losses = losses + (each if terms.weights is None else terms.weights * each)
        total = terms.total + terms.count * penalty
        return Terms(total, terms.count, losses, terms.weights)

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Sum and number of the terms of a batch."""
        return self.penalised(self.reduce(self.outputs(model, batch), batch), model)

    def evaluate_total(self, model: nn.Module, batch: Any) -> Tensor:
        """Sum of the terms of a batch, float64, without their number."""
        if self.curvature:  # counting the terms is no work for vmap, but a penalty needs it
            return self.evaluate(model, batch).total
        return self.total(self.outputs(model, batch), batch)

    def reduce(self, outputs: Tensor, batch: Any) -> Terms:
        """Sum and number of the terms from outputs."""
        losses = self.losses(outputs, batch).reshape(-1)
        weights, count = self.term_weights(outputs, batch), float(losses.numel())
        if weights is not None:
            weights = weights.detach().reshape(-1)
            count = float(weights.sum(dtype=torch.float64))
        return Terms(losses.sum(dtype=torch.float64), count, losses, weights)
