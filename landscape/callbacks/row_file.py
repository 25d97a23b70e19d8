"""The rows of a run, in memory and in a CSV file that survives a kill."""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from landscape.callbacks.row import COLUMNS, Row
from landscape.results import write_atomically

logger = logging.getLogger(__name__)


class RowFile:
    """Rows that are appended to a file one by one.

    A last line that a kill cut off is left out when the file is read, and repaired by the next
    write.

    Args:
        path: The CSV file, read if it is there; None keeps the rows in memory only.

    Raises:
        ValueError: If there is a file that this class did not write.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._stale = True  # whether the file has to be written as a whole
        if path is not None and path.exists():
            self.rows, self._stale = _read(path)

    def begin(self, step: int) -> None:
        """Takes out the rows of later steps than the one at which training begins.

        Training that begins at step 0 or 1 is a new run: it keeps no row. What is taken out
        stays in a copy of the file, named ``.old``.

        Args:
            step: Optimiser steps done.
        """
        kept = [row for row in self.rows if row.step <= step] if step > 1 else []
        if len(kept) == len(self.rows):
            return
        told = "" if self.path is None else f" out of {self.path}, whose copy is {self.path}.old"
        logger.warning(
            "training begins at step %d: %d rows of later steps or of an earlier run are taken%s",
            step,
            len(self.rows) - len(kept),
            told or " out",
        )
        self.rows = kept
        if self.path is not None:
            self._stale = True
            shutil.copyfile(self.path, f"{self.path}.old")
            self._write()

    def add(self, row: Row) -> None:
        """Appends a row."""
        self.rows.append(row)
        if self.path is None:
            return
        if self._stale or not self.path.exists():
            self._write()
            return
        self._stale = True  # until the whole line is there
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_text([row.cells()]))
        self._stale = False

    def _write(self) -> None:
        if self.path is not None:
            write_atomically(self.path, _text([COLUMNS, *(row.cells() for row in self.rows)]))
            self._stale = False


def _text(lines: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def _read(path: Path) -> tuple[list[Row], bool]:
    """The rows of a file, and whether its last line is cut off."""
    advice = "give another file as out, or move it away"
    if not path.is_file():
        raise ValueError(f"{path} is no file; {advice}")
    content, header = path.read_bytes(), _text([COLUMNS])
    if header.encode().startswith(content):  # empty, or killed inside the first line
        return [], content != header.encode()
    if not content.startswith(header.encode()):
        first = content.split(b"\n")[0][:200].decode(errors="replace")
        raise ValueError(
            f"{path} has other columns than this version writes ({first!r} instead of "
            f"{header.strip()!r}); {advice}"
        )
    whole = content[: content.rfind(b"\n") + 1]
    lines = csv.reader(whole.decode(errors="replace").splitlines())
    next(lines)  # the header
    try:
        rows = [Row.from_cells(cells) for cells in lines]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path}, line {lines.line_num} cannot be read ({error}); {advice}"
        ) from error
    return rows, whole != content
