"""How commands end: bad input in one line and exit code 2."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import typer

Value = TypeVar("Value")

MEASURE_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

logger = logging.getLogger(__name__)


def or_exit(call: Callable[[], Value]) -> Value:
    """Calls and turns an error of the input into one line and exit code 2."""
    try:
        return call()
    except (ValueError, TypeError, OSError) as error:
        fail(str(error))


def or_exit_with_place(call: Callable[[], Value]) -> Value:
    """Calls the user's code too: whatever it raises is one line with the place, and exit code 2."""
    try:
        return call()
    except typer.Exit:
        raise
    except SystemExit as error:
        from landscape.tasks import told

        fail(
            f"the code ended the program ({told(error)}); keep what a script runs under "
            "if __name__ == '__main__'"
        )
    except Exception as error:
        from landscape.tasks import is_own, told

        if is_own(error) and isinstance(error, ValueError | TypeError | OSError):
            fail(str(error))
        logger.debug("loading failed", exc_info=True)
        fail(f"{told(error)}; -v shows the traceback")


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Ends the command with a line on the error stream."""
    typer.echo(f"landscape: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def check_writable(folder: Path, option: str) -> None:
    """Makes a folder and tries to write there.

    Args:
        folder: The folder.
        option: What the user gave, for the error.

    Raises:
        ValueError: If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{option} cannot be written: {error.strerror or error}") from error
