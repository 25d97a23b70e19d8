"""From a task and a checkpoint to a probe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.probing import (
    BatchNormMode,
    CrossEntropy,
    Metric,
    Objective,
    Probe,
    Products,
    TokenObjective,
    WeightDecay,
    as_objective,
)
from landscape.probing.batches import Batches
from landscape.tasks.batch_size import fitting_batch_size
from landscape.tasks.checkpoints import (
    Checkpoint,
    CheckpointError,
    is_adapter,
    load_adapter,
    read_checkpoint,
)
from landscape.tasks.data import Batched
from landscape.tasks.kept import Kept
from landscape.tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a task is opened.

    Args:
        ema: Take the average of the weights that the checkpoint holds beside them.
        weights_key: The entry of the checkpoint that holds the weights, such as "generator" or
            "models.student"; several, separated by commas, are joined, each under its own name.
        allow_missing: Load what fits of a checkpoint, and note the rest.
        trust_pickle: Read pickles of any type, which executes the code in them.
        samples: Use a fixed random subset of so many training examples.
        data_seed: Of the subset.
        batch_size: Examples a batch; None takes the source's, or one that fits in memory.
        label_smoothing: Of objectives that have it.
        class_weights: Weight of each class, of objectives that have it; the mean is then torch's.
        ignore_index: Target that is no term, of objectives that have it; None takes theirs.
        weight_decay: c of c/2 ||w||^2, added to the objective.
        device: "cpu", "cuda", ...; None takes the model's.
        dtype: torch.float32 or torch.float64; None takes the model's, "auto" float64 for small
            models on a CPU.
        batch_norm: As ``landscape.Probe`` takes it.
        products: As ``landscape.Probe`` takes it.
        initial: Checkpoint of the weights before training.
    """

    ema: bool = False
    weights_key: str | None = None
    allow_missing: bool = False
    trust_pickle: bool = False
    samples: int | None = None
    data_seed: int = 0
    batch_size: int | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    ignore_index: int | None = None
    weight_decay: float = 0.0
    device: str | None = None
    dtype: torch.dtype | Literal["auto"] | None = None
    batch_norm: BatchNormMode = "eval"
    products: Products = "auto"
    initial: Path | str | None = None

    def objective_of(self, task: Task) -> Objective:
        """The task's objective with what is added to it."""
        given = {
            "label_smoothing": self.label_smoothing or None,
            "weight": self.class_weights,
            "ignore_index": self.ignore_index,
        }
        settings = {name: value for name, value in given.items() if value is not None}
        objective = as_objective(task.objective, entries=task.entries, **settings)
        return WeightDecay(objective, self.weight_decay) if self.weight_decay else objective


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A task with the weights of a checkpoint.

    Args:
        task: The task.
        settings: How it was opened.
        path: The checkpoint; None for the weights that the model was made with.
        model: With the weights.
        probe: On the training data.
        train: The training data.
        test: The test data.
        learning_rate: Of the optimiser, where the checkpoint holds it.
        stability_edge: Of the optimiser, where it has one.
        notes: What was done on the way, in words.
    """

    task: Task
    settings: Settings
    path: Path | None
    model: nn.Module
    probe: Probe
    train: Batched
    test: Batched | None
    learning_rate: float | None
    stability_edge: float | None
    notes: tuple[str, ...]

    def state_of(self, path: Path) -> dict[str, Tensor]:
        """Parameters and buffers of another checkpoint by this model's names.

        Returns:
            Name to tensor.

        Raises:
            CheckpointError: If it cannot be read or does not fit.
        """
        model, _, _ = _loaded(self.task, path, self.settings)
        named = (*model.named_parameters(), *model.named_buffers())
        return {name: tensor.detach() for name, tensor in named}

    def metrics(self) -> dict[str, float]:
        """Means over training and test data: loss, and the task's metrics or the accuracy.

        One forward pass over each, uncounted.

        Returns:
            "train_loss", "test_accuracy" and so on.
        """
        scratch, found = self.probe.scratch(), {}
        known = _metrics(self.task, self.probe)
        splits = [("train", self.probe.batches)]
        if self.test is not None:
            splits.append(("test", self.test.batches))
        for split, batches in splits:
            point = torch.zeros(1, 0, dtype=torch.float64)
            statistics = scratch.evaluate(point, [], batches, known)
            for name, mean in statistics.mean.items():
                found[f"{split}_{name}"] = float(mean[0])
        return found

    def facts(self) -> dict[str, Any]:
        """For the record: what was loaded, and what the model makes of it."""
        data = {"train": self.train.facts, **({"test": self.test.facts} if self.test else {})}
        return {
            "name": self.task.name,
            "checkpoint": str(self.path) if self.path else "weights as the model was made with",
            **self.metrics(),
            "data": data,
            "learning_rate": self.learning_rate,
            "stability_edge": self.stability_edge,
            "notes": list(self.notes),
        }


def open_task(
    task: Task,
    checkpoint: Path | str | None = None,
    settings: Settings | None = None,
    *,
    kept: Kept | None = None,
) -> Opened:
    """Loads weights and data of a task, and makes the probe.

    Args:
        task: The task.
        checkpoint: File or directory of weights, or of a LoRA adapter on the task's own; None
            takes the task's.
        settings: How to load.
        kept: Of the same task and settings, where several checkpoints are opened: their model and
            data are then made once.

    Returns:
        Model, data and probe.

    Raises:
        CheckpointError: If a checkpoint cannot be read or does not fit.
        TypeError: If data or model are of no known kind.
        ValueError: If the data are empty or the loss is not finite, and the like.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task must be a landscape.Task, got {type(task).__name__}")
    settings = settings or Settings()
    given, shared = task, kept is not None
    kept = kept or Kept(task)
    task = kept.task if shared else task
    path = task.default_checkpoint() if checkpoint is None else Path(checkpoint)
    model, found, notes = _loaded(task, path, settings)
    if path is None:
        notes.append("no checkpoint: the weights are those that the model was made with")
    objective = settings.objective_of(task)
    train = _train(kept, task, model, objective, settings)
    initial = None
    if settings.initial is not None:
        # Weights before training have no average yet.
        start, _, _ = _loaded(task, Path(settings.initial), replace(settings, ema=False))
        initial = dict(start.named_parameters())
    probe = Probe(
        model,
        objective,
        kept.in_memory(train).batches,
        device=settings.device,
        dtype=settings.dtype,
        batch_norm=settings.batch_norm,
        products=settings.products,
        momentum=None if found is None else found.momentum(model),
        initial=initial,
        blocks=tuple(task.blocks),
        example_dim=task.example_dim,
    )
    test = None if task.test is None else _test(kept, task, train, objective)
    if shared:
        for data in (train, *([test] if test else [])):
            kept.keep(data, settings.device)
    return Opened(
        task=given,
        settings=settings,
        path=path,
        model=model,
        probe=probe,
        train=train,
        test=test,
        learning_rate=None if found is None else found.learning_rate(),
        stability_edge=None if found is None else found.stability_edge(),
        notes=tuple(notes),
    )


