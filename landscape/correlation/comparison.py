"""Does one measure correlate better than another? Differences of tau by the same resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from landscape.correlation.averages import Averages, average
from landscape.correlation.bootstrap import resampled_where_defined, standard_error
from landscape.correlation.cleaning import Population
from landscape.correlation.kendall import Array, Weights, complete, tau_b, tau_table
from landscape.correlation.permutation import holm
from landscape.correlation.resampled_kendall import resampled_tau_b

COLUMNS = (
    *("first", "second", "difference", "low", "high", "p", "p_holm"),
    *("strength", "configurations"),
)


@dataclass(frozen=True)
class Sample:
    """tau of one measure, the same of the resamples (B,), and how many configurations it has."""

    tau: float
    resampled: Array
    configurations: int


class Samples:
    """The samples of two measures on the runs that have both.

    Args:
        population: Runs, configurations and measures.
        averages: By measure.
        resampled: tau of the resamples, by measure.
        weights: The resamples.
    """

    def __init__(
        self,
        population: Population,
        averages: dict[str, Averages],
        resampled: dict[str, Array],
        weights: Weights,
    ) -> None:
        self.population, self.weights = population, weights
        self.own = {name: _sample(averages[name], resampled[name]) for name in population.measures}
        self.parts: dict[tuple[str, bytes], Sample] = {}

    def __call__(self, first: str, second: str) -> tuple[Sample, Sample]:
        """Of the first and of the second."""
        measures = self.population.measures
        common = complete(measures[first], measures[second])
        return self._of(first, common), self._of(second, common)

    def _of(self, name: str, common: NDArray[np.bool_]) -> Sample:
        values = self.population.measures[name]
        if (np.isfinite(values) == common).all():
            return self.own[name]
        key = name, common.tobytes()
        if key not in self.parts:
            part = average(self.population, np.where(common, values, np.nan))
            found = resampled_where_defined(resampled_tau_b, part.mean, part.aim, self.weights)
            self.parts[key] = _sample(part, found)
        return self.parts[key]


def _sample(part: Averages, resampled: Array) -> Sample:
    return Sample(tau_b(part.mean, part.aim), resampled, int(np.isfinite(part.mean).sum()))


def differences(
    names: Sequence[str],
    samples: Callable[[str, str], tuple[Sample, Sample]],
    confidence: float,
) -> pd.DataFrame:
    """All pairs of measures: tau_first - tau_second, its interval and p-value.

    The taus keep their signs, so that a measure and its negative differ although they order the
    models equally well; ``strength`` is |tau_first| - |tau_second|, without interval. Both taus are
    those of the runs that have both measures, and are resampled together, so that what they share
    cancels. The interval is difference ± t s with the standard deviation s of the resampled
    differences and Student's t for the number of configurations; the p-value, of no difference,
    belongs to the same statistic. ``p_holm`` is adjusted for all pairs.

    Args:
        names: Of the measures.
        samples: The samples of two measures on what they have in common.
        confidence: Level of the interval.

    Returns:
        One row a pair; ``configurations`` says how many have both measures.
    """
    rows = []
    for first, second in combinations(names, 2):
        one, two = samples(first, second)
        difference, strength = one.tau - two.tau, abs(one.tau) - abs(two.tau)
        freedom = one.configurations - 1
        spread = standard_error(one.resampled - two.resampled)
        low = high = p = float("nan")
        if freedom >= 2 and np.isfinite(difference) and np.isfinite(spread):
            half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * spread
            low, high = max(difference - half, -2.0), min(difference + half, 2.0)
            p = 1.0 if difference == 0 else 0.0
            if spread > 0:
                p = float(2 * stats.t.sf(abs(difference) / spread, freedom))
        rows.append((first, second, difference, low, high, p, np.nan, strength, freedom + 1))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["p_holm"] = holm(frame["p"].to_numpy(dtype=np.float64))
    return frame


def between(population: Population, averaged: dict[str, Averages]) -> pd.DataFrame:
    """tau-b between all measures, each pair on the runs that have both."""
    names = list(population.measures)
    table = tau_table({name: averaged[name].mean for name in names})
    known = {name: np.isfinite(values) for name, values in population.measures.items()}
    for (row, first), (column, second) in combinations(enumerate(names), 2):
        if (known[first] == known[second]).all():
            continue
        common = known[first] & known[second]
        a, b = (
            average(population, np.where(common, population.measures[name], np.nan)).mean
            for name in (first, second)
        )
        table[row, column] = table[column, row] = tau_b(a, b)
    return pd.DataFrame(table, names, names)
