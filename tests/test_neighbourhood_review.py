"""What a user meets at the edges: confident models, rounding, odd settings, small data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Probe, Status, measures
from landscape.tasks import Settings, digits_task, open_task, read_checkpoint


@pytest.fixture(scope="module")
def confident():
    """A net that is sure of nearly every label of separable data, float64."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=source, dtype=torch.float64)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(500):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


@pytest.fixture(scope="module")
def digits():
    return open_task(digits_task()).probe


def test_the_fisher_information_of_a_confident_model_is_seen(confident):
    """Drawn labels would all be the likely ones, and miss what makes up the trace."""
    model, x, y = confident
    probe = Probe(model, "cross_entropy", [(x, y)])
    assert probe.loss() < 5e-3
    matrix = probe.ggnvp(torch.eye(probe.size, dtype=torch.float64))
    weights = probe.weights()
    truths = {
        "fisher-trace": float(matrix.trace()),
        "fisher-rao-norm": math.sqrt(float(weights @ matrix @ weights)),
    }
    for name, truth in truths.items():
        results = [measures.get(name, kind="model").compute(probe, seed) for seed in range(20)]
        inside = [low <= truth <= high for low, high in (found.interval for found in results)]
        assert np.mean(inside) >= 0.9
        assert np.mean([found.value for found in results]) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_small_noise_sees_the_trace_of_the_hessian_on_digits(digits, seed):
    trace = measures.get("hessian-trace").compute(digits)
    noise = measures.get("noise-stability", sigma=(5e-4, 1e-3, 0.01, 0.1)).compute(digits, seed)
    low, high = noise.interval
    assert low <= trace.value <= high
    assert noise.diagnostics["quadratic_up_to"] < 0.1
    assert "differs by +" in noise.diagnostics["regime"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("average-sharpness", {"rho": 1e-6}),
        ("tilted-sharpness", {"rho": 1e-6, "t": 1.0}),
        ("noise-stability", {"sigma": 1e-6}),
    ],
)
def test_what_is_only_rounding_is_told(digits, name, config):
    result = measures.get(name, **config).compute(digits)
    assert result.status is Status.UNCERTAIN
    assert "rounding" in result.message
    low, high = result.interval
    assert low <= 0 <= high


def test_a_precise_local_entropy_is_certain(digits):
    result = measures.get("local-entropy").compute(digits)
    assert result.status is Status.OK
    assert result.stderr < 0.01 * abs(result.value)


def test_a_constant_loss_comes_with_advice():
    def loss(model, batch):
        return model(batch).squeeze(1) * 0 + 1

    probe = Probe(nn.Linear(2, 1), loss, [torch.ones(4, 2)])
    for name in ("max-sharpness", "average-sharpness", "adaptive-average-sharpness", "sam-gap",
                 "tilted-sharpness", "noise-stability", "critical-sharpness"):  # fmt: skip
        config = {"logit_normalisation": False} if name.startswith("adaptive") else {}
        result = measures.get(name, **config).compute(probe)
        assert result.status in {Status.UNCERTAIN, Status.UNDEFINED}, name
        assert result.message


def test_the_first_crossing_of_a_wavy_loss():
    class Wave(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, _):
            return 2 + 0.1 * torch.sin(20 * self.w)

    probe = Probe(Wave(), lambda model, batch: model(batch), [torch.zeros(1)])
    # The slope is 2: L(-2 eta) is back at 2 where 40 eta = pi.
    result = measures.get("critical-sharpness").compute(probe)
    low, high = result.interval
    assert low <= 80 / math.pi <= high


def test_logits_that_cannot_be_normalised_are_declined():
    batches = [(torch.randn(6, 3), torch.tensor([0.0, 1, 0, 1, 1, 0]))]
    for model in (nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))):
        probe = Probe(model, "bce", batches)
        result = measures.get("adaptive-sharpness", logit_normalisation=True).compute(probe)
        assert result.status is Status.DECLINED
        assert "at least two logits" in result.message


def test_a_single_part_of_more_data_leaves_its_spread_open(digits):
    probe = open_task(digits_task(), settings=Settings(samples=200)).probe
    partly = measures.get("sam-gap").compute(probe)
    assert partly.diagnostics["terms_used"] == 128
    assert partly.status is Status.UNCERTAIN
    assert "128 of 200" in partly.message
    assert measures.get("sam-gap", m=None).compute(probe).status is Status.OK
    assert measures.get("sam-gap").compute(digits).diagnostics["terms_used"] == 896


def test_parameter_groups_are_told_apart_by_name_or_not_at_all(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for named in (False, True):
        groups = [
            [(name, parameter) if named else parameter]
            for name, parameter in reversed(list(model.named_parameters()))
        ]
        try:
            optimizer = torch.optim.SGD([{"params": g} for g in groups], lr=0.1, momentum=0.9)
        except TypeError:
            pytest.skip("this torch has no named parameters in optimisers")
        for value, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float(value))
        optimizer.step()
        path = tmp_path / "last.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
        momentum = read_checkpoint(path).momentum(model)
        if not named:
            assert momentum is None
        else:
            assert momentum is not None
            assert momentum["0.weight"].unique().tolist() == [0]
            assert momentum["1.weight"].unique().tolist() == [1]


@pytest.mark.parametrize(
    "config",
    [
        {"rho": []}, {"rho": "x"}, {"rho": True}, {"rho": (0.1, -1)}, {"scan": 0.0},
        {"scan": "wide"}, {"m": 2.5}, {"m": "8"}, {"m": math.nan}, {"steps": 2.5}, {"points": 0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_another_kind_are_refused_at_once(config):
    with pytest.raises(ValueError, match="must be"):
        measures.get("max-sharpness", **config)


def test_radii_come_in_any_sequence():
    for radii in ([0.1, 0.2], np.array([0.1, 0.2]), torch.tensor([0.1, 0.2], dtype=torch.float64)):
        assert measures.get("sam-gap", rho=radii).all_radii == (0.1, 0.2)
    assert measures.get("sam-gap", rho=0.1, scan=0.2).all_radii == (0.1, 0.2)


def test_radii_beyond_the_range_of_the_precision(digits):
    result = measures.get("max-sharpness", rho=1e30, m=None, steps=3).compute(digits)
    assert not result.status.measured
    assert "reduce rho" in result.message


def test_momentum_of_another_shape_or_nan_is_refused():
    model, batches = nn.Linear(2, 3), [(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]))]
    good = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for wrong in (good["weight"].T, torch.full_like(good["weight"], torch.nan)):
        with pytest.raises(ValueError, match="momentum"):
            Probe(model, "cross_entropy", batches, momentum={**good, "weight": wrong})
