"""Which entries of a batch are inputs, targets and weights of the examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from landscape.probing.nesting import INSIDE, attributes, remade, with_values

#: An entry of a batch: its position, its key, or a function that takes it out of the batch.
Entry: TypeAlias = int | str | Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Where inputs, targets and weights stand in a batch; what is None is found by itself.

    An entry is given by its position, by its key (of a mapping, a named tuple or an object), or as
    a function of the batch. What no entry names is left alone.

    Args:
        inputs: The model's input, or several in the order in which its forward takes them.
        targets: The targets.
        weights: One weight w_i >= 0 an example, or one a term. The mean loss is then
            sum w_i l_i / sum w_i.

    Raises:
        TypeError: If one of them is of another kind.

    Example:
        >>> Entries(inputs=0, targets=1, weights=2).targets_of(("x", "y", "w"))
        'y'
    """

    inputs: Entry | Sequence[Entry] | None = None
    targets: Entry | None = None
    weights: Entry | None = None

    def __post_init__(self) -> None:
        several = self.inputs if isinstance(self.inputs, list | tuple) else (self.inputs,)
        if isinstance(self.inputs, list | tuple) and not self.inputs:
            raise TypeError("inputs must name at least one entry of a batch, got none")
        named = [("inputs", one) for one in several]
        for role, entry in (*named, ("targets", self.targets), ("weights", self.weights)):
            known = isinstance(entry, int | str) and not isinstance(entry, bool)
            if entry is not None and not known and not callable(entry):
                raise TypeError(
                    f"{role} must say which entry of a batch they are, by position, key or a "
                    f"function of the batch, such as {role}=1; got {type(entry).__name__}"
                )

    def __bool__(self) -> bool:
        return any(entry is not None for entry in (self.inputs, self.targets, self.weights))

    def inputs_of(self, batch: Any) -> Any:
        """The input that was named, or a tuple of those that were; asked only where some were."""
        if isinstance(self.inputs, list | tuple):
            return tuple(taken(batch, entry, "inputs") for entry in self.inputs)
        return taken(batch, self.inputs, "inputs")

    def targets_of(self, batch: Any) -> Any:
        """The targets; asked only where they were named."""
        return taken(batch, self.targets, "targets")

    def weights_of(self, batch: Any) -> Any:
        """The weights; None where none were named."""
        return None if self.weights is None else taken(batch, self.weights, "weights")


def taken(batch: Any, entry: Any, role: str) -> Any:
    """An entry of a batch.

    Args:
        batch: Of any form.
        entry: Position, key or function.
        role: What it is to be, named in errors.

    Returns:
        The entry.

    Raises:
        TypeError: If the batch has no such entry.
    """
    if callable(entry):
        return entry(batch)
    if isinstance(entry, int) and isinstance(batch, list | tuple):
        if -len(batch) <= entry < len(batch):
            return batch[entry]
        told = f"{len(batch)} entries"
    else:
        named = named_entries(batch) or {}
        if entry in named:
            return named[entry]
        told = f"the entries {', '.join(map(str, named))}" if named else type(batch).__name__
    raise TypeError(
        f"{role}={entry!r} names no entry of the batches, which have {told}; give a position, a "
        "key or a function of the batch"
    )


def named_entries(batch: Any) -> dict[Any, Any] | None:
    """The entries of a mapping, a named tuple or an object by name; None for other batches."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, tuple):
        return dict(batch._asdict()) if hasattr(batch, "_asdict") else None
    if isinstance(batch, list) or hasattr(batch, "shape"):
        return None
    keys = getattr(batch, "keys", None)
    if callable(keys) and hasattr(batch, "__getitem__"):  # as the graph libraries have it
        return {key: batch[key] for key in keys()}
    if dataclasses.is_dataclass(batch):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    public = {name: own for name, own in attributes(batch).items() if not name.startswith("_")}
    return public or None


def with_entry(batch: Any, entry: int | str, value: Any) -> Any:
    """The batch with another value in the place of an entry; the batch itself is not touched."""
    if isinstance(batch, Mapping):
        return {**batch, entry: value}
    if isinstance(batch, list | tuple):
        if isinstance(entry, str):
            entry = list(named_entries(batch) or ()).index(entry)
        values = list(batch)
        values[entry] = value
        return with_values(batch, values)
    old = taken(batch, entry, "targets")
    return remade(batch, lambda part: value if part is old else INSIDE)
