"""Examples of text: tokenized batch by batch, or as tokens in the data already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from landscape.tasks.data.columns import Columns, as_array, check_names, column, refuse_missing
from landscape.tasks.data.labels import IGNORED, causal_labels, masked_labels
from landscape.tasks.data.options import REAL_OBJECTIVES, TOKEN_OBJECTIVES, DataOptions
from landscape.tasks.data.targets import Targets
from landscape.tasks.data.tokenizers import length_limit, load_tokenizer

TARGET_NAMES = ("labels", "label", "target", "targets", "class", "y")
_TEXT_NAMES = ("text", "sentence", "content", "document")
_SEQ2SEQ_NAMES = (("source", "input", "text"), ("target", "output", "summary"))
_TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


class TextExamples:
    """Text in columns, as batches input_ids, attention_mask, ..., labels.

    A batch is padded to its longest example, and every example cut to ``max_length`` tokens.

    Args:
        columns: Of the data.
        options: With a tokenizer; the text is in the column ``text``, or in the one or two columns
            ``inputs`` (a pair of sentences).

    Raises:
        ValueError: If columns are missing or the tokenizer lacks what the objective needs.
    """

    def __init__(self, columns: Columns, options: DataOptions) -> None:
        options.only(
            {"target", "inputs", "text", "tokenizer", "max_length", "split"}, "a source of text"
        )
        self._columns, self._options = columns, options
        self._tokenizer = _tokenizer(options)
        self._limit = length_limit(self._tokenizer, options.max_length)
        self._texts = self._text_columns()
        self._target: str | None = None
        self._targets: Targets | None = None
        if options.objective == "seq2seq":
            self._target = column(columns, options.target, _SEQ2SEQ_NAMES[1], "target")
        elif options.objective not in TOKEN_OBJECTIVES:
            self._target = column(columns, options.target, TARGET_NAMES, "target")
            self._targets = column_targets(columns, self._target, options)
        self.facts: dict[str, Any] = {
            "source": columns.where,
            "text": list(self._texts),
            "target": self._target,
            "max_length": self._limit,
            "padded_with": self._tokenizer.pad_token,
            **(self._targets.facts if self._targets else {}),
        }

    def __len__(self) -> int:
        return len(self._columns)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tokens and labels of some rows."""
        texts = [self._text(name, rows) for name in self._texts]
        tokens = self._encode(rows, *texts)
        return tokens | self._labels(tokens, rows)

    def _text_columns(self) -> tuple[str, ...]:
        if self._options.text is None and self._options.inputs is not None:
            check_names(self._columns, self._options.inputs)
            if len(self._options.inputs) > 2:
                raise ValueError(
                    "a tokenizer takes one column of text or a pair of them, got inputs "
                    f"{', '.join(self._options.inputs)}"
                )
            return self._options.inputs
        usual = _SEQ2SEQ_NAMES[0] if self._options.objective == "seq2seq" else _TEXT_NAMES
        return (column(self._columns, self._options.text, usual, "text"),)

    def _labels(self, tokens: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
        if self._target is None:
            return token_labels(tokens, rows, self._options, self._tokenizer)
        if self._targets is not None:
            return {"labels": self._targets.of(self._columns.take(self._target, rows), rows)}
        encoded = self._encode(rows, text_target=self._text(self._target, rows))
        return {"labels": causal_labels(encoded)}

    def _encode(self, rows: Sequence[int], *texts: list[str], **other: Any) -> dict[str, Tensor]:
        encoded = self._tokenizer(
            *texts,
            **other,
            padding=True,
            truncation=True,
            max_length=self._limit,
            return_attention_mask=True,
            return_tensors="pt",
        )
        tokens = {name: torch.as_tensor(value) for name, value in encoded.items()}
        tokens["input_ids"] = tokens["input_ids"].long()  # floats where there is no token at all
        empty = (tokens["attention_mask"].sum(1) == 0).nonzero()
        if len(empty):
            raise ValueError(
                f"row {rows[int(empty[0, 0])] + 1} of {self._columns.where} has no tokens; drop it"
            )
        return tokens

    def _text(self, name: str, rows: Sequence[int]) -> list[str]:
        values = self._columns.take(name, rows)
        label = f"column {name!r} of {self._columns.where}"
        refuse_missing(values, rows, label)
        for row, value in zip(rows, values, strict=True):
            if not isinstance(value, str):
                raise ValueError(f"{label} should hold text, got {value!r} in row {row + 1}")
        return list(values)


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
        self._tokenizer = _tokenizer(options) if options.tokenizer or masked else None
        self._target: str | None = None
        self._targets: Targets | None = None
        there = any(name in columns.names for name in TARGET_NAMES)
        if options.target or there or options.objective not in TOKEN_OBJECTIVES[:2]:
            self._target = column(columns, options.target, TARGET_NAMES, "target")
            real = options.objective in REAL_OBJECTIVES
            if real or not _is_list(columns.take(self._target, [0])[0]):
                self._targets = column_targets(columns, self._target, options)
        self.facts: dict[str, Any] = {
            "source": columns.where,
            "target": self._target,
            **(self._targets.facts if self._targets else {}),
        }

    def __len__(self) -> int:
        return len(self._columns)

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tokens and labels of some rows."""
        pad = 0 if self._tokenizer is None else self._tokenizer.pad_token_id
        tokens = {
            name: self._padded(name, rows, pad if name == "input_ids" else 0)
            for name in _TOKEN_COLUMNS
            if name in self._columns.names
        }
        if "attention_mask" not in tokens:
            lengths = [len(ids) for ids in self._columns.take("input_ids", rows)]
            places = torch.arange(tokens["input_ids"].shape[1])
            tokens["attention_mask"] = (places < torch.tensor(lengths)[:, None]).long()
        if self._target is None:
            return tokens | token_labels(tokens, rows, self._options, self._tokenizer)
        if self._targets is None:
            return {**tokens, "labels": self._padded(self._target, rows, IGNORED)}
        return {**tokens, "labels": self._targets.of(self._columns.take(self._target, rows), rows)}

    def _padded(self, name: str, rows: Sequence[int], value: int) -> Tensor:
        label = f"column {name!r} of {self._columns.where}"
        sequences = []
        for row, cell in zip(rows, self._columns.take(name, rows), strict=True):
            array = as_array([cell], [row], label)
            if array.dtype.kind not in "iu" or array.ndim != 2 or not array.size:
                raise ValueError(f"{label} should hold lists of integers, see row {row + 1}")
            sequences.append(torch.from_numpy(array[0].astype("int64")))
        return pad_sequence(sequences, batch_first=True, padding_value=value)


def token_labels(
    tokens: dict[str, Tensor], rows: Sequence[int], options: DataOptions, tokenizer: Any
) -> dict[str, Tensor]:
    """What "causal_lm" and "masked_lm" put into a batch of tokens: labels, and masks in the ids."""
    if options.objective == "causal_lm":
        return {"labels": causal_labels(tokens)}
    ids, labels = masked_labels(tokens, rows, tokenizer, options.seed)
    return {"input_ids": ids, "labels": labels}


def column_targets(columns: Columns, name: str, options: DataOptions) -> Targets:
    """The targets in a column."""
    values = columns.take(name, range(len(columns)))
    return Targets(values, options, f"column {name!r} of {columns.where}", columns.classes(name))


def _tokenizer(options: DataOptions) -> Any:
    if options.tokenizer is None:
        raise ValueError(
            f"the objective {options.objective} needs a tokenizer; give its local directory with "
            "tokenizer"
        )
    tokenizer = load_tokenizer(options.tokenizer)
    if options.objective == "masked_lm" and tokenizer.mask_token is None:
        raise ValueError(
            f"the tokenizer in {options.tokenizer} has no mask token, which masked_lm needs; use "
            "causal_lm, or the tokenizer of a masked model"
        )
    return tokenizer


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)
