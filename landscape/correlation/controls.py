"""Controls that every table of correlations holds: an oracle, noise, and the parameter count."""

from __future__ import annotations

import numpy as np

from landscape.correlation.cleaning import Population
from landscape.correlation.columns import PARAMETER_COUNTS
from landscape.correlation.kendall import Array
from landscape.correlation.options import Options
from landscape.correlation.rounding import finite, joined, largest

ORACLE, RANDOM, PARAMETERS = "control: oracle", "control: random", "control: parameter count"


def controls(population: Population, options: Options) -> dict[str, Array]:
    """Values of every run: what is sure to correlate, and what is sure not to.

    - oracle: the target plus normal noise of ``oracle_noise`` times its standard deviation;
    - random: normal noise;
    - parameter count, where the table has a column ``parameters`` or ``parameter_count``.

    Args:
        population: The runs.
        options: Seed and noise.

    Returns:
        Name to values, (runs,) each.
    """
    generator = np.random.default_rng([options.seed, 2])
    target = population.target
    size = largest(target) or 1.0
    noise = generator.normal(size=(2, len(target)))
    found = {
        ORACLE: target + options.oracle_noise * size * np.std(target / size) * noise[0],
        RANDOM: noise[1],
    }
    frame = population.frame
    name = next((name for name in PARAMETER_COUNTS if name in frame), None)
    if name is not None:
        values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        found[PARAMETERS] = joined(finite(np.where(np.isfinite(values), values, np.nan)))
    return found
