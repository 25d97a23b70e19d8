"""What is correlated: measure, target and given columns, averaged over the same runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from landscape.correlation.cleaning import Population
from landscape.correlation.kendall import Array
from landscape.correlation.rounding import joined, scale


@dataclass(frozen=True)
class Averages:
    """One measure and what it is compared with, by configuration; NaN where it has no run.

    Args:
        mean: Of the measure, over the runs that have it.
        aim: Of the target, over the same runs.
        given: Of the given columns, over the same runs.
    """

    mean: Array
    aim: Array
    given: dict[str, Array]


def averages(population: Population, runs: dict[str, Array]) -> dict[str, Averages]:
    """Averages of every measure; those without missing runs share one aim.

    Args:
        population: Runs and configurations.
        runs: The measures by run.

    Returns:
        Name to averages.
    """
    everywhere = average(population, np.zeros(len(population.target)))
    found = {}
    for name, values in runs.items():
        if np.isfinite(values).all():
            mean = joined(population.means(values))
            found[name] = Averages(mean, everywhere.aim, everywhere.given)
        else:
            found[name] = average(population, values)
    return found


def average(population: Population, values: Array) -> Averages:
    """Averages over the runs that have a value."""
    known = np.isfinite(values)

    def over(column: Array) -> Array:
        means = population.means(np.where(known, column, np.nan))
        return joined(means, scale(column))

    given = {name: over(column) for name, column in population.given.items()}
    return Averages(joined(population.means(values)), over(population.target), given)
