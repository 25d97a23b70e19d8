"""Alignment by weight matching: permuted copies are found out, functions stay, barriers fall."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe
from landscape.slices.alignment import align, permutable
from landscape.slices.paths import barrier, interpolate
from landscape.tasks.digits import digits_data


def made(model, seed=0):
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=source))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.abs_().add_(0.5)
    return model.eval()


def mlp():
    sizes = [4, 12, 9, 12, 3]
    layers = [[nn.Linear(a, b), nn.Tanh()] for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain.from_iterable(layers))[:-1]


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 7),
        nn.ReLU(),
        nn.Linear(7, 3),
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(12, 4, 10, dropout=0.0, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.block(x).mean(1))


def inputs(*shape):
    return torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))


MODELS = {
    "mlp": (mlp, (4,), 3),
    "conv-bn": (convolutional, (1, 8, 8), 3),
    "attention": (Encoder, (5, 12), 2),
}


def probe_of(name, seed=0, **settings):
    make, shape, _ = MODELS[name]
    return Probe(
        made(make(), seed), "cross_entropy", [(inputs(*shape), torch.arange(12) % 3)], **settings
    )


def shuffled(name, model, seed):
    """A permuted copy by hand, without what is tested."""
    source = torch.Generator().manual_seed(seed)
    state = copy.deepcopy(model.state_dict())

    def reorder(order, *places, run=1):
        rows = (order[:, None] * run + torch.arange(run)).flatten()
        for key, dim in places:
            state[key] = state[key].index_select(dim, rows)

    def order(count):
        return torch.randperm(count, generator=source)

    if name == "mlp":
        for layer, count in ((0, 12), (2, 9), (4, 12)):
            here, there = f"{layer}", f"{layer + 2}.weight"
            reorder(order(count), (f"{here}.weight", 0), (f"{here}.bias", 0), (there, 1))
    elif name == "conv-bn":
        norm = ("weight", "bias", "running_mean", "running_var")
        reorder(order(8), ("0.weight", 0), ("3.weight", 1), *((f"1.{part}", 0) for part in norm))
        channels = order(6)
        reorder(channels, ("3.weight", 0), ("3.bias", 0), *((f"4.{part}", 0) for part in norm))
        reorder(channels, ("8.weight", 1), run=4)
        reorder(order(7), ("8.weight", 0), ("8.bias", 0), ("10.weight", 1))
    else:
        heads, stem = order(4), "block.self_attn."
        for part in ("weight", "bias"):
            thirds = state[f"{stem}in_proj_{part}"].chunk(3)
            rows = (heads[:, None] * 3 + torch.arange(3)).flatten()
            state[f"{stem}in_proj_{part}"] = torch.cat([third[rows] for third in thirds])
        reorder(heads, (f"{stem}out_proj.weight", 1), run=3)
        hidden = order(10)
        reorder(hidden, ("block.linear1.weight", 0), ("block.linear1.bias", 0))
        reorder(hidden, ("block.linear2.weight", 1))
    return state


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_a_permuted_copy_comes_back_to_distance_zero(name, seed):
    probe = probe_of(name)
    model = made(MODELS[name][0]())
    other = shuffled(name, model, seed)
    before = copy.deepcopy(other)
    found = align(probe, other, seed=seed)
    assert found.distance_before > 1
    assert found.distance == 0.0
    assert found.change < 1e-12
    assert len(found.orders) == MODELS[name][2]
    for key, value in model.state_dict().items():
        assert torch.equal(found.state[key], value), key  # statistics of batch norm as well
    assert all(torch.equal(value, before[key]) for key, value in other.items())
    assert torch.equal(probe.weights(), probe.space.flatten(dict(model.named_parameters())))


def test_the_gain_is_that_of_the_distance_and_the_function_stays():
    probe, other = probe_of("conv-bn"), made(convolutional(), 5)
    found = align(probe, other)
    # ||w1 - w2||² = ||w1||² + ||w2||² - 2 <w1, w2>, and a permutation keeps both lengths.
    fallen = found.distance_before**2 - found.distance**2
    assert fallen == pytest.approx(2 * found.gain, rel=1e-6)
    assert found.gain > 0
    turned = convolutional()
    turned.load_state_dict(found.state)
    data = inputs(1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(turned.eval()(data), other(data), atol=1e-5)
    assert found.change < 1e-12


def test_one_layer_is_matched_as_well_as_by_trying_all_orders():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    data = [(inputs(3), torch.arange(12) % 2)]
    probe = Probe(made(copy.deepcopy(model), 0), "cross_entropy", data)
    other = made(model, 1).state_dict()
    mine = probe.model_copy().state_dict()

    def distance(order):
        turned = [other["0.weight"][order], other["0.bias"][order], other["2.weight"][:, order]]
        own = [mine["0.weight"], mine["0.bias"], mine["2.weight"]]
        squares = [(a - b).double().square().sum() for a, b in zip(own, turned, strict=True)]
        return float(sum(squares) + (mine["2.bias"] - other["2.bias"]).double().square().sum())

    best = min(distance(list(order)) for order in itertools.permutations(range(5)))
    found = align(probe, other, tries=1)
    assert found.distance**2 == pytest.approx(best, rel=1e-6)
    (order,) = found.orders.values()
    assert distance(list(order)) == pytest.approx(best, rel=1e-6)


def test_it_never_gets_worse_and_more_tries_never_hurt():
    probe = probe_of("mlp")
    found = []
    for seed in range(1, 6):
        other = made(mlp(), seed)
        gains = [align(probe, other, tries=tries).gain for tries in (1, 2, 6)]
        assert 0 <= gains[0] <= gains[1] <= gains[2]
        found.append(gains)
    assert any(gains[1] > gains[0] for gains in found)
    assert any(gains[2] > gains[1] for gains in found)
    itself = align(probe, made(mlp()))
    assert (itself.gain, itself.distance) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_bits_and_dtypes_are_kept():
    probe, other = probe_of("mlp"), made(mlp(), 1).bfloat16().state_dict()
    one, two = align(probe, other, seed=4), align(probe, other, seed=4)
    assert one.orders == two.orders
    assert all(torch.equal(value, two.state[name]) for name, value in one.state.items())
    assert {value.dtype for value in one.state.values()} == {torch.bfloat16}
    first = one.state["0.weight"]
    assert sorted(first.flatten().tolist()) == sorted(other["0.weight"].flatten().tolist())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.start, self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.start(x)
        return self.head(x + self.outer(self.inner(x).relu()))


def test_a_residual_stream_is_left_in_its_order():
    probe = Probe(made(Residual()), "cross_entropy", [(inputs(4), torch.arange(12) % 3)])
    assert list(permutable(probe)) == ["inner → outer"]


def test_a_model_without_hidden_units_is_left_as_it_is():
    one, two = made(nn.Linear(4, 3)), made(nn.Linear(4, 3), 1)
    probe = Probe(one, "cross_entropy", [(inputs(4), torch.arange(12) % 3)])
    found = align(probe, two)
    assert (found.orders, found.gain) == ({}, 0.0)
    assert found.distance == found.distance_before > 0
    assert all(torch.equal(v, found.state[k]) for k, v in two.state_dict().items())


def test_wrong_input_is_refused():
    probe = probe_of("mlp")
    with pytest.raises(ValueError, match="tries"):
        align(probe, made(mlp(), 1), tries=0)
    with pytest.raises(ValueError, match="does not fit"):
        align(probe, nn.Linear(4, 3))


def test_the_barrier_between_two_trained_nets_falls():
    (images, labels), _ = digits_data()
    data = images.flatten(1)[:400], labels[:400]

    def trained(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(model(data[0]), data[1]).backward()
            optimizer.step()
        return model

    with torch.random.fork_rng(devices=[]):
        one, two = trained(0), trained(1)
    probe = Probe(one, "cross_entropy", [data])
    plain = barrier(interpolate(probe, two, points=11))
    aligned = align(probe, two)
    after = barrier(interpolate(probe, aligned.state, points=11))
    assert after.end == pytest.approx(plain.end, rel=1e-4)  # the same function
    assert plain.height > 0.1
    assert after.height < 0.5 * plain.height
