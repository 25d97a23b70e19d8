"""Gaps of one step and critical sharpness, against a few lines of PyTorch."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, Status, measures


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net(dtype=torch.float64):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    draws = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draws))
    return model.to(dtype)


def data(count, dtype=torch.float64):
    draws = generator(2)
    x = torch.randn(count, 4, generator=draws)
    return x.to(dtype), torch.randint(0, 3, (count,), generator=draws)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def loss_at(model, w, x, y):
    point, start = {}, 0
    for name, p in model.named_parameters():
        point[name] = w[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return functional.cross_entropy(torch.func.functional_call(model, point, (x,)), y)


def gradient_at(model, x, y):
    w = flat(model).requires_grad_()
    return torch.autograd.grad(loss_at(model, w, x, y), w)[0]


def changes(model, parts, steps):
    w = flat(model)
    with torch.no_grad():
        return np.array(
            [
                float(loss_at(model, w + step, *part) - loss_at(model, w, *part))
                for part, step in zip(parts, steps, strict=True)
            ]
        )


def measured(probe, name, seed=0, **config):
    result = measures.get(name, **config).compute(probe, seed)
    low, high = result.interval
    assert low <= result.value <= high, result.message
    assert np.isfinite(result.stderr)
    return result


@pytest.fixture(scope="module")
def setting():
    """A net, forty examples in batches of unlike sizes, and the parts of ten that they make."""
    model, (x, y) = net(), data(43)
    momentum = torch.randn(len(flat(model)), generator=generator(3), dtype=torch.float64)
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    probe = Probe(model, "cross_entropy", batches, momentum=momentum)
    return probe, model, [(x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)], (x, y)


def check(result, expected):
    assert result.value == pytest.approx(expected.mean(), rel=1e-7)
    if len(expected) > 1:
        error = expected.std(ddof=1) / math.sqrt(len(expected))
        assert result.stderr == pytest.approx(error, rel=1e-6)
        assert result.diagnostics["parts"] == len(expected)


# -- transcriptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.01, 0.05, 2.0])
def test_sam_gap(setting, rho):
    probe, model, parts, _ = setting
    slopes = [gradient_at(model, *part) for part in parts]
    expected = changes(model, parts, [rho * g / g.norm() for g in slopes])
    check(measured(probe, "sam-gap", rho=rho, m=10), expected)


def test_sam_gap_in_other_geometries(setting):
    probe, model, parts, _ = setting
    w = flat(model)
    slopes = [gradient_at(model, *part) for part in parts]
    asam = changes(model, parts, [0.1 * w**2 * g / (w.abs() * g).norm() for g in slopes])
    check(measured(probe, "sam-gap", rho=0.1, m=10, geometry="elementwise"), asam)
    signs = changes(model, parts, [0.1 * w.abs() * g.sign() for g in slopes])
    config = {"geometry": "elementwise", "norm": "linf"}
    check(measured(probe, "sam-gap", rho=0.1, m=10, **config), signs)
    c = w.abs() + 0.2
    eta = changes(model, parts, [0.1 * c**2 * g / (c * g).norm() for g in slopes])
    check(measured(probe, "sam-gap", rho=0.1, m=10, geometry="elementwise", eta=0.2), eta)


def test_sam_gap_to_second_order(setting):
    """rho ||g|| + rho^2 g'Hg / (2 ||g||^2) for a small step on all the data."""
    probe = setting[0]
    g, rho = probe.gradient(), 1e-3
    curvature = float(g @ probe.hvp(g) / (g @ g))
    found = measured(probe, "sam-gap", rho=rho, m=None, points=None).value
    assert found == pytest.approx(rho * float(g.norm()) + rho**2 / 2 * curvature, rel=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.0])
def test_friendly_gap(setting, sigma):
    probe, model, parts, everything = setting
    whole = gradient_at(model, *everything)
    directions = [gradient_at(model, *part) - sigma * whole for part in parts]
    expected = changes(model, parts, [0.1 * d / d.norm() for d in directions])
    check(measured(probe, "friendly-gap", rho=0.1, m=10, sigma=sigma), expected)


def test_momentum_gap(setting):
    probe, model, parts, _ = setting
    step = -0.1 * probe.momentum / probe.momentum.norm()
    expected = changes(model, parts, [step] * 4)
    check(measured(probe, "momentum-gap", rho=0.1, m=10), expected)


