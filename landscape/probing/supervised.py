"""Objectives on batches of inputs and targets: classes, numbers, yes or no."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.probing.calling import call, output_of, targets_of, with_targets
from landscape.probing.objective import NotApplicableError, Objective


class Supervised(Objective):
    """Objectives on batches (inputs..., targets), or mappings with "labels"."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's outputs, ``logits`` where it returns several things."""
        self.targets(batch)  # a batch without them is told before forward stumbles over it
        return output_of(call(model, batch), self.name)

    def targets(self, batch: Any) -> Tensor:
        """The targets of a batch, one for each output."""
        targets: Tensor = targets_of(batch)
        return targets


class CrossEntropy(Supervised):
    """Softmax cross-entropy, -log p_y per example (or per position).

    Outputs (N, C, ...) and integer targets (N, ...); targets equal to ``ignore_index`` are no
    terms.

    Args:
        ignore_index: Target of what has no loss.
        label_smoothing: Share of the target that is spread over all classes; 0 by default, since
            it changes what is measured.

    Raises:
        ValueError: If the smoothing does not lie in [0, 1).
    """

    name = "cross_entropy"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def __init__(self, *, ignore_index: int = -100, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        if label_smoothing:
            self.name = f"{self.name}, labels smoothed by {label_smoothing:g}"
            # The loss is then no likelihood of the targets.
            self.samples_targets = False

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per target that is not ignored."""
        targets = self.targets(batch)
        losses = self._each(outputs, targets)
        if targets.is_floating_point():
            return losses
        return losses[targets != self.ignore_index]

    def total(self, outputs: Tensor, batch: Any) -> Tensor:
        """Sum of the losses; those of ignored targets are zero."""
        return self._each(outputs, self.targets(batch)).sum(dtype=torch.float64)

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs,
            targets,
            reduction="none",
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def correct(self, outputs: Tensor, batch: Any) -> Tensor:
        """Whether the largest logit is the target's, for targets that are not ignored."""
        targets = self.targets(batch)
        if targets.is_floating_point():
            targets = targets.argmax(1)
        right = (outputs.argmax(1) == targets) & ~outputs.isnan().any(1)
        return right[targets != self.ignore_index]

    def margins(self, outputs: Tensor, batch: Any) -> Tensor:
        """Logit of the target less the largest other one, for targets that are not ignored."""
        targets = self.targets(batch)
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
        targets = self.targets(batch)
        shares = outputs.double().softmax(1)
        signs = _signs(outputs.shape, generator).to(shares)
        roots = shares.sqrt()
        slopes = roots * signs - shares * (roots * signs).sum(1, keepdim=True)
        if not targets.is_floating_point():
            told = (targets != self.ignore_index).to(shares)
            per_example = told.flatten(1).mean(1) if told.dim() > 1 else told
            weight = told / per_example.clamp_min(1e-12).reshape(-1, *[1] * (told.dim() - 1))
            slopes = slopes * weight.unsqueeze(1)
        return with_targets(batch, (shares - slopes).to(outputs.dtype))


class MeanSquaredError(Supervised):
    """(output - target)^2 per entry, averaged over all entries as ``torch.nn.MSELoss`` does."""

    name = "mse"
    samples_targets = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs."""
        targets = self.targets(batch)
        return (outputs - _like(targets, outputs, self.name)) ** 2

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """Outputs +- sqrt(1/2), the standard deviation of the normal whose loss this is."""
        signs = _signs(outputs.shape, generator).to(outputs)
        return with_targets(batch, outputs + 0.5**0.5 * signs)


class BinaryCrossEntropy(Supervised):
    """Binary cross-entropy on logits per entry, for one or many labels per example."""

    name = "bce"
    has_accuracy = True
    samples_targets = True
    has_margins = True

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """One loss per entry of the outputs."""
        targets = self.targets(batch)
        targets = _like(targets, outputs, self.name)
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

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
        return with_targets(batch, targets.to(outputs.dtype))


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
    return targets.to(outputs.dtype)
