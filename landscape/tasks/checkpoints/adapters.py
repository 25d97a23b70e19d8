"""Adapters of PEFT (LoRA and its kin) on top of a base model."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import nn

from landscape.tasks.checkpoints.errors import CheckpointError, first_line
from landscape.tasks.checkpoints.files import read_file

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter as PEFT saves it."""
    return (path / "adapter_config.json").is_file()


def load_adapter(model: nn.Module, path: Path) -> nn.Module:
    """A base model with an adapter on it.

    Args:
        model: The base, with its weights; PEFT puts the adapter's layers into it, so that it is of
            no further use where this fails.
        path: The adapter's directory.

    Returns:
        The model, in which the adapter's weights are trainable and the base is frozen.

    Raises:
        CheckpointError: If it is no adapter, is broken, or does not fit the base model.
    """
    if not is_adapter(path):
        raise CheckpointError(
            f"{path} is no adapter: a directory with adapter_config.json is expected"
        )
    weights = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if weights is None:  # PEFT would look for them on the Hugging Face hub
        raise CheckpointError(f"{path} lacks the adapter's weights, {' or '.join(_WEIGHTS)}")
    read_file(weights)  # for its checks, and its words where the file is broken
    try:
        import peft  # noqa: PLC0415 - optional
    except ImportError as error:
        raise CheckpointError(
            f"{path} is an adapter, and reading it needs the package peft; pip install peft"
        ) from error
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted: nn.Module = peft.PeftModel.from_pretrained(model, path, is_trainable=True)
    except Exception as error:  # PEFT raises almost anything
        raise CheckpointError(
            f"{path} does not fit the model ({type(error).__name__}: {first_line(error)}); an "
            "adapter needs the base model that it was trained on"
        ) from error
    if lost := [one for one in caught if "missing adapter keys" in str(one.message)]:
        raise CheckpointError(f"{path} does not fit the model: {str(lost[0].message)[:300]}")
    return adapted
