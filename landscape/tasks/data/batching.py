"""From whatever holds a user's data to batches in a fixed order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from landscape.probing.cutting import ExampleDim
from landscape.tasks.data.examples import (
    DatasetExamples,
    Examples,
    TensorExamples,
    as_tensors,
    with_long_targets,
)
from landscape.tasks.data.loaders import loader_examples, refuse_shuffling
from landscape.tasks.data.options import DataOptions
from landscape.tasks.data.regrouping import (
    CalledBatches,
    ExampleBatches,
    RegroupedBatches,
    batch_lengths,
)
from landscape.tasks.data.saved_datasets import dataset_examples, is_hugging_face
from landscape.tasks.data.subsets import chosen_rows


@dataclass(frozen=True)
class Batched:
    """Batches in a fixed order, and what is known of them.

    Args:
        batches: Re-iterable; never shuffled.
        examples: How many there are in all batches; None where that is unknown.
        batch_size: Examples a batch at most; None where that is unknown.
        facts: For the record: source, examples, of how many, seed of the subset, classes.
    """

    batches: Iterable[Any]
    examples: int | None
    batch_size: int | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Wanted:
    samples: int | None
    data_seed: int
    batch_size: int | None
    default_batch_size: int
    classes: bool
    target: Any
    example_dim: ExampleDim


def batches_of(
    source: Any,
    *,
    samples: int | None = None,
    data_seed: int = 0,
    batch_size: int | None = None,
    default_batch_size: int = 500,
    classes: bool = False,
    target: Any = None,
    example_dim: ExampleDim = 0,
) -> Batched:
    """Batches of data of any kind, all of them or a fixed random subset.

    Nothing is shuffled: the examples of a subset keep their order, and which they are depends on
    ``samples`` and ``data_seed`` alone.

    Args:
        source: ``Examples``, a torch dataset, an unshuffled DataLoader, a tuple or a dictionary of
            tensors of equal length, a Hugging Face dataset, any re-iterable of batches, or a
            function without arguments that returns one of these or a fresh iterator of batches.
        samples: Examples to draw without replacement; None takes all.
        data_seed: Of the draw.
        batch_size: Examples a batch; None keeps the batches of a source that has such.
        default_batch_size: Examples a batch for sources without batches.
        classes: Whether the targets are one class an example, so that integers (N, 1) among
            tensors are taken for (N,).
        target: Which of several tensors holds the targets, by position or key; None takes the last
            one, or "labels" and its like.
        example_dim: The dimension of the tensors that counts the examples.

    Returns:
        The batches.

    Raises:
        TypeError: If the source can be walked only once or is of no known kind.
        ValueError: If it is empty, shuffles, has fewer examples than asked for, or cannot be cut.
    """
    for name, value in (("batch_size", batch_size), ("default_batch_size", default_batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    wanted = _Wanted(
        samples, data_seed, batch_size, default_batch_size, classes, target, example_dim
    )
    if isinstance(source, DataLoader):
        return _of_loader(source, wanted)
    found = _as_examples(source, wanted)
    if found is not None:
        return _of_examples(found, wanted)
    if isinstance(source, Iterator):
        raise TypeError(
            f"data must be walkable many times, got a one-shot {type(source).__name__}; give a "
            "list, or the function that makes the iterator"
        )
    if isinstance(source, Tensor | str | bytes | Mapping):
        raise TypeError(
            f"data must be batches, got a {type(source).__name__}; give a list of batches such as "
            "[(inputs, targets)], or a tuple (inputs, targets) of tensors"
        )
    if isinstance(source, Iterable):
        return _of_batches(source, wanted, type(source).__name__)
    if callable(source):
        return _of_function(source, wanted)
    raise TypeError(
        f"data must be batches, a dataset or a DataLoader, got {type(source).__name__}; give a "
        "list of batches such as [(inputs, targets)]"
    )


def _as_examples(source: Any, wanted: _Wanted) -> Examples | None:
    whole = as_tensors(source)
    if whole is not None:
        return TensorExamples(
            with_long_targets(whole, wanted.classes, wanted.target),
            {"source": "tensors"},
            example_dim=wanted.example_dim,
        )
    if is_hugging_face(source):
        return dataset_examples(source, DataOptions())
    if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        facts = {"source": type(source).__name__}
        return DatasetExamples(source, default_collate, facts=facts)
    if hasattr(source, "__len__") and callable(getattr(source, "batch", None)):
        examples: Examples = source
        return examples
    return None


def _of_examples(source: Examples, wanted: _Wanted) -> Batched:
    rows = chosen_rows(len(source), wanted.samples, wanted.data_seed)
    size = min(wanted.batch_size or wanted.default_batch_size, len(rows))
    facts = {"source": type(source).__name__, **getattr(source, "facts", {})}
    batches = ExampleBatches(source, rows, size)
    return Batched(batches, len(rows), size, facts | _counts(len(rows), len(source), wanted))


def _of_loader(loader: DataLoader[Any], wanted: _Wanted) -> Batched:
    refuse_shuffling(loader)
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        name = f"DataLoader of {type(loader.dataset).__name__}"
        return _of_batches(loader, wanted, name)
    found, own_size = loader_examples(loader)
    if wanted.samples is None and wanted.batch_size is None:
        facts = {**found.facts, **_counts(len(found), len(found), wanted)}
        return Batched(loader, len(found), own_size, facts)  # keeps its workers
    size = wanted.batch_size or own_size
    return _of_examples(found, replace(wanted, batch_size=size, default_batch_size=size))


def _of_batches(source: Iterable[Any], wanted: _Wanted, name: str) -> Batched:
    facts: dict[str, Any] = {"source": name}
    as_given = wanted.samples is None and wanted.batch_size is None
    if as_given and not isinstance(source, Sequence):
        return Batched(source, None, None, facts)  # a walk may be dear; the probe makes one anyway
    lengths = batch_lengths(source, wanted.example_dim)
    if lengths is None:
        if not as_given:
            raise ValueError(
                "these batches cannot be cut into examples, since their tensors share no first "
                "dimension; leave out samples and batch_size"
            )
        return Batched(source, None, None, facts)
    if not sum(lengths):
        raise ValueError("there is no example in the data; give at least one batch")
    rows = chosen_rows(sum(lengths), wanted.samples, wanted.data_seed)
    facts |= _counts(len(rows), sum(lengths), wanted)
    size = wanted.batch_size or max(lengths)
    if as_given:
        return Batched(source, len(rows), size, facts)
    size = min(size, len(rows))
    return Batched(RegroupedBatches(source, rows, size, wanted.example_dim), len(rows), size, facts)


def _of_function(function: Callable[[], Any], wanted: _Wanted) -> Batched:
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TypeError(
            f"a function that gives data takes no arguments, {name} does: {error}; wrap it in a "
            "lambda"
        ) from error
    with torch.random.fork_rng(devices=[]):
        returned = function()
    if isinstance(returned, Iterator):
        found = _of_batches(CalledBatches(function), wanted, f"{name}(), called on every walk")
    else:
        found = batches_of(
            returned,
            samples=wanted.samples,
            data_seed=wanted.data_seed,
            batch_size=wanted.batch_size,
            default_batch_size=wanted.default_batch_size,
            classes=wanted.classes,
            target=wanted.target,
            example_dim=wanted.example_dim,
        )
        found.facts["source"] = f"{name}(): {found.facts['source']}"
    return found


def _counts(examples: int, total: int, wanted: _Wanted) -> dict[str, Any]:
    counts = {"examples": examples, "of": total}
    return counts if wanted.samples is None else {**counts, "data_seed": wanted.data_seed}
