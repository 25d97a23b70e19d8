"""A private copy of the model: what is evaluated, so that the user's model is never touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from landscape.probing.batches import place
from landscape.probing.fixed_norm import use_fixed_statistics, use_own_forward
from landscape.probing.guard import evaluation
from landscape.probing.nesting import tensors
from landscape.probing.objective import Objective, Terms
from landscape.probing.replacements import TRAINING_MODE
from landscape.probing.space import ParamSpace, align
from landscape.probing.substitution import TensorPlaces
from landscape.probing.unwrapping import copy_module, unwrapped_copy
from landscape.probing.walls import CHECKPOINTING
from landscape.results import content_hash

BatchNormMode = Literal["eval", "batch", "recalibrate"]

# Attributes of every module, which hold no result of a forward pass.
_TORCHS_OWN = frozenset(vars(nn.Module()))


class Snapshot(nn.Module):
    """Model and objective as they were when the snapshot was taken, evaluated functionally.

    Args:
        model: Copied, with its buffers, ties and hooks; never modified.
        objective: What turns outputs into losses.
        device: Where the copy lives.
        dtype: Floating type of the copy.
        batch_norm: "eval" uses the running statistics, "batch" those of each batch (nothing is
            stored), "recalibrate" re-estimates the running statistics at every perturbed point.

    Raises:
        TypeError: If the model cannot be copied or holds complex tensors.
        ValueError: If ``batch_norm`` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_norm: BatchNormMode,
    ) -> None:
        super().__init__()
        if batch_norm not in get_args(BatchNormMode):
            raise ValueError(
                f"batch_norm must be one of {get_args(BatchNormMode)}, got {batch_norm!r}"
            )
        copied, notes = unwrapped_copy(model)
        trainable = any(p.requires_grad and p.numel() for p in copied.parameters())
        #: The parameters that were trainable; None for a copy whose parameters are frozen.
        self.space = ParamSpace.of(copied) if trainable else None
        #: What stood in the way of evaluation and was dealt with, in words.
        self.handled = set(notes)
        if complex_ones := [
            name
            for name, tensor in (*copied.named_parameters(), *copied.named_buffers())
            if tensor.is_complex()
        ]:
            raise TypeError(
                f"the model holds complex tensors ({', '.join(complex_ones[:5])}), which a real "
                "precision would cut in half; keep them as pairs of real ones (view_as_real)"
            )
        for parameter in copied.parameters():
            if parameter.is_floating_point() and parameter.dtype != dtype:
                kind = str(parameter.dtype).removeprefix("torch.")
                self.handled.add(f"{kind} weights measured in a {str(dtype)[6:]} copy")
            parameter.grad = None
            parameter.requires_grad_(False)
        self.model = copied.to(device=device, dtype=dtype)
        self.places = TensorPlaces(self.model)
        #: Whether the loss takes derivatives by the weights itself, found when it first does so.
        self.takes_derivatives = False
        self.objective = objective
        self.device, self.dtype = device, dtype
        self.batch_norm = batch_norm
        self.recurrent = any(isinstance(module, nn.RNNBase) for module in copied.modules())
        self.model.eval()
        self._recalibrating = False
        self._norms = [module for module in copied.modules() if isinstance(module, _BatchNorm)]
        for norm in self._norms:
            use_fixed_statistics(norm)
        if batch_norm == "batch":
            for norm in self._norms:
                norm.training, norm.track_running_stats = True, False
        self._modes = [(module, module.training) for module in copied.modules()]

    def forward(self, part: str, batch: Any) -> Terms | Tensor:
        """Terms of the objective, their sum alone, or the outputs alone, on a batch."""
        if part == "outputs":
            return self.objective.outputs(self.model, batch)
        if part == "total":
            return self.objective.evaluate_total(self.model, batch)
        return self.objective.evaluate(self.model, batch)

    def terms(self, parameters: Mapping[str, Tensor], batch: Any) -> Terms:
        """Losses of a batch with some parameters replaced by name."""
        terms = self._call(parameters, "terms", batch)
        if not isinstance(terms, Terms):
            raise TypeError(f"Objective.evaluate must return Terms, got {type(terms).__name__}")
        return terms

    def total(self, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Sum of the losses of a batch, as vmap can evaluate it."""
        total: Tensor = self._call(parameters, "total", batch)
        return total

    def with_objective(self, objective: Objective) -> Snapshot:
        """The same model and settings under another objective."""
        other = copy.copy(self)
        other.objective = objective
        return other

    def outputs(self, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Outputs on a batch with some parameters replaced by name."""
        outputs = self._call(parameters, "outputs", batch)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"Objective.outputs must return a tensor, got {type(outputs).__name__}")
        return outputs

    def _call(self, parameters: Mapping[str, Tensor], part: str, batch: Any) -> Any:
        try:
            return self._evaluate(parameters, part, batch)
        except RuntimeError as error:
            if self.takes_derivatives or "does not require grad" not in str(error):
                raise
            self.takes_derivatives = True
            return self._evaluate(parameters, part, batch)

    def _evaluate(self, parameters: Mapping[str, Tensor], part: str, batch: Any) -> Any:
        recording = torch.is_grad_enabled()
        if self.takes_derivatives:  # by all trainable weights, whichever are moved
            known = {**self.trainable(), **parameters}
            parameters = {
                name: tensor if recording and name in parameters else tensor.detach()
                for name, tensor in known.items()
            }
            for tensor in parameters.values():
                tensor.requires_grad_()
        parameters = {name: align(tensor) for name, tensor in parameters.items()}
        # What a forward pass writes to buffers is not kept, unless it re-estimates statistics.
        buffers = {} if self._recalibrating else self.places.buffers()
        buffers = {name: tensor.clone() for name, tensor in buffers.items()}
        # A copy, so that an in-place first layer reaches neither the user's data nor the next pass.
        batch = place(batch, self.device, self.dtype, copy=True)
        # Non-re-entrant checkpoints would recompute later, with the weights of another point.
        with (
            torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINTING),
            self.places.substituted(parameters, buffers),
            torch.set_grad_enabled(recording or self.takes_derivatives),
        ):
            found = self.forward(part, batch)
        return found if recording or not self.takes_derivatives else _detached(found)

    def derivatives(self, total: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
        """Derivatives of a total by its leaves; None where it does not depend on one.

        The leaves stand in the model meanwhile: adjoint methods and reversible networks evaluate
        it again in their backward pass.

        Args:
            total: A scalar of this model's graph.
            leaves: Parameters by name.

        Returns:
            One derivative a leaf.
        """
        if not total.requires_grad:
            return dict.fromkeys(leaves)
        with self.places.substituted(leaves, {}):
            found: Sequence[Tensor | None] = torch.autograd.grad(
                total, list(leaves.values()), allow_unused=True
            )
        # Detached: a backward pass of the user's own may give a derivative with a graph.
        parts = [None if part is None else part.detach() for part in found]
        return dict(zip(leaves, parts, strict=True))

    def trainable(self) -> dict[str, Tensor]:
        """The snapshot's own tensors of the parameters that were trainable, by name."""
        names = set() if self.space is None else set(self.space.names)
        return {name: p for name, p in self.model.named_parameters() if name in names}

    @contextmanager
    def evaluating(self, *, gradient: bool) -> Iterator[None]:
        """The settings under which this model is evaluated; global state is put back after."""
        with evaluation(self.device, self.handled, gradient=gradient, recurrent=self.recurrent):
            try:
                yield
            finally:
                if not self._recalibrating:
                    self._leave_no_trace()

    def _leave_no_trace(self) -> None:
        """Puts the modes of all modules back, and drops the graphs of tensors that they keep."""
        for module, training in self._modes:
            if module.training != training:
                module.training = training
            kept = vars(module)
            for name, value in kept.items():
                if name in _TORCHS_OWN:
                    continue
                if isinstance(value, Tensor):
                    if value.grad_fn is not None:
                        kept[name] = value.detach()
                elif type(value) in (list, tuple, dict) and _holds_graph(value):
                    kept[name] = pytree.tree_map_only(Tensor, Tensor.detach, value)

    @property
    def batch_norm_used(self) -> BatchNormMode:
        """The mode of batch norm that was asked for, or "batch" where the loss itself trains."""
        return "batch" if TRAINING_MODE in self.handled and self._norms else self.batch_norm

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether batch norm takes its statistics from the data at hand."""
        return self.batch_norm_used != "eval" and bool(self._norms)

    @property
    def recalibrates(self) -> bool:
        """Whether every new point needs a pass that re-estimates batch-norm statistics."""
        return self.batch_norm_used == "recalibrate" and bool(self._norms)

    @contextmanager
    def calibrated(
        self, parameters: Mapping[str, Tensor], batches: Iterable[Any]
    ) -> Iterator[None]:
        """In mode "recalibrate", statistics of this point inside the block, then the old ones."""
        if not self.recalibrates:
            yield
            return
        before = [(norm, norm.running_mean, norm.running_var) for norm in self._norms]
        try:
            self.recalibrate(parameters, batches)
            yield
        finally:
            for norm, mean, variance in before:
                norm.running_mean, norm.running_var = mean, variance

    def recalibrate(self, parameters: Mapping[str, Tensor], batches: Iterable[Any]) -> None:
        """Re-estimates the running statistics at a point: their mean over batches by size."""
        norms = [norm for norm in self._norms if norm.running_mean is not None]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            # New tensors: the old ones may be saved in a graph that is still needed.
            norm.running_mean = torch.zeros_like(cast(Tensor, norm.running_mean))
            norm.running_var = torch.ones_like(cast(Tensor, norm.running_var))
            norm.training = True
        seen = 0
        self._recalibrating = True
        try:
            with self.evaluating(gradient=False):
                for batch in batches:
                    count = next((len(part) for part in tensors(batch) if part.dim() > 0), 1)
                    seen += count
                    for norm in norms:
                        norm.momentum = count / seen
                    self.terms(parameters, batch)
        finally:
            self._recalibrating = False
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.training, norm.momentum = False, momentum

    def model_copy(self) -> nn.Module:
        """A copy of the model in evaluation mode, its parameters frozen."""
        copied = copy_module(self.model)
        for norm in copied.modules():
            if isinstance(norm, _BatchNorm):
                use_own_forward(norm)
                norm.track_running_stats = norm.running_mean is not None
        return copied.eval()

    def converted(self, dtype: torch.dtype) -> Snapshot:
        """The same model, objective and statistics in another precision."""
        other = Snapshot(
            self.model_copy(),
            self.objective,
            device=self.device,
            dtype=dtype,
            batch_norm="batch" if self.batch_norm == "batch" else "eval",
        )
        other.space, other.takes_derivatives = self.space, self.takes_derivatives
        return other

    def changed(
        self, parameters: Mapping[str, Tensor], change: Callable[[nn.Module], None]
    ) -> nn.Module:
        """A copy of the model at a point, changed in place; parameters of the point trainable."""
        model = self.model_copy()
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in parameters.items():
                named[name].copy_(value)
            change(model)
        named = dict(model.named_parameters())
        for name in parameters:
            named[name].requires_grad_(True)
        return model

    def content(self) -> str:
        """Hash of all weights and buffers."""
        return content_hash((*self.model.named_parameters(), *self.model.named_buffers()))


def _holds_graph(value: Any) -> bool:
    return any(
        isinstance(leaf, Tensor) and leaf.grad_fn is not None for leaf in pytree.tree_leaves(value)
    )


def _detached(found: Any) -> Any:
    if isinstance(found, Terms):
        losses = None if found.losses is None else found.losses.detach()
        return Terms(found.total.detach(), found.count, losses)
    return found.detach() if isinstance(found, Tensor) else found
