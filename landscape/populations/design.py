"""A design: which models a population has."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from landscape.populations.axes import Axis, Choices, column_of, text_of
from landscape.training import Recipe

# Draws for every configuration that is wanted, before those that came twice end the search.
_DRAWS = 100
_SEED = "seed"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model of a population.

    Args:
        name: Of its folder.
        recipe: How it is trained.
        arguments: Of the task's function.
        values: Of the axes by name, and the seed.
    """

    name: str
    recipe: Recipe
    arguments: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def columns(self) -> dict[str, Any]:
        """The hyper-parameters as columns of a table."""
        return {f"hp.{name}": column_of(value) for name, value in self.values.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the weights, but for the task."""
        return {
            "recipe": self.recipe.as_dict(),
            "arguments": dict(self.arguments),
            "values": dict(self.values),
        }


@dataclass(frozen=True, kw_only=True)
class Design:
    """Models to train, to one train loss.

    Args:
        name: Of the preset, or the file.
        task: Reference of the task, or of the function that makes one; files by absolute path.
        code: Hash of the file of the task; empty for modules.
        runs: The models.
        axes: Names of the hyper-parameters that vary.
        document: As the file has it.
    """

    name: str
    task: str
    code: str
    runs: tuple[Run, ...]
    axes: tuple[str, ...]
    document: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Hash of what decides the weights of all models; where files lie is no part of it."""
        task = self.task if not self.code else self.task.rpartition(":")[2]
        text = json.dumps([task, self.code, [run.identity for run in self.runs]], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def grid(axes: Mapping[str, Axis], models: int | None, seed: int) -> list[dict[str, Any]]:
    """All combinations of the values, the last axis fastest, or some of them drawn at random.

    Args:
        axes: Values by name.
        models: At most so many; configurations are drawn with all of their seeds.
        seed: Of the draw.

    Returns:
        Values by name, for each model.

    Raises:
        ValueError: If there is a range among the axes, or not one configuration is wanted.
    """
    choices = {}
    for name, axis in axes.items():
        if not isinstance(axis, Choices):
            raise ValueError(
                f"a grid needs a list of values for axis {name}; ranges are for random"
            )
        choices[name] = axis.values
    seeds = choices.pop(_SEED, (0,))
    found = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    if models is not None:
        wanted = _configurations(models, len(seeds))
        if wanted < len(found):
            drawn = np.random.default_rng(seed).permutation(len(found))[:wanted]
            found = [found[index] for index in sorted(drawn)]
    return list(_with_seeds(found, seeds))


def random(axes: Mapping[str, Axis], models: int, seed: int) -> list[dict[str, Any]]:
    """Different configurations drawn at random, each with all seeds.

    A larger number of models begins with the same ones.

    Args:
        axes: Values or ranges by name.
        models: At most so many.
        seed: Of the draw.

    Returns:
        Values by name, for each model.

    Raises:
        ValueError: If seeds are a range, or not one configuration is wanted.
    """
    own = dict(axes)
    seeds = own.pop(_SEED, Choices((0,)))
    if not isinstance(seeds, Choices):
        raise ValueError("axis seed must be a list of seeds, each of which every configuration has")
    source = np.random.default_rng(seed)
    wanted = _configurations(models, len(seeds.values))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(_DRAWS * wanted):
        drawn = {name: axis.draw(source) for name, axis in own.items()}
        found.setdefault(json.dumps([text_of(value) for value in drawn.values()]), drawn)
        if len(found) == wanted:
            break
    return list(_with_seeds(found.values(), seeds.values))


def _configurations(models: int, seeds: int) -> int:
    if models < seeds:
        raise ValueError(f"{models} models are fewer than the {seeds} seeds of one configuration")
    return models // seeds


def _with_seeds(configurations: Any, seeds: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for configuration in configurations:
        for seed in seeds:
            yield {**configuration, _SEED: seed}
