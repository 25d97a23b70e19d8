"""Examples of text, tokenized batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from landscape.tasks.data.columns import Columns, check_names, column, refuse_missing
from landscape.tasks.data.labels import causal_labels, masked_labels
from landscape.tasks.data.options import TOKEN_OBJECTIVES, DataOptions, Settled
from landscape.tasks.data.targets import Targets
from landscape.tasks.data.tokenizers import length_limit, load_tokenizer

TARGET_NAMES = ("labels", "label", "target", "targets", "class", "y")
_TEXT_NAMES = ("text", "sentence", "content", "document")
_SEQ2SEQ_NAMES = (("source", "input", "text"), ("target", "output", "summary"))


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
        self._tokenizer, padding = chosen_tokenizer(options)
        given = options.pad_token_id
        self.pad_token_id: int = self._tokenizer.pad_token_id if given is None else given
        self._limit = length_limit(self._tokenizer, options.max_length)
        self._texts = self._text_columns()
        self._target: str | None = None
        self._targets: Targets | None = None
        if options.objective == "seq2seq":
            self._target = column(columns, options.settled.target, _SEQ2SEQ_NAMES[1], "target")
        elif options.objective not in TOKEN_OBJECTIVES:
            self._target = column(columns, options.settled.target, TARGET_NAMES, "target")
            self._targets = column_targets(columns, self._target, options)
        self.facts: dict[str, Any] = {
            "source": columns.where,
            "text": list(self._texts),
            "target": self._target,
            "max_length": self._limit,
            **padding,
            **(self._targets.facts if self._targets else {}),
        }
        classes = self._targets.classes if self._targets else None
        self.settled = Settled(classes=classes, inputs=self._texts, target=self._target)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def lengths(self) -> list[int]:
        """Characters of every example."""
        own = self._options.objective == "seq2seq" and self._target is not None
        names = (*self._texts, self._target) if own else self._texts
        every = range(len(self))
        cells = [map(_characters, self._columns.take(str(name), every)) for name in names]
        return [sum(counts) for counts in zip(*cells, strict=True)]

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tokens and labels of some rows."""
        texts = [self._text(name, rows) for name in self._texts]
        tokens = self._encode(rows, *texts)
        return tokens | self._labels(tokens, rows)

    def _text_columns(self) -> tuple[str, ...]:
        given = self._options.settled.inputs
        if self._options.text is None and given is not None:
            check_names(self._columns, given)
            if len(given) > 2:
                raise ValueError(
                    "a tokenizer takes one column of text or a pair of them, got inputs "
                    f"{', '.join(given)}"
                )
            return given
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
        # Some models find the end of a text by the token that pads.
        tokens["input_ids"].masked_fill_(tokens["attention_mask"] == 0, self.pad_token_id)
        return tokens

    def _text(self, name: str, rows: Sequence[int]) -> list[str]:
        values = self._columns.take(name, rows)
        label = f"column {name!r} of {self._columns.where}"
        refuse_missing(values, rows, label)
        for row, value in zip(rows, values, strict=True):
            if not isinstance(value, str):
                raise ValueError(f"{label} should hold text, got {value!r} in row {row + 1}")
        return list(values)


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


def chosen_tokenizer(options: DataOptions) -> tuple[Any, dict[str, Any]]:
    """The tokenizer of the options, fit for the objective, and facts of its padding."""
    if options.tokenizer is None:
        raise ValueError(
            f"the objective {options.objective} needs a tokenizer; give its local directory with "
            "tokenizer"
        )
    tokenizer, facts = load_tokenizer(options.tokenizer)
    if options.objective == "masked_lm" and tokenizer.mask_token is None:
        raise ValueError(
            f"the tokenizer in {options.tokenizer} has no mask token, which masked_lm needs; use "
            "causal_lm, or the tokenizer of a masked model"
        )
    return tokenizer, facts


def _characters(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0  # refused when it is read
