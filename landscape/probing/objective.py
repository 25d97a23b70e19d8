"""Objectives: how a model and a batch give losses, one per term."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Terms:
    """The losses of one batch.

    Args:
        total: Their sum, a float64 scalar with its graph.
        count: How many terms were summed.
        losses: One loss per term where the objective gives them, (T,).
    """

    total: Tensor
    count: int
    losses: Tensor | None


class NotApplicableError(ValueError):
    """What was asked for has no meaning for this model or objective."""


class Objective(ABC):
    """A loss that is a mean over terms (examples, tokens, entries) of the whole data.

    Subclasses give ``outputs`` and ``losses``. The data loss is the sum of all terms of all
    batches over their number, so an uneven last batch or masked tokens are weighted right.
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

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """The network's outputs on a batch, first dimension the examples."""

    @abstractmethod
    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per term, (T,)."""

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

    def evaluate(self, model: nn.Module, batch: Any) -> Terms:
        """Sum and number of the terms of a batch."""
        return self.reduce(self.outputs(model, batch), batch)

    def evaluate_total(self, model: nn.Module, batch: Any) -> Tensor:
        """Sum of the terms of a batch, float64, without their number."""
        return self.total(self.outputs(model, batch), batch)

    def reduce(self, outputs: Tensor, batch: Any) -> Terms:
        """Sum and number of the terms from outputs."""
        losses = self.losses(outputs, batch).reshape(-1)
        return Terms(losses.sum(dtype=torch.float64), losses.numel(), losses)


class Supervised(Objective):
    """Objectives on batches of the form (inputs, targets)."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """``model(inputs)``."""
        inputs, _ = _pair(batch)
        outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"objective {self.name!r} expects the model to return a tensor, got "
                f"{type(outputs).__name__}; give a callable loss(model, batch) instead"
            )
        return outputs


class CrossEntropy(Supervised):
    """Softmax cross-entropy, -log p_y per example (or per position).

    Outputs (N, C, ...) and integer targets (N, ...); targets equal to ``ignore_index`` are no
    terms. No label smoothing.
    """

    name = "cross_entropy"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def __init__(self, *, ignore_index: int = -100) -> None:
        self.ignore_index = ignore_index

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per target that is not ignored."""
        _, targets = _pair(batch)
        losses = functional.cross_entropy(
            outputs, targets, reduction="none", ignore_index=self.ignore_index
        )
        if targets.is_floating_point():
            return losses
        return losses[targets != self.ignore_index]

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the losses; those of ignored targets are zero."""
        losses = functional.cross_entropy(
            outputs, _pair(batch)[1], reduction="none", ignore_index=self.ignore_index
        )
        return losses.sum(dtype=torch.float64)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Whether the largest logit is the target's, for targets that are not ignored."""
        _, targets = _pair(batch)
        if targets.is_floating_point():
            targets = targets.argmax(1)
        right = (outputs.argmax(1) == targets) & ~outputs.isnan().any(1)
        return right[targets != self.ignore_index]

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """Logit of the target less the largest other one, for targets that are not ignored."""
        _, targets = _pair(batch)
        if targets.is_floating_point() or outputs.shape[1] < 2:
            raise NotApplicableError(
                "margins need class numbers as targets and at least two classes, got "
                f"{targets.dtype} targets and outputs of shape {tuple(outputs.shape)}"
            )
        told = targets != self.ignore_index
        places = targets.where(told, 0).unsqueeze(1)
        own = outputs.gather(1, places).squeeze(1)
        others = outputs.scatter(1, places, -torch.inf).amax(1)
        return (own - others)[told]

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Soft targets q = p - sqrt(p) r + p <sqrt(p), r>, for which p - q has covariance A.

        A = diag(p) - p p'. Ignored targets get q = p, and no gradient; the others of the same
        example weigh as much more as the mean over its terms now has terms.

        Returns:
            The batch with targets of the shape of the logits.
        """
        inputs, targets = _pair(batch)
        shares = outputs.double().softmax(1)
        signs = _signs(outputs.shape, generator).to(shares)
        roots = shares.sqrt()
        slopes = roots * signs - shares * (roots * signs).sum(1, keepdim=True)
        if not targets.is_floating_point():
            told = (targets != self.ignore_index).to(shares)
            per_example = told.flatten(1).mean(1) if told.dim() > 1 else told
            weight = told / per_example.clamp_min(1e-12).reshape(-1, *[1] * (told.dim() - 1))
            slopes = slopes * weight.unsqueeze(1)
        return type(batch)((inputs, (shares - slopes).to(outputs.dtype)))


class MeanSquaredError(Supervised):
    """(output - target)^2 per entry, averaged over all entries as ``torch.nn.MSELoss`` does."""

    name = "mse"
    samples_targets = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs."""
        _, targets = _pair(batch)
        return (outputs - _like(targets, outputs, self.name)) ** 2

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Outputs +- sqrt(1/2), the standard deviation of the normal whose loss this is."""
        signs = _signs(outputs.shape, generator).to(outputs)
        return type(batch)((_pair(batch)[0], outputs + 0.5**0.5 * signs))


class BinaryCrossEntropy(Supervised):
    """Binary cross-entropy on logits per entry, for one or many labels per example."""

    name = "bce"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs."""
        _, targets = _pair(batch)
        targets = _like(targets, outputs, self.name)
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Whether logit and target lie on the same side, per entry."""
        targets = _like(_pair(batch)[1], outputs, self.name)
        return (((outputs > 0) == (targets > 0.5)) & ~outputs.isnan()).reshape(-1)

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """The logit where the label is 1 and its negative where it is 0, per entry."""
        targets = _like(_pair(batch)[1], outputs, self.name)
        if not ((targets == 0) | (targets == 1)).all():
            raise NotApplicableError("margins need labels 0 and 1, got others")
        return (outputs * (2 * targets - 1)).reshape(-1)

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Soft targets p +- sqrt(p (1 - p)), the standard deviation of the label."""
        shares = outputs.double().sigmoid()
        signs = _signs(outputs.shape, generator).to(shares)
        targets = shares + (shares * (1 - shares)).sqrt() * signs
        return type(batch)((_pair(batch)[0], targets.to(outputs.dtype)))


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
        """Calls the function and reads what it returned."""
        returned = self._function(model, batch)
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


