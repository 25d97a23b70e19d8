"""Norms, margins and paths against NumPy, loops over paths, and their invariances."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from landscape import Probe, Status
from landscape.evidence.margins import MarginsRequest
from landscape.geometry import TRANSFORMATIONS
from landscape.measures.inverse_margin import InverseMargin
from landscape.measures.norm_distances import (
    FrobeniusDistance,
    ParameterDistance,
    SpectralDistance,
)
from landscape.measures.norm_products import (
    LogFrobeniusProduct,
    LogFrobeniusSum,
    LogSpectralProduct,
    LogSpectralSum,
)
from landscape.measures.norm_ratios import FrobeniusOverSpectral, SpectralInitial, SpectralOrigin
from landscape.measures.pac_bayes_bound import PacBayesInitial, PacBayesOrigin
from landscape.measures.parameter_count import ParameterCount
from landscape.measures.path_norm import PathNorm
from landscape.probing import BinaryCrossEntropy, CrossEntropy

KINDS = (
    LogSpectralProduct,
    LogFrobeniusProduct,
    LogSpectralSum,
    LogFrobeniusSum,
    FrobeniusOverSpectral,
    SpectralOrigin,
    SpectralInitial,
    FrobeniusDistance,
    SpectralDistance,
    ParameterDistance,
    InverseMargin,
    PathNorm,
    ParameterCount,
)
EXACT = [kind(**variant) for kind in KINDS for variant in kind.variants]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def seeded(model, seed=0):
    draws = source(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(0.3 + torch.rand(buffer.shape, generator=draws))
    return model.double().eval()


def shifted(model):
    """Other weights, to have been the initial ones."""
    draws = source(9)
    return {
        name: p.detach() + 0.3 * torch.randn(p.shape, generator=draws, dtype=p.dtype)
        for name, p in model.named_parameters()
    }


def inputs_of(*shape, count=20):
    return torch.randn(count, *shape, generator=source(1), dtype=torch.float64)


def right(model, inputs, *, initial=None, objective="cross_entropy"):
    """A probe whose labels are what the model says: all margins are positive."""
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    given = shifted(model) if initial is None else initial
    batches = [(inputs[:12], labels[:12]), (inputs[12:], labels[12:])]
    return Probe(model, objective, batches, initial=given, products="loop")


def mlp():
    layers = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    return seeded(nn.Sequential(*layers))


def value(measure, probe):
    result = measure.compute(probe)
    assert result.status is Status.OK, result.message
    assert result.stderr == 0
    assert result.interval == (result.value, result.value)
    return result.value


# -- formulas -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    """An MLP's probe, its matrices W and W - W0, and its margin, all by NumPy."""
    model, inputs = mlp(), inputs_of(4)
    probe = right(model, inputs)
    initial = shifted(model)
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    now = [model.get_parameter(name).detach().numpy() for name in names]
    moved = [w - initial[name].numpy() for w, name in zip(now, names, strict=True)]
    outputs = np.sort(model(inputs).detach().numpy(), axis=1)
    margin = np.sort(outputs[:, -1] - outputs[:, -2])[1]  # the second smallest of 20
    return probe, now, moved, margin


def squared(matrices, order):
    return np.array([np.linalg.norm(matrix, order) ** 2 for matrix in matrices])


def test_products_and_sums(net):
    probe, now, _, margin = net
    kinds = {2: (LogSpectralProduct, LogSpectralSum), "fro": (LogFrobeniusProduct, LogFrobeniusSum)}
    for order, (product, mean) in kinds.items():
        norms = squared(now, order)
        for over in (False, True):
            total = np.prod(norms) / (margin**2 if over else 1)
            found = value(product(over_margin=over), probe)
            assert found == pytest.approx(np.log(total), rel=1e-12)
            found = value(mean(over_margin=over), probe)
            assert found == pytest.approx(np.log(3 * total ** (1 / 3)), rel=1e-12)


