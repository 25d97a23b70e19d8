"""Directories with a checkpoint in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.tasks.checkpoints.adapters import is_adapter
from landscape.tasks.checkpoints.distributed import is_distributed, read_distributed
from landscape.tasks.checkpoints.errors import CheckpointError, listed
from landscape.tasks.checkpoints.files import SUFFIXES, read_file
from landscape.tasks.checkpoints.nesting import is_optimizer
from landscape.tasks.checkpoints.shards import is_index, read_shards
from landscape.tasks.checkpoints.unpickling import unpickle

#: Weights in the directories of Hugging Face, the first that is there.
HUGGING_FACE_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
# Beside the weights in the directories of trainers, and no weights themselves.
_OTHERS = (*_OPTIMIZERS, "scheduler.", "scaler.", "training_args.", "rng_state", "random_states")
_DEEPSPEED = ("zero_to_fp32.py", "global_step*", "*mp_rank_*_model_states.pt")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a path holds, before the weights in it are looked for.

    Args:
        found: As it was saved.
        optimizer: The optimiser's state, where it lies in a file of its own.
        notes: How it was found.
    """

    found: Any
    optimizer: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def read_content(path: Path, *, trust_pickle: bool = False) -> Content:
    """What a file, an index of shards or a directory holds.

    Args:
        path: Any of these.
        trust_pickle: See :func:`unpickle`.

    Returns:
        The content.

    Raises:
        CheckpointError: If there is nothing that can be read.
    """
    try:
        if not path.exists():
            raise CheckpointError(f"there is no checkpoint at {path}")
        if path.is_dir():
            return _read_directory(path, trust_pickle)
        read = read_shards if is_index(path) else read_file
        return Content(found=read(path, trust_pickle=trust_pickle))
    except OSError as error:  # looking at a path may already be forbidden
        where = path if error.filename is None else error.filename
        raise CheckpointError(f"{where} cannot be opened ({error.strerror})") from error


def _read_directory(folder: Path, trust_pickle: bool) -> Content:
    if is_distributed(folder):
        found = read_distributed(folder, trust_pickle=trust_pickle)
        return Content(found=found, notes=("a directory of torch.distributed.checkpoint",))
    inside = sorted(entry.name for entry in folder.iterdir())
    chosen = next((name for name in HUGGING_FACE_WEIGHTS if name in inside), None)
    if chosen is None:
        _refuse(folder)
        chosen = _only_one(folder, inside)
    content = read_content(folder / chosen, trust_pickle=trust_pickle)
    optimizer, notes = _optimizer(folder, trust_pickle)
    return Content(found=content.found, optimizer=optimizer, notes=(f"read from {chosen}", *notes))


def _refuse(folder: Path) -> None:
    if is_adapter(folder):
        raise CheckpointError(
            f"{folder} is a directory with a PEFT adapter, which is no checkpoint on its own; "
            "load its base model first and give this one as the adapter"
        )
    if any(True for pattern in _DEEPSPEED for _ in folder.glob(pattern)):
        raise CheckpointError(
            f"{folder} is a directory of DeepSpeed; convert it with its zero_to_fp32.py and give "
            "the file that it writes"
        )


def _only_one(folder: Path, inside: list[str]) -> str:
    files = [
        name
        for name in inside
        if name.endswith(SUFFIXES) and not name.startswith(_OTHERS) and (folder / name).is_file()
    ]
    if len(files) == 1:
        return files[0]
    if files:
        raise CheckpointError(
            f"{folder} is a directory with several checkpoints; give one of {listed(files)}"
        )
    deeper = sorted(
        str(entry.relative_to(folder))
        for pattern in ("checkpoint-*", "checkpoints/*.ckpt")  # of transformers, of Lightning
        for entry in folder.glob(pattern)
    )
    if deeper:
        raise CheckpointError(
            f"{folder} is a directory of a training run, not a checkpoint; give one inside it: "
            f"{listed(deeper)}"
        )
    content = listed(inside) if inside else "nothing"
    raise CheckpointError(f"{folder} is a directory without a checkpoint; it holds {content}")


def _optimizer(folder: Path, trust_pickle: bool) -> tuple[Mapping[str, Any] | None, list[str]]:
    path = next((folder / name for name in _OPTIMIZERS if (folder / name).is_file()), None)
    if path is None:
        return None, []
    try:
        # Mapped, since it is twice as large as the model and often not used.
        found = unpickle(path, path, trust_pickle=trust_pickle, mmap=True)
    except CheckpointError as error:
        return None, [f"without the optimiser's state: {error}"]
    if not is_optimizer(found):
        return None, [f"without the optimiser's state: {path} does not hold one"]
    return found, [f"optimiser's state from {path.name}"]