_NAMED: Mapping[str, type[Objective]] = {
    objective.name: objective for objective in (CrossEntropy, MeanSquaredError, BinaryCrossEntropy)
}


def as_objective(objective: str | Objective | Callable[[nn.Module, Any], Any]) -> Objective:
    """The objective of a name, an Objective itself, or a callable ``loss(model, batch)``.

    Args:
        objective: "cross_entropy", "mse", "bce", an Objective or a callable.

    Returns:
        The objective.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is neither name, Objective nor callable.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str):
        if objective not in _NAMED:
            raise ValueError(
                f"unknown objective {objective!r}; use one of {sorted(_NAMED)}, an Objective, or "
                "a callable loss(model, batch)"
            )
        return _NAMED[objective]()
    if callable(objective):
        return CallableObjective(objective)
    raise TypeError(
        "objective must be a name, an Objective or a callable loss(model, batch), got "
        f"{type(objective).__name__}"
    )


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random signs, drawn on the CPU so that every device gets the same ones."""
    return 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) - 1


def _pair(batch: Any) -> tuple[Any, Tensor]:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    raise TypeError(
        f"this objective expects batches of the form (inputs, targets), got {type(batch).__name__}"
        "; give a callable loss(model, batch) instead"
    )


def _like(targets: Tensor, outputs: Tensor, name: str) -> Tensor:
    if targets.shape != outputs.shape:
        # Silent broadcasting of (N,) against (N, 1) would make an (N, N) loss.
        if targets.squeeze().shape != outputs.squeeze().shape:
            raise ValueError(
                f"{name} needs targets shaped like the outputs {tuple(outputs.shape)}, got "
                f"{tuple(targets.shape)}"
            )
        targets = targets.reshape(outputs.shape)
    return targets.to(outputs.dtype)
