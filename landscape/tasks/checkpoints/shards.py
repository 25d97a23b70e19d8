"""Weights in several files with an index, as Hugging Face writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from landscape.tasks.checkpoints.errors import CheckpointError, first_line, listed
from landscape.tasks.checkpoints.files import read_file


def is_index(path: Path) -> bool:
    """Whether the name is that of an index of shards."""
    return path.name.endswith(".index.json")


def read_shards(index: Path, *, trust_pickle: bool = False) -> dict[str, Any]:
    """The tensors of all shards that an index names.

    Args:
        index: ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``.
        trust_pickle: See :func:`read_file`.

    Returns:
        Tensors by name.

    Raises:
        CheckpointError: If the index is broken, or a shard or an entry is missing.
    """
    places = _places(index)
    names = sorted(set(places.values()))
    # A name with a folder in it could point anywhere.
    if strange := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} names shards outside its folder: {listed(strange)}")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise CheckpointError(f"{index} names shards that are not there: {listed(missing)}")
    found: dict[str, Any] = {}
    for name in names:
        content = read_file(index.parent / name, trust_pickle=trust_pickle)
        if not isinstance(content, dict):
            raise CheckpointError(f"{index.parent / name} is no shard: it is not a state_dict")
        found |= content
    if absent := sorted(places.keys() - found.keys()):
        raise CheckpointError(f"the shards of {index} lack entries of the index: {listed(absent)}")
    return found


def _places(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in places.items()}
    except OSError as error:
        raise CheckpointError(f"{index} cannot be opened ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f'{index} is no index of shards ({first_line(error)}); it needs a "weight_map"'
        ) from error
