"""The trainer: a task, a recipe, and a folder from which it can go on."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from landscape.probing.batches import Batches, place
from landscape.probing.guard import random_state
from landscape.results import content_hash
from landscape.tasks import Settings, Task
from landscape.tasks.data import batches_of
from landscape.tasks.data.regrouping import ExampleBatches
from landscape.training.averaging import Averaging
from landscape.training.building import (
    REFRESH_EPOCHS,
    Plan,
    make_model,
    make_optimizer,
    make_term,
)
from landscape.training.evaluation import evaluate
from landscape.training.recipe import Recipe
from landscape.training.run_folder import RunFolder
from landscape.training.settings import check_count
from landscape.training.shuffling import examples_of, order, seed_of
from landscape.training.stepping import Stepper

# Examples of a mask of SSAM; its code takes 1024.
_MASK_EXAMPLES = 128
# Batches of an evaluation, in batches of the training.
_FORWARD = 4

#: Called with model, optimiser, steps and epochs done, before the training and after each epoch.
Observer = Callable[[nn.Module, Optimizer, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that has ended.

    Args:
        model: In evaluation mode; the average of the weights for methods that keep one.
        history: A row for the initial weights and for every epoch.
        reason: "budget", "target", or "diverged" where the train loss is no longer finite.
    """

    model: nn.Module
    history: list[dict[str, float]]
    reason: str


def train(
    task: Task,
    recipe: Recipe,
    out: Path | str | None = None,
    *,
    start: Path | str | None = None,
    settings: Settings | None = None,
    save_every: int = 1,
    observe: Observer | None = None,
    progress: bool = False,
) -> Trained:
    """Trains a task, or goes on where an earlier call with the same arguments stopped.

    On a CPU a training that was interrupted ends with the same bits as one that was not.

    Args:
        task: What is trained; its own checkpoint is not used.
        recipe: How.
        out: Folder of weights, metrics and the state; None keeps nothing.
        start: Checkpoint to start from; None draws the weights with the recipe's seed, unless the
            task's model is a module, which is copied.
        settings: Device, precision, subset, label smoothing and penalty, as for ``open_task``.
        save_every: Epochs between two weights of the trajectory.
        observe: Called before the training and after every epoch.
        progress: Show a progress bar on a terminal.

    Returns:
        The model and its metrics.

    Raises:
        ValueError: If the folder holds another training, or task and recipe do not go together.

    Example:
        >>> import torch, landscape
        >>> from landscape.training import Recipe, train
        >>> task = landscape.Task(
        ...     model=lambda: torch.nn.Linear(4, 3),
        ...     objective="cross_entropy",
        ...     train=(torch.randn(32, 4), torch.randint(0, 3, (32,))),
        ... )
        >>> trained = train(task, Recipe(method="sam", settings={"rho": 0.1}, lr=0.1, epochs=2))
        >>> [row["gradients"] for row in trained.history]
        [0.0, 2.0, 4.0]
    """
    check_count("save_every", save_every)
    with random_state():
        training = _Training(task, recipe, start, settings or Settings())
        return training.run(
            RunFolder(None if out is None else Path(out)), save_every, observe, progress
        )


def _digest(data: Batches) -> str:
    hashes = "".join(data.walk()[0])
    return hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest()


