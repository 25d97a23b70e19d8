"""Putting a state into a model, every tensor of which must be there with its shape."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from landscape.tasks.checkpoints.errors import CheckpointError, first_line, listed
from landscape.tasks.checkpoints.naming import (
    Translation,
    cleaned,
    is_average,
    translations,
)

# Buffers that libraries added or dropped over time, and counters of wrappers.
_DISPENSABLE = re.compile(
    r"(.*\.)?(num_batches_tracked|n_averaged|position_ids|token_type_ids|relative_position_index"
    r"|(attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq)"
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Wanted:
    """The tensors of a model, and which of them are one."""

    def __init__(self, model: nn.Module) -> None:
        entries = model.state_dict(keep_vars=True)
        self.tensors = {name: one for name, one in entries.items() if isinstance(one, Tensor)}
        self._parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.keys = {name: _identity(tensor) for name, tensor in self.tensors.items()}

    def missing(self, present: Collection[str]) -> list[str]:
        """What is neither present, nor tied to something that is, nor dispensable."""
        there = {self.keys[name] for name in present}
        return sorted(
            name
            for name, key in self.keys.items()
            if key not in there and (name in self._parameters or not _DISPENSABLE.fullmatch(name))
        )


def _identity(tensor: Tensor) -> tuple[object, ...]:
    if tensor.data_ptr() == 0:  # without values
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())


def fit_into(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, *, allow_missing: bool = False
) -> list[str]:
    """Loads a state.

    Args:
        model: Modified in place.
        state: Name to tensor.
        path: Named in the error.
        allow_missing: Loads what fits, and leaves the rest of the model as it is.

    Returns:
        What was done to the names, and what was left out.

    Raises:
        CheckpointError: If names are missing or unexpected, a shape is wrong, or values are of a
            kind that cannot be used; it lists them.
    """
    wanted = _Wanted(model)
    saved = {cleaned(name): tensor for name, tensor in state.items()}
    essential = {name for name, tensor in saved.items() if not _is_dispensable(name, tensor)}
    translation = _best(sorted(essential), wanted, partly=allow_missing)
    if rivals := _rivals(sorted(essential), wanted, translation):
        raise CheckpointError(
            f"{path} holds weights for this model twice, under {translation.strip!r} and "
            f"{' and '.join(map(repr, rivals))}; save those alone that are meant"
        )
    fitted: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in saved.items():
        target = translation(name)
        if target is not None and target not in fitted:
            fitted[target] = tensor
        elif name in essential:
            unexpected.append(name)
    missing, unexpected = wanted.missing(fitted), sorted(unexpected)
    problems = _shapes(fitted, wanted) + _values(fitted, wanted)
    if not fitted or not allow_missing:
        problems = _names(missing, unexpected) + problems
    if problems:
        hint = _hint(sorted(essential), wanted, unexpected)
        doubt = hint or _doubt(saved, fitted, wanted, path)
        raise CheckpointError(f"{path} does not fit the model: {'; '.join(problems)}{doubt}")
    try:
        model.load_state_dict(fitted, strict=False)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit the model: {first_line(error)}") from error
    return translation.notes() + [f"{entry}, allowed" for entry in _names(missing, unexpected)]


def matches(model: nn.Module, state: Mapping[str, Tensor]) -> int:
    """How many tensors of a model a state has, its names read in the best way."""
    names = sorted(cleaned(name) for name in state)
    return len(_best(names, _Wanted(model), partly=True).hits(names))


def _is_dispensable(name: str, tensor: Tensor) -> bool:
    if not _DISPENSABLE.fullmatch(name):
        return False
    # The causal mask of old GPT-2 has the name that a bias would have.
    return not name.endswith("bias") or tensor.ndim in {0, 4}


def _best(names: list[str], wanted: _Wanted, *, partly: bool) -> Translation:
    """The first of the ways to read the names that finds the most of them in the model."""
    literal, *others = translations(names, wanted.tensors, partly=partly)
    best, most = literal, len(literal.hits(names))
    for other in others if most < len(names) else ():
        if other.add and other(names[0]) is None:
            continue
        hits = other.hits(names)
        # A prefix is put in front only where everything then fits.
        exact = len(hits) == len(names) and (partly or not wanted.missing(hits))
        if len(hits) > most and (exact or not other.add):
            best, most = other, len(hits)
    return best


def _rivals(names: list[str], wanted: _Wanted, chosen: Translation) -> list[str]:
    """Other prefixes under which as many tensors of the model are found."""
    if not chosen.strip or is_average(chosen.strip):
        return []
    most = len(chosen.hits(names))
    return [
        other.strip
        for other in translations(names, wanted.tensors, partly=True)
        if other.strip
        and other.strip != chosen.strip
        and not is_average(other.strip)
        and len(other.hits(names)) == most
    ]


def _names(missing: list[str], unexpected: list[str]) -> list[str]:
    parts = (("missing", missing), ("unexpected", unexpected))
    return [f"{word} {listed(names)}" for word, names in parts if names]


def _shapes(fitted: Mapping[str, Tensor], wanted: _Wanted) -> list[str]:
    wrong = [
        f"{name} is {tuple(fitted[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.tensors.items()
        if name in fitted and fitted[name].shape != tensor.shape
    ]
    return [f"wrong shapes: {listed(wrong)}"] if wrong else []


def _values(fitted: Mapping[str, Tensor], wanted: _Wanted) -> list[str]:
    problems = []
    strange = [
        f"{name} is {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in fitted.items()
        if tensor.is_complex()
        or (wanted.tensors[name].is_floating_point() and tensor.dtype not in _FLOATS)
    ]
    if strange:
        problems.append(
            "values that are quantised, integers or complex, where weights in float32, float16 or "
            f"bfloat16 are needed: {listed(strange)}"
        )
    if empty := [name for name, tensor in fitted.items() if tensor.is_meta]:
        problems.append(f"saved without values (meta tensors): {listed(empty)}")
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in fitted.items():
        other = first.setdefault(wanted.keys[name], name)
        if other != name and not problems and not _same(fitted[other], tensor):
            problems.append(f"{other} and {name} differ, but are one tensor in the model")
    return problems


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other.to(one.dtype))


def _doubt(
    saved: Mapping[str, Tensor], fitted: Mapping[str, Tensor], wanted: _Wanted, path: Path
) -> str:
    if fitted:
        return ""
    few = ", ".join(list(wanted.tensors)[:3])
    return (
        f"; no name in common: {path.name} looks like a checkpoint of another architecture (it "
        f"begins with {', '.join(list(saved)[:3])}; the model with {few})"
    )


def _hint(names: list[str], wanted: _Wanted, unexpected: list[str]) -> str:
    """Where only some names have a prefix, which one, and what to do."""
    if not unexpected:
        return ""
    partial = _best(names, wanted, partly=True)
    if not partial.strip or wanted.missing(partial.hits(names)):
        return ""
    return (
        f"; the entries under {partial.strip!r} would fit: save those alone, or give "
        "--allow-missing to leave the others out"
    )
