"""torch.load without trust: types that a file names are stood in for, never run.

torch's own ``weights_only`` unpickler does the checking. Training checkpoints also carry settings
and counters of other harmless types. For these it is given stand-ins of the same name, which take
whatever the file hands them and do nothing; so not even the code of a listed type is run, and a
type need not be installed to be read past.
"""

from __future__ import annotations

import io
import logging
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape.tasks.checkpoints.errors import CheckpointError, first_line

logger = logging.getLogger(__name__)


class _Inert:
    """Stands in for a value that is not needed."""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Takes a state and drops it."""


class _Dict(_Inert):
    """Stands in for a mapping: torch fills plain dicts only."""

    def __new__(cls, *_: Any) -> Any:
        return {}


class _List(_Inert):
    """Stands in for a sequence: torch appends to plain lists only."""

    def __new__(cls, *_: Any) -> Any:
        return []


class _Dtype(_Inert):
    """Stands in for a NumPy dtype: its code and byte order."""

    code: str
    order: str

    def __new__(cls, code: Any = "", *_: Any) -> Any:
        new = object.__new__(cls)
        new.code, new.order = str(code), "="
        return new

    def __setstate__(self, state: Any) -> None:
        """Takes the byte order."""
        self.order = state[1] if state[1] in {"<", ">"} else "="


class _Scalar(_Inert):
    """Stands in for a NumPy scalar: numbers, such as learning rates, become Python's."""

    def __new__(cls, dtype: Any = None, raw: Any = None, *_: Any) -> Any:
        if isinstance(dtype, _Dtype) and re.fullmatch(r"[biuf]\d", dtype.code):
            return np.frombuffer(raw, np.dtype(dtype.order + dtype.code))[0].item()
        return object.__new__(cls)


_HARMLESS: dict[type[_Inert], tuple[str, ...]] = {
    _Scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _Dtype: ("numpy.dtype",),
    _List: ("collections.deque",),
    _Dict: (
        "collections.defaultdict",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ),
    _Inert: (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int")),
        *(f"builtins.{name}" for name in ("list", "range", "slice", "str", "tuple")),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        *(
            f"pathlib{inner}.{name}"
            for inner in ("", "._local")
            for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        ),
        "torch.torch_version.TorchVersion",
        "typing.Any",
        "uuid.UUID",
        "uuid.SafeUUID",
        *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        *(
            f"omegaconf.nodes.{kind}Node"
            for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")
        ),
    ),
}


def _stand_in(name: str, kind: type[_Inert]) -> type[_Inert]:
    module, _, short = name.rpartition(".")
    return type(short, (kind,), {"__module__": module})


_STAND_INS: list[Any] = [
    _stand_in(name, kind) for kind, names in _HARMLESS.items() for name in names
]


@contextmanager
def _stood_in() -> Iterator[None]:
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals(_STAND_INS):
            yield
        return
    before = torch.serialization.get_safe_globals()  # torch 2.4
    torch.serialization.add_safe_globals(_STAND_INS)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def unpickle(
    source: Path | io.BytesIO, path: Path, *, trust_pickle: bool = False, mmap: bool = False
) -> Any:
    """What torch.save wrote, on the CPU.

    Args:
        source: A file, or its bytes.
        path: Named in errors.
        trust_pickle: Reads types that are not on the list too, which runs their code.
        mmap: Leaves the values in the file until they are used.

    Returns:
        The content.

    Raises:
        CheckpointError: If it is broken, or names a type that is not on the list.
    """
    try:
        with _stood_in(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise CheckpointError(_refusal(path, error)) from error
    except Exception as error:  # a broken file makes the unpickler raise almost anything
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {first_line(error)}); it is "
            "truncated, corrupted or no torch checkpoint"
        ) from error
    return _trusted(source, path)


def _refusal(path: Path, error: Exception) -> str:
    advice = (
        "save model.state_dict() with torch.save or safetensors, or give --trust-pickle if you "
        "trust whoever wrote it"
    )
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"{path} is no plain state_dict: it needs {named[1]}, and reading that can run any "
            f"code; {advice}"
        )
    if reason := re.search(
        r"(Unsupported operand|Can only|Trying to call|.*must be imported)[^\n]*", str(error)
    ):
        return (
            f"{path} is no plain state_dict, or corrupted ({reason[0].strip().rstrip('.')}); "
            f"{advice}"
        )
    return f"{path} is no plain state_dict, or corrupted ({first_line(error)}); {advice}"


def _trusted(source: Path | io.BytesIO, path: Path) -> Any:
    logger.warning("%s is unpickled as a trusted file, which executes any code in it", path)
    if isinstance(source, io.BytesIO):
        source.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path} needs code that is not here ({first_line(error)}); run where it can be "
            "imported, or save model.state_dict()"
        ) from error
    except Exception as error:  # the file's own code may raise anything
        raise CheckpointError(
            f"{path} cannot be unpickled ({type(error).__name__}: {first_line(error)}); it is "
            "truncated, corrupted or no torch checkpoint"
        ) from error
