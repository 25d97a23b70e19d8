"""Geodesic sharpness on a transformer: the same everywhere on the orbit of GL(h)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape import Probe, measures
from landscape.geometry import Pair, find_attention


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(x).mean(1))


def net(dtype):
    model, source = Net().to(dtype), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=source, dtype=dtype))
    return model.eval()


def probe_of(model):
    source = torch.Generator().manual_seed(1)
    batches = [(torch.randn(16, 4, 8, generator=source), torch.arange(16) % 3)]
    return Probe(model, "cross_entropy", batches, products="loop")


def moved(model, pairs: list[Pair], seed, condition=100.0):
    """The same function: every head's matrices transformed by a random A of given condition."""
    other, source = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    probe = probe_of(model)
    flat = probe.weights().double()
    there = flat.clone()
    for pair in pairs:
        width = pair.left.shape[1]
        draws = torch.randn(2, width, width, generator=source, dtype=torch.float64)
        left, right = torch.linalg.qr(draws).Q
        a = left * torch.logspace(-1, 1, width, dtype=torch.float64) @ right
        assert torch.linalg.cond(a) == pytest.approx(condition)
        there[pair.left] = flat[pair.left] @ torch.linalg.inv(a)
        there[pair.right] = flat[pair.right] @ a.T
    with torch.no_grad():
        for name, value in probe.space.split(there).items():
            other.get_parameter(name).copy_(value)
    return other


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("metric", ["inv", "mix"])
def test_it_is_the_same_on_the_whole_orbit(metric, dtype, most):
    model = net(dtype)
    probe = probe_of(model)
    pairs = find_attention(probe.modules(), probe.space).pairs
    assert len(pairs) == 4
    geodesic = measures.get("geodesic-sharpness", metric=metric, rho=0.3)
    adaptive = measures.get("adaptive-sharpness", rho=0.1)
    value, plain = geodesic.compute(probe), adaptive.compute(probe).value
    assert value.diagnostics["pairs"] == 4
    assert value.value > 0
    changes = []
    for seed in range(5):
        other = probe_of(moved(model, pairs, seed))
        assert other.loss() == pytest.approx(probe.loss(), rel=most)
        assert geodesic.compute(other).value == pytest.approx(value.value, rel=most)
        changes.append(adaptive.compute(other).value / plain - 1)
    assert max(map(abs, changes)) > 0.05


def test_without_attention_it_is_adaptive_sharpness():
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)).double()
    probe = probe_of(model)
    expected = measures.get("adaptive-sharpness", rho=0.3).compute(probe).value
    for second_order in (False, True):
        found = measures.get("geodesic-sharpness", rho=0.3, second_order=second_order)
        result = found.compute(probe)
        assert result.value == pytest.approx(expected, rel=1e-9)
        assert result.diagnostics["pairs"] == 0


@pytest.mark.parametrize("metric", ["inv", "mix"])
def test_the_average_is_the_same_within_its_error(metric):
    model = net(torch.float64)
    probe = probe_of(model)
    pairs = find_attention(probe.modules(), probe.space).pairs
    measure = measures.get("geodesic-average-sharpness", metric=metric, samples=400)
    one = measure.compute(probe)
    two = measure.compute(probe_of(moved(model, pairs, 3)))
    assert two.value == pytest.approx(one.value, abs=4 * (one.stderr**2 + two.stderr**2) ** 0.5)
    assert one.stderr < 0.2 * abs(one.value)


def test_without_attention_the_average_is_the_adaptive_one():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).double()
    probe = probe_of(model)
    expected = measures.get("adaptive-average-sharpness", rho=0.1).compute(probe)
    found = measures.get("geodesic-average-sharpness", rho=0.1).compute(probe)
    assert found.value == pytest.approx(expected.value, rel=1e-9)


def test_it_grows_with_the_radius_and_bends():
    probe = probe_of(net(torch.float64))
    bent = measures.get("geodesic-sharpness", rho=(0.1, 0.2, 0.4)).compute(probe)
    values = [entry["value"] for entry in bent.diagnostics["scan"]["points"]]
    assert values == sorted(values)
    straight = measures.get("geodesic-sharpness", rho=0.4, second_order=False).compute(probe)
    assert straight.value != pytest.approx(values[-1], rel=1e-4)


@pytest.mark.parametrize(
    "config", [{"norm": "linf"}, {"geometry": "euclidean"}, {"compat": "andriushchenko2023"}]
)
def test_what_it_has_not_is_refused(config):
    with pytest.raises(ValueError, match="at their defaults"):
        measures.get("geodesic-sharpness", **config)
