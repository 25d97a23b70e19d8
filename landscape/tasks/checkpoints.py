"""Reading weights from files, safely, with one clear line when they cannot be read."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable, or does not fit the model."""


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name.

    Args:
        path: A ``.safetensors`` file, or a state_dict saved by torch (``.pt``, ``.pth``, ``.bin``).

    Returns:
        Name to tensor, on the CPU.

    Raises:
        CheckpointError: If the file is missing, a directory, empty, truncated, corrupted, or holds
            anything but tensors by name.
    """
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; give the checkpoint file inside it")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; the file was not written completely")
    return _safetensors(path) if path.suffix == ".safetensors" else _torch(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({_first_line(error)}); it is truncated, "
            "corrupted or of another format"
        ) from error


def _torch(path: Path) -> dict[str, Tensor]:
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
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is no plain state_dict: entry {name!r} is a {type(value).__name__}; save "
                "model.state_dict()"
            )
    return {str(name): value for name, value in state.items()}


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
