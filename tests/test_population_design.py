"""Designs of populations: grids and random draws from YAML, and every mistake in one sentence."""

from __future__ import annotations

import inspect
import math
from collections import Counter

import pytest
import torch
import yaml

import landscape
from landscape.populations import PRESETS, read_design
from landscape.tasks import digits_data, digits_nets, named_task, open_task

TASK = """
import torch, landscape

data = torch.ones(6, 4), torch.arange(6) % 3
plain = landscape.Task(model=torch.nn.Linear(4, 3), objective="cross_entropy", train=data)

def make_task(width, act="relu"):
    made = lambda: torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 3))
    return landscape.Task(model=made, objective="cross_entropy", train=data)

def anything(**arguments):
    return plain

three = 3
"""
GOOD = {
    "task": "nets.py:make_task",
    "design": "grid",
    "fixed": {"epochs": 3},
    "axes": {"width": [4, 8], "lr": [0.1, 0.2, 0.3], "seed": [0, 1]},
    "target_loss": 0.01,
}


@pytest.fixture
def read(tmp_path):
    """Reads a good design with changed entries."""
    (tmp_path / "nets.py").write_text(TASK)

    def read_changed(**changes):
        path = tmp_path / "design.yaml"
        entries = {key: value for key, value in (GOOD | changes).items() if value is not ...}
        path.write_text(yaml.safe_dump(entries, sort_keys=False))
        return read_design(path)

    return read_changed


def values(design):
    return [tuple(run.values.values()) for run in design.runs]


def test_a_grid_has_every_combination_once_and_splits_recipe_and_arguments(read, tmp_path):
    design = read()
    assert values(design) == [
        (width, lr, seed) for width in (4, 8) for lr in (0.1, 0.2, 0.3) for seed in (0, 1)
    ]
    assert [run.name for run in design.runs[:2]] == ["m0000", "m0001"]
    run = design.runs[3]
    assert dict(run.arguments) == {"width": 4}
    assert (run.recipe.lr, run.recipe.seed, run.recipe.epochs) == (0.2, 1, 3)
    assert run.recipe.target_loss == 0.01
    assert run.columns == {"hp.width": 4, "hp.lr": 0.2, "hp.seed": 1}
    assert design.task == f"{tmp_path / 'nets.py'}:make_task"


def test_a_part_of_a_grid_keeps_all_seeds_of_a_configuration(read):
    found = values(read(models=7, seed=3))
    assert len(found) == 6
    assert set(found) < set(values(read()))
    assert set(Counter(value[:2] for value in found).values()) == {2}
    assert found == values(read(models=7, seed=3)) != values(read(models=7, seed=4))
    assert values(read(models=99)) == values(read())


def test_a_random_design_draws_from_its_ranges(read):
    axes = {
        "width": {"low": 2, "high": 5, "integer": True},
        "lr": {"low": 1e-4, "high": 1.0, "scale": "log"},
        "momentum": {"low": 0.2, "high": 0.4},
        "act": ["relu", "tanh"],
    }
    runs = read(design="random", models=400, axes=axes).runs
    assert len(runs) == 400
    assert {run.arguments["width"] for run in runs} == {2, 3, 4, 5}
    assert all(isinstance(run.arguments["width"], int) for run in runs)
    assert {run.arguments["act"] for run in runs} == {"relu", "tanh"}
    assert all(0.2 <= run.recipe.momentum <= 0.4 for run in runs)
    logs = [math.log10(run.recipe.lr) for run in runs]
    assert -4 <= min(logs) < -3.9
    assert -0.1 < max(logs) <= 0
    assert abs(sum(logs) / 400 + 2) < 5 * 4 / math.sqrt(12 * 400)
    assert all(run.recipe.seed == 0 for run in runs)


def test_random_configurations_are_different_and_have_all_seeds(read):
    axes = {"width": [4, 8], "lr": [0.1, 0.2], "seed": [5, 7, 9]}
    found = values(read(design="random", models=1000, axes=axes))
    assert len(found) == len(set(found)) == 12  # no more than there are
    few = values(read(design="random", models=8, axes=axes))
    assert len(few) == 6
    assert few == found[:6]  # a larger number begins with the same ones
    assert [value[2] for value in few] == [5, 7, 9, 5, 7, 9]


def test_a_method_with_settings_is_a_text_in_the_table(read):
    axes = GOOD["axes"] | {"method": ["sgd", {"method": "sam", "rho": 0.05}, "adamw"]}
    runs = read(axes=axes).runs
    methods = {run.columns["hp.method"]: run.recipe for run in runs}
    assert [*methods] == ["sgd", "sam(rho=0.05)", "adamw"]
    assert methods["sam(rho=0.05)"].settings == {"rho": 0.05}
    assert methods["adamw"].base == "adamw"
    fixed = read(fixed={"epochs": 3, "method": {"method": "sam", "rho": 0.1}}).runs[0]
    assert fixed.recipe.settings == {"rho": 0.1}
    assert read(fixed={"epochs": 3, "base": "adamw"}).runs[0].recipe.method == "adamw"


