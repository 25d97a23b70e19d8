"""Targets: classes by number, or real numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.tasks.data.columns import as_array, is_text
from landscape.tasks.data.options import REAL_OBJECTIVES, DataOptions

_SHOWN = 8
_IGNORED = -100  # no term of the loss, as in torch


class Targets:
    """How the values of a column become targets, decided once for all its rows.

    Text becomes class numbers: those of the model where they are known, otherwise by sorted name.
    Integers and truth values are class numbers as they are. With the objectives "mse" and "bce"
    all numbers are real ones.

    Args:
        values: All of them, one a row.
        options: With objective and label_names.
        label: Names the column in errors.
        names: Of the classes that integers stand for, where the data say.

    Raises:
        ValueError: If values are missing or do not fit the objective.
    """

    def __init__(
        self,
        values: Any,
        options: DataOptions,
        label: str,
        names: Sequence[str] | None = None,
    ) -> None:
        self._objective, self._label = options.objective, label
        array = as_array(values, range(len(values)), label)
        if array.dtype.kind == "i" and options.objective not in REAL_OBJECTIVES:
            _refuse_negative(array, label)
        model_classes = named_classes(options.label_names)
        self._numbers: dict[Any, int] | None = None
        if is_text(array):
            if options.objective in REAL_OBJECTIVES or array.ndim > 1:
                raise ValueError(
                    f"{label} holds {array[0].tolist()!r}, no number; the objective "
                    f"{options.objective or 'cross_entropy'} needs numbers there"
                )
            found = sorted({str(value) for value in array})
            self._numbers = class_numbers(found, model_classes, label)
        elif (
            names is not None
            and model_classes is not None
            and options.objective not in REAL_OBJECTIVES
        ):
            numbers = class_numbers(names, model_classes, label)
            self._numbers = {index: numbers[name] for index, name in enumerate(names)}
            names = sorted(numbers, key=numbers.__getitem__)
        known = list(self._numbers or ()) if is_text(array) else names
        self.facts: dict[str, Any] = {"classes": list(known)} if known else {}

    def of(self, values: Any, rows: Sequence[int]) -> Tensor:
        """Targets of the values of some rows, (N,) or (N, K)."""
        array = as_array(values, rows, self._label)
        if self._numbers is not None:
            keys = [str(value) if is_text(array) else int(value) for value in array]
            return torch.tensor([self._numbers[key] for key in keys], dtype=torch.long)
        if self._objective in REAL_OBJECTIVES:
            return torch.from_numpy(array.astype(np.float32))
        if array.dtype.kind == "f" and not self._are_classes(array, rows):
            return torch.from_numpy(array.astype(np.float32))
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        return torch.from_numpy(array.astype(np.int64))

    def _are_classes(self, array: np.ndarray[Any, Any], rows: Sequence[int]) -> bool:
        if self._objective != "cross_entropy" or array.ndim > 1:
            return False
        broken = np.flatnonzero(array != np.round(array))
        if len(broken):
            row = rows[int(broken[0])] + 1
            raise ValueError(
                f"{self._label} holds {float(array[broken[0]])} in row {row}, no class number; use "
                "the objective mse for real numbers"
            )
        return True


def _refuse_negative(array: np.ndarray[Any, Any], label: str) -> None:
    bad = np.argwhere((array < 0) & (array != _IGNORED))
    if len(bad):
        raise ValueError(
            f"{label} holds {array[tuple(bad[0])]} in row {bad[0][0] + 1}, no class number; -1 "
            "often stands for a hidden label: take a split with labels, or the objective mse"
        )


def named_classes(label_names: Mapping[str, int] | None) -> Mapping[str, int] | None:
    """The classes of a model by name; None where its names say nothing, as "LABEL_0" does."""
    if not label_names or all(re.fullmatch(r"LABEL_\d+", name) for name in label_names):
        return None
    return label_names


def class_numbers(
    found: Sequence[str], model_classes: Mapping[str, int] | None, label: str
) -> dict[str, int]:
    """A number for every class that was found.

    Args:
        found: Names, in the order in which they are numbered if the model has no names.
        model_classes: Names and numbers of the model.
        label: Names the data in the error.

    Returns:
        Name to number.

    Raises:
        ValueError: If the model has no class of a name.
    """
    if model_classes is None:
        return {name: index for index, name in enumerate(found)}
    unknown = [name for name in found if name not in model_classes]
    if unknown:
        raise ValueError(
            f"{label} has classes that the model does not have: {_listed(unknown)}; the model has "
            f"{_listed(list(model_classes))}"
        )
    return {name: model_classes[name] for name in found}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