def test_ratios_and_spectral_bounds(net):
    probe, now, moved, margin = net
    spectral = squared(now, 2)
    ranks, ways = squared(now, "fro") / spectral, squared(moved, "fro") / spectral
    assert value(FrobeniusOverSpectral(), probe) == pytest.approx(ranks.sum(), rel=1e-12)
    for measure, sums in ((SpectralOrigin(), ranks), (SpectralInitial(), ways)):
        expected = np.log(np.prod(spectral) * sums.sum() / margin**2)
        assert value(measure, probe) == pytest.approx(expected, rel=1e-12)


def test_distances(net):
    probe, _, moved, _ = net
    assert value(FrobeniusDistance(), probe) == pytest.approx(squared(moved, "fro").sum())
    assert value(SpectralDistance(), probe) == pytest.approx(squared(moved, 2).sum())
    way = (probe.weights() - probe.initial).numpy()
    assert value(ParameterDistance(), probe) == pytest.approx(np.sqrt((way**2).sum()))
    assert value(ParameterCount(), probe) == 4 * 6 + 6 + 6 * 5 + 5 + 5 * 3 + 3


def test_margin(net):
    probe, _, _, margin = net
    assert value(InverseMargin(), probe) == pytest.approx(margin**-2, rel=1e-12)
    diagnostics = InverseMargin().compute(probe).diagnostics
    assert diagnostics["margin"] == pytest.approx(margin)
    low, high = diagnostics["margin_interval"]
    assert low < diagnostics["margin"] < high
    assert diagnostics["wrong"] == 0


def test_the_adjustment_is_that_of_a_bound(net):
    probe = net[0]
    for measure in EXACT:
        if not hasattr(measure, "adjusted"):
            continue
        plain, other = (
            value(type(measure)(**{**measure.config, "adjusted": adjusted}), probe)
            for adjusted in (False, True)
        )
        if measure.logarithmic:
            assert math.exp(other) == pytest.approx(math.sqrt(math.exp(plain) / 20))
        else:
            assert other == pytest.approx(math.sqrt(plain / 20))


def test_shares_of_the_layers_add_up(net):
    probe = net[0]
    for measure in (LogSpectralProduct(), LogFrobeniusProduct(), FrobeniusOverSpectral()):
        result = measure.compute(probe)
        layers = result.diagnostics["layers"]
        assert list(layers) == ["0.weight", "2.weight", "4.weight"]
        assert sum(layer["value"] for layer in layers.values()) == pytest.approx(result.value)
        assert layers["2.weight"]["size"] == 30


def test_a_restricted_probe_counts_its_own_layers(net):
    probe, now, moved, _ = net
    part = probe.restrict(["0.*", "2.weight"])
    found = value(LogSpectralProduct(), part)
    assert found == pytest.approx(np.log(squared(now[:2], 2)).sum(), rel=1e-12)
    assert value(FrobeniusDistance(), part) == pytest.approx(squared(moved[:2], "fro").sum())


# -- margins --------------------------------------------------------------------------------------


def test_margins_of_tokens_leave_the_ignored_out():
    outputs = torch.randn(3, 4, 5, generator=source(), dtype=torch.float64)
    targets = torch.randint(0, 4, (3, 5), generator=source())
    targets[0, 1] = targets[2, 4] = -100
    expected = []
    for n, t in itertools.product(range(3), range(5)):
        if targets[n, t] >= 0:
            own = int(targets[n, t])
            others = [float(outputs[n, c, t]) for c in range(4) if c != own]
            expected.append(float(outputs[n, own, t]) - max(others))
    found = CrossEntropy().margins(outputs, (None, targets))
    assert found.tolist() == pytest.approx(expected, rel=1e-14)
    assert len(found) == 13


def test_margins_of_binary_labels_are_logits_with_a_sign():
    outputs = torch.tensor([[2.0], [-3.0], [0.5]])
    batch = (None, torch.tensor([1.0, 1.0, 0.0]))
    assert BinaryCrossEntropy().margins(outputs, batch).tolist() == [2.0, -3.0, -0.5]


