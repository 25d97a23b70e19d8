"""Conditional mutual information between the order of a measure and the order of the target."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from landscape.correlation.kendall import Array
from landscape.correlation.resampled_kendall import below_in_both

#: A set of hyper-parameters with more combinations of values than this is not conditioned on.
MOST_GROUPS = 100


class Conditions:
    """The sets S of at most two hyper-parameters, as groups of configurations.

    Args:
        levels: Number of the value of every hyper-parameter, by configuration.
        configurations: How many there are.
    """

    def __init__(self, levels: dict[str, NDArray[np.int64]], configurations: int) -> None:
        self.names: list[tuple[str, ...]] = []
        self.left_out: list[tuple[str, ...]] = []
        groups = []
        for size in range(3):
            for names in combinations(levels, size):
                codes = np.zeros((configurations, 1), dtype=np.int64)
                if names:
                    codes = np.stack([levels[name] for name in names], axis=1)
                group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
                if group.max() + 1 > MOST_GROUPS:
                    self.left_out.append(names)
                else:
                    self.names.append(names)
                    groups.append(np.eye(group.max() + 1, dtype=np.float32)[group])
        self.members = np.concatenate(groups, axis=1)  # (n, all groups)
        ends = np.cumsum([part.shape[1] for part in groups])
        self.parts = [
            slice(end - part.shape[1], end) for end, part in zip(ends, groups, strict=True)
        ]


def cmi_score(measure: Array, target: Array, conditions: Conditions) -> tuple[float, str]:
    """Score K = min over |S| <= 2 of I(V_m; V_t | U_S) / H(V_t | U_S) (Jiang et al. 2020).

    Over all ordered pairs of configurations V_m = 1[m > m'], V_t = 1[t > t'], and U_S are the
    values of the hyper-parameters in S of both. Probabilities are frequencies. K lies in [0, 1].
    A set S for which the target's order is known, H(V_t | U_S) = 0, is left out.

    Source: Jiang et al., "Fantastic generalization measures and where to find them", ICLR 2020,
    section 2.2.3.

    Args:
        measure: One value a configuration, NaN where missing.
        target: One value a configuration.
        conditions: The sets S.

    Returns:
        K, and the set of the minimum as text; NaN and "" where no set is left or one of the two is
        constant.
    """
    rows = np.isfinite(measure) & np.isfinite(target)
    m, t, members = measure[rows], target[rows], conditions.members[rows]
    if len(m) < 2 or np.ptp(m) == 0 or np.ptp(t) == 0:
        return float("nan"), ""
    m_below, t_below = _below(m, members), _below(t, members)
    lower = below_in_both(m, t, members)
    best, where = float("nan"), ""
    for names, part in zip(conditions.names, conditions.parts, strict=True):
        group = members[:, part]
        tables = [
            (group.T @ below[:, part]).astype(np.float64) for below in (m_below, t_below, lower)
        ]
        sums = group.sum(0, dtype=np.float64)
        pairs = np.outer(sums, sums) - np.diag(sums)  # no pair with itself
        score = _normalised(pairs, *tables)
        if np.isfinite(score) and not score >= best:
            best, where = score, ", ".join(names) if names else "nothing"
    return best, where


def _below(values: Array, members: NDArray[np.float32]) -> NDArray[np.float32]:
    """By configuration and group, how many of the group have a lower value."""
    order = np.argsort(values, kind="stable")
    starts = np.searchsorted(values[order], values, side="left")  # values strictly below
    nothing = np.zeros((1, members.shape[1]), np.float32)
    return np.concatenate([nothing, np.cumsum(members[order], axis=0)])[starts]


def _normalised(pairs: Array, above_m: Array, above_t: Array, both: Array) -> float:
    m = np.stack([above_m, pairs - above_m])
    t = np.stack([above_t, pairs - above_t])
    joint = np.stack([[both, above_m - both], [above_t - both, pairs - above_m - above_t + both]])
    entropy = -_sum_log(t, t, pairs)
    if not entropy > 1e-9 * max(float(pairs.sum()), 1.0):
        return float("nan")
    expected = m[:, None] * t[None, :]
    information = _sum_log(joint, joint * pairs, expected)
    return float(np.clip(information / entropy, 0.0, 1.0))


def _sum_log(weights: Array, numerator: Array, denominator: Array) -> float:
    """Sum of weights * log(numerator / denominator) where the weight is not 0."""
    filled = np.broadcast_to(denominator, weights.shape)
    ratio = np.divide(numerator, filled, out=np.ones(weights.shape), where=weights > 0)
    return float((weights * np.log(ratio)).sum())
