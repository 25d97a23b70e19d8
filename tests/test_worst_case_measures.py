"""Worst-case and adaptive measures: what leaves them unchanged, and honest statuses."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, Status, measures


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relu_net(dtype=torch.float64, seed=0):
    """A ReLU net and batches on which it is neither right nor wrong throughout."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    draws = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=draws))
    batch = torch.randn(24, 4, generator=draws), torch.randint(0, 3, (24,), generator=draws)
    return model.to(dtype), [(batch[0].to(dtype), batch[1])]


def rescaled(model, kind):
    """The same function with other weights: whole layers or single hidden units rescaled."""
    model = copy.deepcopy(model)
    linears = [module for module in model if isinstance(module, nn.Linear)]
    draws = generator(9)
    with torch.no_grad():
        for before, after in itertools.pairwise(linears):
            size = 1 if kind == "layer" else before.out_features
            factor = torch.exp2(torch.randint(-2, 3, (size,), generator=draws)).to(before.weight)
            if kind == "layer":
                factor = torch.full((before.out_features,), 3.0).to(before.weight)
            before.weight.mul_(factor[:, None])
            before.bias.mul_(factor)
            after.weight.div_(factor)
    return model


def measured(probe, name, seed=0, **config):
    result = measures.get(name, **config).compute(probe, seed)
    low, high = result.interval
    assert low <= result.value <= high, result.message
    assert np.isfinite(result.stderr)
    return result


# -- invariance -----------------------------------------------------------------------------------

INVARIANT = (
    ("adaptive-sharpness", {"rho": 0.3, "m": 12}),
    ("adaptive-sharpness", {"rho": 0.02, "norm": "linf"}),
    ("adaptive-sharpness", {"rho": 0.3, "m": 12, "one_step": True}),
    ("adaptive-sharpness", {"rho": 0.3, "logit_normalisation": True}),
    ("adaptive-average-sharpness", {"rho": 0.1}),
    ("adaptive-average-sharpness", {"rho": 0.1, "norm": "linf"}),
    ("fisher-rao-norm", {}),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["layer", "neuron"])
@pytest.mark.parametrize(("name", "config"), INVARIANT)
def test_rescaling_does_not_change_what_is_relative(name, config, kind, dtype):
    model, batches = relu_net(dtype)
    other = rescaled(model, kind)
    torch.testing.assert_close(other(batches[0][0]), model(batches[0][0]))
    assert (other[0].weight - model[0].weight).detach().abs().max() > 0.1
    first = measured(Probe(model, "cross_entropy", batches), name, **config)
    second = measured(Probe(other, "cross_entropy", batches), name, **config)
    assert second.value == pytest.approx(first.value, rel=1e-4)
    assert first.value != 0


@pytest.mark.parametrize("kind", ["layer", "neuron"])
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("max-sharpness", {"rho": 0.1}),
        ("max-sharpness", {"rho": 0.01, "norm": "linf"}),
        ("average-sharpness", {"rho": 0.1}),
        ("low-pass-sharpness", {"sigma": 0.2}),
        ("adaptive-sharpness", {"rho": 0.3, "eta": 0.1}),
    ],
)
def test_rescaling_changes_what_is_absolute(name, config, kind):
    model, batches = relu_net()
    first = measures.get(name, **config).compute(Probe(model, "cross_entropy", batches))
    other = measures.get(name, **config).compute(
        Probe(rescaled(model, kind), "cross_entropy", batches)
    )
    assert abs(other.value - first.value) > 0.01 * abs(first.value)


@pytest.mark.parametrize("name", ["adaptive-sharpness", "adaptive-average-sharpness"])
def test_normalised_logits_do_not_see_the_scale_of_the_last_layer(name):
    model, batches = relu_net()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in scaled[-1].parameters():
            parameter.mul_(5)
    values = {
        on: [
            measures.get(name, rho=0.1, logit_normalisation=on)
            .compute(Probe(net, "cross_entropy", batches))
            .value
            for net in (model, scaled)
        ]
        for on in (True, False)
    }
    assert values[True][1] == pytest.approx(values[True][0], rel=1e-4)
    assert abs(values[False][1] - values[False][0]) > 0.01 * values[False][0]


def test_normalised_logits_are_the_published_ones():
    model, batches = relu_net()
    probe = Probe(model, "cross_entropy", batches).normalised_logits()
    with torch.no_grad():
        z = model(batches[0][0]).numpy()
    z = z - z.mean(1, keepdims=True)
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-10)
    labels = batches[0][1].numpy()
    losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]
    assert float(probe.losses(torch.zeros(1, probe.size))[0]) == pytest.approx(losses.mean())
    assert probe.loss() == pytest.approx(losses.mean())


