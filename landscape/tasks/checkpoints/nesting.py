"""Where in a training checkpoint the weights, their average and the optimiser's state are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor, nn

from landscape.tasks.checkpoints.errors import CheckpointError, listed

State = dict[str, Tensor]

_WEIGHTS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "last",
    "weights",
)
_EMA = (
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
    "ema_model",
    "averaged_model",
    "swa_state_dict",
)
_SHADOW = "shadow_params"  # of torch_ema: a list in the order of the parameters
_OUTER = ("checkpoint", "ckpt", *_WEIGHTS)
_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optim", "optimizer_states")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def find_weights(
    found: Any, path: Path, *, ema: bool = False, key: str | None = None
) -> tuple[State, list[str]]:
    """The weights in whatever a checkpoint holds.

    Args:
        found: A state_dict, a training checkpoint around one, or a whole model.
        path: Named in errors.
        ema: The average of the weights (EMA, SWA) instead of the last ones.
        key: The entry that holds the weights, with dots for entries of entries; several of them,
            separated by commas, are joined, each under its own name. None looks under the usual
            names, then for the only entry that holds weights.

    Returns:
        Name to tensor, and what was done.

    Raises:
        CheckpointError: If there are none, or several and no key says which.
    """
    if key is not None:
        return _named_weights(found, path, key)
    if isinstance(found, nn.Module):
        found, notes = found.state_dict(), ["the weights of a pickled model"]
    else:
        notes = []
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__}, not a state_dict; save model.state_dict()"
        )
    weights, where = _weights(found)
    averages = any(name in level for level in _levels(found) for name in _EMA)
    if weights is None and not averages and len(states := _states(found)) == 1:
        ((name, weights),) = states.items()
        where = [f"read under {name!r}, the only weights in the file"]
    averaged = _average(found, weights or {}, path) if ema or weights is None else None
    if averaged is not None:
        state, key = averaged
        only = "" if ema else ", the only weights in the file"
        notes = [*notes, f"averaged weights, read under {key!r}{only}"]
        if weights and state.keys() < weights.keys():  # without the buffers
            notes = [*notes, "what is not averaged, from the weights beside them"]
            state = weights | state
        return state, notes
    if weights is None:
        raise CheckpointError(_no_weights(found, path))
    if "n_averaged" in weights:
        where = [*where, "averaged weights: the state of an AveragedModel"]
    elif ema:
        raise CheckpointError(
            f"{path} holds no averaged weights; it has the entries {listed(list(map(str, found)))}"
        )
    return weights, [*notes, *where]


def find_optimizer(found: Any) -> Mapping[str, Any] | None:
    """The optimiser's state_dict; None where there is none, or several."""
    for level in _levels(found):
        for key in _OPTIMIZERS:
            value = level.get(key)
            if isinstance(value, Sequence) and len(value) == 1:  # of Lightning
                value = value[0]
            if is_optimizer(value):
                return value
    return None