def test_momentum_by_name_and_of_a_part(setting):
    probe, model, _, (x, y) = setting
    named = probe.space.split(probe.momentum)
    other = Probe(model, "cross_entropy", [(x, y)], momentum=named)
    assert torch.equal(other.momentum, probe.momentum)
    layer = other.restrict("2.*")
    assert torch.equal(layer.momentum, probe.momentum[40:])
    with pytest.raises(ValueError, match="of every trainable parameter"):
        Probe(model, "cross_entropy", [(x, y)], momentum={"0.weight": named["0.weight"]})
    with pytest.raises(ValueError, match="momentum must have shape"):
        Probe(model, "cross_entropy", [(x, y)], momentum=torch.zeros(3))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_sparse_gap(setting, fraction):
    probe, model, parts, (x, y) = setting
    singles = [gradient_at(model, x[i : i + 1], y[i : i + 1]) for i in range(43)]
    fisher = torch.stack(singles).square().mean(0)
    count = round(fraction * len(fisher))
    mask = fisher >= fisher.sort(descending=True).values[count - 1]
    assert int(mask.sum()) == count
    steps = [mask * gradient_at(model, *part) for part in parts]
    expected = changes(model, parts, [0.1 * step / step.norm() for step in steps])
    check(measured(probe, "sparse-gap", rho=0.1, m=10, fraction=fraction), expected)


def test_the_whole_mask_is_the_sam_gap(setting):
    sparse = measured(setting[0], "sparse-gap", rho=0.1, m=10, fraction=1.0)
    assert sparse.value == pytest.approx(measured(setting[0], "sam-gap", rho=0.1, m=10).value)


def test_micro_batch_gap(setting):
    probe, model, _, (x, y) = setting
    parts = [(x[i : i + 16], y[i : i + 16]) for i in (0, 16)]
    slopes = [gradient_at(model, *part) for part in parts]
    expected = changes(model, parts, [0.05 * g / g.norm() for g in slopes])
    check(measured(probe, "micro-batch-gap"), expected)
    sizes = [measured(probe, "micro-batch-gap", m=m).value for m in (1, 4, 16, 43)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    "name", ["sam-gap", "friendly-gap", "momentum-gap", "sparse-gap", "micro-batch-gap"]
)
def test_a_scan_is_the_same_as_one_by_one(setting, name):
    probe = setting[0]
    scanned = measured(probe, name, rho=(0.1, 0.01, 0.5), m=10)
    points = scanned.diagnostics["scan"]["points"]
    assert [point["at"] for point in points] == [0.01, 0.1, 0.5]
    assert points[1]["value"] == scanned.value
    for point in points:
        assert point["value"] == pytest.approx(measured(probe, name, rho=point["at"], m=10).value)


# -- critical sharpness ---------------------------------------------------------------------------


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(weights.clone())

    def forward(self):
        return self.w


def probe_of(function, weights, **settings):
    return Probe(
        Point(weights),
        lambda model, batch: function(model())[None] + 0 * batch.sum(),
        [torch.zeros(1, dtype=weights.dtype)],
        **settings,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_critical_sharpness_of_a_quadratic(symmetric, dtype, seed, size):
    values = size * np.random.default_rng(seed).uniform(0.1, 5, 15)
    matrix = symmetric(values, seed, dtype)
    w = torch.randn(15, generator=generator(seed), dtype=torch.float64).to(dtype)
    probe = probe_of(lambda w: 0.5 * w @ matrix @ w, w)
    g = matrix @ w
    truth = float(g @ matrix @ g / (g @ g))
    result = measured(probe, "critical-sharpness")
    assert result.value == pytest.approx(truth, rel=0.01)
    assert result.interval[0] * (1 - 1e-5) <= truth <= result.interval[1] * (1 + 1e-5)
    assert result.value < values.max() * 1.01
    fine = measured(probe, "critical-sharpness", tolerance=1e-3)
    assert fine.value == pytest.approx(truth, rel=1e-3)


def test_critical_sharpness_along_the_top_eigenvector():
    matrix = torch.diag(torch.tensor([1.0, 7.0, 2.0], dtype=torch.float64))
    probe = probe_of(lambda w: 0.5 * w @ matrix @ w, torch.tensor([0.0, 1.0, 0.0]).double())
    assert measured(probe, "critical-sharpness").value == pytest.approx(7, rel=0.01)


def test_critical_sharpness_along_the_momentum(symmetric):
    matrix = symmetric(np.linspace(0.5, 4, 10))
    w = torch.randn(10, generator=generator(), dtype=torch.float64)
    v = matrix @ w + 0.3 * torch.randn(10, generator=generator(1), dtype=torch.float64)
    probe = probe_of(lambda w: 0.5 * w @ matrix @ w, w, momentum=v)
    truth = float(v @ matrix @ v / (v @ matrix @ w))
    found = measured(probe, "critical-sharpness", direction="momentum").value
    assert found == pytest.approx(truth, rel=0.01)


def told(probe, name, **config):
    result = measures.get(name, **config).compute(probe)
    if result.status.measured:
        low, high = result.interval
        assert np.isfinite([result.value, result.stderr, low, high]).all()
        assert low <= result.value <= high
    else:
        assert math.isnan(result.value)
        assert result.message
    return result


def test_a_momentum_that_leads_uphill_has_no_critical_step():
    """Every step along it raises the loss, down to those that rounding hides."""
    w = torch.ones(4, dtype=torch.float64)
    probe = probe_of(lambda w: w.square().sum(), w, momentum=-w)
    result = told(probe, "critical-sharpness", direction="momentum")
    assert result.status is Status.UNDEFINED


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda w: w.sum(), "never crosses"),
        (lambda w: -w.square().sum(), "never crosses"),
        (lambda w: 0 * w.sum() + 1, "is zero"),
        (lambda w: (w - 1).square().sum(), "is zero"),
    ],
)
def test_no_critical_step(function, words):
    result = told(probe_of(function, torch.ones(3, dtype=torch.float64)), "critical-sharpness")
    assert result.status is Status.UNDEFINED
    assert words in result.message


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_a_wall_counts_as_higher(beyond):
    """L = w down to w = 0, not finite below: the step from w = 1 is 1."""

    def wall(w):
        return torch.where(w[0] < 0, beyond, w[0])

    found = measured(probe_of(wall, torch.ones(1, dtype=torch.float64)), "critical-sharpness")
    assert found.value == pytest.approx(2, rel=0.01)


