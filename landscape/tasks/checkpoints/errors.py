"""The one error of this package, and the words that its messages share."""

from __future__ import annotations

from collections.abc import Sequence


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable, or does not fit the model."""


def listed(entries: Sequence[str], most: int = 8) -> str:
    """The number of entries and the first of them, for a message."""
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return f"{len(entries)} ({', '.join(entries[:most])}{more})"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
