"""Margins: by how much the right class outdoes the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.probing import Probe

Array = NDArray[np.float64]
_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class MarginsRequest:
    """Logit of the right class less the largest other one, for every labelled term."""

    def compute(self, probe: Probe) -> Margins:
        """One forward pass."""
        return Margins(values=np.sort(probe.term_values(probe.objective.margins).double().numpy()))


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Margins of all terms of the data.

    Args:
        values: Ascending, (T,).
    """

    values: Array

    @property
    def margin(self) -> float:
        """The 10th percentile: the floor(T / 10)-th smallest, at least the smallest."""
        return float(self.values[max(1, len(self.values) // 10) - 1])

    @property
    def wrong(self) -> float:
        """Share of the terms whose margin is not positive."""
        return float((self.values <= 0).mean())

    def interval(self) -> tuple[float, float]:
        """Order statistics that enclose the percentile of the population, about 95 %."""
        count = len(self.values)
        middle, half = _SHARE * count, 1.96 * math.sqrt(count * _SHARE * (1 - _SHARE))
        low, high = math.floor(middle - half), math.ceil(middle + half)
        ranks = (min(max(rank, 1), count) - 1 for rank in (low, high))
        least, most = (float(self.values[rank]) for rank in ranks)
        return least, most