def _loaded(
    task: Task, path: Path | None, settings: Settings
) -> tuple[nn.Module, Checkpoint | None, list[str]]:
    """The model with the weights of a checkpoint, and what was done to load them."""
    if path is None:
        return task.build(), None, []
    if is_adapter(path):
        base = task.default_checkpoint()
        if base is None:
            raise CheckpointError(f"{path} is an adapter, and the task has no weights to put it on")
        model, _, notes = _loaded(task, base, settings)
        return load_adapter(model, path).eval(), None, [*notes, f"adapter {path.name} on {base}"]
    found = read_checkpoint(
        path,
        ema=settings.ema,
        trust_pickle=settings.trust_pickle,
        key=settings.weights_key,
    )
    model = _widened(task.build(found.state), found.state)
    notes = [*found.notes, *found.load_into(model, allow_missing=settings.allow_missing)]
    return model, found, notes


def _widened(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model in a floating type that takes the values of a checkpoint without rounding."""
    kinds = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    kinds &= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    own = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not kinds or not own:
        return model
    widest = functools.reduce(torch.promote_types, kinds)
    if all(torch.promote_types(dtype, widest) == dtype for dtype in own):
        return model
    return model.to(functools.reduce(torch.promote_types, own, widest))


def _train(
    kept: Kept, task: Task, model: nn.Module, objective: Objective, settings: Settings
) -> Batched:
    def read(size: int | None) -> Batched:
        return kept.batches_of(
            task.train,
            samples=settings.samples,
            data_seed=settings.data_seed,
            batch_size=size,
            **_reading(task, objective),
        )

    train = read(settings.batch_size)
    if settings.batch_size is not None:
        return train
    size = fitting_batch_size(model, objective, train, settings.device, task.example_dim)
    if size is None or train.batch_size is None or size >= train.batch_size:
        return train
    smaller = read(size)
    return replace(smaller, facts={**smaller.facts, "batch_size": f"{size}, to fit in memory"})


def _reading(task: Task, objective: Objective) -> dict[str, Any]:
    """How tensors of a task are read."""
    return {
        "classes": _is_classification(objective),
        "target": task.targets,
        "example_dim": task.example_dim,
    }


def _is_classification(objective: Objective) -> bool:
    """Whether an example has one class; a column of class numbers is then a row."""
    kind = objective.inner if isinstance(objective, WeightDecay) else objective
    return isinstance(kind, CrossEntropy) and not isinstance(kind, TokenObjective)


def _test(kept: Kept, task: Task, train: Batched, objective: Objective) -> Batched:
    found = kept.batches_of(
        task.test,
        default_batch_size=train.batch_size or 500,
        **_reading(task, objective),
    )
    if kept.keeps(found):  # which were walked before
        return kept.in_memory(found)
    walks = [Batches(found.batches, torch.device("cpu"), torch.float32).walk()[0] for _ in "12"]
    if walks[0] != walks[1]:
        raise ValueError(
            "two walks over the test data gave different batches: shuffling or augmentation is on; "
            "give a DataLoader with shuffle=False and deterministic transforms, or a list"
        )
    return found


def _metrics(task: Task, probe: Probe) -> Mapping[str, Metric]:
    if task.metrics is not None:
        return task.metrics
    return {"accuracy": probe.objective.correct} if probe.objective.has_accuracy else {}
