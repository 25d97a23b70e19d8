"""Batches of any form: what a model is called with, what the targets are, what it returned."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.probing.entries import Entries, named_entries, with_entry
from landscape.probing.nesting import INSIDE, remade

#: Where a mapping keeps its targets; the first that is there.
TARGETS = ("labels", "label", "targets", "target", "y")
#: Where a returned mapping or data class keeps the outputs.
OUTPUTS = ("logits", "predictions", "prediction", "outputs", "output", "out")
# What loaders tell of examples beside their inputs.
_NOTES = ("index", "indices", "idx", "id", "ids", "path", "paths", "file", "filename", "name")
_MISFIT = (TypeError, AttributeError, KeyError, IndexError, ValueError, NotImplementedError)
_UNNAMED = Entries()


def targets_of(batch: Any, entries: Entries = _UNNAMED) -> Any:
    """The targets of a batch.

    Args:
        batch: (inputs..., targets), or a mapping, named tuple or object with one of ``TARGETS``.
        entries: What the user says of its entries.

    Returns:
        The targets: those that are named, or else "labels" and its like, or the last entry that is
        no weight.

    Raises:
        TypeError: If there are none.
    """
    if entries.targets is not None:
        return entries.targets_of(batch)
    named = named_entries(batch)
    if named is not None and (isinstance(batch, Mapping) or has_target_key(named)):
        return named[_target_key(named)]
    places = _places(batch, entries)
    if len(places) >= 2:
        return batch[places[-1]]
    raise TypeError(_no_targets(_form(batch)))


def has_target_key(named: Mapping[Any, Any]) -> bool:
    """Whether one of the names is that of targets."""
    return any(key in named for key in TARGETS)


def with_targets(batch: Any, targets: Any, entries: Entries = _UNNAMED) -> Any:
    """The batch with other targets in their place.

    Args:
        batch: As ``targets_of`` takes it; it is not touched.
        targets: The others.
        entries: What the user says of its entries.

    Returns:
        The new batch.

    Raises:
        TypeError: If the targets are the result of a function, which says no place.
    """
    if callable(entries.targets):
        raise TypeError(
            "other targets cannot be put into a batch whose targets are taken out by a function; "
            "name their position or key instead, such as targets=1"
        )
    if entries.targets is not None:
        return with_entry(batch, entries.targets, targets)
    named = named_entries(batch)
    if named is not None and (isinstance(batch, Mapping) or has_target_key(named)):
        return with_entry(batch, _target_key(named), targets)
    return with_entry(batch, _places(batch, entries)[-1], targets)


def _places(batch: Any, entries: Entries) -> list[int]:
    """Positions in a tuple of what is neither named as targets nor as weights."""
    if not isinstance(batch, list | tuple):
        return []
    claimed = {
        entry % len(batch)
        for entry in (entries.targets, entries.weights)
        if isinstance(entry, int) and batch
    }
    return [place for place in range(len(batch)) if place not in claimed]


def call(
    model: nn.Module,
    batch: Any,
    entries: Entries = _UNNAMED,
    note: Callable[[str], None] | None = None,
    **further: Any,
) -> Any:
    """Calls a model with the inputs of a batch.

    Named inputs are passed as they are named. Otherwise inputs are what is neither targets nor
    weights: those of a mapping by keyword as forward takes them, those of a tuple one after the
    other, if forward requires exactly so many. What else a batch holds is never passed by guess.

    Args:
        model: The model.
        batch: As ``targets_of`` takes it; the targets may be missing from a mapping.
        entries: What the user says of its entries.
        note: Told what is left out of a batch.
        **further: Passed along where forward takes them.

    Returns:
        What the model returned.

    Raises:
        TypeError: If the batch does not say what the inputs are, or forward does not take them.
    """
    pair = not further and not entries and isinstance(batch, list | tuple) and len(batch) == 2
    if pair and isinstance(batch[0], Tensor) and not hasattr(batch, "_fields"):
        return model(batch[0])  # nearly always; a look at the signature takes longer
    return _Call(model, batch, entries, note, further).result()


class _Call:
    """A model with the inputs of a batch, to find out how they are passed."""

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        entries: Entries,
        note: Callable[[str], None] | None,
        further: Mapping[str, Any],
    ) -> None:
        self._model, self._entries, self._note = model, entries, note
        self._signature = inspect.signature(model.forward)
        self._parameters = self._signature.parameters
        self._further = {key: value for key, value in further.items() if key in self._parameters}
        self._batch = _as_tensors(batch, model)

    def result(self) -> Any:
        batch, entries = self._batch, self._entries
        if entries.inputs is not None:
            return self._named(entries.inputs_of(batch))
        named = named_entries(batch)
        if named is not None and (isinstance(batch, Mapping) or has_target_key(named)):
            # Where targets are named, what is called "y" may be an input.
            left = {key for key in TARGETS if not (entries.targets and key in self._parameters)}
            left |= {entries.targets, entries.weights}  # type: ignore[arg-type]
            inputs = {key: value for key, value in named.items() if key not in left}
            return self._mapping(inputs, whole=isinstance(batch, Mapping))
        places = _places(batch, entries)
        if entries.targets is None:
            places = places[:-1]
        if not places:
            raise TypeError(_no_targets(_form(batch)))
        if len(places) == 1:
            return self._single(batch[places[0]])
        if self._requires(len(places)):
            return self._passed(*(batch[place] for place in places))
        raise TypeError(self._ambiguous(f"{len(batch)} entries", tuple(range(len(batch)))))

    def _passed(self, *args: Any, **kwargs: Any) -> Any:
        return self._model(*args, **kwargs, **self._further)

    def _binds(self, *args: Any, **kwargs: Any) -> bool:
        try:
            self._signature.bind(*args, **kwargs, **self._further)
        except TypeError:
            return False
        return True

    def _requires(self, count: int) -> bool:
        """Whether forward needs exactly so many inputs, and by their names no labels."""
        kinds = [parameter.kind for parameter in self._parameters.values()]
        required = [
            parameter.name
            for parameter in self._parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        ]
        other = {*TARGETS[:-1], *_NOTES, "mask"}
        return (
            len(required) == count
            and inspect.Parameter.VAR_POSITIONAL not in kinds
            and not any(name in other or "weight" in name for name in required)
        )

    def _named(self, inputs: Any) -> Any:
        """Inputs that the user named: by keyword where their keys are those of forward."""
        keys = self._entries.inputs
        if not isinstance(keys, list | tuple):
            return self._single(inputs)
        if all(isinstance(key, str) and key in self._parameters for key in keys):
            return self._passed(**dict(zip(keys, inputs, strict=True)))
        if self._binds(*inputs):
            return self._passed(*inputs)
        raise TypeError(self._misfit(f"{len(inputs)} inputs"))

    def _single(self, inputs: Any) -> Any:
        """One entry as the input, which may hold several."""
        if isinstance(inputs, Mapping):
            return self._mapping(dict(inputs), whole=True)
        if isinstance(inputs, list | tuple) and not self._binds(inputs) and self._binds(*inputs):
            return self._passed(*inputs)
        if self._binds(inputs):
            return self._passed(inputs)
        raise TypeError(self._misfit("inputs"))

    def _mapping(self, inputs: dict[Any, Any], *, whole: bool) -> Any:
        """Inputs by name.

        Args:
            inputs: Without targets and weights.
            whole: Whether a model that takes a dictionary may be meant.

        Returns:
            What the model returned.

        Raises:
            TypeError: If they do not say how the model is called.
        """
        by_name = {key: value for key, value in inputs.items() if isinstance(key, str)}
        if len(by_name) == len(inputs) and self._binds(**by_name):
            return self._passed(**by_name)
        taken = {key: value for key, value in by_name.items() if key in self._parameters}
        if taken and self._binds(**taken):
            self._drop([key for key in inputs if key not in taken])
            return self._passed(**taken)
        likely = [
            key
            for key, value in inputs.items()
            if isinstance(value, Tensor) and key not in _NOTES and "weight" not in str(key)
        ]
        single = inputs[likely[0]] if len(likely) == 1 else None
        if whole and self._binds(inputs) and not (single is not None and self._wants_tensor()):
            try:
                return self._passed(inputs)
            except _MISFIT as error:
                if single is None:
                    raise TypeError(self._ambiguous(_listed(inputs), tuple(inputs))) from error
        if single is not None and self._binds(single):
            self._drop([key for key in inputs if key != likely[0]])
            return self._passed(single)
        raise TypeError(self._ambiguous(_listed(inputs), tuple(inputs)))

    def _wants_tensor(self) -> bool:
        first = next(iter(self._parameters.values()))
        return first.annotation in (Tensor, "Tensor", "torch.Tensor")

    def _drop(self, keys: list[Any]) -> None:
        """Leaves entries out that nothing asks for, unless they would change the loss."""
        if weights := [key for key in keys if "weight" in str(key)]:
            raise TypeError(
                f"the batches have an entry {weights[0]!r}, which {type(self._model).__name__}."
                f"forward does not take; if it weighs the examples, say weights={weights[0]!r}, "
                "otherwise leave it out of the batches"
            )
        if keys and self._note is not None:
            self._note(
                f"{', '.join(map(str, keys))} of the batches left out: "
                f"{type(self._model).__name__}.forward takes no such input"
            )

    def _ambiguous(self, form: str, entries: tuple[Any, ...]) -> str:
        first, second = [repr(entry) for entry in (*entries, 0, 1)[:2]]
        if isinstance(self._batch, Mapping):
            second = repr(next((key for key in TARGETS if key in self._batch), "label"))
        third = repr(entries[-1]) if len(entries) > 2 else "..."
        return (
            f"a batch with {form} does not say what {type(self._model).__name__}.forward"
            f"{self._signature} is to be called with; say which entries are what, such as "
            f"inputs={first}, targets={second} (and weights={third} if there are weights of the "
            "examples), of Task or Probe, or give a callable loss(model, batch)"
        )

    def _misfit(self, given: str) -> str:
        return (
            f"the batch's {given} do not fit {type(self._model).__name__}.forward"
            f"{self._signature}; give batches (inputs..., targets), a mapping with forward's "
            "arguments and 'labels', or a callable loss(model, batch)"
        )


def _as_tensors(batch: Any, model: nn.Module) -> Any:
    """NumPy arrays of numbers as tensors of the model's device and floating type."""
    own = next(model.parameters(), torch.empty(0))

    def converted(part: Any) -> Any:
        if isinstance(part, np.ndarray) and part.dtype.kind in "biufc":
            return as_tensor(part, own)
        return part if isinstance(part, Tensor) else INSIDE

    return remade(batch, converted)


def as_tensor(values: Any, like: Tensor) -> Tensor:
    """A tensor of an array, on the device of another and, if floating, of its type."""
    if isinstance(values, Tensor):
        return values
    found = torch.tensor(values, device=like.device)
    return found.to(like.dtype) if found.is_floating_point() else found


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


def _listed(named: Mapping[Any, Any]) -> str:
    return f"keys {', '.join(map(str, named))}"


def _form(batch: Any) -> str:
    if isinstance(batch, list | tuple):
        return f"{type(batch).__name__} of {len(batch)}"
    return type(batch).__name__


def _target_key(batch: Mapping[Any, Any]) -> str:
    for key in TARGETS:
        if key in batch:
            return key
    raise TypeError(_no_targets(f"a mapping with {', '.join(map(str, batch))}"))


def _no_targets(got: str) -> str:
    return (
        "this objective expects batches of the form (inputs, targets), or a mapping with 'labels';"
        f" got {got}; say which entries are what (inputs=0, targets=1), or give a callable "
        "loss(model, batch)"
    )
