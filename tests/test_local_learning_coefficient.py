"""The local learning coefficient where it is known: regular, degenerate, and with coarse steps."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from landscape import Probe, Status
from landscape.evidence.langevin import LangevinRequest, _Potential, _Run, tempered
from landscape.linalg.chains import ChainMean
from landscape.measures.local_learning_coefficient import LocalLearningCoefficient

VALUES = np.linspace(0.2, 4.0, 8)
TERMS = 400


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, size, at=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.full((size,), at, dtype=torch.float64))

    def forward(self):
        return self.w


def probe_of(function, size, at=0.0, terms=TERMS):
    """The same loss at every term."""
    return Probe(
        Point(size, at),
        lambda model, batch: function(model()) + 0 * batch,
        [torch.zeros(terms, dtype=torch.float64)],
        products="batched",
    )


@pytest.fixture(scope="module")
def bowl(symmetric):
    hessian = symmetric(VALUES)
    return probe_of(lambda w: 3 + 0.5 * w @ hessian @ w, len(VALUES))


def measured(probe, seed=0, **config):
    config = {"chains": 32, "draws": 120, **config}
    return LocalLearningCoefficient(**config).compute(probe, seed)


exact = partial(measured, adjusted=True)


def regular(nbeta, gamma, step=0.0):
    """On a quadratic, with steps of all the data: variances 1 / (a (1 - step a / 4))."""
    forces = nbeta * VALUES + gamma
    return 0.5 * np.sum(nbeta * VALUES / (forces * (1 - step * forces / 4)))


# -- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 1.0, 100.0])
def test_a_regular_minimum(bowl, gamma):
    result = exact(bowl, localisation=gamma, draws=200)
    truth = regular(tempered(TERMS), gamma)
    assert result.value == pytest.approx(truth, rel=0.05)
    assert abs(result.value - truth) < 4 * result.stderr
    # Where the localisation takes away much of P / 2, it is told.
    decided = truth < 0.85 * len(VALUES) / 2
    assert result.status is (Status.UNCERTAIN if decided else Status.OK)
    if gamma == 0:
        assert truth == len(VALUES) / 2
    told = result.diagnostics
    assert told["rhat"] < 1.1
    assert 0.7 < told["acceptance"] < 0.9  # as tuned
    assert told["step_bias"] == 0


def test_errors_and_intervals_are_honest(bowl):
    found = [exact(bowl, seed, chains=16, draws=40, localisation=1.0) for seed in range(16)]
    values = np.array([result.value for result in found])
    truth = regular(tempered(TERMS), 1.0)
    spread = values.std(ddof=1)
    assert abs(values.mean() - truth) < 4 * spread / math.sqrt(len(values))
    told = math.sqrt(np.mean([result.stderr**2 for result in found]))
    assert 0.6 * spread < told < 1.7 * spread
    assert np.mean([r.interval[0] <= truth <= r.interval[1] for r in found]) >= 0.85


def test_the_bias_of_the_step_is_known(bowl):
    nbeta = tempered(TERMS)
    step = 1.5 / (nbeta * VALUES.max())
    result = measured(bowl, localisation=1.0, step=step, draws=200, burn_in=60)
    assert result.diagnostics["step"] == step
    coarse, truth = regular(nbeta, 1.0, step), regular(nbeta, 1.0)
    assert coarse > 1.15 * truth  # something to see
    assert result.value == pytest.approx(coarse, abs=4 * result.stderr)
    assert result.diagnostics["step_bias"] == pytest.approx(coarse - truth, rel=0.1)
    assert result.interval[0] < truth < result.interval[1]


def test_a_tuned_plain_chain(bowl):
    result = measured(bowl, localisation=1.0)
    truth = regular(tempered(TERMS), 1.0)
    assert result.value == pytest.approx(truth, rel=0.1)
    assert result.interval[0] < truth < result.interval[1]
    assert 0.8 < result.diagnostics["acceptance"] < 0.97


@pytest.mark.parametrize("sizes", [[50] * 8, [100, 20, 60, 20]])
def test_parts_that_differ(sizes):
    """L_B = w'Hw/2 - c_B'w: noise of the gradient adds to the variance, and is told as bias."""
    curved = torch.tensor(VALUES)
    source = torch.Generator().manual_seed(1)
    pulls = 0.3 * torch.randn(len(sizes), len(VALUES), generator=source, dtype=torch.float64)
    shares = torch.tensor(sizes, dtype=torch.float64) / np.mean(sizes)
    pulls -= (shares[:, None] * pulls).mean(0)  # so that the mean is least at 0
    # Tensors of two lengths: batches that cannot be cut are parts as they are.
    batches = [(pull, torch.zeros(size)) for pull, size in zip(pulls, sizes, strict=True)]

    def loss(model, batch):
        w = model()
        return 0.5 * (curved * w * w).sum() - batch[0] @ w + 0 * batch[1].double()

    probe = Probe(Point(len(VALUES)), loss, batches, products="batched")
    nbeta, step = 50.0, 2e-3
    settings = {"nbeta": nbeta, "localisation": 1.0, "step": step, "chains": 16, "burn_in": 60}
    found = [measured(probe, seed, **settings) for seed in range(4)]
    # Var' = (1 - step a/2)^2 Var + step + (step nbeta/2)^2 (E(s-1)^2 lambda^2 Var + E s^2 c^2).
    forces = nbeta * VALUES + 1.0
    uneven = float(((shares - 1) ** 2).mean())
    noise = ((shares[:, None] * pulls) ** 2).mean(0).numpy()
    kick = (step * nbeta / 2) ** 2
    loss_of = 1 - (1 - step * forces / 2) ** 2 - kick * uneven * VALUES**2
    coarse = nbeta / 2 * np.sum(VALUES * (step + kick * noise) / loss_of)
    truth = regular(nbeta, 1.0)
    assert coarse > 1.15 * truth
    value = np.mean([result.value for result in found])
    error = math.sqrt(np.mean([result.stderr**2 for result in found]) / 4)
    assert value == pytest.approx(coarse, abs=3.5 * error)
    for result in found:
        assert not result.diagnostics["cut_as_asked"]
        assert result.diagnostics["step_bias"] == pytest.approx(coarse - truth, rel=0.15)
    assert np.mean([result.interval[0] < truth for result in found]) >= 0.75


def test_the_loss_on_the_part_of_a_step_has_little_variance():
    """Differences on one part: nothing of what parts differ by at the checkpoint."""
    levels = torch.arange(10, dtype=torch.float64) * 100

    def loss(model, batch):
        return 0.5 * model().square().sum() + batch

    probe = Probe(Point(4), loss, [levels], products="batched")
    result = measured(probe, batch=1, nbeta=50.0, localisation=0.0, draws=100)
    assert result.value == pytest.approx(2.0, rel=0.15)
    assert result.diagnostics["terms_per_part"] == 1


# -- degenerate minima ----------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [20, 4000])
def test_a_quartic_minimum_has_a_quarter(terms):
    """exp(-nbeta x^4) has E[nbeta x^4] = 1/4 at every nbeta."""
    result = exact(probe_of(lambda w: w[0] ** 4, 1, terms=terms), localisation=0.0, draws=300)
    assert result.diagnostics["nbeta"] == pytest.approx(terms / math.log(terms))
    assert result.value == pytest.approx(0.25, rel=0.1)
    assert abs(result.value - 0.25) < 4 * result.stderr


def crossing(nbeta, gamma):
    """E[nbeta x^2 y^2] of exp(-nbeta x^2 y^2 - gamma/2 (x^2 + y^2)), y integrated out by hand."""

    def narrow(x):
        return nbeta * x * x + gamma / 2

    def weight(x):
        return math.exp(-gamma / 2 * x * x) / math.sqrt(narrow(x))

    ends = {"a": 0.0, "b": 12 / math.sqrt(gamma), "limit": 500}
    breaks = {"points": [10.0**-k for k in range(8)]}
    total = integrate.quad(weight, **ends, **breaks)[0]
    part = integrate.quad(lambda x: weight(x) * nbeta * x * x / (2 * narrow(x)), **ends, **breaks)
    return part[0] / total


def correction(nbeta, gamma):
    """(m - 1) / log(nbeta) with its constant, at multiplicity m = 2."""
    return 1 / (math.log(nbeta / gamma**2) + 4 * math.log(2) - np.euler_gamma)


def test_two_crossing_valleys_have_a_half():
    """lambda = 1/2 with multiplicity 2: from below, by 1 / (log nbeta + constant)."""
    for nbeta in (1e3, 1e6):
        assert crossing(nbeta, 1.0) + correction(nbeta, 1.0) == pytest.approx(0.5, rel=2e-3)
    assert crossing(1e3, 2.0) == pytest.approx(crossing(250.0, 1.0))  # nbeta / gamma^2 alone
    probe = probe_of(lambda w: (w[0] * w[1]) ** 2, 2)
    result = exact(probe, nbeta=50.0, localisation=1.0, draws=400)
    assert result.value == pytest.approx(crossing(50.0, 1.0), rel=0.1)
    assert abs(result.value - crossing(50.0, 1.0)) < 4 * result.stderr
    assert result.value + correction(50.0, 1.0) == pytest.approx(0.5, rel=0.1)


# -- one step -------------------------------------------------------------------------------------


def test_chances_are_those_of_metropolis_and_hastings():
    probe = probe_of(lambda w: (w**2).sum() + torch.sin(3 * w).sum(), 3, at=0.2)
    nbeta, gamma, step = 7.0, 2.0, 0.03
    parts = probe.parts(None)
    base, shares = parts.base_losses(), torch.ones(1, dtype=torch.float64)
    potential = _Potential(parts, base, shares, nbeta, gamma)
    run = _Run(LangevinRequest(chains=5), probe, potential)
    source = torch.Generator().manual_seed(0)
    x, y = 0.4 * torch.randn(2, 5, 3, generator=source, dtype=torch.float64)
    which = [0] * 5
    found = run._chances(potential.at(x, which), potential.at(y, which), step)

    def energy(v):
        return nbeta * probe.losses(v) + gamma / 2 * v.square().sum(1)

    def log_move(start, end):
        slopes = torch.stack([probe.gradient(v) for v in start])
        mean = start - step / 2 * (nbeta * slopes + gamma * start)
        return -(end - mean).square().sum(1) / (2 * step)

    ratio = energy(x) - energy(y) + log_move(y, x) - log_move(x, y)
    assert found.numpy() == pytest.approx(np.minimum(1, np.exp(ratio.numpy())))
    assert 0 < float(found.min()) < 0.9


# -- settings and statuses ------------------------------------------------------------------------


def test_temperatures_are_told(bowl):
    few = partial(measured, bowl, draws=4, chains=2)
    whole, part, given = few(), few(temperature="batch", batch=50), few(nbeta=7.0)
    assert whole.diagnostics["nbeta"] == pytest.approx(400 / math.log(400))
    assert part.diagnostics["nbeta"] == pytest.approx(50 / math.log(50))
    assert given.diagnostics["nbeta"] == 7.0
    kinds = [result.diagnostics["temperature"] for result in (whole, part, given)]
    assert kinds == ["dataset", "batch", "given"]
    # Exact chains take all the data; B is that of the parts asked for.
    adjusted = few(temperature="batch", batch=50, adjusted=True)
    assert adjusted.diagnostics["nbeta"] == part.diagnostics["nbeta"]
    assert adjusted.diagnostics["terms_per_part"] == 400
    assert few(points=30).diagnostics["terms_used"] == 30
    assert tempered(1) == 1.0


def test_the_seed_repeats_every_bit(bowl):
    one, two, other = (measured(bowl, seed, draws=20) for seed in (1, 1, 2))
    again = measured(probe_like(bowl), 1, draws=20)
    assert one.value == two.value == again.value
    assert one.diagnostics == again.diagnostics
    assert one.value != other.value


def probe_like(probe):
    """The same probe without its evidence."""
    fresh = copy.copy(probe)
    fresh._evidence = {}
    return fresh


def test_cost_is_one_gradient_a_draw_and_two_while_tuning(bowl):
    cost = measured(probe_like(bowl), chains=2, draws=20, burn_in=0, step=1e-3, batch=None).cost
    assert cost.gradients == 2 * (20 + 2)  # every tenth is checked
    tuned = measured(probe_like(bowl), chains=2, draws=20, burn_in=10, batch=None).cost
    assert 2 * (20 + 2 + 10 + 5) < tuned.gradients <= 2 * (20 + 2 + 10 + 5 + 12)


def test_a_checkpoint_off_its_minimum_is_told():
    # The posterior's mean lies at gamma / (nbeta + gamma) of the way back.
    result = exact(probe_of(lambda w: 0.5 * w.square().sum(), 2, at=1.0), nbeta=100.0)
    truth = 100 * (2 / 200 + 0.25 - 1)
    assert result.status is Status.UNCERTAIN
    assert "not a minimum" in result.message
    assert result.value == pytest.approx(truth, rel=0.05)
    assert result.diagnostics["negative_share"] > 0.99


def test_a_step_that_diverges_is_told(bowl):
    result = measured(bowl, step=10.0, burn_in=0)
    assert result.status is Status.UNDEFINED
    assert "at draw" in result.message
    assert "reduce step" in result.message
    early = measured(bowl, step=10.0)
    assert early.status is Status.UNDEFINED
    assert "the burn-in" in early.message


def test_chains_that_have_not_settled_are_told(bowl):
    crawling = measured(bowl, step=1e-6, localisation=0.0, chains=4, burn_in=0)
    assert crawling.status is Status.NOT_CONVERGED
    assert "R-hat" in crawling.message
    short = measured(bowl, draws=3)
    assert short.status is Status.NOT_CONVERGED
    assert short.diagnostics["rhat"] is None
    stuck = exact(bowl, step=10.0, draws=20)
    assert stuck.status is Status.NOT_CONVERGED
    assert "are accepted; reduce step" in stuck.message
    # A thousand directions that the loss hardly sees: its draws agree, but not yet the distances.
    wide = probe_of(lambda w: 10 * w[0] ** 2 + 1e-6 * w.square().sum(), 1000)
    spreading = measured(wide, localisation=0.1, step=2e-3, chains=4, draws=400, burn_in=50)
    assert spreading.status is Status.NOT_CONVERGED
    assert "still spread" in spreading.message
    assert spreading.diagnostics["rhat"] < 1.1 < spreading.diagnostics["rhat_distance"]
    # Enough draws to agree, too few for an error.
    few = ChainMean(value=1.0, stderr=0.01, effective=15.0, rhat=1.0)
    drawn = bowl.evidence(LangevinRequest(chains=32, draws=120, burn_in=120))
    status, message = LocalLearningCoefficient(chains=2)._judged(few, drawn, (0.9, 1.1))
    assert status is Status.NOT_CONVERGED
    assert "worth 15" in message


def test_coarse_steps_are_told(bowl):
    step = 3.7 / (tempered(TERMS) * VALUES.max())
    result = measured(bowl, localisation=0.0, step=step, draws=150)
    assert result.status is Status.UNCERTAIN
    assert "coarse" in result.message
    assert result.diagnostics["step_bias"] > 0.3 * regular(tempered(TERMS), 0.0)


def test_permuting_hidden_units_is_only_noise():
    source = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    x = torch.randn(60, 2, generator=source, dtype=torch.float64)
    y = model(x).detach()
    permuted, order = copy.deepcopy(model), torch.tensor([4, 2, 0, 3, 1])
    with torch.no_grad():
        permuted[0].weight.copy_(model[0].weight[order])
        permuted[0].bias.copy_(model[0].bias[order])
        permuted[2].weight.copy_(model[2].weight[:, order])
    one, two = (
        measured(Probe(net, "mse", [(x, y)], products="batched"), batch=20, chains=16)
        for net in (model, permuted)
    )
    assert one.value != two.value
    assert one.status.measured
    assert abs(one.value - two.value) < 4 * math.hypot(one.stderr, two.stderr)
    assert 0 < one.value < 21 / 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"chains": 1}, "at least 2 chains"),
        ({"draws": 0}, "draws must be"),
        ({"burn_in": -1}, "burn_in"),
        ({"step": 0.0}, "step must be positive"),
        ({"nbeta": math.inf}, "nbeta must be positive"),
        ({"localisation": -1.0}, "localisation must be"),
        ({"temperature": "cold"}, "temperature must be one of"),
        ({"batch": 0}, "batch must be"),
        ({"points": -3}, "points must be"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        LocalLearningCoefficient(**wrong)


class Power(nn.Module):
    """c/2 |w|^p per entry, at its minimum."""

    def __init__(self, curvatures, power=2):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(len(curvatures), dtype=torch.float64))
        self.register_buffer("curvatures", torch.tensor(curvatures, dtype=torch.float64))
        self.power = power

    def forward(self, x):
        return (self.curvatures * self.w**self.power).sum() / 2 + 0 * x


@pytest.mark.parametrize(
    ("curvatures", "power", "coefficient"), [([0.4] * 4, 2, 2), ([3.0], 2, 0.5), ([2.0], 4, 0.25)]
)
def test_a_localisation_that_decides_the_value_is_told(curvatures, power, coefficient):
    batch = (torch.zeros(400, dtype=torch.float64),)
    probe = Probe(Power(curvatures, power), lambda net, b: net(b[0]), [batch])

    def measured(localisation):
        settings = {"localisation": localisation, "batch": None, "draws": 400}
        return LocalLearningCoefficient(**settings).compute(probe)

    strong = measured(100.0)
    assert strong.status.value == "uncertain"
    assert "The localisation decides the value" in strong.message
    assert strong.value < 0.8 * coefficient
    proposed = strong.diagnostics["localisation_proposed"]
    assert f"localisation={proposed:.2g}" in strong.message
    weak = measured(max(proposed, 1.0))
    assert weak.status.value == "ok"
    assert weak.value == pytest.approx(coefficient, rel=0.25)
