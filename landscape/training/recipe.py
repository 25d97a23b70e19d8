"""A recipe: everything that decides how a task is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from landscape.training.methods import BASES, METHODS, TERMS
from landscape.training.settings import check, check_count

#: Share of the learning rate that is left after a share p of the budget.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,  # noqa: ARG005
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "step": lambda p: 0.1 ** ((p >= 0.5) + (p >= 0.75)),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a task is trained. The first budget or target that is reached ends it.

    Args:
        method: A name of ``METHODS`` or ``TERMS``; "sgd" or "adamw" for the base alone.
        settings: Of the method, such as ``{"rho": 0.1}``; what depends on the length of the
            training (``start`` of averages, ``total_steps``) is filled in.
        base: "sgd" or "adamw", which takes the step.
        lr: Learning rate.
        momentum: Of SGD.
        weight_decay: Of the base: part of the gradient for SGD, decoupled for AdamW.
        schedule: "constant"; "cosine" to 0; "step" to a tenth at half of the budget and a tenth of
            that at three quarters.
        batch_size: Examples a step; the last batch of an epoch may have fewer.
        epochs: Passes over the examples at most.
        gradients: Gradients of the whole training data at most, so that methods with several
            gradients a step can be given the same budget. Passes without a gradient are not
            counted.
        target_loss: Training stops after the epoch whose train loss is at most this.
        seed: Of initial weights, order of the data, noise, and whatever models draw.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or there is no budget.
    """

    method: str = "sgd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    base: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch_size: int = 50
    epochs: int | None = None
    gradients: float | None = None
    target_loss: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("method", self.method, [*BASES, *METHODS, *TERMS]),
            ("base", self.base, [*BASES]),
            ("schedule", self.schedule, [*SCHEDULES]),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; there are {', '.join(known)}")
        if self.method in BASES:
            object.__setattr__(self, "base", self.method)
        object.__setattr__(self, "settings", dict(self.settings))
        check("lr", self.lr)
        check("momentum", self.momentum, high=1)
        check("weight_decay", self.weight_decay)
        check_count("batch_size", self.batch_size)
        if self.epochs is None and self.gradients is None:
            raise ValueError("there is no budget; give epochs or gradients")
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        if self.gradients is not None:
            check("gradients", self.gradients, low=1e-6)
        if self.target_loss is not None:
            check("target_loss", self.target_loss, low=-math.inf)
        if self.seed < 0:
            raise ValueError(f"seed must be a whole number of at least 0, got {self.seed!r}")

    def rate(self, spent: float) -> float:
        """The learning rate once a share of the budget is spent.

        Args:
            spent: From 0 to 1.

        Returns:
            The rate of the next step.
        """
        return self.lr * SCHEDULES[self.schedule](min(spent, 1.0))

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)
