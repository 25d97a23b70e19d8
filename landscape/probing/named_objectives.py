"""Objectives by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from landscape.probing.callable_objective import CallableObjective
from landscape.probing.entries import Entries
from landscape.probing.objective import Objective
from landscape.probing.supervised import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from landscape.probing.token_objectives import (
    CausalLM,
    MaskedLM,
    Seq2Seq,
    TokenClassification,
)

#: Classification of sequences and of images is cross-entropy on the model's logits.
OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "mse": MeanSquaredError,
    "bce": BinaryCrossEntropy,
    "causal_lm": CausalLM,
    "masked_lm": MaskedLM,
    "seq2seq": Seq2Seq,
    "token_classification": TokenClassification,
    "sequence_classification": CrossEntropy,
    "image_classification": CrossEntropy,
}


def as_objective(
    objective: str | Objective | Callable[[nn.Module, Any], Any],
    *,
    entries: Entries | None = None,
    **settings: Any,
) -> Objective:
    """The objective of a name, an Objective itself, or a callable ``loss(model, batch)``.

    Args:
        objective: One of ``OBJECTIVES`` ("cross_entropy", "mse", "bce", "causal_lm", "masked_lm",
            "seq2seq", ...), an Objective or a callable.
        entries: Which entries of a batch are inputs, targets and weights; None leaves that as it
            is.
        **settings: Of a named objective, such as ``label_smoothing=0.1`` of a cross-entropy.

    Returns:
        The objective.

    Raises:
        ValueError: If the name is unknown, or the objective does not have such settings.
        TypeError: If it is neither name, Objective nor callable, or reads batches itself.
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(
                f"unknown objective {objective!r}; use one of {', '.join(OBJECTIVES)}, an "
                "Objective, or a callable loss(model, batch)"
            )
        kind = OBJECTIVES[objective]
        known = inspect.signature(kind).parameters
        if unknown := [name for name in settings if name not in known]:
            raise ValueError(f"objective {objective!r} has no {', '.join(unknown)}")
        made = kind(**settings)
        return made.reading(entries) if entries else made
    if settings:
        raise ValueError(
            f"{', '.join(settings)} can be set for an objective given by name only; set it where "
            "the objective is made"
        )
    if not isinstance(objective, Objective):
        if not callable(objective):
            raise TypeError(
                "objective must be a name, an Objective or a callable loss(model, batch), got "
                f"{type(objective).__name__}"
            )
        objective = CallableObjective(objective)
    return objective.reading(entries) if entries else objective
