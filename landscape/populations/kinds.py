"""Kinds of checkpoints: what task they are of, made anew in every worker."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from landscape.tasks import Task, digits_task, folder_of, importable, is_reference, named_task


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What checkpoints of one task have in common.

    Args:
        make: Makes the task; a function at the top of a module, or a ``functools.partial`` of one,
            so that it can be sent to another process.
        facts: What sets the task apart from others, JSON-able.
        folders: From which modules are imported while the task is made.
        code: Files whose bytes the numbers depend on.
        data: Files and folders of data, whose sizes and times stand for what they hold.
    """

    make: Callable[[], Task]
    facts: Mapping[str, Any]
    folders: tuple[Path, ...] = ()
    code: tuple[Path, ...] = ()
    data: tuple[Path, ...] = ()

    @cached_property
    def key(self) -> str:
        """Content address: facts, code and the state of the data."""
        code = [file_hash(path) if path.exists() else "absent" for path in self.code]
        data = [_states(path) for path in self.data]
        text = json.dumps([self.facts, code, data], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def task(self) -> Task:
        """The task."""
        with importable(self.folders):
            return self.make()


def kind_of(reference: str | None, arguments: Mapping[str, Any] | None = None) -> Kind:
    """The kind of a task that is named.

    Args:
        reference: "digits", ``path/to/file.py:name`` or ``package.module:name``; None is digits.
        arguments: Of the task's function.

    Returns:
        The kind; the task itself is not made yet.

    Raises:
        ValueError: If it is no reference, or arguments are given to the embedded task.
    """
    arguments = dict(arguments or {})
    if reference is None or reference == "digits":
        if arguments:
            raise ValueError("arguments have no use for the embedded task digits")
        return Kind(make=digits_task, facts={"task": "digits"})
    if not is_reference(reference):
        raise ValueError(
            f"unknown task {reference!r}; embedded tasks are digits, others are given as "
            "path/to/file.py:name or package.module:name"
        )
    return Kind(
        make=functools.partial(named_task, reference, arguments),
        facts={"task": Path(reference).name, "arguments": arguments},
        folders=(folder_of(reference),),
        code=code_of(reference),
    )


def code_of(reference: str) -> tuple[Path, ...]:
    """The file that a reference names, where it can be found."""
    module = reference.rpartition(":")[0]
    if module.endswith(".py"):
        return (Path(module).resolve(),)
    try:
        with importable([Path.cwd()]):
            spec = importlib.util.find_spec(module)
    except Exception:  # noqa: BLE001 - the user's package may raise anything; the worker says so
        return ()
    return (Path(spec.origin),) if spec is not None and spec.origin else ()


def file_hash(path: Path) -> str:
    """Hash of the bytes of a file, or of all files below a folder with their names."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest.update(f"{file.relative_to(path)}|{file_hash(file)}|".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _states(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of all files below a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]
