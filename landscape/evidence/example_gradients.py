"""Gradients of single examples, of which only their moments are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.planning import share
from landscape.probing import Probe
from landscape.results import Cost

Array = NDArray[np.float64]
Targets = Literal["data", "model"]


@dataclass(frozen=True, kw_only=True)
class ExampleGradientsRequest:
    """Moments of the gradients g_i of single examples at the checkpoint.

    Args:
        targets: "data" for the given targets (empirical Fisher), "model" for random ones whose
            gradients have the second moments of the model's own distribution (the Fisher
            information itself; see ``Objective.sampled``).
        points: Use only the first so many examples; None uses all.
        seed: Of the drawn targets; of no effect on the data's.
        memory: Bytes for gradients held at a time.
    """

    targets: Targets = "data"
    points: int | None = 1024
    seed: int = 0
    memory: int = field(default=256 << 20, repr=False)

    def __post_init__(self) -> None:
        if self.targets not in get_args(Targets):
            raise ValueError(f"targets must be one of {get_args(Targets)}, got {self.targets!r}")
        if self.points is not None and self.points < 2:
            raise ValueError(f"points must be at least 2 or None, got {self.points}")

    def planned(self, probe: Probe) -> Cost:
        """What it will cost about, a gradient of each example being dearer than their mean's."""
        return Cost(gradients=3 * share(probe, self.points))

    def compute(self, probe: Probe) -> ExampleGradients | None:
        """One gradient pass over the points, two where not all gradients fit in memory at once.

        Args:
            probe: The model and its data.

        Returns:
            The moments, or None where the batches cannot be cut into single examples.
        """
        source = probe if self.targets == "data" else probe.sampled_targets(self.seed)
        single = source.parts(1, self.points)
        if not single.as_asked:
            return None
        # The mean of the examples, not of their terms or weights: an example of few tokens, or of
        # little weight, counts as one.
        most = max(1, self.memory // (4 * source.size * source.weights().element_size()))
        rows = range(len(single))
        groups = [rows[start : start + most] for start in rows[::most]]

        @lru_cache(maxsize=1)
        def gradients_of(group: range) -> Tensor:
            return single.losses_and_gradients(None, group)[1]

        total = torch.zeros(source.size, dtype=torch.float64, device=source.device)
        for group in groups:
            total += gradients_of(group).sum(0, dtype=torch.float64)
        mean, weights = total / len(single), source.weights().double()
        squares, spread, along = [], [], []
        diagonal = torch.zeros_like(total)
        for group in groups:
            gradients = gradients_of(group).double()
            squares.append(gradients.square().sum(1))
            spread.append((gradients - mean).square().sum(1))
            along.append(gradients @ weights)
            diagonal += gradients.square().sum(0)
        return ExampleGradients(
            squares=_array(squares),
            spread=_array(spread),
            along=_array(along),
            diagonal=(diagonal / len(single)).to(source.dtype),
        )


@dataclass(frozen=True, kw_only=True)
class ExampleGradients:
    """Moments of the gradients of n single examples.

    Args:
        squares: ||g_i||^2, (n,).
        spread: ||g_i - mean g||^2, (n,).
        along: <g_i, w>, (n,).
        diagonal: Mean of g_i^2 by entry, the diagonal of the Fisher information, (P,).
    """

    squares: Array
    spread: Array
    along: Array
    diagonal: Tensor


def _array(pieces: list[Tensor]) -> Array:
    found: Array = torch.cat(pieces).cpu().numpy()
    return found