class _Training:
    def __init__(
        self, task: Task, recipe: Recipe, start: Path | str | None, settings: Settings
    ) -> None:
        self.recipe = recipe
        self.objective = settings.objective_of(task)
        model = make_model(task, recipe, start, settings)
        # "auto" is a precision of measurements: training keeps the model's own.
        dtype = None if settings.dtype == "auto" else settings.dtype
        self.model = model.to(device=settings.device, dtype=dtype)
        weights = next(self.model.parameters())
        self.device, self.dtype = weights.device, weights.dtype
        self.examples = examples_of(task.train, settings.samples, settings.data_seed)
        size = _FORWARD * recipe.batch_size  # a pass without gradients takes less memory
        everything = range(len(self.examples))
        data: dict[str, Any] = {"train": ExampleBatches(self.examples, everything, size)}
        if task.test is not None:
            data["test"] = batches_of(task.test, default_batch_size=size).batches
        self.data = {name: Batches(part, self.device, self.dtype) for name, part in data.items()}
        self.metrics = task.metrics
        if self.metrics is None:
            known = self.objective.has_accuracy
            self.metrics = {"accuracy": self.objective.correct} if known else {}
        self.plan = Plan.of(recipe, len(self.examples), self._classes())
        self.optimizer = make_optimizer(recipe, self.model, self.plan)
        self.term = make_term(recipe, self.model, self.plan)
        if self.term is not None:
            self.term.to(self.device)
        self.stepper = Stepper(self.model, self.objective, self.optimizer, self.term)
        self.run_facts = {
            "task": task.name,
            **recipe.as_dict(),
            "start": None if start is None else str(start),
            # Names stay while what they stand for changes.
            "weights": content_hash(self.model.state_dict().items()),
            "data": _digest(self.data["train"]),
            "examples": len(self.examples),
            "data_seed": settings.data_seed,
            "objective": self.objective.name,
            "penalty": settings.weight_decay,
            "dtype": str(self.dtype),
        }
        self.epoch = self.step = 0
        self.history: list[dict[str, float]] = []
        self.reason: str | None = None

    def run(
        self, folder: RunFolder, save_every: int, observe: Observer | None, progress: bool
    ) -> Trained:
        """Trains to the end."""
        saved = folder.state(self.run_facts)
        if saved is None:
            folder.begin(self.run_facts)
            folder.weights("initial", self.model.state_dict())
            self._note(0.0)
            folder.save(self._state())
        else:
            self._load(saved)
        self._observe(observe)
        name = f"{self.recipe.method}, seed {self.recipe.seed}"
        with tqdm(total=100, desc=name, unit="%", disable=not progress or None) as bar:
            while self.reason is None:
                self._show(bar)
                begun = time.perf_counter()
                self._epoch()
                self._note(time.perf_counter() - begun)
                if self.epoch % save_every == 0 or self.reason:
                    folder.weights(f"epoch{self.epoch}", self.evaluated.state_dict())
                folder.save(self._state())
                self._observe(observe)
            self._show(bar)
        return Trained(model=self.evaluated.eval(), history=self.history, reason=self.reason)

    @property
    def spent(self) -> float:
        """Share of the budget."""
        shares = [0.0]
        if self.recipe.epochs is not None:
            shares.append(self.step / (self.recipe.epochs * self.plan.per_epoch))
        if self.recipe.gradients is not None:
            shares.append(self.gradients / self.recipe.gradients)
        return max(shares)

    @property
    def gradients(self) -> float:
        """Gradients of the whole training data."""
        return self.stepper.differentiated / len(self.examples)

    @property
    def average(self) -> AveragedModel | None:
        """The average of the weights, once there is one."""
        found = self.optimizer.average if isinstance(self.optimizer, Averaging) else None
        return found if found is not None and int(found.n_averaged) else None

    @property
    def evaluated(self) -> nn.Module:
        """What the method is meant to give: the average, or the weights themselves."""
        return self.model if self.average is None else self.average.module

    def _epoch(self) -> None:
        seed = seed_of(self.recipe.seed, self.epoch + 1)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what users' datasets draw from
        random.seed(seed)
        self.model.train()
        if self.epoch % REFRESH_EPOCHS == 0 and self.recipe.method == "ssam-f":
            drawn = next(order(len(self.examples), seed, 0, _MASK_EXAMPLES))
            self.stepper.refresh([self._batch([row]) for row in drawn])
        size = self.recipe.batch_size
        for rows in order(len(self.examples), self.recipe.seed, self.epoch + 1, size):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.spent)
            self.stepper.step(self._batch(rows), rows, self.epoch)
            self.step += 1
            if self.spent >= 1:
                self.reason = "budget"
                break
        self.epoch += 1
        method = self.optimizer
        if self.average is not None and isinstance(method, Averaging) and method.needs_statistics():
            method.refresh_statistics(self.data["train"])

    def _note(self, seconds: float) -> None:
        row: dict[str, float] = {
            "epoch": self.epoch,
            "step": self.step,
            "gradients": self.gradients,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": seconds + (self.history[-1]["seconds"] if self.history else 0.0),
        }
        for split, batches in self.data.items():
            found = evaluate(self.evaluated, self.objective, batches, self.metrics or {})
            row |= {f"{split}_{name}": value for name, value in found.items()}
        self.history.append(row)
        target = self.recipe.target_loss
        if not math.isfinite(row["train_loss"]):
            self.reason = "diverged"
        elif target is not None and row["train_loss"] <= target:
            self.reason = "target"

    def _state(self) -> dict[str, Any]:
        average = {} if self.average is None else {"averaged_model": self.evaluated.state_dict()}
        term = {} if self.term is None else {"term": self.term.state_dict()}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **average,
            **term,
            "epoch": self.epoch,
            "step": self.step,
            "differentiated": self.stepper.differentiated,
            "history": self.history,
            "reason": self.reason,
            "run": self.run_facts,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.term is not None:
            self.term.load_state_dict(state["term"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.stepper.differentiated = state["differentiated"]
        self.history, self.reason = list(state["history"]), state["reason"]

    def _batch(self, rows: list[int]) -> Any:
        return place(self.examples.batch(rows), self.device, self.dtype, copy=False)

    def _classes(self) -> int | None:
        """Entries of an output, where a term of the loss compares outputs."""
        if not self.objective.has_outputs:
            return None
        self.model.eval()
        with torch.no_grad():
            outputs: Tensor = self.objective.outputs(self.model, self._batch([0]))
        return outputs.shape[1] if outputs.ndim == 2 else None

    def _observe(self, observe: Observer | None) -> None:
        if observe is not None:
            observe(self.model, self.optimizer, self.step, self.epoch)

    def _show(self, bar: Any) -> None:
        bar.update(int(100 * min(self.spent, 1)) - bar.n)
        bar.set_postfix(loss=f"{self.history[-1]['train_loss']:.4g}", epoch=self.epoch)
