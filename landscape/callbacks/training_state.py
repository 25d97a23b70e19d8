"""The training that is looked at: its bare model, its learning rate, its random state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from landscape.probing.guard import random_state
from landscape.tasks.stability import edge_of_groups, shared_rate


def rate_and_edge(optimizer: Any) -> tuple[float, float]:
    """The learning rate that all groups of an optimiser, or of several, share, and their edge.

    Args:
        optimizer: An optimiser, a list of them, or None.

    Returns:
        Learning rate and edge of stability, each NaN where there is none.
    """
    several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    groups = [group for each in several if each is not None for group in each.param_groups]
    found = (shared_rate(groups), edge_of_groups(groups))
    return found[0] or math.nan, found[1] or math.nan


@contextmanager
def untouched(batches: Any) -> Iterator[None]:
    """Puts all random states back on leaving: the global ones, and those of a data loader.

    Args:
        batches: The data; merely walking a DataLoader with a generator draws from it.

    Yields:
        Nothing.
    """
    owners = (batches, getattr(batches, "sampler", None))
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    with random_state():
        try:
            yield
        finally:
            for generator, state in states:
                generator.set_state(state)
