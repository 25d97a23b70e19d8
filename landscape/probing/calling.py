"""Batches of any form: what a model is called with, what the targets are, what it returned."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

#: Where a mapping keeps its targets; the first that is there.
TARGETS = ("labels", "label", "targets", "target", "y")
#: Where a returned mapping or data class keeps the outputs.
OUTPUTS = ("logits", "predictions", "prediction", "outputs", "output", "out")


def targets_of(batch: Any) -> Any:
    """The targets of a batch: the last entry of a tuple, or "labels" and its like of a mapping.

    Args:
        batch: (inputs..., targets), or a mapping with one of ``TARGETS``.

    Returns:
        The targets.

    Raises:
        TypeError: If there are none.
    """
    if isinstance(batch, Mapping):
        return batch[_target_key(batch)]
    if isinstance(batch, list | tuple) and len(batch) >= 2:
        return batch[-1]
    raise TypeError(_no_targets(type(batch).__name__))


def with_targets(batch: Any, targets: Any) -> Any:
    """The batch with other targets in their place."""
    if isinstance(batch, Mapping):
        return {**batch, _target_key(batch): targets}
    entries = [*batch[:-1], targets]
    return type(batch)(*entries) if hasattr(batch, "_fields") else type(batch)(entries)


def call(model: nn.Module, batch: Any, **further: Any) -> Any:
    """Calls a model with the inputs of a batch: everything but the targets.

    A mapping is passed by keyword if the model's forward takes its keys, several inputs of a tuple
    one after the other; otherwise the inputs are one argument.

    Args:
        model: The model.
        batch: As ``targets_of`` takes it; the targets may be missing from a mapping.
        **further: Passed along where forward takes them.

    Returns:
        What the model returned.

    Raises:
        TypeError: If forward takes neither.
    """
    pair = not further and isinstance(batch, list | tuple) and len(batch) == 2
    if pair and isinstance(batch[0], Tensor):  # nearly always; a look at the signature takes longer
        return model(batch[0])
    signature = inspect.signature(model.forward)
    inputs: Any
    if isinstance(batch, Mapping):
        inputs = {key: value for key, value in batch.items() if key not in TARGETS}
    elif isinstance(batch, list | tuple) and len(batch) >= 2:
        inputs = batch[0] if len(batch) == 2 else tuple(batch[:-1])
    else:
        raise TypeError(_no_targets(type(batch).__name__))
    taken = {key: value for key, value in further.items() if key in signature.parameters}
    if isinstance(inputs, Mapping):
        if _binds(signature, (), {**inputs, **taken}):
            return model(**inputs, **taken)
    elif (
        isinstance(inputs, list | tuple)
        and (len(batch) > 2 or not _binds(signature, (inputs,), taken))
        and _binds(signature, tuple(inputs), taken)
    ):
        return model(*inputs, **taken)
    if _binds(signature, (inputs,), taken):
        return model(inputs, **taken)
    given = f"keys {', '.join(map(str, inputs))}" if isinstance(inputs, Mapping) else "inputs"
    raise TypeError(
        f"the batch's {given} do not fit {type(model).__name__}.forward{signature}; give batches "
        "(inputs..., targets), a mapping with forward's arguments and 'labels', or a callable "
        "loss(model, batch)"
    )


def output_of(returned: Any, objective: str) -> Tensor:
    """The tensor of outputs in what a model returned.

    Args:
        returned: A tensor, a tuple whose first entry is one, or a mapping or data class with
            ``logits`` or another of ``OUTPUTS``, or with a single tensor.
        objective: Named in the error.

    Returns:
        The outputs.

    Raises:
        TypeError: If there is none, or several that cannot be told apart.
    """
    if isinstance(returned, Tensor):
        return returned
    fields = _fields(returned)
    for name in OUTPUTS:
        if isinstance(named := fields.get(name), Tensor):
            return named
    found = [value for value in fields.values() if isinstance(value, Tensor)]
    if len(found) == 1 or (found and isinstance(returned, list | tuple)):
        return found[0]
    told = f" with {', '.join(map(str, fields))}" if fields else ""
    raise TypeError(
        f"objective {objective!r} expects the model to return a tensor, a tuple that begins with "
        f"one, or something with 'logits'; got {type(returned).__name__}{told}; give a callable "
        "loss(model, batch) instead"
    )


def _fields(returned: Any) -> dict[Any, Any]:
    if isinstance(returned, Mapping):
        return dict(returned)
    if dataclasses.is_dataclass(returned):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    if hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    if isinstance(returned, list | tuple):
        return dict(enumerate(returned))
    return {}


def _binds(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _target_key(batch: Mapping[Any, Any]) -> str:
    for key in TARGETS:
        if key in batch:
            return key
    raise TypeError(_no_targets(f"a mapping with {', '.join(map(str, batch))}"))


def _no_targets(got: str) -> str:
    return (
        "this objective expects batches of the form (inputs, targets), or a mapping with 'labels';"
        f" got {got}; give a callable loss(model, batch) instead"
    )
