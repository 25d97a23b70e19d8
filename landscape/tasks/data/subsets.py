"""Random subsets that depend on their size and seed alone."""

from __future__ import annotations

import torch


def chosen_rows(count: int, samples: int | None, data_seed: int) -> range | list[int]:
    """Numbers of the examples to use, ascending.

    Args:
        count: Examples there are.
        samples: Examples to draw without replacement; None takes all.
        data_seed: Of the draw.

    Returns:
        Numbers from 0 to count - 1.

    Raises:
        ValueError: If there are not so many examples.
    """
    if samples is None:
        return range(count)
    if not 1 <= samples <= count:
        raise ValueError(f"samples must lie between 1 and {count}, got {samples}")
    if samples == count:
        return range(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(data_seed))
    rows: list[int] = order[:samples].sort().values.tolist()
    return rows
