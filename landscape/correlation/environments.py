"""Environments of the sign-error: pairs of configurations, or what many of them have in common."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from landscape.correlation.cleaning import Population
from landscape.correlation.kendall import Array
from landscape.correlation.sign_error import Environments

Texts = NDArray[np.object_]


def environment_texts(population: Population, found: Environments) -> Texts:
    """Such as 'lr: 0.1 | 0.01; width=64, depth=2'."""
    texts = np.empty(len(found.axis), dtype=object)
    for row, (axis, first, second) in enumerate(
        zip(found.axis, found.first, found.second, strict=True)
    ):
        value = {
            name: population.labels[name][codes[first]] for name, codes in population.levels.items()
        }
        other = population.labels[axis][population.levels[axis][second]]
        rest = ", ".join(f"{name}={text}" for name, text in value.items() if name != axis)
        texts[row] = f"{axis}: {value[axis]} | {other}" + (f"; {rest}" if rest else "")
    return texts


def pooled(population: Population, found: Environments) -> tuple[Environments, Texts]:
    """Environments of many pairs: a change of one hyper-parameter at one value of another.

    For populations with few seeds, where no pair of configurations has enough pairs of runs. An
    environment is a hyper-parameter, two of its values, and a value of one other hyper-parameter:
    all pairs of configurations with it that differ in nothing else. Errors are weighted as before.

    Args:
        population: Its hyper-parameters.
        found: Pairs of configurations.

    Returns:
        The environments, numbered by their first pair, and their names, such as
        'lr: 0.1 | 0.01; width=64'.
    """
    groups: dict[str, list[int]] = {}
    for row, (axis, first, second) in enumerate(
        zip(found.axis, found.first, found.second, strict=True)
    ):
        own = population.levels[axis]
        low, high = sorted((int(own[first]), int(own[second])))
        change = f"{axis}: {population.labels[axis][low]} | {population.labels[axis][high]}"
        others = [name for name in population.levels if name != axis]
        for name in others:
            value = population.labels[name][population.levels[name][first]]
            groups.setdefault(f"{change}; {name}={value}", []).append(row)
        if not others:
            groups.setdefault(change, []).append(row)
    rows = list(groups.values())
    wrong = _sums(np.where(found.weight > 0, found.error * found.weight, 0.0), rows)
    weight = _sums(found.weight, rows)
    size = np.where(found.size > 0, found.size, np.inf)
    squares = _sums(found.weight**2 / size, rows)
    heads = np.array([part[0] for part in rows], dtype=np.int64)
    nothing = np.full(wrong.shape, np.nan)
    return (
        replace(
            found,
            axis=found.axis[heads],
            first=found.first[heads],
            second=found.second[heads],
            error=np.divide(wrong, weight, out=nothing, where=weight > 0),
            weight=weight,
            size=np.divide(weight**2, squares, out=np.zeros(wrong.shape), where=squares > 0),
        ),
        np.array(list(groups), dtype=object),
    )


def _sums(values: Array, rows: list[list[int]]) -> Array:
    return np.stack([values[part].sum(0) for part in rows])
