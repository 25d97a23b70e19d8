"""Straight paths between checkpoints: closed forms, barriers, batch norm, wrong input."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from landscape import Probe
from landscape.slices.paths import barrier, fitted_state, interpolate


class Point(nn.Module):
    """Parameters that are the point itself."""

    def __init__(self, *values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, batch):
        return self.w + 0 * batch


def double_well(model, batch):
    """(w1² - 1)² + w2, minima at w1 = -1 and 1: one loss a row of the batch."""
    w = model(batch)
    return ((w[:1] ** 2 - 1) ** 2 + w[1:]).expand(len(batch))


def normed(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    )
    norm = model[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return model.double().eval()


def images(seed=0):
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 1, 5, 5, generator=source, dtype=torch.float64)
    return [(inputs, torch.arange(12) % 3)]


def path_of(losses, t=None, evaluated=None):
    t = np.linspace(0, 1, len(losses)) if t is None else t
    told = np.ones(len(t), bool) if evaluated is None else np.array(evaluated)
    variables = {"train_loss": ("alpha", np.array(losses, float)), "evaluated": ("alpha", told)}
    return xr.Dataset(variables, {"alpha": t})


def test_the_barrier_of_a_double_well_is_its_closed_form():
    probe = Probe(Point(-1.0, 0.0), double_well, [torch.zeros(2, dtype=torch.float64)])
    line = interpolate(probe, Point(1.0, 0.5), points=25)
    t = line.alpha.values
    assert np.allclose(line.train_loss, ((2 * t - 1) ** 2 - 1) ** 2 + 0.5 * t, atol=1e-12)
    found = barrier(line)
    # Linear in t but for the well, which is one high in the middle.
    assert found.height == pytest.approx(1.0, abs=1e-12)
    assert found.position == 0.5
    assert found.above_ends == pytest.approx(line.train_loss.values.max() - 0.5, abs=1e-12)
    assert (found.start, found.end) == pytest.approx((0.0, 0.5))
    assert json.loads(line.attrs["barrier"])["height"] == found.height


def test_a_path_beyond_its_ends_has_the_same_barrier():
    probe = Probe(Point(-1.0, 0.0), double_well, [torch.zeros(2, dtype=torch.float64)])
    long = interpolate(probe, Point(1.0, 0.5), points=401, span=(-0.5, 1.5))
    assert float(long.train_loss.sel(alpha=-0.5)) == pytest.approx(9 - 0.25)
    assert barrier(long).height == pytest.approx(1.0, abs=1e-9)
    without = interpolate(probe, Point(1.0, 0.5), points=3, span=(0.25, 0.75))
    assert "barrier" not in without.attrs
    with pytest.raises(ValueError, match="both ends"):
        barrier(without)


def test_convex_losses_have_no_barrier():
    found = barrier(path_of([1.0, 0.25, 0.0, 0.25, 2.0]))
    assert found.height == 0.0
    assert found.above_ends == 0.0
    assert found.highest == 2.0


@pytest.mark.filterwarnings("error")
def test_losses_that_are_not_finite_stay_so():
    assert math.isnan(barrier(path_of([1.0, math.nan, 1.0])).height)
    assert math.isnan(barrier(path_of([math.nan, 1.0, 1.0])).height)
    assert barrier(path_of([1.0, math.inf, 1.0])).height == math.inf
    at_an_end = barrier(path_of([1.0, 2.0, math.inf]))
    assert (at_an_end.height, at_an_end.above_ends) == (0.0, 0.0)


def test_interpolated_points_do_not_make_a_barrier():
    path = path_of([1.0, 9.0, 2.0, 1.0, 1.0], evaluated=[True, False, True, True, True])
    assert barrier(path).highest == 2.0


def test_the_standard_error_bounds_the_paired_one():
    inputs = images()[0][0].flatten(1)

    def made(seed):
        source = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(25, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))
        return model

    one = made(0)
    two = copy.deepcopy(one)
    with torch.no_grad():
        for parameter in (two[0].weight, two[0].bias, two[2].weight):
            parameter.neg_()  # tanh is odd: the same function
    probe = Probe(one, "cross_entropy", [(inputs, one(inputs).argmax(1))])  # both ends are right
    found = barrier(interpolate(probe, two, points=9))
    assert found.position not in {0, 1}
    delta = probe.space.flatten(dict(two.named_parameters())).detach() - probe.weights()
    t = found.position
    paired = probe.term_losses(t * delta) - (
        (1 - t) * probe.term_losses() + t * probe.term_losses(delta)
    )
    assert float(paired.mean()) == pytest.approx(found.height, abs=1e-9)
    assert float(paired.std() / 12**0.5) <= found.stderr


def test_buffers_are_interpolated_kept_or_estimated_anew():
    one, two = normed(0), normed(1)
    probe = Probe(one, "cross_entropy", images())

    def by_hand(t, buffers):
        model = copy.deepcopy(one)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point() and (buffers or "running" not in name):
                    value.lerp_(two.state_dict()[name], t)
            inputs, labels = images()[0]
            return float(nn.functional.cross_entropy(model(inputs), labels))

    moved, kept = (interpolate(probe, two, points=5, buffers=b) for b in ("interpolate", "eval"))
    for place, t in enumerate(moved.alpha.values):
        assert float(moved.train_loss[place]) == pytest.approx(by_hand(t, buffers=True), abs=1e-10)
        assert float(kept.train_loss[place]) == pytest.approx(by_hand(t, buffers=False), abs=1e-10)
    assert abs(float(moved.train_loss[-1] - kept.train_loss[-1])) > 1e-3
    fresh = interpolate(
        Probe(one, "cross_entropy", images(), batch_norm="recalibrate"), two, points=3
    )
    two.train()  # one batch: its statistics are those of all data, but for the unbiased variance
    inputs, labels = images()[0]
    expected = float(nn.functional.cross_entropy(two(inputs), labels).detach())
    assert float(fresh.train_loss[-1]) == pytest.approx(expected, rel=0.02)


def test_test_data_and_accuracy_come_along():
    probe = Probe(normed(0), "cross_entropy", images())
    line = interpolate(probe, normed(1), points=3, test=images(1))
    assert {"train_accuracy", "test_loss", "test_accuracy_stderr"} <= set(line.data_vars)
    assert barrier(line, "test_loss").height >= 0
    assert not np.allclose(line.test_loss, line.train_loss)


def test_nothing_that_was_given_is_changed():
    one, two = normed(0), normed(1)
    before = [copy.deepcopy(model.state_dict()) for model in (one, two)]
    probe = Probe(one, "cross_entropy", images())
    weights, state = probe.weights(), torch.random.get_rng_state()
    interpolate(probe, two, points=3)
    assert torch.equal(weights, probe.weights())
    assert torch.equal(state, torch.random.get_rng_state())
    for model, old in zip((one, two), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())
    assert probe.loss() == Probe(one, "cross_entropy", images()).loss()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "0.weight"}, r"missing: 0\.weight"),
        (lambda s: {k: v for k, v in s.items() if "running" not in k}, "missing: 1.running_mean"),
        (lambda s: {**s, "5.weight": torch.ones(1)}, r"unexpected: 5\.weight"),
        (lambda s: {**s, "4.bias": torch.ones(2)}, r"4\.bias \(2,\) instead of \(3,\)"),
        (lambda s: {**s, "4.bias": torch.full((3,), math.nan)}, r"NaN or infinite: 4\.bias"),
        (lambda s: nn.Linear(3, 3).state_dict(), "missing.*unexpected"),  # noqa: ARG005
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, message):
    probe = Probe(normed(0), "cross_entropy", images())
    with pytest.raises(ValueError, match=message):
        interpolate(probe, change(normed(1).state_dict()))


def test_other_wrong_input_is_refused():
    probe = Probe(normed(0), "cross_entropy", images())
    with pytest.raises(TypeError, match="state_dict or a model"):
        interpolate(probe, [1, 2])
    with pytest.raises(ValueError, match="buffers"):
        interpolate(probe, normed(1), buffers="recalibrate")
    with pytest.raises(ValueError, match="same weights"):
        interpolate(probe, normed(0))
    with pytest.raises(ValueError, match="test_loss"):
        barrier(interpolate(probe, normed(1), points=2), "test_loss")


def test_frozen_and_tied_parameters_that_no_path_can_reach_are_named():
    one, two = normed(0), normed(1)
    one[4].bias.requires_grad_(False)
    probe = Probe(one, "cross_entropy", images())
    with pytest.raises(ValueError, match=r"never moved, but not the same: 4\.bias"):
        interpolate(probe, two)
    state = two.state_dict() | {"4.bias": one[4].bias.detach()}
    assert interpolate(probe, state, points=2).sizes["alpha"] == 2

    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    probe = Probe(tied, "cross_entropy", [(torch.randn(6, 3), torch.arange(6) % 3)])
    apart = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    with pytest.raises(ValueError, match=r"tied in the model but not there: 1\.weight"):
        fitted_state(probe, apart)
    del apart["1.weight"]  # the first name is enough
    assert fitted_state(probe, apart)
