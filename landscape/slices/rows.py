"""Evaluated points kept on disk, so that a killed slice goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.results import to_json, write_atomically

Array = NDArray[np.float64]


class SliceMismatchError(ValueError):
    """Rows on disk that belong to another slice."""


class Rows:
    """Blocks of evaluated points in a folder, one file a block, found again by their coordinates.

    Args:
        folder: Where they lie; made when the first block is written.
        about: What the values depend on: weights, data, directions, metrics. JSON-able.

    Raises:
        SliceMismatchError: If the folder holds rows of something else; it names what differs.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder = folder
        self._about = json.loads(to_json(about))
        self._key = json.dumps(self._about, sort_keys=True).encode()
        marker = folder / "about.json"
        if marker.exists():
            before = json.loads(marker.read_text(encoding="utf-8"))
            keys = before.keys() | self._about.keys()
            other = sorted(key for key in keys if before.get(key) != self._about.get(key))
            if other:
                raise SliceMismatchError(
                    f"{folder} holds rows of another slice: {', '.join(other)} differ; finish that "
                    "one, remove the folder, or choose another output"
                )

    def evaluated(self, points: Array, evaluate: Callable[[Array], Array]) -> Array:
        """The values at a block of points, read from disk or evaluated and written."""
        # What it is of is part of the name, so that two slices at once cannot mix.
        digest = hashlib.blake2b(self._key + points.tobytes(), digest_size=12).hexdigest()
        path = self._folder / f"{digest}.npy"
        if path.exists():
            found: Array = np.load(path)
            return found
        values = evaluate(points)
        self._folder.mkdir(parents=True, exist_ok=True)
        marker = self._folder / "about.json"
        if not marker.exists():
            write_atomically(marker, to_json(self._about))
        stream = io.BytesIO()
        np.save(stream, values)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(stream.getvalue())
        partial.replace(path)
        return values

    @staticmethod
    def beside(path: Path) -> Path:
        """The folder of the rows of a slice that will be written to ``path``."""
        return path.with_name(f"{path.name}.partial")

    @classmethod
    def discard(cls, path: Path) -> None:
        """Deletes the rows of a slice, once it is written."""
        shutil.rmtree(cls.beside(path), ignore_errors=True)
