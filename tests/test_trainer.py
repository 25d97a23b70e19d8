"""Training a task by a recipe: budgets, files, going on after a stop."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

import landscape
from landscape.tasks import Settings, digits_task, read_checkpoint
from landscape.training import BASES, METHODS, TERMS, Recipe, train

EXAMPLES, CLASSES = 40, 3


def data(size, seed):
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 4, generator=source)
    return inputs, inputs[:, :CLASSES].argmax(1)


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def net_with_state():
    """Dropout draws from the global random state, batch norm has buffers."""
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES)
    )


def task_of(model=net, **settings):
    given = {"objective": "cross_entropy", "train": data(EXAMPLES, 0), "test": data(20, 1)}
    return landscape.Task(model=model, **given | settings)


def recipe_of(method="sam", **settings):
    return Recipe(method=method, **{"lr": 0.1, "batch_size": 16, "epochs": 3} | settings)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


class Stop(Exception):  # noqa: N818 - what a kill does
    pass


def stop_after(epochs):
    def observe(_model, _optimizer, _step, epoch):
        if epoch == epochs:
            raise Stop

    return observe


@pytest.mark.parametrize("method", [*BASES, *METHODS, *TERMS])
def test_training_that_was_stopped_ends_with_the_same_bits(method, tmp_path):
    settings = {"parts": 2} if method == "lpf-sgd" else {}  # batch norm needs two examples
    task = task_of(net_with_state)
    recipe = recipe_of(method, settings=settings, epochs=4, schedule="cosine")
    whole = train(task, recipe, tmp_path / "whole")
    with pytest.raises(Stop):
        train(task, recipe, tmp_path / "cut", observe=stop_after(2))
    torch.rand(3)  # other draws in between
    cut = train(task, recipe, tmp_path / "cut")
    assert same(whole.model.state_dict(), cut.model.state_dict())
    for row, other in zip(whole.history, cut.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert not same(whole.model.state_dict(), task.build().state_dict())


def test_sgd_is_the_plain_loop():
    trained = train(task_of(), recipe_of("sgd", batch_size=EXAMPLES, momentum=0.9, seed=3))
    model = task_of().build(seed=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, labels = data(EXAMPLES, 0)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    for found, expected in zip(trained.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        loss = float(functional.cross_entropy(model(inputs), labels))
    assert trained.history[-1]["train_loss"] == pytest.approx(loss, rel=1e-5)
    accuracy = float((model(inputs).argmax(1) == labels).double().mean())
    assert trained.history[-1]["train_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("method", "settings", "a_step"),
    [
        ("sgd", {}, 1),
        ("sam", {}, 2),
        ("bsam", {}, 3),
        ("tsam", {"samples": 3}, 6),
        ("m-sam", {}, 2),
        ("esam", {"gamma": 0.5, "beta": 1.0}, 1.5),
        ("looksam", {"every": 3}, 1 + 1 / 3),
        ("lpf-sgd", {}, 1),
        ("saf", {}, 1),
    ],
)
def test_gradients_are_counted_and_bound_the_training(method, settings, a_step):
    task = task_of(train=data(48, 0))
    free = train(task, recipe_of(method, settings=settings, epochs=3))
    assert free.history[-1]["gradients"] == pytest.approx(3 * a_step)
    bound = train(task, recipe_of(method, settings=settings, epochs=None, gradients=5))
    assert 5 <= bound.history[-1]["gradients"] < 5 + a_step
    assert bound.reason == "budget"


def test_masks_of_sparse_sam_are_paid_for():
    trained = train(task_of(), recipe_of("ssam-f", epochs=1))
    assert trained.history[-1]["gradients"] == pytest.approx(1 + 2)  # every example once, and SAM


def test_training_stops_at_the_target():
    trained = train(task_of(), recipe_of("sgd", epochs=500, target_loss=0.3))
    losses = [row["train_loss"] for row in trained.history]
    assert trained.reason == "target"
    assert losses[-1] <= 0.3 < min(losses[:-1])


def test_a_loss_that_is_not_finite_ends_the_training():
    task = task_of(
        lambda: nn.Linear(4, 1),
        objective="mse",
        train=(torch.randn(20, 4), torch.randn(20, 1)),
        test=None,
    )
    trained = train(task, recipe_of("sgd", lr=1e20, epochs=50))
    assert trained.reason == "diverged"
    assert len(trained.history) < 50


def test_the_seed_draws_weights_and_order():
    finals = [train(task_of(), recipe_of(seed=seed)).model.state_dict() for seed in (0, 0, 1)]
    assert same(finals[0], finals[1])
    assert not same(finals[0], finals[2])


def test_global_random_states_are_left_alone():
    before = torch.get_rng_state()
    train(task_of(net_with_state), recipe_of())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_schedules_follow_the_budget(schedule):
    trained = train(task_of(), recipe_of("sgd", schedule=schedule, epochs=10, batch_size=EXAMPLES))
    rates = [row["lr"] for row in trained.history[1:]]
    expected = {
        "constant": [0.1] * 10,
        "cosine": [0.05 * (1 + math.cos(math.pi * k / 10)) for k in range(10)],
        "step": [0.1] * 5 + [0.01] * 3 + [0.001] * 2,
    }[schedule]
    assert rates == pytest.approx(expected)


def test_the_folder_holds_the_run(tmp_path):
    task, recipe = task_of(), recipe_of(epochs=4)
    trained = train(task, recipe, tmp_path, save_every=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("initial.pt", "epoch2.pt", "epoch4.pt", "last.pt"),
        *("metrics.csv", "recipe.yaml"),
    }
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert frame["test_loss"].iloc[-1] == trained.history[-1]["test_loss"]
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["lr"] == 0.1
    assert same(read_checkpoint(tmp_path / "initial.pt").state, task.build().state_dict())
    opened = landscape.open_task(task, tmp_path / "last.pt")
    assert opened.learning_rate == 0.1
    assert opened.metrics()["train_loss"] == pytest.approx(trained.history[-1]["train_loss"])


def test_averages_are_evaluated_and_saved(tmp_path):
    recipe = recipe_of("swa", epochs=8)
    trained = train(task_of(), recipe, tmp_path)
    last, averaged = (read_checkpoint(tmp_path / "last.pt", ema=ema).state for ema in (False, True))
    assert same(averaged, trained.model.state_dict())
    assert not same(last, averaged)
    states = [read_checkpoint(tmp_path / "epoch8.pt").state]
    assert same(states[0], averaged)


def test_another_recipe_is_refused(tmp_path):
    train(task_of(), recipe_of(), tmp_path)
    with pytest.raises(ValueError, match=r"holds a training with lr 0\.1, not 0\.2; give another"):
        train(task_of(), recipe_of(lr=0.2), tmp_path)
    with pytest.raises(ValueError, match="settings"):
        train(task_of(), recipe_of(settings={"rho": 0.2}), tmp_path)


def test_a_broken_state_is_told(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"last\.pt cannot be read as a training"):
        train(task_of(), recipe_of(), tmp_path)


def test_training_starts_from_a_checkpoint(tmp_path):
    state = net().state_dict()
    torch.save(state, tmp_path / "start.pt")
    train(task_of(), recipe_of(epochs=1), tmp_path / "run", start=tmp_path / "start.pt")
    assert same(read_checkpoint(tmp_path / "run" / "initial.pt").state, state)


@pytest.mark.parametrize("kind", ["batches", "dataset", "loader", "function"])
def test_every_kind_of_data_gives_the_same_training(kind):
    inputs, labels = data(EXAMPLES, 0)
    dataset = torch.utils.data.TensorDataset(inputs, labels)
    source = {
        "batches": list(zip(inputs.split(7), labels.split(7), strict=True)),
        "dataset": dataset,
        "loader": torch.utils.data.DataLoader(dataset, batch_size=9),
        "function": lambda: (inputs, labels),
    }[kind]
    found = train(task_of(train=source), recipe_of()).model.state_dict()
    assert same(found, train(task_of(), recipe_of()).model.state_dict())


def test_a_subset_is_trained_on():
    settings = Settings(samples=10)
    trained = train(task_of(), recipe_of("sgd", batch_size=5, epochs=1), settings=settings)
    assert trained.history[-1]["step"] == 2


def test_batches_of_several_shapes_are_refused():
    batches = [(torch.randn(4, size), torch.zeros(4, dtype=torch.long)) for size in (4, 5)]
    with pytest.raises(ValueError, match="cannot be mixed"):
        train(task_of(train=batches), recipe_of())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "sma"}, "unknown method 'sma'; there are sgd, adamw, sam"),
        ({"base": "adam"}, "unknown base 'adam'"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"lr": -1.0}, "lr must be a number at least 0"),
        ({"momentum": 1.5}, "momentum must be"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"epochs": None}, "there is no budget"),
        ({"gradients": 0.0}, "gradients must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_recipes_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(**given)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("sam", {"alpha": 1}, "method 'sam' has no setting alpha; it has max_norm, rho, seed"),
        ("sgd", {"rho": 1}, "method 'sgd' has no setting rho"),
        ("saf", {"rho": 1}, "method 'saf' has no setting rho"),
    ],
)
def test_settings_are_checked(method, settings, message):
    with pytest.raises(ValueError, match=message):
        train(task_of(), recipe_of(method, settings=settings))


def test_saf_needs_classes():
    task = task_of(
        lambda: nn.Linear(4, 1),
        objective=lambda model, batch: (model(batch[0])[:, 0] - batch[1]).square(),
    )
    with pytest.raises(ValueError, match="compares logits of classes"):
        train(task, recipe_of("saf"))


def test_the_embedded_digits_train_from_scratch():
    trained = train(digits_task(), Recipe(method="adamw", lr=0.005, epochs=2))
    assert trained.history[0]["train_accuracy"] < 0.3 < trained.history[-1]["train_accuracy"]


def test_another_start_or_other_data_under_the_same_name_are_refused(tmp_path):
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "start.pt")
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))

    def run(scale=1.0):
        task = landscape.Task(
            model=lambda: nn.Linear(4, 3),
            objective="cross_entropy",
            train=(scale * inputs, inputs[:, :3].argmax(1)),
        )
        recipe = Recipe(method="sgd", lr=0.1, epochs=1)
        return train(task, recipe, tmp_path / "run", start=tmp_path / "start.pt")

    first = run().history
    assert run().history == first
    with pytest.raises(ValueError, match="holds a training with data"):
        run(scale=2.0)
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "start.pt")
    with pytest.raises(ValueError, match="holds a training with weights"):
        run()
