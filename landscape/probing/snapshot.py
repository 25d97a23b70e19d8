"""A private copy of the model: what is evaluated, so that the user's model is never touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from landscape.probing.batches import place
from landscape.probing.fixed_norm import use_fixed_statistics, use_own_forward
from landscape.probing.guard import evaluation
from landscape.probing.nesting import tensors
from landscape.probing.objective import Objective, Terms
from landscape.probing.space import ParamSpace
from landscape.probing.unwrapping import unwrapped_copy
from landscape.probing.walls import CHECKPOINTING
from landscape.results import content_hash

BatchNormMode = Literal["eval", "batch", "recalibrate"]


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
        replaced = {f"model.{name}": tensor for name, tensor in parameters.items()}
        if not self._recalibrating:  # what a forward pass writes to buffers is not kept
            replaced |= {
                f"model.{name}": tensor.clone() for name, tensor in self.model.named_buffers()
            }
        # A copy, so that an in-place first layer reaches neither the user's data nor the next pass.
        batch = place(batch, self.device, self.dtype, copy=True)
        # Non-re-entrant checkpoints would recompute later, with the weights of another point.
        with torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINTING):
            return torch.func.functional_call(self, replaced, (part, batch), tie_weights=True)

    def evaluating(self, *, gradient: bool) -> AbstractContextManager[None]:
        """The settings under which this model is evaluated; global state is put back after."""
        return evaluation(self.device, self.handled, gradient=gradient, recurrent=self.recurrent)

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether batch norm takes its statistics from the data at hand."""
        return self.batch_norm != "eval" and bool(self._norms)

    @property
    def recalibrates(self) -> bool:
        """Whether every new point needs a pass that re-estimates batch-norm statistics."""
        return self.batch_norm == "recalibrate" and bool(self._norms)

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
        copied = copy.deepcopy(self.model)
        for norm in copied.modules():
            if isinstance(norm, _BatchNorm):
                use_own_forward(norm)
                norm.track_running_stats = norm.running_mean is not None
        return copied.eval()

    def changed(
        self, parameters: Mapping[str, Tensor], change: Callable[[nn.Module], None]
    ) -> nn.Module:
        """A copy of the model at a point, changed in place; parameters of the point trainable."""
        model = self.model_copy()
        with torch.no_grad():
            for name, value in parameters.items():
                model.get_parameter(name).copy_(value)
            change(model)
        for name in parameters:
            model.get_parameter(name).requires_grad_(True)
        return model

    def content(self) -> str:
        """Hash of all weights and buffers."""
        return content_hash((*self.model.named_parameters(), *self.model.named_buffers()))
