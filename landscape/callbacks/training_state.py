"""The training that is looked at: its bare model, its learning rate, its random state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from landscape.probing.guard import random_state


def learning_rate(optimizer: Any) -> float:
    """The learning rate that all groups of an optimiser, or of several, share.

    Args:
        optimizer: An optimiser, a list of them, or None.

    Returns:
        The rate; NaN where groups differ or there is no optimiser.
    """
    if optimizer is None:
        return math.nan
    several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    rates = {float(group["lr"]) for each in several for group in each.param_groups}
    return rates.pop() if len(rates) == 1 else math.nan


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
