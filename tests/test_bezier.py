"""Trained curves: around a barrier, by the definition, repeatable, and no worse than the line."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from landscape import Probe
from landscape.slices.bezier import bezier
from landscape.slices.paths import barrier, interpolate
from landscape.tasks.digits import digits_data


class Point(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, batch):
        return self.w + 0 * batch


def ring(model, batch):
    """Zero on the unit circle, one in its middle."""
    return ((model(batch).square().sum() - 1) ** 2)[None]


def bowl(model, batch):
    return model(batch).square().sum()[None] / 2


ZEROS = [torch.zeros(2, dtype=torch.float64)]


def on_the_ring(angle, **settings):
    first = Probe(Point(1.0, 0.0), ring, ZEROS)
    other = Point(float(np.cos(angle)), float(np.sin(angle)))
    curve = bezier(first, other, batch_size=None, **{"steps": 400, **settings})
    return first, other, curve


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 0.05}, {"optimizer": "sgd", "learning_rate": 0.05}]
)
def test_a_curve_goes_around_the_hole_of_a_ring(settings):
    first, other, curve = on_the_ring(2.0, **settings)
    line = barrier(interpolate(first, other, points=61))
    assert line.height > 0.49  # (cos² 1 - 1)² = 0.501 in the middle
    assert curve.highest < 0.02
    assert barrier(curve.path).height == pytest.approx(curve.highest, abs=1e-9)
    # Outside of the chord, at most as long as the tangents' polygon 2 tan(1).
    assert curve.distance == pytest.approx(2 * np.sin(1.0))
    assert curve.distance < curve.length < 2 * np.tan(1.0)
    assert curve.length == pytest.approx(2.0, rel=0.05)  # of the arc


def test_points_length_and_losses_are_those_of_the_definition():
    probe, other, curve = on_the_ring(2.0, learning_rate=0.05)
    start, end = torch.tensor([1.0, 0.0]).double(), other.w.detach()
    assert torch.allclose(curve.point(0), start)
    assert torch.allclose(curve.point(1), end)
    fine = torch.stack([curve.point(t) for t in np.linspace(0, 1, 4001)])
    polygon = float((fine[1:] - fine[:-1]).norm(dim=1).sum())
    assert curve.length == pytest.approx(polygon, rel=1e-6)
    for t, loss in zip(curve.path.alpha.values, curve.path.train_loss.values, strict=True):
        assert loss == pytest.approx(probe.loss(curve.point(t) - start), abs=1e-12)
    top = int(curve.path.train_loss.values.argmax())
    assert curve.position == curve.path.alpha.values[top]
    assert curve.path.sizes["alpha"] == 61
    assert curve.path.evaluated.all()


def test_the_bend_of_a_bowl_is_the_minimum_of_the_mean_loss():
    # dE/dθ = 0 for L = |w|²/2: θ E[4 t²(1-t)²] = -E[2t(1-t)((1-t)² w1 + t² w2)]; the moments of
    # the beta function give θ (4/30) = -(w1 + w2) (2/20).
    probe = Probe(Point(1.0, 0.5), bowl, ZEROS)
    curve = bezier(
        probe, Point(0.0, 1.0), batch_size=None, steps=1000, learning_rate=0.05, points=3
    )
    assert torch.allclose(curve.bend, torch.tensor([-0.75, -1.125]).double(), atol=0.08)


def test_weight_decay_is_that_of_the_points_of_the_curve():
    # c/2 |φ|² is the bowl itself.
    flat = lambda model, batch: 0 * model(batch).sum()[None]  # noqa: E731
    settings = {"batch_size": None, "steps": 50, "points": 3}
    one, two = (Probe(Point(1.0, 0.5), loss, ZEROS) for loss in (flat, bowl))
    decayed = bezier(one, Point(0.0, 1.0), weight_decay=1.0, **settings)
    bowled = bezier(two, Point(0.0, 1.0), **settings)
    assert torch.allclose(decayed.bend, bowled.bend, atol=1e-9)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    (_, _, one), (_, _, two), (_, _, three) = (
        on_the_ring(2.0, steps=40, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(one.bend, two.bend)
    assert one.training == two.training
    assert not torch.equal(one.bend, three.bend)


def trained(make, data, seed, steps=60):
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    return model.eval()


def test_a_curve_between_two_trained_nets_is_lower_than_the_line():
    (images, labels), (tests, answers) = digits_data()
    data = images.flatten(1)[:400], labels[:400]
    make = lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))  # noqa: E731
    with torch.random.fork_rng(devices=[]):
        one, two = trained(make, data, 0), trained(make, data, 1)
    before = [copy.deepcopy(model.state_dict()) for model in (one, two)]
    probe = Probe(one, "cross_entropy", [data])
    weights, state = probe.weights(), torch.random.get_rng_state()
    held_out = [(tests.flatten(1)[:100], answers[:100])]
    curve = bezier(probe, two, steps=300, batch_size=100, points=21, test=held_out)
    line = barrier(interpolate(probe, two, points=21))
    assert line.height > 0.3
    assert barrier(curve.path).height < 0.1 * line.height
    assert float(curve.path.train_accuracy.min()) > 0.95
    assert "test_accuracy" in curve.path
    # Nothing that was given has changed.
    assert torch.equal(weights, probe.weights())
    assert torch.equal(state, torch.random.get_rng_state())
    for model, old in zip((one, two), before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())


def normed():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
    )


def test_batch_norm_is_estimated_anew_on_the_curve():
    (images, labels), _ = digits_data()
    data = images[:200], labels[:200]
    with torch.random.fork_rng(devices=[]):
        one, two = (trained(normed, data, seed, 30) for seed in (0, 1))
    with pytest.raises(ValueError, match="recalibrate"):
        bezier(Probe(one, "cross_entropy", [data]), two)
    probe = Probe(one, "cross_entropy", [data], batch_norm="recalibrate")
    curve = bezier(probe, two, steps=100, points=5)
    own = Probe(two, "cross_entropy", [data], batch_norm="recalibrate")
    # The other end is the other net with statistics of all the data, not of the first one's.
    assert float(curve.path.train_loss[-1]) == pytest.approx(
        float(own.losses(torch.zeros(1, own.size))[0]), rel=1e-4
    )
    line = interpolate(probe, two, points=5)
    assert float(curve.path.train_loss.max()) < float(line.train_loss.max())


def test_the_record_tells_how_it_was_made_and_can_be_stored(tmp_path):
    _, _, curve = on_the_ring(2.0, steps=20)
    told = json.loads(curve.path.attrs["training"])
    assert told["steps"] == 20
    assert told["optimizer"] == "adam"
    assert [entry["kind"] for entry in json.loads(curve.path.attrs["directions"])] == [
        "bend",
        "difference",
    ]
    assert curve.path.attrs["length"] == curve.length
    file = tmp_path / "curve.nc"
    curve.path.to_netcdf(file)
    with xr.open_dataset(file) as back:
        assert back.attrs["training"] == curve.path.attrs["training"]
        assert np.array_equal(back.train_loss, curve.path.train_loss)


def test_wrong_input_is_refused():
    probe = Probe(Point(1.0, 0.0), ring, ZEROS)
    other = Point(0.0, 1.0)
    for settings in ({"steps": 0}, {"points": 1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            bezier(probe, other, **settings)
    with pytest.raises(ValueError, match="optimizer"):
        bezier(probe, other, optimizer="lion")
    with pytest.raises(ValueError, match="learning_rate"):
        bezier(probe, other, learning_rate=0.0)
    with pytest.raises(ValueError, match="metrics"):
        bezier(probe, other, metrics={"a": lambda outputs, batch: outputs}, steps=1)  # noqa: ARG005
    with pytest.raises(ValueError, match="does not fit"):
        bezier(probe, nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="diverged"):
        bezier(probe, other, optimizer="sgd", learning_rate=1e6, batch_size=None)
