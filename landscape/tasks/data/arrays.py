"""NumPy archives of inputs and targets."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from landscape.tasks.data.columns import refuse_missing
from landscape.tasks.data.examples import TensorExamples
from landscape.tasks.data.images import ImageExamples, normalised, opened_pixels, pixel_facts
from landscape.tasks.data.options import DataOptions, Settled
from landscape.tasks.data.targets import Targets

_INPUTS = ("inputs", "x", "X", "images", "data", "features")
_TARGETS = ("targets", "y", "Y", "labels", "target")
_SPLITS = ("train", "test", "val", "valid", "validation")


def read_arrays(path: Path, options: DataOptions) -> TensorExamples | ImageExamples:
    """The arrays of an ``.npz`` file, kept in memory.

    Arrays of bytes are taken for pixels and divided by 255; other integers stay integers, and
    floats are kept in their precision. A processor is for bytes alone, grey (N, H, W) or with one
    or three channels second or last.

    Args:
        path: The file, read without unpickling.
        options: Names of the arrays where they are unusual, or the split of pairs such as
            x_train and y_train.

    Returns:
        Batches (inputs, ..., targets); with a processor pixel_values, labels.

    Raises:
        ValueError: If the file cannot be read or its arrays do not fit together.
    """
    options.only(
        {"target", "inputs", "split", "mean", "std", "processor"}, f"{path}, an .npz file,"
    )
    with path.open("rb") as file, _load(file, path) as archive:
        inputs, target = _names(archive.files, options, path)
        with _readable(path):
            found = {name: archive[name] for name in (*inputs, target)}
    lengths = {name: len(array) if array.ndim else 0 for name, array in found.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"arrays of {path} must have equally many examples, and some; {shown}")
    label = f"array {target!r} of {path}"
    targets = Targets(found[target], options, label)
    if options.processor is not None:
        opened = opened_pixels(found[inputs[0]], f"array {inputs[0]!r} of {path}")
        return ImageExamples(opened, found[target].tolist(), targets, options, str(path))
    whole = (
        *(_input(found[name], f"array {name!r} of {path}", options) for name in inputs),
        targets.of(found[target], range(lengths[target])),
    )
    pixels = [name for name in inputs if found[name].dtype == np.uint8]
    facts: dict[str, Any] = {"source": str(path), "inputs": list(inputs), "target": target}
    if pixels:
        facts |= {"divided_by_255": pixels, "pixels": pixel_facts(options)}
    return TensorExamples(whole, facts | targets.facts, Settled(classes=targets.classes))


def _load(file: IO[bytes], path: Path) -> np.lib.npyio.NpzFile:
    with _readable(path):
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
    return archive


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays ({error}); write it with "
            "numpy.savez"
        ) from error


def _input(array: np.ndarray[Any, Any], label: str, options: DataOptions) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{label} holds {array.dtype}, expected numbers")
    refuse_missing(array, range(len(array)), label)
    if array.dtype == np.uint8:
        tensor = torch.from_numpy(array.astype(np.float32)) / 255
    elif array.dtype.kind == "f":
        tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    else:
        tensor = torch.from_numpy(array.astype(np.int64))
    if options.mean is None or not tensor.is_floating_point():
        return tensor
    return normalised(tensor, options, label)


def _names(names: list[str], options: DataOptions, path: Path) -> tuple[tuple[str, ...], str]:
    split = options.split or _only_split(names, options)
    inputs = options.inputs or (_find(names, _INPUTS, split, "inputs", path),)
    target = options.target or _find(names, _TARGETS, split, "target", path)
    missing = [name for name in (*inputs, target) if name not in names]
    if missing:
        raise ValueError(
            f"{path} has no array {', '.join(map(repr, missing))}; it has {', '.join(names)}"
        )
    return inputs, target


def _find(
    names: list[str], usual: tuple[str, ...], split: str | None, role: str, path: Path
) -> str:
    for name in usual:
        for wanted in (name,) if split is None else (f"{name}_{split}", f"{split}_{name}"):
            if wanted in names:
                return wanted
    pairs = [known for known in _SPLITS if _has_split(names, known)]
    if split is None and pairs:
        raise ValueError(f"{path} holds several splits; choose with split: {', '.join(pairs)}")
    shown = "/".join(usual) + (f" of the split {split!r}" if split else "")
    raise ValueError(
        f"{path} has no array named {shown}; name the one to use with {role}, of {', '.join(names)}"
    )


def _only_split(names: list[str], options: DataOptions) -> str | None:
    """The split of a file that holds one only, and no array without a split."""
    pairs = [split for split in _SPLITS if _has_split(names, split)]
    plain = options.inputs or any(name in names for name in _INPUTS)
    return pairs[0] if len(pairs) == 1 and not plain else None


def _has_split(names: list[str], split: str) -> bool:
    wanted = {made for name in _INPUTS for made in (f"{name}_{split}", f"{split}_{name}")}
    return not wanted.isdisjoint(names)