# -- statuses -------------------------------------------------------------------------------------

GAPS = ("sam-gap", "friendly-gap", "momentum-gap", "sparse-gap", "micro-batch-gap")


def test_without_momentum():
    probe = Probe(net(), "cross_entropy", [data(20)])
    for name, config in (("momentum-gap", {}), ("critical-sharpness", {"direction": "momentum"})):
        result = told(probe, name, **config)
        assert result.status is Status.DECLINED
        assert "momentum" in result.message


@pytest.mark.parametrize("name", GAPS)
def test_no_direction_to_step_in(name):
    """A constant loss; for the momentum a buffer of zeros."""
    model, (x, y) = net(), data(20)

    def loss(model, batch):
        return 0 * model(batch[0]).sum(1) + 1

    probe = Probe(model, loss, [(x, y)], momentum=torch.zeros(len(flat(model))))
    result = told(probe, name, m=5)
    assert result.status is Status.UNDEFINED
    assert "no direction" in result.message


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_like_the_whole_leave_nothing_friendly(count):
    """What remains of equal gradients is rounding, no direction of a batch's own."""
    x, y = data(20, torch.float32)
    probe = Probe(net(torch.float32), "cross_entropy", [(x, y)] * count)
    result = told(probe, "friendly-gap", m=20, points=None)
    assert result.status is Status.UNDEFINED
    assert "nothing is left" in result.message


@pytest.mark.parametrize("name", GAPS)
@pytest.mark.parametrize("geometry", ["elementwise", "filterwise"])
def test_zero_weights(name, geometry):
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    probe = Probe(model, "cross_entropy", [data(20)], momentum=torch.ones(len(flat(model))))
    result = told(probe, name, geometry=geometry, m=5)
    assert result.status is Status.UNDEFINED
    assert "no extent" in result.message


@pytest.mark.parametrize("name", GAPS)
def test_one_part_only(name):
    probe = Probe(net(), "cross_entropy", [data(20)], momentum=torch.ones(len(flat(net()))))
    result = told(probe, name, m=None)
    assert result.status in (Status.OK, Status.UNDEFINED)
    assert result.status is Status.OK or name == "friendly-gap"
    if result.status is Status.OK:
        assert result.stderr == 0


@pytest.mark.parametrize("name", ["sam-gap", "momentum-gap", "micro-batch-gap"])
def test_a_step_into_nothing(name):
    w = torch.full((2,), 0.5, dtype=torch.float64)
    probe = probe_of(lambda w: -(1.05 - w.sum()).sqrt(), w, momentum=-w)
    result = told(probe, name, rho=1.0, scan=(0.01,))
    assert result.status is Status.UNDEFINED
    assert "not finite" in result.message
    assert result.diagnostics["scan"]["points"][0]["status"] == "ok"


@pytest.mark.parametrize("name", ["sam-gap", "friendly-gap", "momentum-gap", "micro-batch-gap"])
def test_batches_that_cannot_be_cut_are_the_parts(name):
    model = net()

    def loss(model, batch):
        losses = functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        return losses.sum(), 7

    x, y = data(20)
    batches = [{"x": x[:7], "y": y[:7], "z": torch.zeros(2)} for _ in range(2)]
    batches += [{"x": x[7:14], "y": y[7:14], "z": torch.zeros(2)}]
    probe = Probe(model, loss, batches, momentum=torch.ones(len(flat(model))))
    assert told(probe, name).diagnostics["parts"] == 3


def test_wrong_settings_are_refused():
    for name, config, message in (
        ("sparse-gap", {"fraction": 0.0}, "fraction must lie in"),
        ("friendly-gap", {"sigma": math.nan}, "sigma must be finite"),
        ("sam-gap", {"rho": -1.0}, "rho must be a positive"),
        ("critical-sharpness", {"direction": "adam"}, "direction must be one of"),
        ("critical-sharpness", {"tolerance": 0.0}, "tolerance must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            measures.get(name, **config)
