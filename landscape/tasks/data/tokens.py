"""Examples of text whose tokens are in the data already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from landscape.tasks.data.columns import Columns, as_array, column
from landscape.tasks.data.labels import IGNORED
from landscape.tasks.data.options import REAL_OBJECTIVES, TOKEN_OBJECTIVES, DataOptions, Settled
from landscape.tasks.data.targets import Targets
from landscape.tasks.data.text import (
    TARGET_NAMES,
    chosen_tokenizer,
    column_targets,
    token_labels,
)

_TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


class TokenExamples:
    """Columns of tokens, used as they are and padded to the longest of the batch.

    Labels are those of the data; where there are none, they are made for the objective.

    Args:
        columns: With "input_ids", perhaps "attention_mask", "token_type_ids" and labels.
        options: For data without labels; a tokenizer gives the tokens for padding and masking.

    Raises:
        ValueError: If there are no labels and none can be made.
    """

    def __init__(self, columns: Columns, options: DataOptions) -> None:
        options.only({"target", "tokenizer", "split"}, "a source of tokens")
        self._columns, self._options = columns, options
        masked = options.objective == "masked_lm"
        self._tokenizer: Any = None
        padding: dict[str, Any] = {}
        if options.tokenizer or masked:
            self._tokenizer, padding = chosen_tokenizer(options)
        given = options.pad_token_id
        own = 0 if self._tokenizer is None else int(self._tokenizer.pad_token_id)
        self.pad_token_id = own if given is None else given
        self._target: str | None = None
        self._targets: Targets | None = None
        self._each = False  # one label a token
        settled_target = options.settled.target
        there = any(name in columns.names for name in TARGET_NAMES)
        if settled_target or there or options.objective not in TOKEN_OBJECTIVES[:2]:
            self._target = column(columns, settled_target, TARGET_NAMES, "target")
            first = columns.take(self._target, [0])[0]
            self._each = options.objective not in REAL_OBJECTIVES and _is_list(first)
            if not self._each:
                self._targets = column_targets(columns, self._target, options)
            elif options.objective not in TOKEN_OBJECTIVES:  # those have tokens for labels
                self._targets = _token_targets(columns, self._target, options)
        self.facts: dict[str, Any] = {
            "source": columns.where,
            "target": self._target,
            **padding,
            **(self._targets.facts if self._targets else {}),
        }
        classes = self._targets.classes if self._targets else None
        self.settled = Settled(classes=classes, target=self._target)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [len(ids) for ids in self._columns.take("input_ids", range(len(self)))]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tokens and labels of some rows."""
        tokens = {
            name: self._padded(name, rows, self.pad_token_id if name == "input_ids" else 0)
            for name in _TOKEN_COLUMNS
            if name in self._columns.names
        }
        if "attention_mask" not in tokens:
            lengths = [len(ids) for ids in self._columns.take("input_ids", rows)]
            places = torch.arange(tokens["input_ids"].shape[1])
            tokens["attention_mask"] = (places < torch.tensor(lengths)[:, None]).long()
        if self._target is None:
            return tokens | token_labels(tokens, rows, self._options, self._tokenizer)
        if self._each or self._targets is None:
            return {**tokens, "labels": self._padded(self._target, rows, IGNORED)}
        return {**tokens, "labels": self._targets.of(self._columns.take(self._target, rows), rows)}

    def _padded(self, name: str, rows: Sequence[int], value: int) -> Tensor:
        label = f"column {name!r} of {self._columns.where}"
        sequences = []
        for row, cell in zip(rows, self._columns.take(name, rows), strict=True):
            if name == self._target and self._targets is not None and len(cell):
                sequences.append(self._targets.of(cell, [row] * len(cell)))
                continue
            array = as_array([cell], [row], label)
            if array.dtype.kind not in "iu" or array.ndim != 2 or not array.size:
                raise ValueError(f"{label} should hold lists of integers, see row {row + 1}")
            sequences.append(torch.from_numpy(array[0].astype("int64")))
        return pad_sequence(sequences, batch_first=True, padding_value=value)


def _token_targets(columns: Columns, name: str, options: DataOptions) -> Targets:
    """The targets in a column with one label a token."""
    label = f"column {name!r} of {columns.where}"
    values, rows = [], []
    for row, cell in enumerate(columns.take(name, range(len(columns)))):
        if not _is_list(cell):
            raise ValueError(f"{label} should hold one label a token, see row {row + 1}")
        values += list(cell)
        rows += [row] * len(cell)
    return Targets(values, options, label, columns.classes(name), rows)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)
