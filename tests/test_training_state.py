"""Saving and loading, groups, schedulers, copies."""

import copy
import io
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import training
from landscape.training import METHODS, RowOptimizer

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(2))
NEEDED = {
    "m-sam": {"micro_batch": 4},
    "ssam-d": {"refresh_every": 2, "total_steps": 9},
    "swa": {"start": 1},
    "wasam": {"start": 1},
}
BASES = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def made(name, model, base="sgd", **settings):
    optimizer = METHODS[name](
        BASES[base](model.parameters()), model, **NEEDED.get(name, {}), **settings
    )
    if name == "ssam-f":
        optimizer.refresh_mask([closure_of(model)])
    return optimizer


def closure_of(model, scaler=None):
    def closure():
        loss = functional.cross_entropy(model(X), Y)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return closure


def advance(model, optimizer, steps=1, scaler=None):
    for _ in range(steps):
        if isinstance(optimizer, RowOptimizer):
            losses = partial(row_losses, model)
            optimizer.step(losses, len(X))
        else:
            optimizer.step(closure_of(model, scaler))


def row_losses(model, rows):
    return functional.cross_entropy(model(X[rows]), Y[rows], reduction="none")


def saved(value):
    """Through a file and back, as a user would."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_that_is_saved_and_loaded_goes_on_bit_for_bit(name, base):
    model = network()
    optimizer = made(name, model, base)
    advance(model, optimizer, 3)
    weights, state = saved(model.state_dict()), saved(optimizer.state_dict())
    advance(model, optimizer, 4)

    other = network(seed=5)
    other.load_state_dict(weights)
    again = made(name, other, base, seed=9)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    advance(other, again, 4)
    assert_same(model.state_dict(), other.state_dict())
    if hasattr(optimizer, "average"):
        assert_same(optimizer.average.state_dict(), again.average.state_dict())


def test_a_scheduler_drives_the_base_and_a_radius_follows():
    model = network()
    optimizer = made("gsam", model, rho=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    radius = training.FollowLearningRate(optimizer, high=0.3, low=0.1, lr_high=0.1)
    seen = []
    for _ in range(4):
        advance(model, optimizer)
        scheduler.step()
        radius.step()
        seen.append(
            (optimizer.base_optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"])
        )
    assert [lr for lr, _ in seen] == pytest.approx([0.0853553, 0.05, 0.0146447, 0], abs=1e-6)
    assert [rho for _, rho in seen] == pytest.approx([0.1 + 2 * lr for lr, _ in seen])


def test_a_copy_of_optimiser_and_model_goes_on_alone():
    model = network()
    optimizer = made("tsam", model)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    advance(model, optimizer, 2)
    twin = copy.deepcopy(optimizer)
    advance(model, optimizer, 2)
    assert not torch.equal(twin.model[0].weight, model[0].weight)
    advance(twin.model, twin, 2)
    assert_same(twin.model.state_dict(), model.state_dict())


def test_groups_survive_loading():
    model = network()
    optimizer = made("sam", model)
    state = saved(optimizer.state_dict())
    state["param_groups"][0] |= {"lr": 0.5, "rho": 0.7}
    optimizer.load_state_dict(state)
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.5, 0.7)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameters_may_be_added_and_frozen_on_the_way(name):
    model = network()
    head = model[3]
    base = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], lr=0.1, momentum=0.9)
    optimizer = METHODS[name](base, model, **NEEDED.get(name, {}))
    advance(model, optimizer, 2)
    optimizer.add_param_group({"params": list(head.parameters())})
    model[0].weight.requires_grad_(False)
    first, last = model[0].weight.detach().clone(), head.weight.detach().clone()
    advance(model, optimizer, 2)
    assert torch.equal(model[0].weight, first)
    assert not torch.equal(head.weight, last)


def test_groups_with_named_parameters_are_taken_as_they_are():
    model = network()
    groups = [{"params": model[0].named_parameters()}, {"params": model[3].named_parameters()}]
    optimizer = training.SAM(torch.optim.SGD(groups, lr=0.1), model)
    optimizer.add_param_group({"params": list(model[1].named_parameters())})
    advance(model, optimizer)
    assert [group["rho"] for group in optimizer.param_groups] == [0.05] * 3
    assert optimizer.state_dict()["param_groups"][2]["param_names"] == ["weight", "bias"]