# -- values by hand -------------------------------------------------------------------------------


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(weights, dtype=torch.float64).clone())

    def forward(self):
        return self.w


def probe_of(function, weights, batches=(0.0,)):
    """A probe on function(w, b), a scalar loss, one batch for each number b."""
    batches = [torch.tensor([batch], dtype=torch.float64) for batch in batches]
    return Probe(Point(weights), lambda model, b: function(model(), b[0])[None], batches)


def test_keskar_is_its_formula_for_a_linear_loss():
    """Max over |z_i| <= rho (|w_i| + 1) of g z is rho sum |g_i| (|w_i| + 1)."""
    w, g = np.array([0.0, -2.0, 0.5]), np.array([1.0, -3.0, 0.25])
    slope = torch.tensor(g)
    probe = probe_of(lambda w, _: 2 + w @ slope, w)
    for rho in (1e-3, 5e-4, 0.3):
        expected = 100 * rho * (np.abs(g) * (np.abs(w) + 1)).sum() / (1 + 2 + w @ g)
        assert measured(probe, "keskar-sharpness", rho=rho).value == pytest.approx(expected)
    result = measured(probe, "keskar-sharpness", rho=1e-3, scan=(0.3,))
    assert result.diagnostics["scan"]["quantity"] == "percent"
    assert result.diagnostics["scan"]["points"][1]["value"] == pytest.approx(expected)


def test_the_value_is_the_mean_over_the_parts():
    """Linear losses b * w of separate batches: each part has its own worst case rho |b|."""
    b = (1.0, -2.0, 3.0, 0.5)
    probe = probe_of(lambda w, b: b * w[0], [1.0], b)
    result = measured(probe, "max-sharpness", rho=0.1, m=1)
    assert result.value == pytest.approx(0.1 * np.mean(np.abs(b)))
    assert result.stderr == pytest.approx(0.1 * np.std(np.abs(b), ddof=1) / 2)
    whole = measured(probe, "max-sharpness", rho=0.1, m=None)
    assert whole.value == pytest.approx(0.1 * abs(np.mean(b)))
    assert whole.stderr == 0
    few = measured(probe, "max-sharpness", rho=0.1, m=1, points=2)
    assert few.value == pytest.approx(0.15)
    pairs = measured(probe, "max-sharpness", rho=0.1, m=2)
    assert pairs.value == pytest.approx(0.1 * (0.5 + 1.75) / 2)


@pytest.mark.parametrize("name", ["max-sharpness", "min-sharpness", "bilateral-sharpness"])
def test_one_step_is_one_step_along_the_gradient(name):
    model, batches = relu_net()
    probe = Probe(model, "cross_entropy", batches)
    x, y = batches[0]
    loss = functional.cross_entropy(model(x), y)
    g = torch.cat([p.reshape(-1) for p in torch.autograd.grad(loss, list(model.parameters()))])
    step = 0.2 * g / g.norm()
    base = float(loss.detach())
    rise, fall = probe.loss(step) - base, base - probe.loss(-step)
    assert rise > 0
    assert fall > 0
    expected = {"max-sharpness": rise, "min-sharpness": fall}.get(name, rise + fall)
    found = measured(probe, name, rho=0.2, m=None, one_step=True)
    assert found.value == pytest.approx(expected, rel=1e-10)


def test_the_published_ascent_finds_no_more_than_the_bound():
    model, batches = relu_net()
    probe = Probe(model, "cross_entropy", batches)
    for norm, rho in (("l2", 0.3), ("linf", 0.03)):
        published = measured(
            probe, "adaptive-sharpness", rho=rho, norm=norm, compat="andriushchenko2023"
        )
        own = measured(probe, "adaptive-sharpness", rho=rho, norm=norm)
        assert 0 < published.value <= own.value * 1.02


# -- statuses -------------------------------------------------------------------------------------

WORST = ("max-sharpness", "min-sharpness", "bilateral-sharpness", "keskar-sharpness")
ALL = (*WORST, "adaptive-sharpness")


def told(probe, name, **config):
    """A result that carries either a number with its error, or a reason why not."""
    result = measures.get(name, **config).compute(probe)
    if result.status.measured:
        low, high = result.interval
        assert low <= result.value <= high
        assert np.isfinite([result.value, result.stderr, low, high]).all()
    else:
        assert math.isnan(result.value)
        assert result.message
    return result


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_zero_weights(name, one_step):
    w = np.zeros(4)
    probe = probe_of(lambda w, _: w.square().sum() + w[0], w)
    result = told(probe, name, one_step=one_step)
    if name == "adaptive-sharpness":
        assert result.status is Status.UNDEFINED
        assert "no extent" in result.message
        assert told(probe, name, eta=0.1, one_step=one_step).value > 0
    else:
        assert result.value > 0


