"""Options from a YAML file, and back into one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import typer
import yaml

from landscape.commands.exits import fail


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the entries of a file the defaults of the command's options.

    Keys are the names of the options, with dashes or underscores. What is given on the command
    line goes before what is in the file. Paths are relative to the working directory.

    Args:
        context: Of the command.
        path: The file.

    Returns:
        The path.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"--config {path} cannot be read: {error.strerror or error}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fail(f"--config {path} is no YAML: {error}")
    if not isinstance(found, Mapping):
        fail(f"--config {path} must hold options by name, such as 'measures: quick'")
    entries = {str(key).replace("-", "_"): value for key, value in found.items()}
    known = {option.name: option for option in context.command.params}
    # One file serves all commands: what belongs to another one is left to that.
    others = context.parent.command.commands.values() if context.parent else ()  # type: ignore[attr-defined]
    elsewhere = {option.name for command in others for option in command.params}
    unknown = sorted((entries.keys() - known.keys() - elsewhere) | (entries.keys() & {"config"}))
    if unknown:
        names = ", ".join(sorted(name for name in known if name not in {None, "config"}))
        fail(f"--config {path} has no option {', '.join(unknown)}; there are {names}")
    defaults = {
        name: _given(known[name], value) for name, value in entries.items() if name in known
    }
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _given(option: Any, value: Any) -> Any:
    """A value as the command line would give it."""
    several = value if isinstance(value, list) else [value]
    if not option.multiple and any(isinstance(entry, Mapping) for entry in several):
        return json.dumps(value)  # measures: {max-sharpness: {rho: 0.5}}
    if isinstance(value, Mapping):  # arg: {width: 3}
        return [
            f"{key}={entry if isinstance(entry, str) else json.dumps(entry)}"
            for key, entry in value.items()
        ]
    if isinstance(value, bool) and not getattr(option, "is_flag", False):
        return str(value).lower()  # which no number is
    if option.multiple and not isinstance(value, list):
        return [value]
    if isinstance(value, list) and not option.multiple and option.nargs == 1:
        return ",".join(map(str, value))  # measures: [hessian-trace, sam-gap]
    return value


def write_config(context: typer.Context, path: Path) -> None:
    """Writes the options that a command ran with, for ``--config``.

    Args:
        context: Of the command.
        path: The file.
    """
    entries = {
        name: _plain(value)
        for name, value in context.params.items()
        if name != "config" and value not in (None, [], ())
    }
    path.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
