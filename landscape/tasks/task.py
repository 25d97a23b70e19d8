"""A task: what a checkpoint is of - model, objective, data, metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape.probing import Block, Entries, Metric, Objective, copy_module
from landscape.probing.cutting import ExampleDim, checked_example_dim
from landscape.probing.entries import Entry

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is needed to probe a checkpoint that is only a file of weights.

    Args:
        model: A module, or a function that makes one. A function with an argument ``state`` is
            handed the tensors of the checkpoint by name, to read sizes off them. Random weights
            are drawn with seed 0.
        objective: As ``landscape.Probe`` takes it.
        train: Training data: batches in a fixed order, a torch dataset, an unshuffled DataLoader,
            a tuple of tensors, or a function that returns one of these.
        test: The same for test data; None where there are none.
        metrics: Name to function of (outputs, batch) with one value an example, whose mean is
            told; None takes the accuracy where the objective knows one.
        name: For the report.
        checkpoint: Weights to take where none are given, or a function that makes them; None
            takes those of the model as it is made.
        blocks: As ``landscape.Probe`` takes them.
        inputs: Which entries of a batch are the model's inputs: a position, a key or a function of
            the batch, or several of them; None finds them where that is beyond doubt.
        targets: Which entry holds the targets, given alike.
        weights: Which entry holds weights of the examples; the mean loss is then
            sum w l / sum w.
        example_dim: The dimension of the data's tensors that counts the examples, 1 for (time,
            batch, features); or one for each entry of a batch, by position or key.

    Example:
        >>> import torch, landscape
        >>> task = landscape.Task(
        ...     model=lambda: torch.nn.Linear(4, 3),
        ...     objective="cross_entropy",
        ...     train=(torch.randn(8, 4), torch.randint(0, 3, (8,))),
        ... )
        >>> landscape.open_task(task).probe.size
        15
    """

    model: nn.Module | Callable[..., nn.Module]
    objective: str | Objective | Callable[[nn.Module, Any], Any]
    train: Any
    test: Any = None
    metrics: Mapping[str, Metric] | None = None
    name: str = "task"
    checkpoint: Path | str | Callable[[], Path] | None = None
    blocks: Sequence[Block] = field(default=())
    inputs: Entry | Sequence[Entry] | None = None
    targets: Entry | None = None
    weights: Entry | None = None
    example_dim: ExampleDim = 0

    def __post_init__(self) -> None:
        _ = self.entries  # what makes no sense is told at once
        checked_example_dim(self.example_dim)

    @property
    def entries(self) -> Entries:
        """Which entries of a batch are inputs, targets and weights."""
        return Entries(inputs=self.inputs, targets=self.targets, weights=self.weights)

    def default_checkpoint(self) -> Path | None:
        """The checkpoint to take where none is given, made if it does not exist yet."""
        found = self.checkpoint() if callable(self.checkpoint) else self.checkpoint
        return None if found is None else Path(found)

    def build(self, state: State | None = None, *, seed: int = 0) -> nn.Module:
        """A model of one's own, to load weights into.

        Args:
            state: The checkpoint's tensors by name, for functions that want them.
            seed: Of random weights.

        Returns:
            The model, in evaluation mode.

        Raises:
            TypeError: If the function returns something else.
            ValueError: If it wants the tensors of a checkpoint and there is none.
        """
        if isinstance(self.model, nn.Module):
            return copy_module(self.model).eval()
        settings: dict[str, Any] = {}
        if _wants_state(self.model):
            if state is None:
                raise ValueError(f"task {self.name!r} reads sizes off a checkpoint; give one")
            settings["state"] = state
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = self.model(**settings)
        if not isinstance(made, nn.Module):
            raise TypeError(
                f"the model of task {self.name!r} must be a torch.nn.Module, or a function that "
                f"returns one; it returned {type(made).__name__}"
            )
        return made.eval()


def _wants_state(function: Callable[..., Any]) -> bool:
    try:
        return "state" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built-in functions have none
        return False
