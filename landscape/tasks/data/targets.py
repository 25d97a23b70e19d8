"""Targets: classes by number, or real numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.tasks.data.columns import as_array, is_text
from landscape.tasks.data.options import CLASS_OBJECTIVES, REAL_OBJECTIVES, DataOptions

_SHOWN = 8
_IGNORED = -100  # no term of the loss, as in torch


class Targets:
    """How the values of a column become targets, decided once for all its rows.

    Text becomes class numbers: those of the model where they are known, then those of the training
    data, otherwise by sorted name.
    Integers and truth values are class numbers as they are. With the objectives "mse" and "bce"
    all numbers are real ones.

    Args:
        values: All of them, one a row.
        options: With objective and label_names.
        label: Names the column in errors.
        names: Of the classes that integers stand for, where the data say.
        rows: Numbers of the rows that the values stand in, where there are several a row.

    Raises:
        ValueError: If values are missing or do not fit the objective.
    """

    def __init__(
        self,
        values: Any,
        options: DataOptions,
        label: str,
        names: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        self._objective, self._label = options.objective, label
        self._ignored = {
            _IGNORED,
            _IGNORED if options.ignore_index is None else options.ignore_index,
        }
        rows = range(len(values)) if rows is None else rows
        array = as_array(values, rows, label)
        real = options.objective in REAL_OBJECTIVES
        if array.dtype.kind == "i" and not real:
            _refuse_negative(array, rows, label, self._ignored)
        if is_text(array) and (real or array.ndim > 1):
            raise ValueError(
                f"{label} holds {array[0].tolist()!r}, no number; the objective "
                f"{options.objective or 'cross_entropy'} needs numbers there"
            )
        self._numbers: dict[str, int] | None = None
        self._names: Sequence[str] | None = names
        #: Number of every class by name, for test data; as in ``Settled``.
        self.classes: dict[str, int] | None = None
        self.facts: dict[str, Any] = {}
        if not real:
            self._number(array, options)

    def _number(self, array: np.ndarray[Any, Any], options: DataOptions) -> None:
        """Decides the number of every class."""
        whole = not is_text(array)
        known, whose = named_classes(options.label_names), "model"
        if known is None and options.like is not None:
            known, whose = options.like.classes, "training data"
        if whole and self._names is None and (whose == "model" or not known):
            self.classes = {}
            return
        if whole and self._names is not None and not known:
            self.classes = {name: index for index, name in enumerate(self._names)}
        else:
            found = sorted(set(self._keys(array)) - {str(number) for number in self._ignored})
            self._numbers = class_numbers(found, known, self._label, whose)
            self.classes = dict(self._numbers if known is None else known)
        shown = self.classes if self._numbers is None else self._numbers
        self.facts = {"classes": sorted(shown, key=shown.__getitem__)}

    def _keys(self, array: np.ndarray[Any, Any]) -> list[str]:
        """Names of the classes in an array."""
        names = self._names
        if names is None or is_text(array):
            return [str(value) for value in array.tolist()]
        return [
            names[value] if 0 <= value < len(names) else str(value)
            for value in map(int, array.tolist())
        ]

    def of(self, values: Any, rows: Sequence[int]) -> Tensor:
        """Targets of the values of some rows, (N,) or (N, K)."""
        array = as_array(values, rows, self._label)
        if self._numbers is not None:
            numbers = {**{str(number): number for number in self._ignored}, **self._numbers}
            return torch.tensor([numbers[key] for key in self._keys(array)], dtype=torch.long)
        if self._objective in REAL_OBJECTIVES:
            return torch.from_numpy(array.astype(np.float32))
        if array.dtype.kind == "f" and not self._are_classes(array, rows):
            return torch.from_numpy(array.astype(np.float32))
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        return torch.from_numpy(array.astype(np.int64))

    def _are_classes(self, array: np.ndarray[Any, Any], rows: Sequence[int]) -> bool:
        if self._objective not in CLASS_OBJECTIVES or array.ndim > 1:
            return False
        broken = np.flatnonzero(array != np.round(array))
        if len(broken):
            row = rows[int(broken[0])] + 1
            raise ValueError(
                f"{self._label} holds {float(array[broken[0]])} in row {row}, no class number; use "
                "the objective mse for real numbers"
            )
        return True


def _refuse_negative(
    array: np.ndarray[Any, Any], rows: Sequence[int], label: str, ignored: set[int]
) -> None:
    bad = np.argwhere((array < 0) & ~np.isin(array, list(ignored)))
    if len(bad):
        row = rows[int(bad[0][0])] + 1
        raise ValueError(
            f"{label} holds {array[tuple(bad[0])]} in row {row}, no class number; -1 "
            "often stands for a hidden label: take a split with labels, leave such rows out of the "
            "loss with ignore_index, or use the objective mse"
        )


def named_classes(label_names: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """The classes of a model by name; None where its names say nothing, as "LABEL_0" does."""
    if not label_names or all(re.fullmatch(r"LABEL_\d+", name) for name in label_names):
        return None
    return label_names


def class_numbers(
    found: Sequence[str], known: Mapping[str, int] | None, label: str, whose: str = "model"
) -> dict[str, int]:
    """A number for every class that was found.

    Args:
        found: Names, in the order in which they are numbered if none are known.
        known: Names and numbers that are settled.
        label: Names the data in the error.
        whose: By what they are settled, "model" or "training data".

    Returns:
        Name to number.

    Raises:
        ValueError: If no class of a name is known.
    """
    if known is None:
        return {name: index for index, name in enumerate(found)}
    unknown = [name for name in found if name not in known]
    if unknown:
        has = f"has {_listed(list(known))}" if known else "has numbers for classes"
        raise ValueError(
            f"{label} has classes that the {whose} does not have: {_listed(unknown)}; the {whose} "
            f"{has}"
        )
    return {name: known[name] for name in found}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