def is_optimizer(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is the state_dict of an optimiser."""
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    )


def _levels(found: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(found, Mapping):
        yield found
        yield from (found[key] for key in _OUTER if isinstance(found.get(key), Mapping))


def _weights(found: Mapping[Any, Any]) -> tuple[State | None, list[str]]:
    for key in _WEIGHTS:
        if state := _as_state(found.get(key)):
            return state, [f"read under {key!r}"]
    if state := _as_state(found):
        return state, []
    for outer in _OUTER:
        inner = found.get(outer)
        if not isinstance(inner, Mapping):
            continue
        for key in _WEIGHTS:
            if state := _as_state(inner.get(key)):
                return state, [f"read under {outer!r}, {key!r}"]
    return None, []


def _states(found: Mapping[Any, Any]) -> dict[str, State]:
    """Entries that hold nothing but tensors by name."""
    states = {str(key): _as_state(value) for key, value in found.items()}
    return {key: state for key, state in states.items() if state}


def _named_weights(found: Any, path: Path, keys: str) -> tuple[State, list[str]]:
    """The weights under an entry, or those of several entries joined."""
    names = [name.strip() for name in keys.split(",")]
    states = [_under(found, path, name) for name in names]
    if len(names) == 1:
        return states[0], [f"read under {names[0]!r}, as asked"]
    joined = {
        f"{name.rpartition('.')[2]}.{entry}": tensor
        for name, state in zip(names, states, strict=True)
        for entry, tensor in state.items()
    }
    return joined, [f"joined of {', '.join(names)}, as asked"]


def _under(found: Any, path: Path, key: str) -> State:
    """The state under an entry whose own name, or those of what it is in, may hold dots."""
    for level, rest in _descents(found, key):
        if not rest:
            if state := _as_state(level):
                return state
            raise CheckpointError(
                f"{path} holds a {type(level).__name__} under {key!r}, no weights by name; "
                f"{_offered(level if isinstance(level, Mapping) else found)}"
            )
    raise CheckpointError(f"{path} has no entry {key!r}; {_offered(found)}")


def _descents(found: Any, key: str) -> Iterator[tuple[Any, str]]:
    """What is left of a key with what it led to so far."""
    if not key:
        yield found, key
    elif isinstance(found, Mapping):
        for name, value in found.items():
            if key == str(name) or key.startswith(f"{name}."):
                yield from _descents(value, key[len(str(name)) + 1 :])


def _offered(found: Any) -> str:
    """The entries that may be named."""
    if not isinstance(found, Mapping):
        return "it holds no entries by name"
    states = list(_states(found))
    return f"of its entries {listed(states or list(map(str, found)))} may be named"


def _as_state(value: Any) -> State | None:
    """Tensors by name, without the extra state of modules; None for anything else."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, Mapping):
        return None
    plain = {str(key): entry for key, entry in value.items() if not _is_extra(key)}
    if not plain or not all(isinstance(entry, Tensor) for entry in plain.values()):
        return None
    return {name: tensor.detach() for name, tensor in plain.items()}


def _is_extra(key: Any) -> bool:
    return str(key).rpartition(".")[2] == "_extra_state"


def _average(found: Mapping[Any, Any], weights: State, path: Path) -> tuple[State, str] | None:
    for level in _levels(found):
        for key in _EMA:
            if key in level and (state := _unwrapped(level[key], weights, path)):
                return state, key
    return None


def _unwrapped(value: Any, weights: State, path: Path) -> State | None:
    if state := _as_state(value):
        return state
    if not isinstance(value, Mapping):
        return None
    if _SHADOW in value:
        return _by_position(list(value[_SHADOW]), weights, path)
    inner = (value[key] for key in ("shadow", *_WEIGHTS, *_EMA) if key in value)
    return next(filter(None, map(_as_state, inner)), None)


def _by_position(shadow: list[Tensor], weights: State, path: Path) -> State:
    names = [name for name in weights if name.rpartition(".")[2] not in _BUFFERS]
    if [tensor.shape for tensor in shadow] != [weights[name].shape for name in names]:
        raise CheckpointError(
            f"{path} holds averaged weights by position ({_SHADOW}), and they do not match the "
            "weights beside them one by one; save them by name"
        )
    return dict(zip(names, shadow, strict=True))


def _no_weights(found: Mapping[Any, Any], path: Path) -> str:
    if not found:
        return f"{path} is a state_dict without entries"
    if states := _states(found):
        several = f", or {','.join(list(states)[:3])} for modules of one model" * (len(states) > 1)
        return (
            f"{path} does not say which of its entries holds the weights of the model: "
            f"{listed(list(states))}; name it with weights_key, --weights-key "
            f"{next(iter(states))}{several}"
        )
    nested = next((found[key] for key in _WEIGHTS if isinstance(found.get(key), Mapping)), None)
    inner = nested or found
    name, entry = next(
        (pair for pair in inner.items() if not isinstance(pair[1], Tensor)), ("none", None)
    )
    return (
        f"{path} is no plain state_dict: entry {name!r} is a {type(entry).__name__}; save "
        f"model.state_dict(), alone or under one of {', '.join(_WEIGHTS)}"
    )
