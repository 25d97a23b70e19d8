"""Objects of the user's own code: ``path/to/file.py:attr`` or ``package.module:attr``."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# From which files were imported.
_FOLDERS: set[Path] = set()
_OWN = str(Path(__file__).parents[1])

logger = logging.getLogger(__name__)


def is_reference(text: str) -> bool:
    """Whether a text is of the form ``file.py:attr`` or ``package.module:attr``."""
    module, _, attribute = text.rpartition(":")
    names = (*([] if module.endswith(".py") else module.split(".")), *attribute.split("."))
    return bool(module) and all(name.isidentifier() for name in names)


def folder_of(reference: str) -> Path:
    """The folder that must be importable: the file's, or the working directory of a module."""
    module = reference.rpartition(":")[0]
    return Path(module).resolve().parent if module.endswith(".py") else Path.cwd()


@contextmanager
def importable(folders: Iterable[Path]) -> Iterator[None]:
    """Inside the block modules in these folders can be imported."""
    added = [str(folder) for folder in dict.fromkeys(folders)]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)


def imported(reference: str) -> Any:
    """The object that a reference names.

    Args:
        reference: ``path/to/file.py:attr`` or ``package.module:attr``; dots in attr go deeper.

    Returns:
        The object.

    Raises:
        ValueError: If there is no such file, module or attribute, or its code fails.
    """
    if not is_reference(reference):
        raise ValueError(f"expected path/to/file.py:name or package.module:name, got {reference!r}")
    name, _, attribute = reference.rpartition(":")
    with importable([folder_of(reference)]):
        found: Any = _module(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = ", ".join(known for known in vars(found) if not known.startswith("_"))
            raise ValueError(f"{name} has no {attribute!r}; it has {names[:300] or 'nothing'}")
        found = getattr(found, part)
    return found


def _module(name: str) -> ModuleType:
    try:
        return _from_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {name!r} to import from {Path.cwd()}; a file is given as "
                "path/to/file.py:name"
            ) from error
        raise ValueError(f"{name} cannot be imported: {told(error)}") from error
    except Exception as error:  # the user's code may raise anything
        logger.debug("importing %s failed", name, exc_info=True)
        raise ValueError(f"{name} cannot be imported: {told(error)}") from error


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    # The plain name, so that pickles find it again; not where it would hide another module.
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or importlib.util.find_spec(name) != _spec(name, path):
        name = f"{name}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    _forget_neighbours(path.parent)
    spec = _spec(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _forget_neighbours(folder: Path) -> None:
    """Modules of other folders that would be taken for files of this one are imported anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        elsewhere = file is not None and Path(file).parent in _FOLDERS - {folder}
        if elsewhere and (folder / f"{name}.py").is_file():
            del sys.modules[name]
    _FOLDERS.add(folder)


def _spec(name: str, path: Path) -> Any:
    return importlib.util.spec_from_file_location(name, path)


def told(error: BaseException) -> str:
    """An error of the user's code in one line, with the place where it was raised."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{text} ({error.filename}, line {error.lineno})"
    places = [frame for frame in _frames(error) if not frame.filename.startswith(_OWN)]
    if not places:
        return text
    return f"{text} ({Path(places[-1].filename).name}, line {places[-1].lineno})"


def is_own(error: BaseException) -> bool:
    """Whether an error was raised by this package, or a library it called, not by user's code."""
    frames = _frames(error)
    return not frames or frames[-1].filename.startswith(_OWN)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Where an error passed, without the libraries."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith(("<frozen", sys.base_prefix))
    ]


def parsed(arguments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` pairs; values are JSON (3, 1e-3, true, null, [1, 2]), or else text.

    Returns:
        Values by key.

    Raises:
        ValueError: If a pair has no "=", or no name in front of it.
    """
    found = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--arg takes key=value, got {argument!r}")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    plain = {"True": True, "False": False, "None": None}  # as Python writes them
    if text in plain:
        return plain[text]
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return float(text)  # .5 and 1. are no JSON
    except ValueError:
        return text


def with_arguments(function: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A callable with some of its arguments set; anything else as it is.

    Returns:
        The callable or the thing.

    Raises:
        ValueError: If arguments were given to what is not callable.
    """
    if not arguments:
        return function
    if not callable(function):
        raise ValueError(f"{name} is no function, so that --arg {', '.join(arguments)} has no use")
    return functools.partial(function, **arguments)
