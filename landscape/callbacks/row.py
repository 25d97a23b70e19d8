"""A row: one measured number of one training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import Any

from landscape.results import Result

_SHARPEST = "hessian-top-eigenvalue"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number of one training step; NaN where something is unknown.

    Args:
        step: Optimiser steps.
        epoch: Epochs, as the training counts them.
        measure: The measure's label.
        value: The number.
        low: Lower end of its 95 % interval.
        high: Upper end.
        stderr: Its standard error.
        status: How far to trust it, as in `Status`.
        message: What is special about it.
        passes: Passes over the data that it takes alone, evidence included.
        seconds: Seconds that it takes alone.
        learning_rate: The optimiser's; NaN where its groups differ.
        edge: The optimiser's edge of stability beside the Hessian's top eigenvalue; NaN beside
            other measures, and for optimisers that have none.
    """

    step: int
    epoch: float
    measure: str
    value: float
    low: float
    high: float
    stderr: float
    status: str
    message: str
    passes: float
    seconds: float
    learning_rate: float
    edge: float

    @classmethod
    def of(
        cls, result: Result, *, step: int, epoch: float, learning_rate: float, edge: float
    ) -> Row:
        """The row of a result.

        Args:
            result: What was measured.
            step: When.
            epoch: When, in epochs; NaN if unknown.
            learning_rate: The optimiser's; NaN if unknown.
            edge: The optimiser's edge of stability; NaN if it has none.

        Returns:
            The row, its message on one line.
        """
        low, high = result.interval
        return cls(
            step=step,
            epoch=epoch,
            measure=result.measure,
            value=result.value,
            low=low,
            high=high,
            stderr=result.stderr,
            status=result.status.value,
            message=" ".join(result.message.encode(errors="replace").decode().split()),
            passes=result.cost.passes,
            seconds=result.cost.seconds,
            learning_rate=learning_rate,
            edge=edge if result.measure == _SHARPEST else math.nan,
        )

    def cells(self) -> list[Any]:
        """Its values in order, NaN as an empty cell."""
        return ["" if value != value else value for value in astuple(self)]  # noqa: PLR0124 - NaN

    @classmethod
    def from_cells(cls, cells: list[str]) -> Row:
        """Inverse of ``cells``.

        Args:
            cells: Texts in the order of `COLUMNS`.

        Returns:
            The row.

        Raises:
            ValueError: If there are more or fewer cells than columns, or one is no number.
        """
        if len(cells) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} cells, got {len(cells)}")
        return cls(
            **{
                entry.name: _READ[str(entry.type)](cell)
                for entry, cell in zip(fields(cls), cells, strict=True)
            }
        )


_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": lambda cell: float(cell or math.nan),
    "str": str,
}

#: Names of the columns, in order.
COLUMNS = tuple(entry.name for entry in fields(Row))
