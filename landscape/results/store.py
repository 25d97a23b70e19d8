"""Records on disk: one JSON file per (checkpoint, measure), found again by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from landscape.results.result import Result
from landscape.results.table import to_json, write_atomically
from landscape.version import __version__


class Store:
    """A folder of results, keyed by weights, data, measure settings and seed.

    Args:
        folder: Where the records lie; made when the first one is written.
        reuse: Whether ``load`` finds earlier records; False measures everything again.
    """

    def __init__(self, folder: Path, *, reuse: bool = True) -> None:
        self.folder = folder
        self.reuse = reuse

    @staticmethod
    def key(identity: dict[str, Any], measure: str, config: dict[str, Any], seed: int) -> str:
        """Content address of a result; ``identity`` names model, data and objective."""
        text = json.dumps([__version__, identity, measure, config, seed], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def load(self, name: str, key: str) -> Result | None:
        """The stored result, or None where there is none that can be read."""
        if not self.reuse:
            return None
        path = self._path(name, key)
        try:
            return Result.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, name: str, key: str, result: Result) -> Path:
        """Writes a result atomically and returns its path."""
        path = self._path(name, key)
        write_atomically(path, to_json(result.to_dict()))
        return path

    def _path(self, name: str, key: str) -> Path:
        return self.folder / f"{name}-{key}.json"