def test_a_fixed_seed_is_the_seed_and_stands_in_the_table(read):
    runs = read(fixed={"epochs": 3, "seed": 4}, axes={"width": [4, 8]}).runs
    assert [run.columns["hp.seed"] for run in runs] == [4, 4]
    assert [run.recipe.seed for run in runs] == [4, 4]


def test_numbers_that_yaml_leaves_texts_are_numbers(read, tmp_path):
    read()
    path = tmp_path / "design.yaml"
    path.write_text(path.read_text().replace("0.1", "5e-4").replace("0.01", "1E-2"))
    run = read_design(path).runs[0]
    assert (run.recipe.lr, run.recipe.target_loss) == (5e-4, 1e-2)


def test_the_key_is_of_what_is_trained_and_not_of_how_it_is_written(read, tmp_path):
    first = read().key
    assert read(models=99, design=...).key == first
    assert read(target_loss=0.02).key != first
    assert read(fixed={"epochs": 4}).key != first
    (tmp_path / "nets.py").write_text(TASK + "# changed\n")
    assert read().key != first


def axes(**changed):
    return {"axes": {**GOOD["axes"], **changed}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 3}, "unknown sede; a design has task, design"),
        (axes(lr=[]), "axis lr has no values"),
        (axes(lr=0.1), "axis lr must be a list of values, got 0.1; put it under fixed"),
        (axes(lr=[0.1, 0.1]), "axis lr has the value 0.1 twice"),
        (axes(lr=[[0.1]]), "lr takes a text, a finite number, true, false or null"),
        (axes(lr=[math.inf]), "lr takes a text, a finite number"),
        (axes(lr=["high"]), "lr must be a number at least 0, got 'high'"),
        (axes(lr=[True]), "lr must be a number"),
        (axes(epochs=[3]), "epochs cannot be both fixed and an axis"),
        (axes(seed=[0.5]), "seed must be a whole number of at least 0, got 0.5"),
        (axes(seed=[-1]), "seed must be a whole number of at least 0, got -1"),
        (axes(wdith=[3]), "wdith belong neither to the recipe (base, batch_size"),
        (axes(method=["sma"]), "unknown method 'sma'; there are sgd"),
        (axes(method=[{"rho": 1}]), "is written {method: sam, rho: 0.05}"),
        (axes(method=[{"method": "sam", "roh": 1}]), "method 'sam' has no setting roh"),
        (axes(method=[{"method": "sam", "rho": -1}]), "rho must be a number"),
        (axes(settings=[1]), "settings belong to the method"),
        (axes(target_loss=[1]), "target_loss stands beside axes"),
        (axes(lr={"low": 0.1, "high": 1}), "a grid needs a list of values for axis lr"),
        (axes(lr={"low": 0.1, "high": 1, "step": 3}), "range of axis lr has no entry step"),
        (axes(lr={"low": 0.1}), "range of axis lr needs a number high, got None"),
        (axes(lr={"low": 2, "high": 1}), "needs low and below high, got 2 and 1"),
        (axes(lr={"low": 0, "high": 1, "scale": "log"}), "needs low above 0 and below high"),
        (axes(lr={"low": 0, "high": 1, "scale": "cubic"}), "has scale 'cubic'"),
        (axes(width={"low": 0.5, "high": 3, "integer": True}), "its ends must be whole"),
        (axes(width={"low": 1, "high": 3, "integer": 1}), "has integer 1; it is true or false"),
        ({"fixed": {"epochs": 3, "base": "adamw", "method": "sgd"}}, "base 'adamw' is another"),
        ({"fixed": {}}, "there is no budget; give epochs or gradients"),
        ({"fixed": [3]}, "fixed must be values by name, got [3]"),
        ({"fixed": {"epochs": 2.5}}, "epochs must be a whole number"),
        ({"axes": ...}, "axes are missing"),
        ({"axes": {"lr": [0.1]}}, "make_task needs width, as an axis or fixed"),
        ({"target_loss": ...}, "target_loss must be the train loss at which all stop, got None"),
        ({"target_loss": "low"}, "target_loss must be the train loss at which all stop"),
        ({"design": "latin"}, "unknown design 'latin'; there are grid, random"),
        ({"design": "random"}, "models is missing"),
        ({"models": 1}, "1 models are fewer than the 2 seeds"),
        ({"models": 2.5}, "models must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"task": ...}, "task must be file.py:name or package.module:name, got None"),
        ({"task": "gone.py:make_task"}, "there is no file"),
        ({"task": "nets.py:gone"}, "has no 'gone'"),
        ({"task": "nets.py:three"}, "three is no task"),
        ({"task": "nets.py:plain"}, "plain is a task, no function of width"),
    ],
)
def test_a_mistake_is_one_sentence(read, changes, message):
    with pytest.raises(ValueError, match=r"design\.yaml: ") as error:
        read(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_design_is_one_sentence(tmp_path):
    path = tmp_path / "design.yaml"
    for text, message in (
        ("axes: [", "is no YAML"),
        ("axes: 1\naxes: 2\n", "axes stands there twice"),
        ("just words", "a design holds task"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            read_design(path)
        assert "\n" not in str(error.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_design(path)
    with pytest.raises(ValueError, match="presets are digits-smoke, digits, digits-large"):
        read_design("digit")


def test_functions_of_anything_and_tasks_without_arguments_are_taken(read):
    assert len(read(task="nets.py:anything").runs) == 12
    assert len(read(task="nets.py:plain", axes={"lr": [0.1, 0.2]}).runs) == 2


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_size_and_two_seeds_a_configuration(name):
    design = read_design(name)
    low, high = {"digits-smoke": (48, 52), "digits": (250, 330), "digits-large": (950, 1100)}[name]
    assert low <= len(design.runs) <= high
    seeds = Counter(tuple(run.columns.items())[:-1] for run in design.runs)
    assert set(seeds.values()) == {2}
    known = inspect.signature(digits_nets).parameters
    assert all(set(run.arguments) <= set(known) for run in design.runs)
    assert {"lr", "batch_size", "width", "depth", "architecture", "train_size"} <= {*design.axes}


@pytest.mark.parametrize("name", ["digits", "digits-large"])
def test_the_larger_presets_have_cells_along_every_axis(name):
    """Pairs of configurations that differ in one axis alone, for granulated statistics."""
    design = read_design(name)
    configurations = {tuple(run.columns.items())[:-1] for run in design.runs}
    for axis in range(len(design.axes) - 1):
        cells = Counter(value[:axis] + value[axis + 1 :] for value in configurations)
        assert sum(count > 1 for count in cells.values()) >= 50


# The task of the presets


def test_a_smaller_subset_is_part_of_a_larger_one_and_test_data_are_the_same():
    whole, small = (digits_nets(train_size=size, data_seed=3).train() for size in (1000, 60))
    images = torch.cat([batch[0] for batch in whole])
    assert len(images) == 1000
    assert torch.equal(small[0][0], images[:60])
    assert torch.equal(images.sort(0).values, digits_data()[0][0].sort(0).values)
    other = digits_nets(train_size=60, data_seed=4).train()
    assert not torch.equal(other[0][0], small[0][0])
    test = digits_nets(train_size=60, label_noise=0.5).test()
    assert torch.equal(torch.cat([batch[1] for batch in test]), digits_data()[1][1])


@pytest.mark.parametrize(
    ("size", "noise", "wrong"), [(250, 0.1, 25), (1000, 0.25, 250), (30, 0, 0)]
)
def test_the_share_of_wrong_labels_is_exact_and_drawn_by_the_seed(size, noise, wrong):
    def labels(**settings):
        return torch.cat([batch[1] for batch in digits_nets(train_size=size, **settings).train()])

    clean, noisy = labels(data_seed=1), labels(label_noise=noise, data_seed=1)
    assert int((clean != noisy).sum()) == wrong
    assert 0 <= int(noisy.min()) <= int(noisy.max()) <= 9
    assert torch.equal(noisy, labels(label_noise=noise, data_seed=1))
    assert torch.equal(clean, labels(data_seed=1))  # nothing was written to the data


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_the_nets_have_the_stated_layers(architecture):
    def kinds(**settings):
        model = digits_nets(architecture=architecture, **settings).build()
        return model, Counter(type(module).__name__ for module in model)

    model, found = kinds(width=5, depth=3, dropout=0.2, batch_norm=True)
    linear = 4 if architecture == "mlp" else 1
    assert (found["Linear"], found["ReLU"], found["Dropout"]) == (linear, 3, 3)
    assert found["Conv2d"] == 4 - linear
    assert found["BatchNorm1d"] + found["BatchNorm2d"] == 3
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert not {"Dropout", "BatchNorm1d", "BatchNorm2d"} & kinds()[1].keys()
    hidden = {module.weight.shape[0] for module in list(model)[:-1] if hasattr(module, "weight")}
    assert hidden == {5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "rnn"},
        {"width": 0},
        {"depth": 1.5},
        {"train_size": 1001},
        {"train_size": 3},
        {"label_noise": 1.0},
        {"dropout": -0.1},
        {"data_seed": -1},
        {"batch_norm": "yes"},
    ],
)
def test_arguments_of_the_task_out_of_range_are_one_sentence(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        digits_nets(**wrong)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_norms_curvature_and_layers_of_the_nets_can_be_measured(architecture, tmp_path):
    arguments = {"architecture": architecture, "width": 4, "depth": 2, "train_size": 40}
    task = named_task("landscape.tasks:digits_nets", arguments)
    torch.save(task.build({}, seed=1).state_dict(), tmp_path / "initial.pt")
    settings = landscape.Settings(initial=tmp_path / "initial.pt")
    probe = open_task(task, settings=settings).probe
    names = ["renyi-sharpness", "relative-flatness", "parameter-distance", "sam-gap"]
    path_norm = landscape.measures.get("path-norm", over_margin=False)
    for result in landscape.audit(probe, measures=[*names, path_norm], seed=0):
        assert math.isfinite(result.value), f"{result.measure}: {result.status}"
