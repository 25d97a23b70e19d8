"""Designs from YAML files and by the name of a preset."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from landscape.populations.axes import Axis, Choices, axis_of, value_of
from landscape.populations.design import Design, Run, grid, random
from landscape.tasks import Task, is_reference
from landscape.tasks.importing import imported
from landscape.training import BASES, Recipe
from landscape.training.building import Plan, make_optimizer, make_term

PRESETS = ("digits-smoke", "digits", "digits-large")

_KEYS = ("task", "design", "models", "seed", "fixed", "axes", "target_loss")
# Of a recipe, what a design says elsewhere.
_ELSEWHERE = {
    "settings": "settings belong to the method: {method: sam, rho: 0.05}",
    "target_loss": "target_loss stands beside axes, since it is common to all models",
}
_RECIPE = {field.name for field in dataclasses.fields(Recipe)} - {*_ELSEWHERE}
# Examples of the trial in which settings of methods are checked.
_TRIAL = 1000


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [str(key) for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} stands there twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read_design(source: Path | str) -> Design:
    """The design that a YAML file or a preset holds.

    Args:
        source: A file, or one of ``PRESETS``.

    Returns:
        The design.

    Raises:
        ValueError: If it cannot be read, or has a mistake.
    """
    text = str(source)
    if text in PRESETS:
        preset = resources.files("landscape.populations") / "presets" / f"{text}.yaml"
        return _design(text, preset.read_text(encoding="utf-8"), Path.cwd())
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; presets are {', '.join(PRESETS)}")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from error
    return _design(text, content, path.parent)


def _design(name: str, text: str, folder: Path) -> Design:
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return _parsed(name, document, folder)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _parsed(name: str, document: Any, folder: Path) -> Design:
    if not isinstance(document, Mapping):
        raise ValueError(f"a design holds {', '.join(_KEYS)}, got {document!r}"[:300])
    if unknown := [str(key) for key in document if key not in _KEYS]:
        raise ValueError(f"unknown {', '.join(unknown)}; a design has {', '.join(_KEYS)}")
    axes = {str(key): axis_of(str(key), axis) for key, axis in _mapping(document, "axes").items()}
    fixed = {
        str(key): value_of(str(key), value) for key, value in _mapping(document, "fixed").items()
    }
    if not axes:
        raise ValueError("axes are missing: hyper-parameters and their values")
    if both := [key for key in axes if key in fixed]:
        raise ValueError(f"{', '.join(both)} cannot be both fixed and an axis")
    _check_seeds(axes, fixed)
    names = {*axes, *fixed}
    if told := [advice for key, advice in _ELSEWHERE.items() if key in names]:
        raise ValueError(told[0])
    task, code = _task(document.get("task"), names - _RECIPE, folder)
    target = value_of("target_loss", document.get("target_loss"))
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise ValueError(f"target_loss must be the train loss at which all stop, got {target!r}")
    combinations = _combinations(document, axes)
    if "seed" in fixed:
        combinations = [{**values, "seed": fixed["seed"]} for values in combinations]
    digits = max(4, len(str(len(combinations))))
    runs = tuple(
        _run(f"m{number:0{digits}d}", fixed, values, target)
        for number, values in enumerate(combinations)
    )
    _check_methods(runs)
    return Design(name=name, task=task, code=code, runs=runs, axes=(*axes,), document=document)


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    found = document.get(key)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{key} must be values by name, got {found!r}")
    return found


def _check_seeds(axes: Mapping[str, Axis], fixed: Mapping[str, Any]) -> None:
    axis = axes.get("seed", Choices((fixed.get("seed", 0),)))
    for seed in axis.values if isinstance(axis, Choices) else ():
        _whole("seed", seed, 0)


def _whole(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}")
    return value


def _combinations(document: Mapping[str, Any], axes: Mapping[str, Axis]) -> list[dict[str, Any]]:
    kind, models = document.get("design", "grid"), document.get("models")
    seed = _whole("seed", document.get("seed", 0), 0)
    if models is not None:
        models = _whole("models", models, 1)
    if kind == "grid":
        return grid(axes, models, seed)
    if kind != "random":
        raise ValueError(f"unknown design {kind!r}; there are grid, random")
    if models is None:
        raise ValueError("models is missing: how many a random design has")
    return random(axes, models, seed)


def _run(name: str, fixed: Mapping[str, Any], drawn: Mapping[str, Any], target: float) -> Run:
    values = {**fixed, **drawn}
    recipe = {key: value for key, value in values.items() if key in _RECIPE}
    method = recipe.pop("method", recipe.get("base", "sgd"))
    if isinstance(method, Mapping):
        settings = {key: value for key, value in method.items() if key != "method"}
        method = method["method"]
    else:
        settings = {}
    base = recipe.get("base", method)
    if method in BASES and method != base:
        raise ValueError(f"method {method} is a base optimiser itself; base {base!r} is another")
    try:
        made = Recipe(method=method, settings=settings, target_loss=target, **recipe)
    except TypeError as error:
        raise ValueError(str(error)) from error
    arguments = {key: value for key, value in values.items() if key not in _RECIPE}
    return Run(name=name, recipe=made, arguments=arguments, values=drawn)


def _check_methods(runs: tuple[Run, ...]) -> None:
    """Settings of methods are tried on a tiny model, before a thousand trainings fail."""
    tried = {(run.recipe.method, str(run.recipe.settings), run.recipe.base): run for run in runs}
    for run in tried.values():
        model = torch.nn.Linear(1, 2)
        plan = Plan.of(run.recipe, _TRIAL, 2)
        try:
            make_optimizer(run.recipe, model, plan)
            make_term(run.recipe, model, plan)
        except (TypeError, ValueError) as error:
            raise ValueError(str(error)) from error


def _task(given: Any, arguments: set[str], folder: Path) -> tuple[str, str]:
    """The reference, with the absolute path of a file, and the hash of that."""
    if not isinstance(given, str) or not is_reference(given):
        raise ValueError(f"task must be file.py:name or package.module:name, got {given!r}")
    module, _, attribute = given.rpartition(":")
    code = ""
    if module.endswith(".py"):
        path = (folder / module).resolve()
        given = f"{path}:{attribute}"
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        code = hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
    _check_arguments(given, imported(given), arguments)
    return given, code


def _check_arguments(reference: str, function: Any, arguments: set[str]) -> None:
    name = reference.rpartition(":")[2]
    if isinstance(function, Task):
        if arguments:
            raise ValueError(
                f"{name} is a task, no function of {', '.join(sorted(arguments))}; a recipe has "
                f"{', '.join(sorted(_RECIPE))}"
            )
        return
    if not callable(function):
        raise ValueError(f"{name} is no task, and no function that makes one")
    known = inspect.signature(function).parameters.values()
    names = {
        part.name for part in known if part.kind in {part.POSITIONAL_OR_KEYWORD, part.KEYWORD_ONLY}
    }
    unknown = arguments - names
    if unknown and not any(part.kind is part.VAR_KEYWORD for part in known):
        raise ValueError(
            f"{', '.join(sorted(unknown))} belong neither to the recipe "
            f"({', '.join(sorted(_RECIPE))}) nor to {name} ({', '.join(sorted(names))})"
        )
    needed = {part.name for part in known if part.name in names and part.default is part.empty}
    if missing := needed - arguments:
        raise ValueError(f"{name} needs {', '.join(sorted(missing))}, as an axis or fixed")
