"""One step of training: what the optimiser is handed, and how its gradients are counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from landscape.probing import Objective
from landscape.probing.cutting import examples
from landscape.tasks.data.picking import pick
from landscape.training.base import FlatOptimizer, RowOptimizer
from landscape.training.sparse import SparseSAM
from landscape.training.trajectory import MESA, SAF


class Stepper:
    """Steps of an optimiser on an objective, with a term of the loss where there is one.

    Args:
        model: The model, in training mode.
        objective: The loss.
        optimizer: A method, or a base optimiser.
        term: SAF or MESA.

    Attributes:
        differentiated: Examples differentiated so far, an example twice where two passes of a step
            take its gradient.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, optimizer: Optimizer, term: nn.Module | None
    ) -> None:
        self._model, self._objective = model, objective
        self._optimizer, self._term = optimizer, term
        self.differentiated = 0

    def step(self, batch: Any, rows: Sequence[int], epoch: int) -> None:
        """One step on a batch.

        Args:
            batch: On the model's device.
            rows: Numbers of its examples.
            epoch: For SAF.
        """

        def closure() -> Tensor:
            loss = self._loss(batch, rows, epoch)
            loss.backward()
            return loss

        if isinstance(self._optimizer, RowOptimizer):
            self._optimizer.step(lambda part: self._row_losses(batch, part), len(rows))
        elif isinstance(self._optimizer, FlatOptimizer):
            self._optimizer.step(closure)  # type: ignore[arg-type]
        else:
            self._optimizer.zero_grad()
            closure()
            self._optimizer.step()
        if isinstance(self._term, MESA):
            self._term.update()

    def refresh(self, singles: Sequence[Any]) -> None:
        """Makes the mask of SSAM anew, where that is the method.

        Args:
            singles: Batches of one example, of which batch norm could take no statistics: the
                model is in evaluation mode meanwhile.
        """
        if not isinstance(self._optimizer, SparseSAM):
            return
        self._model.eval()
        self._optimizer.refresh_mask([partial(self._single, single) for single in singles])
        self._model.train()

    def _single(self, single: Any) -> Tensor:
        loss = self._loss(single, [0], 0)
        loss.backward()
        return loss

    def _loss(self, batch: Any, rows: Sequence[int], epoch: int) -> Tensor:
        self.differentiated += len(rows)
        if self._term is None:
            terms = self._objective.evaluate(self._model, batch)
            return terms.total / terms.count
        outputs = self._objective.outputs(self._model, batch)
        terms = self._objective.penalised(self._objective.reduce(outputs, batch), self._model)
        loss = terms.total / terms.count
        if isinstance(self._term, SAF):
            past: Tensor = self._term(outputs, torch.tensor(rows), epoch)
            return loss + past
        if not isinstance(batch, tuple | list):
            raise ValueError("MESA needs batches (inputs, ..., targets), not mappings")
        distance: Tensor = self._term(outputs, *batch[:-1])
        return loss + distance

    def _row_losses(self, batch: Any, part: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.differentiated += len(part)
        whole = len(part) == examples(batch)
        chosen = batch if whole else pick(batch, part.tolist())
        losses = self._objective.evaluate(self._model, chosen).losses
        if losses is None:
            raise ValueError(
                f"{type(self._optimizer).__name__} needs one loss an example, and the objective "
                f"{self._objective.name!r} gives sums; use another method or objective"
            )
        return losses