@pytest.mark.parametrize(("count", "rank"), [(3, 1), (10, 1), (19, 1), (20, 2), (105, 10)])
def test_the_margin_is_the_tenth_percentile(count, rank):
    model = seeded(nn.Linear(2, 3))
    probe = right(model, inputs_of(2, count=max(count, 13)))
    margins = probe.evidence(MarginsRequest())
    if count < 13:
        margins = type(margins)(values=margins.values[:count])
    assert margins.margin == margins.values[rank - 1]


def test_the_interval_of_the_margin_holds_it_in_most_samples():
    kind = type(right(seeded(nn.Linear(2, 3)), inputs_of(2)).evidence(MarginsRequest()))
    draws = np.random.default_rng(0)
    truth = -1.2815515655446004  # of the normal distribution
    samples = [kind(values=np.sort(draws.normal(size=200))) for _ in range(400)]
    hits = [low <= truth <= high for low, high in (sample.interval() for sample in samples)]
    assert 0.92 < np.mean(hits) < 0.99


def test_a_margin_that_is_not_positive_gives_no_value():
    """The published absolute value would rank a net that errs by much above one that is right."""
    model, inputs = mlp(), inputs_of(4)
    with torch.no_grad():
        labels = model(inputs).argmin(1)  # all wrong
    probe = Probe(model, "cross_entropy", [(inputs, labels)], initial=shifted(model))
    for measure in (
        InverseMargin(),
        SpectralOrigin(),
        SpectralInitial(),
        PathNorm(over_margin=True),
    ):
        result = measure.compute(probe)
        assert result.status is Status.UNDEFINED
        assert "100% of the terms are not classified right" in result.message
    assert LogSpectralProduct(over_margin=True).compute(probe).status is Status.UNDEFINED
    assert LogSpectralProduct().compute(probe).status is Status.OK


@pytest.mark.parametrize("objective", ["mse", lambda m, b: (m(b[0]) - b[1]).square().sum(1)])
def test_no_classes_no_margins(objective):
    probe = Probe(mlp(), objective, [(inputs_of(4), inputs_of(3))])
    result = InverseMargin().compute(probe)
    assert result.status is Status.DECLINED
    assert "knows no margins" in result.message


@pytest.mark.parametrize(
    ("objective", "classes"), [("cross_entropy", 3), ("bce", 3), ("cross_entropy", 1)]
)
def test_soft_targets_have_no_margins(objective, classes):
    model = seeded(nn.Linear(4, classes))
    targets = torch.full((20, classes), 1 / 3, dtype=torch.float64)
    if classes == 1:
        targets = torch.zeros(20, dtype=torch.long)
    result = InverseMargin().compute(Probe(model, objective, [(inputs_of(4), targets)]))
    assert result.status is Status.DECLINED
    assert "margins need" in result.message


# -- paths ----------------------------------------------------------------------------------------


