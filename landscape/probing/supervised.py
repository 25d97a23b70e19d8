"""Objectives on batches of inputs and targets: classes, numbers, yes or no."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.probing.calling import as_tensor, call, output_of, targets_of, with_targets
from landscape.probing.class_targets import (
    checked_class_weights,
    class_targets,
    told_weights,
)
from landscape.probing.entries import Entries
from landscape.probing.objective import NotApplicableError, Objective

logger = logging.getLogger(__name__)


class Supervised(Objective):
    """Objectives on batches (inputs..., targets), or mappings with "labels".

    Args:
        entries: Which entries of a batch are inputs, targets and weights of the examples, where
            that does not go without saying. With weights w the mean loss is sum w l / sum w.
    """

    entries: Entries = Entries()

    def __init__(self, *, entries: Entries | None = None) -> None:
        if entries is not None:
            self.entries = entries

    def reading(self, entries: Entries) -> Self:
        """The same objective on batches with these entries."""
        other = copy.copy(self)
        other.entries = entries
        return other

    @property
    def notes(self) -> frozenset[str]:
        """What of the batches was left out, in words."""
        return frozenset(self.__dict__.get("_notes", ()))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            logger.warning("%s", text)
            self.__dict__["_notes"] = self.notes | {text}

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's outputs, ``logits`` where it returns several things."""
        self._given(batch)  # a batch without them is told before forward stumbles over it
        return output_of(self._call(model, batch), self.name)

    def _call(self, model: nn.Module, batch: Any, **further: Any) -> Any:
        return call(model, batch, self.entries, self._note, **further)

    def targets(self, batch: Any) -> Tensor:
        """The targets of a batch as they are given."""
        return self._given(batch)

    def _given(self, batch: Any) -> Tensor:
        given = targets_of(batch, self.entries)
        try:
            found = as_tensor(given, torch.empty(0))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"objective {self.name!r} expects targets that are a tensor, got "
                f"{type(given).__name__}; convert them, or give a callable loss(model, batch)"
            ) from error
        if found.dim() == 0:
            raise TypeError(
                f"objective {self.name!r} expects batches, got a single target where the targets "
                "of a batch belong; if these are examples, put them into batches: "
                "DataLoader(examples, batch_size=100), or give them to Task as a dataset"
            )
        return found

    def check(self, batch: Any) -> None:
        """Refuses weights that are none.

        Raises:
            ValueError: If a weight is negative or not finite.
        """
        given = self.entries.weights_of(batch)
        if given is None:
            return
        weights = as_tensor(given, torch.empty(0))
        if not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(
                f"weights of the examples must be finite and not negative, got {weights.min():g} "
                f"to {weights.max():g}"
            )

    def term_weights(self, outputs: Tensor, batch: Any) -> Tensor | None:
        """The weight of the example for each of its terms; None where none were named."""
        return self._example_weights(outputs, outputs.shape, batch)

    def _example_weights(self, outputs: Tensor, shape: Sequence[int], batch: Any) -> Tensor | None:
        """Weights of the examples in the shape of the terms."""
        given = self.entries.weights_of(batch)
        if given is None:
            return None
        weights = as_tensor(given, outputs).to(outputs)
        lead = weights.squeeze(-1) if weights.dim() == 2 and weights.shape[1] == 1 else weights
        if tuple(lead.shape) != tuple(shape[: lead.dim()]):
            raise ValueError(
                f"weights must be one an example or one a term, of shape ({shape[0]},) or "
                f"{tuple(shape)}, got {tuple(weights.shape)}"
            )
        return lead.reshape(*lead.shape, *[1] * (len(shape) - lead.dim())).expand(*shape)


def _weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses if weights is None else weights * losses


