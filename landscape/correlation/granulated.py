"""Granulated Kendall coefficient: tau among models that differ in one hyper-parameter alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landscape.correlation.kendall import Array


@dataclass(frozen=True)
class Axis:
    """Granulated tau along one hyper-parameter, for all measures at once.

    Args:
        psi: Mean of tau-a over the cells, (K,); NaN where there is no cell.
        cells: Number of cells with two models or more, (K,).
        signs: By configuration, the weighted sum of the signs of its pairs, (n, K).
        shares: By configuration, the sum of the weights of its pairs, (n, K).
        squares: Sums over pairs of weight² times sign^0, sign^1 and sign^2, (3, K).
    """

    psi: Array
    cells: Array
    signs: Array
    shares: Array
    squares: Array

    @property
    def residuals(self) -> Array:  # (n, K)
        """By configuration, the weighted sum of sign - psi over its pairs."""
        found: Array = np.nan_to_num(self.signs - self.psi * self.shares)
        return found

    @property
    def doubled(self) -> Array:  # (K,)
        """Sum over pairs of (weight (sign - psi))²: what pairs count twice in the variance."""
        none, one, two = self.squares
        found: Array = np.nan_to_num(two - 2 * self.psi * one + self.psi**2 * none)
        return found


def granulated(
    target: Array,  # (n,) or (n, K)
    values: Array,  # (n, K), NaN where missing
    levels: dict[str, NDArray[np.int64]],
) -> dict[str, Axis]:
    """Granulated tau of every measure along every hyper-parameter (Jiang et al. 2020).

    psi_i is the mean, over all settings of the other hyper-parameters, of tau-a among the
    configurations that differ in hyper-parameter i alone. All these cells weigh the same. Missing
    values drop out of their cell; a cell needs two models. Ties count as 0, even if all are tied.
    The coefficient of a measure is Psi = mean of psi_i over the hyper-parameters that have cells.

    Source: Jiang, Neyshabur, Mobahi, Krishnan, Bengio, "Fantastic generalization measures and where
    to find them", ICLR 2020, section 2.2.2.

    Args:
        target: One value a configuration, or one a configuration and measure.
        values: The measures, NaN where missing.
        levels: Number of the value of every hyper-parameter, by configuration.

    Returns:
        One entry a hyper-parameter.
    """
    aims = target.reshape(len(target), -1)
    return {name: _axis(aims, values, cells_along(name, levels)) for name in levels}


def cells_along(axis: str, levels: dict[str, NDArray[np.int64]]) -> NDArray[np.int64]:  # (n,)
    """Number of the cell of every configuration: those of one cell differ in ``axis`` alone."""
    others = [codes for name, codes in levels.items() if name != axis]
    if not others:
        return np.zeros(len(levels[axis]), dtype=np.int64)
    cells = np.unique(np.stack(others, axis=1), axis=0, return_inverse=True)[1]
    return cells.reshape(-1).astype(np.int64)


def psi_errors(axes: dict[str, Axis]) -> tuple[Array, Array, Array, Array]:
    """Psi over all axes, its standard error, and what it rests on.

    Two pairs are dependent where they share a configuration, along one axis or across axes. The
    variance sums all products of residuals of such pairs: by configuration (sum of residuals)²,
    less the pairs themselves, which are counted twice so. Resampling the cells of each axis would
    miss that all axes are made of the same models.

    Args:
        axes: Of ``granulated``.

    Returns:
        Psi (K,), its standard error (K,), the number of configurations behind it (K,), and the
        effective number of pairs (sum w)² / sum w² (K,).
    """
    psi = np.stack([axis.psi for axis in axes.values()])
    count = np.isfinite(psi).sum(0)
    undefined = np.full(psi.shape[1], np.nan)
    mean = np.divide(np.nansum(psi, axis=0), count, out=undefined.copy(), where=count > 0)

    def total(parts: list[Array]) -> Array:
        together: Array = np.sum(np.stack(parts), axis=0)
        return together

    doubled = total([axis.doubled for axis in axes.values()])
    shares = total([axis.shares for axis in axes.values()])
    squares = total([axis.squares[0] for axis in axes.values()])
    variance = (total([axis.residuals for axis in axes.values()]) ** 2).sum(0) - doubled
    # Where few pairs share a model the sum can fall below that of independent pairs.
    variance = np.maximum(variance, doubled)
    error = np.divide(np.sqrt(variance), count, out=undefined.copy(), where=count > 0)
    pairs = np.divide(count**2, squares, out=undefined.copy(), where=squares > 0)
    return mean, error, (shares > 0).sum(0), pairs


def _axis(target: Array, values: Array, cells: NDArray[np.int64]) -> Axis:
    order = np.argsort(cells, kind="stable")
    cells, y, x = cells[order], target[order], values[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    group = np.cumsum(np.diff(cells, prepend=-1) != 0) - 1
    known = np.isfinite(x)
    sizes = np.add.reduceat(known, starts, axis=0, dtype=np.int64)
    pairs = sizes * (sizes - 1) / 2  # (cells, K)
    used = (pairs > 0).sum(0)
    weight = np.divide(1.0, pairs * used, out=np.zeros(pairs.shape), where=pairs > 0)[group]
    signs, shares = np.zeros(x.shape), np.zeros(x.shape)
    squares = np.zeros((3, x.shape[1]))
    for offset in range(1, int(np.bincount(cells).max(initial=1))):
        same = np.flatnonzero(cells[offset:] == cells[:-offset])
        later = same + offset
        both = known[same] & known[later]
        w = weight[same] * both
        difference = np.where(both, x[same] - x[later], 0.0)
        s = np.sign(difference) * np.sign(np.where(both, y[same] - y[later], 0.0))
        for sums, terms in ((signs, w * s), (shares, w)):
            sums[same] += terms
            sums[later] += terms
        squares += np.stack([(w**2).sum(0), (w**2 * s).sum(0), (w**2 * s**2).sum(0)])
    psi = np.where(used > 0, signs.sum(0) / 2, np.nan)
    inverse = np.argsort(order)
    return Axis(psi, used.astype(np.float64), signs[inverse], shares[inverse], squares)
