"""From a recipe to model, optimiser and term of the loss."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from landscape.tasks import Settings, Task, read_checkpoint
from landscape.training.averaging import WASAM
from landscape.training.methods import BASES, METHODS, TERMS
from landscape.training.recipe import Recipe
from landscape.training.sparse import DynamicSparseSAM

# Of the settings that all methods share, those that a recipe may hold.
_SHARED = {"max_norm", "seed"}
# When averages start, as a share of the training, as Izmailov et al. and Kaddour et al. do.
_LATE = 0.75
# Epochs between two masks of SSAM, as in its code.
REFRESH_EPOCHS = 5


@dataclass(frozen=True)
class Plan:
    """The length of a training.

    Args:
        examples: In the training data.
        classes: Entries of an output; None where that is not known.
        per_epoch: Steps of an epoch.
        total: Steps of the whole training at most.
    """

    examples: int
    classes: int | None
    per_epoch: int
    total: int

    @classmethod
    def of(cls, recipe: Recipe, examples: int, classes: int | None) -> Plan:
        """The plan of a recipe on so many examples."""
        per_epoch = math.ceil(examples / recipe.batch_size)
        limits = []
        if recipe.epochs is not None:
            limits.append(recipe.epochs * per_epoch)
        if recipe.gradients is not None:
            limits.append(math.ceil(recipe.gradients * per_epoch / _gradients_a_step(recipe)))
        return cls(examples, classes, per_epoch, max(1, min(limits)))


def make_model(
    task: Task, recipe: Recipe, start: Path | str | None, settings: Settings
) -> nn.Module:
    """The model before training.

    Args:
        task: Whose model.
        recipe: Whose seed draws the weights.
        start: Checkpoint to start from; None for weights as the model is made.
        settings: How a checkpoint is read.

    Returns:
        The model, where and in what precision it was made.
    """
    if start is None:
        return task.build({}, seed=recipe.seed)
    found = read_checkpoint(
        Path(start),
        ema=settings.ema,
        trust_pickle=settings.trust_pickle,
        key=settings.weights_key,
    )
    model = task.build(found.state)
    found.load_into(model, allow_missing=settings.allow_missing)
    return model


def make_optimizer(recipe: Recipe, model: nn.Module, plan: Plan) -> Optimizer:
    """The optimiser of a recipe.

    Args:
        recipe: The recipe.
        model: Whose trainable parameters it moves.
        plan: From which settings that depend on the length are taken.

    Returns:
        The base optimiser, or a method around it.

    Raises:
        ValueError: If nothing can be trained, or the method has no such setting.
    """
    params = [param for param in model.parameters() if param.requires_grad]
    if not params:
        raise ValueError("no parameter requires a gradient; there is nothing to train")
    own = {"momentum": recipe.momentum} if recipe.base == "sgd" else {}
    make: Callable[..., Optimizer] = BASES[recipe.base]
    base = make(params, lr=recipe.lr, weight_decay=recipe.weight_decay, **own)
    if recipe.method in METHODS:
        method: Callable[..., Optimizer] = METHODS[recipe.method]
        settings = {"seed": recipe.seed, **_lengths(recipe, plan), **recipe.settings}
        _check_settings(recipe, method, _SHARED)
        return method(base, model, **settings)
    if recipe.method in BASES and recipe.settings:
        raise ValueError(
            f"method {recipe.method!r} has no setting {', '.join(sorted(recipe.settings))}; lr, "
            "momentum and weight_decay are the recipe's"
        )
    return base


def make_term(recipe: Recipe, model: nn.Module, plan: Plan) -> nn.Module | None:
    """The term that a recipe adds to the loss; None where it adds none.

    Args:
        recipe: The recipe.
        model: The model that is trained.
        plan: The number of examples and classes.

    Returns:
        The term.

    Raises:
        ValueError: If the term has no such setting, or the classes are not known.
    """
    if recipe.method not in TERMS:
        return None
    make: Callable[..., nn.Module] = TERMS[recipe.method]
    _check_settings(recipe, make, set())
    if plan.classes is None:
        raise ValueError(
            f"method {recipe.method!r} compares logits of classes, (N, K), and this objective "
            "gives none"
        )
    if recipe.method == "saf":
        return make(plan.examples, plan.classes, **recipe.settings)
    return make(model, **recipe.settings)


def _check_settings(recipe: Recipe, method: Callable[..., Any], shared: set[str]) -> None:
    parameters = inspect.signature(method).parameters.values()
    known = {entry.name for entry in parameters if entry.kind is entry.KEYWORD_ONLY} | shared
    if unknown := sorted(recipe.settings.keys() - known):
        raise ValueError(
            f"method {recipe.method!r} has no setting {', '.join(unknown)}; it has "
            f"{', '.join(sorted(known))}"
        )


def _lengths(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What the papers state in epochs or shares of the training."""
    start = int(_LATE * plan.total)
    average = {"start": start, "every": max(1, min(plan.per_epoch, plan.total - start))}
    return {
        "swa": average,
        "wasam": average,
        "ssam-d": {
            "refresh_every": REFRESH_EPOCHS * plan.per_epoch,
            "total_steps": plan.total,
        },
        "m-sam": {"micro_batch": max(1, recipe.batch_size // 4)},
    }.get(recipe.method, {})


def _gradients_a_step(recipe: Recipe) -> int:
    """Of the methods whose settings depend on the number of steps."""
    twice = METHODS.get(recipe.method) in {WASAM, DynamicSparseSAM}
    return 2 if twice else 1
