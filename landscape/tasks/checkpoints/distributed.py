"""Directories that torch.distributed.checkpoint wrote, read without trust in their pickles."""

from __future__ import annotations

import importlib
import io
import pickle
from pathlib import Path
from typing import Any

from landscape.tasks.checkpoints.errors import CheckpointError, first_line, listed
from landscape.tasks.checkpoints.unpickling import unpickle

_PACKAGE = "torch.distributed.checkpoint"
# What the metadata are made of; torch itself would unpickle anything.
_TYPES = {
    **dict.fromkeys(
        (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        ),
        f"{_PACKAGE}.metadata",
    ),
    "_StorageInfo": f"{_PACKAGE}.filesystem",
    "_get_layout": "torch.serialization",
    "Size": "torch",
}


class _Place:
    """Stands in for a path, which is not needed."""

    def __new__(cls, *_: Any) -> _Place:
        return object.__new__(cls)


class _MetadataUnpickler(pickle.Unpickler):  # noqa: S301 - restricted to a list of types
    def find_class(self, module: str, name: str) -> Any:
        """The listed types and torch's dtypes; anything else is refused."""
        import torch  # noqa: PLC0415 - beside the other parts of torch that are looked up here

        if _TYPES.get(name) == module:
            return getattr(importlib.import_module(module), name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in {"pathlib", "pathlib._local"}:
            return _Place
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")


def is_distributed(folder: Path) -> bool:
    """Whether a directory is a checkpoint of torch.distributed.checkpoint."""
    return (folder / ".metadata").is_file()


def read_distributed(folder: Path, *, trust_pickle: bool = False) -> dict[str, Any]:
    """The whole content of such a directory, on the CPU, nested as it was saved.

    Args:
        folder: With ``.metadata`` and the ``.distcp`` files.
        trust_pickle: Of the values that are no tensors; see :func:`unpickle`.

    Returns:
        What was saved.

    Raises:
        CheckpointError: If files are missing or broken.
    """
    metadata = _metadata(folder)
    files = sorted({str(info.relative_path) for info in metadata.storage_data.values()})
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder} lacks files of its checkpoint: {listed(missing)}")
    from torch.distributed.checkpoint.api import CheckpointException  # noqa: PLC0415 - slow

    found: dict[str, Any] = {}
    try:
        _load(found, folder, metadata, trust_pickle)
    except (Exception, CheckpointException) as error:  # that one is no Exception
        cause = _cause(error)
        if isinstance(cause, CheckpointError) or not isinstance(cause, Exception):
            raise cause from error  # Ctrl-C too comes wrapped
        raise CheckpointError(
            f"{folder} cannot be read as a distributed checkpoint ({type(cause).__name__}: "
            f"{first_line(cause)}); it is truncated or corrupted"
        ) from error
    return found


def _metadata(folder: Path) -> Any:
    path = folder / ".metadata"
    try:
        with path.open("rb") as file:
            metadata = _MetadataUnpickler(file).load()
        if not metadata.storage_data:
            raise ValueError("it lists no data")
    except Exception as error:  # a broken file makes the unpickler raise almost anything
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {first_line(error)}); it is "
            "truncated, corrupted or not by torch.distributed.checkpoint"
        ) from error
    return metadata


def _load(found: dict[str, Any], folder: Path, listing: Any, trust_pickle: bool) -> None:
    from torch.distributed.checkpoint import (  # noqa: PLC0415 - slow, and seldom needed
        default_planner,
        filesystem,
        metadata,
        state_dict_loader,
    )

    class Reader(filesystem.FileSystemReader):
        def read_metadata(self, *_: Any, **__: Any) -> Any:
            listing.storage_meta = listing.storage_meta or metadata.StorageMeta()
            listing.storage_meta.load_id = self.load_id
            return listing

    class Planner(default_planner._EmptyStateDictLoadPlanner):
        def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
            name = read_item.dest_index.fqn
            content = unpickle(value, folder / name, trust_pickle=trust_pickle)
            level: Any = self.original_state_dict
            *outer, last = self.mappings.get(name, (name,))
            for part in outer:
                level = level[part]
            level[last] = content

    planner = Planner()  # type: ignore[no-untyped-call]
    state_dict_loader._load_state_dict(
        found, storage_reader=Reader(folder), planner=planner, no_dist=True
    )


def _cause(error: BaseException) -> BaseException:
    failures = getattr(error, "failures", None)
    return next(iter(failures.values()))[0] if failures else error
