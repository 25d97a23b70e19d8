"""A task put together from a model, an objective and data, each given as a text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from landscape.probing import OBJECTIVES
from landscape.tasks.data import DataOptions, Settled, TensorExamples, read_examples
from landscape.tasks.data.images import ImageExamples
from landscape.tasks.importing import imported, is_reference, with_arguments
from landscape.tasks.models import ModelSource, model_source
from landscape.tasks.task import Task

# How the labels of the data are to be read for an objective that is known by name.
_CLASSES = {"sequence_classification", "image_classification"}
_TEXT = {"causal_lm", "masked_lm", "seq2seq", "sequence_classification", "mse", "bce"}
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")
_PROCESSOR = "preprocessor_config.json"


def composed_task(
    model: str,
    objective: str | None,
    data: str | None,
    *,
    test_data: str | None = None,
    test_split: str | None = None,
    arguments: dict[str, Any] | None = None,
    options: DataOptions | None = None,
) -> Task:
    """A task of parts.

    Args:
        model: As ``model_source`` takes it.
        objective: A name, or ``file.py:name`` of an ``Objective`` or a callable
            ``loss(model, batch)``; None takes the one that the model's head is for.
        data: A file or directory, or ``file.py:name`` of data as ``Task.train`` takes them.
        test_data: The same for test data; with ``test_split`` alone, that of ``data``.
        test_split: Part of the test data.
        arguments: Of the function that makes the model.
        options: How files are read; tokenizer, processor and classes come from the model.

    Returns:
        The task.

    Raises:
        ValueError: If a part is missing or of no known kind.
    """
    source = model_source(model, arguments, objective)
    if objective is None or objective in {*_CLASSES, "token_classification"}:
        objective = source.objective or objective
    if objective is None:
        raise ValueError(f"--objective is missing: one of {', '.join(OBJECTIVES)}, or file.py:name")
    if data is None:
        raise ValueError("--data is missing: a file, a directory, or file.py:name")
    chosen: Any = objective
    if objective not in OBJECTIVES:
        if not is_reference(objective):
            raise ValueError(
                f"--objective must be one of {', '.join(OBJECTIVES)}, or file.py:name; got "
                f"{objective!r}"
            )
        chosen = imported(objective)
    reader = _Reader(source, objective, options or DataOptions())
    train = reader.read(data)
    settled = getattr(train, "settled", None)
    test = test_data or (data if test_split else None)
    _refuse_channels(source, train)
    if source.pools and source.pad_token_id is None and hasattr(train, "pad_token_id"):
        source = source.padded_with(train.pad_token_id)
    return Task(
        model=source.build,
        objective=chosen,
        train=train,
        test=None
        if test is None
        else replace(reader, test_split=test_split, settled=settled).read(test),
        name=source.name,
        checkpoint=source.checkpoint,
    )


@dataclass(frozen=True)
class _Reader:
    """Reads data as a model wants them."""

    source: ModelSource
    objective: str
    options: DataOptions
    test_split: str | None = None
    settled: Settled | None = None

    def read(self, text: str) -> Any:
        path = Path(text)
        if not path.exists() and is_reference(text):
            return imported(text)
        return read_examples(path, self._options(path))

    def _options(self, path: Path) -> DataOptions:
        kind = "cross_entropy" if self.objective in _CLASSES else self.objective
        pools = self.source.pools
        given = replace(
            self.options,
            objective=kind if kind in OBJECTIVES else None,
            label_names=self.source.label_names,
            pad_token_id=self.source.pad_token_id if pools else None,
            like=self.settled,
            split=self.test_split or self.options.split,
        )
        folder = self.source.directory
        if folder is None:
            return given
        if (
            self.objective in _TEXT
            and path.suffix != ".npz"
            and _has(folder, _TOKENIZERS)
            and not given.tokenizer
        ):
            given = replace(given, tokenizer=folder)
        own = given.processor is None and given.mean is None and _has(folder, (_PROCESSOR,))
        if own and self.source.objective == "image_classification":
            given = replace(given, processor=folder)
        return given


def _refuse_channels(source: ModelSource, train: Any) -> None:
    """Refuses images without a processor that have not the channels that the model takes."""
    if source.channels is None or not isinstance(train, ImageExamples | TensorExamples):
        return
    batch = train.batch([0])
    shape = tuple(batch[0].shape[1:]) if isinstance(batch, tuple) else ()
    if len(shape) == 3 and shape[0] != source.channels:
        raise ValueError(
            f"images of {train.facts['source']} have the shape {shape}, and the model takes "
            f"{source.channels} channels, which come first; the model's processor would see to it, "
            f"but there is no {_PROCESSOR} in {source.directory}: save it there, or give the "
            "directory that has it with processor"
        )


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


def named_task(text: str, arguments: dict[str, Any]) -> Task:
    """The task that ``file.py:name`` or ``package.module:name`` stands for.

    Args:
        text: Of a ``Task``, or of a function that returns one.
        arguments: Of the function.

    Returns:
        The task.

    Raises:
        ValueError: If it is no task.
    """
    found = with_arguments(imported(text), arguments, text)
    if not isinstance(found, Task) and callable(found):
        found = found()
    if not isinstance(found, Task):
        raise ValueError(
            f"{text} must be a landscape.Task or a function that returns one, got "
            f"{type(found).__name__}"
        )
    return found
