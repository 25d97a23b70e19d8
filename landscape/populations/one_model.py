"""Trains one model of a population and keeps its weights and its row."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landscape.results import to_json, write_atomically
from landscape.tasks import Task, named_task, told
from landscape.training import Recipe, Trained, train
from landscape.training.run_folder import RunFolder
from landscape.training.shuffling import examples_of

METRICS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_STATUS = {"target": "converged", "budget": "not converged", "diverged": "diverged"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model to train.

    Args:
        key: Its name.
        folder: Where its files go; emptied first.
        task: Reference of the task, or of the function that makes it.
        arguments: Of the function.
        recipe: How.
    """

    key: str
    folder: Path
    task: str
    arguments: Mapping[str, Any]
    recipe: Recipe

    group = ""  # nothing is kept between models


class Trainer:
    """Trains models one by one.

    Args:
        device: Of the worker; models of populations are trained on the CPU.
    """

    def __init__(self, device: str | None = None) -> None:
        del device

    def do(self, job: Model) -> dict[str, Any]:
        """``train_one``."""
        return train_one(job)


def train_one(model: Model) -> dict[str, Any]:
    """Trains a model; whatever goes wrong is its status.

    Args:
        model: Which.

    Returns:
        Status, message, metrics and cost, which are in ``row.json`` too.
    """
    path = model.folder
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        found = _train(path, named_task(model.task, dict(model.arguments)), model.recipe)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        logger.debug("%s failed", path.name, exc_info=True)
        text = told(error) if not isinstance(error, ValueError) else str(error)
        found = failed(" ".join(text.split()))
    write_atomically(path / "row.json", to_json(found))
    return found


def failed(message: str) -> dict[str, Any]:
    """The row of a model of which there is nothing but a message."""
    numbers = (*METRICS, "epochs", "gradients", "seconds")
    return {
        "status": "failed",
        "message": message,
        "checkpoint": False,
        "initial": False,
        **dict.fromkeys(numbers),
        "test_examples": None,
    }


def kept(folder: Path) -> dict[str, Any] | None:
    """The row of a model that was trained earlier; None where it has to be trained."""
    try:
        found: dict[str, Any] = json.loads((folder / "row.json").read_text(encoding="utf-8"))
        files = [name for name in ("checkpoint", "initial") if found[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all((folder / FILES[name]).is_file() for name in files) else None


FILES = {"checkpoint": "last.pt", "initial": "initial.pt"}


def _train(path: Path, task: Task, recipe: Recipe) -> dict[str, Any]:
    initial: dict[str, Tensor] = {}

    def observe(model: nn.Module, optimizer: Any, step: int, epoch: int) -> None:  # noqa: ARG001
        if epoch == 0:
            initial.update(copy.deepcopy(model.state_dict()))

    trained = train(task, recipe, observe=observe)
    folder = RunFolder(path)
    folder.weights("initial", initial)
    converging = trained.reason != "diverged"
    if converging:
        folder.weights("last", trained.model.state_dict())
    return {
        "status": _STATUS[trained.reason],
        "message": _message(trained, recipe),
        "checkpoint": converging,
        "initial": True,
        **_numbers(trained),
        "test_examples": None if task.test is None else len(examples_of(task.test)),
    }


def _message(trained: Trained, recipe: Recipe) -> str:
    if trained.reason == "diverged":
        return "the train loss is no longer finite"
    if trained.reason == "budget":
        loss = trained.history[-1]["train_loss"]
        return f"the budget ended at train loss {loss:.4g}, above {recipe.target_loss:g}"
    return ""


def _numbers(trained: Trained) -> dict[str, Any]:
    last = trained.history[-1]
    names = {**{name: name for name in METRICS}, "epoch": "epochs", "gradients": "gradients"}
    found = {told: last.get(name) for name, told in names.items()} | {"seconds": last["seconds"]}
    return {name: value if _finite(value) else None for name, value in found.items()}


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