def brute_force_paths(model):
    """Every path of a ReLU chain from an input, or from a bias, to an output."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    total = 0.0
    for start in range(len(layers)):
        sources = [range(layers[start].in_features)] if start == 0 else []
        widths = [range(layer.out_features) for layer in layers[start:]]
        for units in itertools.product(*widths):  # from the biases of this layer
            along = float(layers[start].bias[units[0]]) ** 2
            for layer, (one, two) in zip(
                layers[start + 1 :], itertools.pairwise(units), strict=True
            ):
                along *= float(layer.weight[two, one]) ** 2
            total += along
        for units in itertools.product(*sources, *widths) if sources else ():
            along = 1.0
            for layer, (one, two) in zip(layers, itertools.pairwise(units), strict=True):
                along *= float(layer.weight[two, one]) ** 2
            total += along
    return total


def test_the_path_norm_of_a_chain_is_the_sum_over_all_its_paths():
    with torch.no_grad():
        model = mlp().requires_grad_(True)
        probe = right(model, inputs_of(4))
        expected = brute_force_paths(model.requires_grad_(False))
    assert value(PathNorm(), probe) == pytest.approx(expected, rel=1e-12)
    margin = probe.evidence(MarginsRequest()).margin
    found = value(PathNorm(over_margin=True), probe)
    assert found == pytest.approx(expected / margin**2, rel=1e-12)


def convolutional():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 2, bias=False), nn.BatchNorm1d(2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)
    )
    return seeded(model)


def test_the_path_norm_of_a_convolution_runs_over_its_places():
    model = convolutional()
    probe = right(model, inputs_of(1, 4))
    norm, head = model[1], model[4]
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        kernel = model[0].weight[:, 0] * scale[:, None]
        bias = norm.bias - norm.running_mean * scale
    total = float((head.bias.detach() ** 2).sum())
    for channel, place, output in itertools.product(range(2), range(3), range(3)):
        last = float(head.weight[output, 3 * channel + place].detach()) ** 2
        inner = sum(float(kernel[channel, k]) ** 2 for k in range(2)) + float(bias[channel]) ** 2
        total += last * inner
    result = PathNorm().compute(probe)
    assert result.value == pytest.approx(total, rel=1e-12)
    assert result.diagnostics["folded"] == {"1": "0"}


class Residual(nn.Module):
    def __init__(self, between=None):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.between = between or nn.ReLU()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x + self.between(self.inner(x)))


def test_the_path_norm_of_a_residual_net_has_the_short_paths():
    model = seeded(Residual())
    inner, head = (
        [(p.detach() ** 2).numpy() for p in layer.parameters()]
        for layer in (model.inner, model.head)
    )
    expected = (head[0] @ (1 + inner[0].sum(1) + inner[1]) + head[1]).sum()
    assert value(PathNorm(), right(model, inputs_of(4))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "between",
    [nn.Tanh(), nn.GELU(), nn.LayerNorm(4), nn.Sigmoid(), nn.Softmax(1), nn.BatchNorm1d(4)],
    ids=lambda module: type(module).__name__,
)
def test_there_is_no_path_norm_without_homogeneity(between):
    model = Residual(nn.Sequential(nn.ReLU(), between))
    result = PathNorm().compute(right(seeded(model), inputs_of(4)))
    assert result.status is Status.DECLINED
    assert "the model has no path norm" in result.message


@pytest.mark.parametrize("between", [nn.LeakyReLU(), nn.Identity(), nn.Dropout(), nn.ReLU6()])
def test_there_is_a_path_norm_with_homogeneity(between):
    result = PathNorm().compute(right(seeded(Residual(between)), inputs_of(4)))
    assert (result.status is Status.OK) == (not isinstance(between, nn.ReLU6))


def test_a_path_norm_that_overflows_is_undefined():
    model = mlp().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e8)
    inputs = inputs_of(4).float()
    batches = [(inputs, model(inputs).argmax(1))]
    result = PathNorm().compute(Probe(model, "cross_entropy", batches))
    assert result.status is Status.UNDEFINED
    assert "overflows torch.float32; use torch.float64" in result.message
    assert value(PathNorm(), Probe(model, "cross_entropy", batches, dtype=torch.float64)) > 1e38


# -- no value -------------------------------------------------------------------------------------


def test_distances_want_the_initial_weights():
    model, inputs = mlp(), inputs_of(4)
    probe = Probe(model, "cross_entropy", [(inputs, torch.arange(20) % 3)])
    for kind in (FrobeniusDistance, SpectralDistance, ParameterDistance, SpectralInitial):
        result = kind().compute(probe)
        assert result.status is Status.DECLINED
        assert "initial=" in result.message
    assert PacBayesInitial().compute(probe).status is Status.DECLINED


def test_at_the_initial_weights():
    model = mlp()
    probe = right(model, inputs_of(4), initial=dict(model.named_parameters()))
    for kind in (FrobeniusDistance, SpectralDistance, ParameterDistance):
        assert value(kind(), probe) == 0
    result = SpectralInitial().compute(probe)
    assert result.status is Status.UNDEFINED
    assert "are the initial ones" in result.message


def test_a_layer_of_zeros_has_no_logarithm():
    model = mlp()
    nn.init.zeros_(model[2].weight)
    probe = right(model, inputs_of(4))
    for measure in (LogSpectralProduct(), LogFrobeniusSum(), FrobeniusOverSpectral()):
        result = measure.compute(probe)
        assert result.status is Status.UNDEFINED
        assert "'2.weight' are zero" in result.message
    assert FrobeniusDistance().compute(probe).status is Status.OK


# -- invariances ----------------------------------------------------------------------------------


def per_unit(scale):
    def change(model):
        model[0].weight.mul_(scale.reshape(-1, 1))
        model[0].bias.mul_(scale)
        model[2].weight.div_(scale)

    return change


def permuted(model):
    order = torch.tensor([3, 0, 5, 4, 1, 2])
    model[0].weight.copy_(model[0].weight[order])
    model[0].bias.copy_(model[0].bias[order])
    model[2].weight.copy_(model[2].weight[:, order])


def scaled_convolution(model):
    factor, norm = 3.0, model[1]
    model[0].weight.mul_(factor)
    norm.running_mean.mul_(factor)
    norm.running_var.copy_(factor**2 * (norm.running_var + norm.eps) - norm.eps)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.head = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):  # (N, S, 4)
        weights = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.head(weights @ x).mean(1)


def turned(model):
    turn = torch.randn(3, 3, generator=source(3), dtype=torch.float64)
    for layer, by in ((model.query, turn), (model.key, torch.linalg.inv(turn).T)):
        layer.weight.copy_(by @ layer.weight)
        layer.bias.copy_(by @ layer.bias)


class Tripled(CrossEntropy):
    def losses(self, outputs, batch):
        return 3 * super().losses(outputs, batch)

    def total(self, outputs, batch):
        return 3 * super().total(outputs, batch)


@pytest.fixture(scope="module")
def pairs():
    """By kind of change, probes before and after; the initial weights change likewise."""

    def pair(model, shape, change):
        before = right(model, inputs_of(*shape))
        return before, before.changed(change)

    normed = seeded(
        nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6, eps=0.0), nn.ReLU(), nn.Linear(6, 3))
    )
    relu = right(mlp(), inputs_of(4))
    return {
        "layer": [pair(mlp(), (4,), per_unit(torch.full((6,), 2.5).double()))],
        "neuron": [pair(mlp(), (4,), per_unit(torch.linspace(0.3, 3, 6).double()))],
        "norm": [
            pair(convolutional(), (1, 4), scaled_convolution),
            pair(normed, (4,), lambda model: [p.mul_(3.0) for p in model[0].parameters()]),
        ],
        "attention": [pair(seeded(Attention()), (5, 4), turned)],
        "loss": [(relu, relu.changed(lambda _: None, Tripled()))],
        "permutation": [pair(mlp(), (4,), permuted)],
    }


def test_the_changes_leave_the_functions_as_they_are(pairs):
    for kind, found in pairs.items():
        for before, after in found:
            factor = 3 if kind == "loss" else 1
            assert after.loss() == pytest.approx(factor * before.loss(), rel=1e-9)


@pytest.mark.parametrize("kind", list(TRANSFORMATIONS))
@pytest.mark.parametrize("measure", EXACT, ids=lambda measure: measure.label)
def test_what_is_declared_to_leave_it_unchanged_does_and_the_rest_does_not(measure, kind, pairs):
    shifts = []
    for before, after in pairs[kind]:
        one, two = measure.compute(before), measure.compute(after)
        assert one.status is two.status
        if one.status.measured:
            shifts.append(abs(two.value - one.value) / max(abs(one.value), 1))
    assert shifts or measure.name == "path-norm"
    if kind in measure.invariances:
        assert max(shifts) < 1e-8
    elif shifts:
        assert max(shifts) > 1e-3


def test_folding_takes_the_scale_before_a_batch_norm_out(pairs):
    before, after = pairs["norm"][0]
    for kind in (LogSpectralProduct, LogFrobeniusSum, SpectralOrigin):
        assert value(kind(), after) == pytest.approx(value(kind(), before), rel=1e-10)
        unfolded = value(kind(fold=False), after) - value(kind(fold=False), before)
        assert unfolded > 0.5


def test_against_initial_weights_that_stay_every_rescaling_counts():
    probe = right(mlp(), inputs_of(4))
    change = per_unit(torch.full((6,), 2.5).double())
    together = probe.changed(change)
    model = together.model_copy().requires_grad_(True)
    alone = right(model, inputs_of(4), initial=probe.space.split(probe.initial))
    assert value(SpectralInitial(), together) == pytest.approx(value(SpectralInitial(), probe))
    for kind in (SpectralInitial, FrobeniusDistance, SpectralDistance, ParameterDistance):
        assert value(kind(), alone) != pytest.approx(value(kind(), probe), rel=1e-2)


# -- PAC-Bayes bounds -----------------------------------------------------------------------------


def divergence(weights, centre, noise, variance):
    """KL of N(weights, noise) from N(centre, variance), by torch."""
    normal = torch.distributions.Normal
    one, two = normal(weights, noise.sqrt()), normal(centre, torch.full_like(noise, variance**0.5))
    return float(torch.distributions.kl_divergence(one, two).sum())


@pytest.fixture(scope="module")
def noisy():
    return right(mlp(), inputs_of(4, count=60))


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("kind", [PacBayesOrigin, PacBayesInitial])
def test_the_bounds_are_those_of_the_noise(noisy, kind, aware):
    measure = kind(magnitude_aware=aware)
    result = measure.compute(noisy, 1)
    assert result.status.measured
    sigma, weights = result.diagnostics["sigma"], noisy.weights()
    centre = noisy.initial if kind is PacBayesInitial else torch.zeros_like(weights)
    if aware:
        noise = sigma**2 * weights**2 + measure.epsilon**2
        best = optimize.minimize_scalar(
            lambda log: divergence(weights, centre, noise, math.exp(log)), (-2, 0), tol=1e-10
        ).fun
    else:
        best = divergence(weights, centre, torch.full_like(weights, sigma**2), sigma**2)
    expected = best / 2 + math.log(60 / sigma) + 10
    assert result.value == pytest.approx(expected, rel=1e-7)
    low, high = result.interval
    assert low < result.value < high
    adjusted = kind(magnitude_aware=aware, adjusted=True).compute(noisy, 1)
    assert adjusted.value == pytest.approx(math.sqrt(result.value / 60))


def test_the_error_is_that_of_the_noise_scale(noisy):
    result = PacBayesInitial().compute(noisy, 1)
    sigma, error = (result.diagnostics[key] for key in ("sigma", "sigma_stderr"))
    moved = float((noisy.weights() - noisy.initial).square().sum())
    slope = -moved / (2 * sigma**3) - 1 / sigma
    assert result.stderr == pytest.approx(abs(slope) * error, rel=1e-4)


def test_the_published_magnitude_aware_bound_is_below_every_divergence_of_its_noise(noisy):
    """Its denominator holds w - w0 where the noise that was searched for holds w."""
    sigma, epsilon, weights = 0.3, 1e-3, noisy.weights()
    way = 30 * (weights - noisy.initial)  # trained far from its start
    numerator = epsilon**2 + (sigma**2 + 1) * weights.square().mean()
    published = float((numerator / (epsilon**2 + sigma**2 * way**2)).log().sum()) / 4
    noise = sigma**2 * weights**2 + epsilon**2
    best = optimize.minimize_scalar(
        lambda log: divergence(weights, torch.zeros_like(weights), noise, math.exp(log)), (-2, 0)
    ).fun
    assert published < 0 < best / 2


def test_the_scale_of_the_loss_does_not_matter_to_the_accuracy(noisy):
    other = right(mlp(), inputs_of(4, count=60), objective=Tripled())
    for aware in (False, True):
        measure = PacBayesOrigin(magnitude_aware=aware)
        assert measure.compute(other, 1).value == measure.compute(noisy, 1).value
