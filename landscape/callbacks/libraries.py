"""Libraries that may be absent."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any


def library(names: Sequence[str], user: str, install: str) -> Any:
    """The first of some modules that can be imported.

    Args:
        names: Modules, the preferred one first.
        user: What needs it.
        install: What to install where none is there.

    Returns:
        The module.

    Raises:
        ValueError: If none can be imported.
    """
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ValueError(f"{user} needs a library that is not installed: pip install {install}")