class CrossEntropy(Supervised):
    """Softmax cross-entropy, -log p_y per example (or per position).

    Outputs (N, C, ...) and class numbers (N, ...) of any integer type, (N, 1) or whole floats;
    one-hot integers or probabilities (N, C, ...). Targets equal to ``ignore_index`` are no terms.
    With class weights v a term is v_y l and counts as v_y, so that the mean is torch's,
    sum v_y l / sum v_y; probabilities count as 1 each, as in torch. Accuracy and margins are of
    all terms alike.

    Args:
        weight: Weight of each class, (C,).
        ignore_index: Target of what has no loss.
        label_smoothing: Share of the target that is spread over all classes; 0 by default, since
            it changes what is measured.
        entries: As ``Supervised`` takes it.

    Raises:
        ValueError: If the smoothing does not lie in [0, 1), or weights are not at least 0.
    """

    name = "cross_entropy"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def __init__(
        self,
        *,
        weight: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        entries: Entries | None = None,
    ) -> None:
        super().__init__(entries=entries)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.weight = None if weight is None else checked_class_weights(weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        if label_smoothing:
            self.name = f"{self.name}, labels smoothed by {label_smoothing:g}"
        if self.weight is not None:
            self.name = f"{self.name}, classes weighted by {told_weights(self.weight)}"
        if ignore_index != -100:
            self.name = f"{self.name}, {ignore_index} ignored"
        if label_smoothing or self.weight is not None:
            # The loss is then no likelihood of the targets.
            self.samples_targets = False

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per target that is not ignored, times its weight."""
        targets = self._targets_for(outputs, batch)
        losses = self._total_each(outputs, targets, batch)
        if targets.is_floating_point():
            return losses
        return losses[targets != self.ignore_index]

    def term_weights(self, outputs: Tensor, batch: Any) -> Tensor | None:
        """Weight of the class times that of the example, for targets that are not ignored."""
        targets = self._targets_for(outputs, batch)
        shape = (outputs.shape[0], *outputs.shape[2:])
        weights = self._example_weights(outputs, shape, batch)
        if targets.is_floating_point():
            return weights
        told = targets != self.ignore_index
        if self.weight is not None:
            of_classes = self.weight.to(outputs)[targets.where(told, 0)]
            weights = of_classes if weights is None else weights * of_classes
        return None if weights is None else weights[told]

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the losses; those of ignored targets are zero."""
        targets = self._targets_for(outputs, batch)
        return self._total_each(outputs, targets, batch).sum(dtype=torch.float64)

    def _total_each(self, outputs: Tensor, targets: Tensor, batch: Any) -> Tensor:
        losses = self._each(outputs, targets)
        return _weighted(losses, self._example_weights(outputs, losses.shape, batch))

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs,
            targets,
            weight=self._weight_for(outputs),
            reduction="none",
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def _weight_for(self, outputs: Tensor) -> Tensor | None:
        if self.weight is not None and len(self.weight) != outputs.shape[1]:
            raise ValueError(
                f"weight must have one entry for each of the {outputs.shape[1]} classes of the "
                f"outputs, got {len(self.weight)}"
            )
        return None if self.weight is None else self.weight.to(outputs)

    def _targets_for(self, outputs: Tensor, batch: Any) -> Tensor:
        """Class numbers (N, ...) in int64, or probabilities (N, C, ...)."""
        return class_targets(self.targets(batch), outputs, self.name)

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Whether the largest logit is the target's, for targets that are not ignored."""
        targets = self._targets_for(outputs, batch)
        if targets.is_floating_point():
            targets = targets.argmax(1)
        right = (outputs.argmax(1) == targets) & ~outputs.isnan().any(1)
        return right[targets != self.ignore_index]

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """Logit of the target less the largest other one, for targets that are not ignored."""
        targets = self._targets_for(outputs, batch)
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
        targets = self._targets_for(outputs, batch)
        shares = outputs.double().softmax(1)
        signs = _signs(outputs.shape, generator).to(shares)
        roots = shares.sqrt()
        slopes = roots * signs - shares * (roots * signs).sum(1, keepdim=True)
        if not targets.is_floating_point():
            told = (targets != self.ignore_index).to(shares)
            per_example = told.flatten(1).mean(1) if told.dim() > 1 else told
            weight = told / per_example.clamp_min(1e-12).reshape(-1, *[1] * (told.dim() - 1))
            slopes = slopes * weight.unsqueeze(1)
        return with_targets(batch, (shares - slopes).to(outputs.dtype), self.entries)


class MeanSquaredError(Supervised):
    """(output - target)^2 per entry, averaged over all entries as ``torch.nn.MSELoss`` does."""

    name = "mse"
    samples_targets = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs, times its weight."""
        targets = self.targets(batch)
        squares = (outputs - _like(targets, outputs, self.name)) ** 2
        return _weighted(squares, self.term_weights(outputs, batch))

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Outputs +- sqrt(1/2), the standard deviation of the normal whose loss this is."""
        signs = _signs(outputs.shape, generator).to(outputs)
        return with_targets(batch, outputs + 0.5**0.5 * signs, self.entries)


class BinaryCrossEntropy(Supervised):
    """Binary cross-entropy on logits per entry, for one or many labels per example."""

    name = "bce"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs, times its weight."""
        targets = self.targets(batch)
        targets = _like(targets, outputs, self.name)
        losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return _weighted(losses, self.term_weights(outputs, batch))

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Whether logit and target lie on the same side, per entry."""
        targets = _like(self.targets(batch), outputs, self.name)
        return (((outputs > 0) == (targets > 0.5)) & ~outputs.isnan()).reshape(-1)

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """The logit where the label is 1 and its negative where it is 0, per entry."""
        targets = _like(self.targets(batch), outputs, self.name)
        if not ((targets == 0) | (targets == 1)).all():
            raise NotApplicableError("margins need labels 0 and 1, got others")
        return (outputs * (2 * targets - 1)).reshape(-1)

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Soft targets p +- sqrt(p (1 - p)), the standard deviation of the label."""
        shares = outputs.double().sigmoid()
        signs = _signs(outputs.shape, generator).to(shares)
        targets = shares + (shares * (1 - shares)).sqrt() * signs
        return with_targets(batch, targets.to(outputs.dtype), self.entries)


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random signs, drawn on the CPU so that every device gets the same ones."""
    return 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) - 1


def _like(targets: Tensor, outputs: Tensor, name: str) -> Tensor:
    if targets.shape != outputs.shape:
        # Silent broadcasting of (N,) against (N, 1) would make an (N, N) loss.
        if targets.squeeze().shape != outputs.squeeze().shape:
            raise ValueError(
                f"{name} needs targets shaped like the outputs {tuple(outputs.shape)}, got "
                f"{tuple(targets.shape)}"
            )
        targets = targets.reshape(outputs.shape)
    return targets.to(outputs)