def test_one_zero_weight_stays_where_it_is():
    probe = probe_of(lambda w, _: w[0] + w[1] ** 2, [0.0, 1.0])
    result = told(probe, "adaptive-sharpness", rho=0.1)
    assert result.value == pytest.approx(1.1**2 - 1)
    published = told(probe, "adaptive-sharpness", rho=0.1, compat="andriushchenko2023")
    assert published.value == pytest.approx(1.1**2 - 1, rel=1e-4)


@pytest.mark.parametrize("geometry", ["elementwise", "filterwise", "euclidean"])
def test_a_layer_of_zeros(geometry):
    model, batches = relu_net()
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.zero_()
    probe = Probe(model, "cross_entropy", batches)
    for name in ALL:
        assert told(probe, name, geometry=geometry, rho=0.1).value >= 0


@pytest.mark.parametrize("config", [{}, {"one_step": True}, {"compat": "andriushchenko2023"}])
@pytest.mark.parametrize("name", ALL)
def test_a_constant_loss(name, config):
    probe = probe_of(lambda w, _: 2 + 0 * w.sum(), np.ones(3))
    result = told(probe, name, **config)
    assert result.value == 0
    if name != "min-sharpness":
        assert result.status is Status.UNCERTAIN
        assert "constant" in result.message


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_exact_minimum_and_an_exact_maximum(norm):
    for sign in (1, -1):
        probe = probe_of(lambda w, _, sign=sign: sign * w.square().sum(), np.zeros(3))
        rise = told(probe, "max-sharpness", rho=0.1, norm=norm).value
        fall = told(probe, "min-sharpness", rho=0.1, norm=norm).value
        least = 0.01 * (1 - 1e-3)  # of a sphere; the corners of the box lie further out
        assert (rise >= least) == (sign > 0)
        assert (fall >= least) == (sign < 0)
        assert min(rise, fall) == 0


@pytest.mark.parametrize("config", [{}, {"one_step": True}, {"compat": "andriushchenko2023"}])
@pytest.mark.parametrize("kind", ["nan", "inf"])
def test_a_loss_that_is_not_finite_inside_the_ball(kind, config):
    def cliff(w, _):
        if kind == "nan":
            return -(1.05 - w.sum()).sqrt()
        return torch.where(w.sum() > 1.05, math.inf, 1.0) + w.sum()

    probe = probe_of(cliff, [0.5, 0.5])
    for name in ("max-sharpness", "bilateral-sharpness", "adaptive-sharpness"):
        result = told(probe, name, rho=0.5, steps=6, **config)
        assert result.status is Status.UNDEFINED
        assert "not finite" in result.message
        inside = told(probe, name, rho=0.01, steps=6, **config)
        assert inside.value > 0
    scanned = measures.get("max-sharpness", rho=0.01, scan=(0.5,), steps=6, **config).compute(probe)
    assert [p["status"] for p in scanned.diagnostics["scan"]["points"]] == ["ok", "undefined"]


@pytest.mark.parametrize("config", [{}, {"one_step": True}])
def test_a_loss_without_a_lower_end(config):
    """log w falls to minus infinity inside the ball: there is no finite fall."""
    probe = probe_of(lambda w, _: w[0].clamp_min(0).log() + w[1] ** 2, [1.0, 0.1])
    result = told(probe, "min-sharpness", rho=1.5, **config)
    assert result.status is Status.UNDEFINED


def test_keskar_where_one_plus_the_loss_vanishes():
    probe = probe_of(lambda w, _: w[0] - 1, [0.0])
    assert told(probe, "keskar-sharpness").status is Status.UNDEFINED


def test_without_outputs_logits_cannot_be_normalised():
    probe = probe_of(lambda w, _: w.square().sum(), [1.0])
    result = told(probe, "adaptive-sharpness", logit_normalisation=True)
    assert result.status is Status.DECLINED
    assert "outputs" in result.message


def test_stopping_early_is_told():
    """Two gradients do not find the top of a narrow spectrum."""
    scales = torch.linspace(0.9, 1.0, 200, dtype=torch.float64)
    w = 0.01 * torch.randn(200, generator=generator(), dtype=torch.float64)
    probe = probe_of(lambda w, _: (scales * w.square()).sum(), w)
    result = told(probe, "max-sharpness", rho=1.0, steps=2)
    assert result.interval[1] >= result.value
    assert result.status in (Status.NOT_CONVERGED, Status.OK)
    if result.status is Status.NOT_CONVERGED:
        assert "raise steps" in result.message
