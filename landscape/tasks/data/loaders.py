"""The examples of a DataLoader, in its own fixed order."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler

from landscape.tasks.data.examples import DatasetExamples


def loader_examples(loader: DataLoader[Any]) -> tuple[DatasetExamples, int]:
    """The examples that a loader of a map-style dataset walks over, and its batch size.

    What ``drop_last`` leaves out is left out here too.

    Args:
        loader: With automatic batching.

    Returns:
        The examples in the loader's order, and the examples of its largest batch.

    Raises:
        ValueError: If the order changes from walk to walk.
    """
    refuse_shuffling(loader)
    sampler: Any = loader.batch_sampler
    with torch.random.fork_rng(devices=[]):
        groups = [list(group) for group in sampler]
        again = [list(group) for group in sampler]
    if groups != again:
        raise ValueError(_shuffles(sampler))
    order = [row for group in groups for row in group]
    facts = {"source": f"DataLoader of {type(loader.dataset).__name__}"}
    found = DatasetExamples(loader.dataset, loader.collate_fn, order, facts)
    return found, max(map(len, groups))


def refuse_shuffling(loader: DataLoader[Any]) -> None:
    """Refuses a loader that is known to shuffle, without drawing from its generator.

    Args:
        loader: Any.

    Raises:
        ValueError: If it shuffles.
    """
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if isinstance(sampler, RandomSampler):
            raise ValueError(_shuffles(sampler))


def _shuffles(sampler: Any) -> str:
    return (
        f"the DataLoader shuffles ({type(sampler).__name__}), and a landscape needs the same "
        "batches on every walk; give one with shuffle=False"
    )
