"""One file: which format it is, and what it holds."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from landscape.tasks.checkpoints.errors import CheckpointError, first_line
from landscape.tasks.checkpoints.unpickling import unpickle

#: Endings of files that may hold weights.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")

_FOREIGN = {
    ".gguf": "a GGUF file of llama.cpp, quantised as a rule",
    ".h5": "an HDF5 file of Keras",
    ".hdf5": "an HDF5 file of Keras",
    ".keras": "a Keras model",
    ".msgpack": "a Flax checkpoint",
    ".npy": "a NumPy array",
    ".npz": "an archive of NumPy arrays",
    ".onnx": "an ONNX graph",
    ".pt2": "a program of torch.export",
    ".tflite": "a TensorFlow Lite model",
}


def read_file(path: Path, *, trust_pickle: bool = False) -> Any:
    """What a checkpoint file holds.

    Args:
        path: A safetensors file, which is memory-mapped, or one written by torch.save.
        trust_pickle: See :func:`unpickle`.

    Returns:
        Tensors by name, or whatever was saved.

    Raises:
        CheckpointError: If the file is broken or of another format.
    """
    _check(path)
    if path.suffix == ".safetensors" or _is_safetensors(path):
        return _safetensors(path)
    _check_archive(path)
    return unpickle(path, path, trust_pickle=trust_pickle)


def _check(path: Path) -> None:
    if path.suffix.lower() in _FOREIGN:
        raise CheckpointError(
            f"{path} is {_FOREIGN[path.suffix.lower()]}, which is not read; give the weights as "
            "safetensors or a state_dict saved by torch"
        )
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror})") from error
    if not head:
        raise CheckpointError(f"{path} is empty; the file was not written completely")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{path} is an HTML page, not a checkpoint: the download went wrong")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a pointer of git-lfs, not the checkpoint itself; run git lfs pull"
        )


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({first_line(error)}); it is truncated, "
            "corrupted or of another format"
        ) from error


def _check_archive(path: Path) -> None:
    # Checked before anything is loaded: older torch unpickles tar archives without restrictions.
    try:
        with tarfile.open(path, "r:"):
            pass
    except (tarfile.TarError, OSError, ValueError):
        pass
    else:
        raise CheckpointError(
            f"{path} is a tar archive, not a checkpoint; unpack it and give the file inside"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = {Path(name).name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # an older torch format, or broken: torch will tell
    if "constants.pkl" in members:
        raise CheckpointError(
            f"{path} is a TorchScript archive; save its weights with "
            f"torch.save(torch.jit.load(...).state_dict(), ...) and give that file"
        )
    if "data.pkl" not in members:
        raise CheckpointError(
            f"{path} is a zip archive that torch did not write; unpack it and give the checkpoint "
            "inside"
        )
