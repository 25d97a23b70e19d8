"""How commands end: bad input in one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import typer

Value = TypeVar("Value")

MEASURE_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def or_exit(call: Callable[[], Value]) -> Value:
    """Calls and turns an error of the input into one line and exit code 2."""
    try:
        return call()
    except (ValueError, TypeError, OSError) as error:
        fail(str(error))


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Ends the command with a line on the error stream."""
    typer.echo(f"landscape: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)
