"""Does one measure correlate better than another? Differences of tau by the same resamples."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from landscape.correlation.bootstrap import standard_error
from landscape.correlation.kendall import Array
from landscape.correlation.permutation import holm

COLUMNS = ("first", "second", "difference", "low", "high", "p", "p_holm")


def differences(
    tau: dict[str, float],
    resampled: dict[str, Array],
    units: dict[str, int],
    confidence: float,
) -> pd.DataFrame:
    """All pairs of measures: tau_first - tau_second, its interval and p-value.

    The two taus are resampled together, so that what they share cancels. The interval is
    difference ± t s with the standard deviation s of the resampled differences and Student's t for
    the number of configurations; the p-value, of no difference, belongs to the same statistic.
    ``p_holm`` is adjusted for all pairs.

    Args:
        tau: Of every measure.
        resampled: The same of the resamples, (B,) each.
        units: Configurations with a value, by measure.
        confidence: Level of the interval.

    Returns:
        One row a pair.
    """
    rows = []
    for first, second in combinations(tau, 2):
        difference = tau[first] - tau[second]
        freedom = min(units[first], units[second]) - 1
        spread = standard_error(resampled[first] - resampled[second])
        low = high = p = float("nan")
        if freedom >= 2 and np.isfinite(difference) and np.isfinite(spread):
            half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * spread
            low, high = max(difference - half, -2.0), min(difference + half, 2.0)
            p = 1.0 if difference == 0 else 0.0
            if spread > 0:
                p = float(2 * stats.t.sf(abs(difference) / spread, freedom))
        rows.append((first, second, difference, low, high, p, np.nan))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["p_holm"] = holm(frame["p"].to_numpy(dtype=np.float64))
    return frame
