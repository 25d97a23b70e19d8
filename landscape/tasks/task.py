"""A task: what a checkpoint is of - model, objective, data, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn


class Task(ABC):
    """What is needed to probe a checkpoint that is only a file of weights."""

    #: Public name.
    name: str
    #: Objective of the probe, as ``landscape.Probe`` takes it.
    objective: str

    @abstractmethod
    def default_checkpoint(self) -> Path:
        """A checkpoint to audit when none is given, made if it does not exist yet."""

    @abstractmethod
    def load(self, checkpoint: Path) -> nn.Module:
        """The model with the weights of a checkpoint.

        Raises:
            CheckpointError: If the file cannot be read or does not fit.
        """

    @abstractmethod
    def train_batches(self, *, samples: int | None = None) -> Sequence[Any]:
        """Training data in a fixed order; the first ``samples`` examples if given.

        Raises:
            ValueError: If ``samples`` is not positive or more than there are.
        """

    def test_batches(self) -> Sequence[Any] | None:
        """Test data in a fixed order; None where there are none."""
        return None

    @abstractmethod
    def metrics(self, model: nn.Module) -> dict[str, float]:
        """Loss and accuracy on train and test data."""
