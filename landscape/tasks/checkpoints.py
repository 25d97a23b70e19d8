"""Reading weights from files, safely, with one clear line when they cannot be read."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_WEIGHTS = ("state_dict", "model_state_dict", "model")
_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optim")
# Running means of gradients: SGD with momentum, then the Adam family.
_BUFFERS = ("momentum_buffer", "exp_avg")


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable, or does not fit the model."""


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name.

    Args:
        path: A ``.safetensors`` file, or a state_dict saved by torch (``.pt``, ``.pth``, ``.bin``),
            also inside a training checkpoint, under "state_dict", "model_state_dict" or "model".

    Returns:
        Name to tensor, on the CPU.

    Raises:
        CheckpointError: If the file is missing, a directory, empty, truncated, corrupted, or holds
            anything but tensors by name.
    """
    _check_file(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    found = _torch(path)
    nested = next((found[key] for key in _WEIGHTS if isinstance(found.get(key), Mapping)), found)
    for name, value in nested.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is no plain state_dict: entry {name!r} is a {type(value).__name__}; save "
                "model.state_dict()"
            )
    return {str(name): value for name, value in nested.items()}


def load_momentum(path: Path, model: nn.Module) -> dict[str, Tensor] | None:
    """The optimiser's running mean of gradients, where a training checkpoint holds its state.

    The state is looked for under "optimizer", "optimizer_state_dict" or "optim". torch saves it by
    position, so that parameters in several groups cannot be told apart, unless their names were
    saved with them.

    Args:
        path: The checkpoint file.
        model: With the parameters that were optimised.

    Returns:
        Name of every parameter that requires a gradient to its buffer; None where there is no such
        state, or it does not fit the model.

    Raises:
        CheckpointError: If the file cannot be read.
    """
    _check_file(path)
    found = {} if path.suffix == ".safetensors" else _torch(path)
    optimizer = next((found[key] for key in _OPTIMIZERS if key in found), None)
    if not isinstance(optimizer, Mapping) or not {"state", "param_groups"} <= optimizer.keys():
        return None
    groups = optimizer["param_groups"]
    trained = {name: entry for name, entry in model.named_parameters() if entry.requires_grad}
    names = [name for group in groups for name in group.get("param_names", ())]
    if not names and len(groups) == 1:
        names = list(trained)
    places = [place for group in groups for place in group["params"]]
    buffers = {}
    for name, place in zip(names, places, strict=False):
        state = optimizer["state"].get(place, {})
        buffer = next((state[key] for key in _BUFFERS if state.get(key) is not None), None)
        if buffer is not None and name in trained and buffer.shape == trained[name].shape:
            buffers[name] = buffer
    if len(places) != len(trained) or buffers.keys() != trained.keys():
        logger.warning("the optimiser state of %s does not fit the model; left out", path)
        return None
    return buffers


def _check_file(path: Path) -> None:
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; give the checkpoint file inside it")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; the file was not written completely")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({_first_line(error)}); it is truncated, "
            "corrupted or of another format"
        ) from error


def _torch(path: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no plain state_dict: {_first_line(error)}; save model.state_dict() with "
            "torch.save or safetensors"
        ) from error
    except Exception as error:  # a broken file makes the unpickler raise almost anything
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {_first_line(error)}); it is "
            "truncated, corrupted or no torch checkpoint"
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}, not a state_dict; save model.state_dict()"
        )
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Puts a state into a model, every tensor of which must be there with its shape.

    Args:
        model: Modified in place.
        state: Name to tensor.
        path: Named in the error.

    Raises:
        CheckpointError: If names are missing or unexpected, or a shape is wrong; it lists them.
    """
    wanted = model.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - state.keys()):
        problems.append(f"missing {_listed(missing)}")
    if unexpected := sorted(state.keys() - wanted.keys()):
        problems.append(f"unexpected {_listed(unexpected)}")
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if shapes:
        problems.append(f"wrong shapes: {_listed(shapes)}")
    if problems:
        raise CheckpointError(f"{path} does not fit the model: {'; '.join(problems)}")
    model.load_state_dict(dict(state))


def _listed(entries: list[str], most: int = 8) -> str:
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return f"{len(entries)} ({', '.join(entries[:most])}{more})"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
