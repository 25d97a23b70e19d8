"""Examples of numbers in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.tasks.data.columns import Columns, as_array, as_cell, check_names, column, is_text
from landscape.tasks.data.options import DataOptions, Settled
from landscape.tasks.data.targets import Targets
from landscape.tasks.data.text import TARGET_NAMES, column_targets


class NumberExamples:
    """Columns of numbers as batches (inputs, ..., targets).

    Columns with one number a row are put together to one float32 matrix (N, F) in the order of the
    columns. If a column has a list a row, every column is an input of its own.

    Args:
        columns: Of the data.
        options: Which columns are inputs and target; all but the target are inputs by default.

    Raises:
        ValueError: If columns are missing, hold text, or there is no input.
    """

    def __init__(self, columns: Columns, options: DataOptions) -> None:
        options.only({"target", "inputs", "split"}, "a table of numbers")
        self._columns = columns
        settled = options.settled
        self._target = column(columns, settled.target, TARGET_NAMES, "target")
        if settled.inputs is None:
            # pandas writes the row numbers as a first column without a name.
            self._inputs = tuple(
                name
                for name in columns.names
                if name != self._target and not name.startswith("Unnamed: ")
            )
        else:
            check_names(columns, settled.inputs)
            self._inputs = settled.inputs
        if not self._inputs:
            raise ValueError(f"{columns.where} has no column beside the target {self._target!r}")
        self._refuse_text()
        self._lists = any(self._first(name).ndim for name in self._inputs)
        self._targets: Targets = column_targets(columns, self._target, options)
        self.settled = Settled(
            classes=self._targets.classes, inputs=self._inputs, target=self._target
        )
        shown = list(self._inputs[:8]) + ["..."] * (len(self._inputs) > 8)
        self.facts: dict[str, Any] = {
            "source": columns.where,
            "inputs": shown,
            "target": self._target,
            **self._targets.facts,
        }

    def __len__(self) -> int:
        return len(self._columns)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """The inputs and targets of some rows."""
        arrays = [self._input(name, rows) for name in self._inputs]
        targets = self._targets.of(self._columns.take(self._target, rows), rows)
        if self._lists:
            return (*map(torch.from_numpy, arrays), targets)
        return torch.from_numpy(np.stack(arrays, axis=1)), targets

    def _input(self, name: str, rows: Sequence[int]) -> np.ndarray[Any, Any]:
        label = self._label(name)
        array = as_array(self._columns.take(name, rows), rows, label)
        if is_text(array):
            raise ValueError(f"{label} holds text among its numbers, such as {array[0].tolist()!r}")
        return array.astype(np.float32)

    def _first(self, name: str) -> np.ndarray[Any, Any]:
        return np.asarray(as_cell(self._columns.take(name, [0])[0]))

    def _refuse_text(self) -> None:
        texts = []
        for name in self._inputs:
            value = self._first(name)
            if value.dtype != object and is_text(value):  # missing ones are found later
                texts.append(name)
        if texts:
            raise ValueError(
                f"{self._columns.where} holds no numbers in {', '.join(map(repr, texts))}; encode "
                "them as numbers, leave them out with inputs, or give a text column and a tokenizer"
            )

    def _label(self, name: str) -> str:
        return f"column {name!r} of {self._columns.where}"
