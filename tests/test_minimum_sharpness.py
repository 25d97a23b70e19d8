"""Minimum sharpness: the exact Gauss-Newton diagonal, and the least trace over rescalings."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn
from torch.nn import functional

import landscape
from landscape import Status
from landscape.evidence.ggn_diagonal import GgnDiagonalRequest
from landscape.measures import minimum_sharpness
from landscape.measures.minimum_sharpness import MinimumSharpness, least_trace
from landscape.probing import CrossEntropy, NotApplicableError, Supervised


def generator(seed):
    return torch.Generator().manual_seed(seed)


def filled(model, seed=0, scale=0.7):
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source))
    return model.double()


def data(count=14, shape=(3,), classes=3, seed=5):
    source = generator(seed)
    x = torch.randn(count, *shape, generator=source, dtype=torch.float64)
    return x, torch.randint(0, classes, (count,), generator=source)


def batches(x, y, first=5):
    return [(x[:first], y[:first]), (x[first:], y[first:])]


def relu_net(*, biases=True, depth=3, seed=0, activation=nn.ReLU):
    layers = []
    for _ in range(depth - 1):
        layers += [nn.Linear(3, 3, bias=biases), activation()]
    return filled(nn.Sequential(*layers, nn.Linear(3, 3, bias=biases)), seed)


def conv_net():
    return filled(
        nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.LeakyReLU(0.1),
            nn.MaxPool2d(2),
            nn.Conv2d(2, 2, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2, 3),
        ),
        scale=0.9,
    )


def flat_weights(model):
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def by_weights(model, function):
    """A function of the model as one of its flat parameters."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def of(w):
        pieces = w.split([shape.numel() for shape in shapes.values()])
        named = {
            name: piece.view(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return function(lambda x: torch.func.functional_call(model, named, (x,)))

    return of


def hessian_diagonal(model, x, y):
    loss = by_weights(model, lambda call: functional.cross_entropy(call(x), y))
    return torch.func.hessian(loss)(flat_weights(model)).diagonal()


def ggn_diagonal(model, x, loss_of_one, terms):
    """By dense Jacobians and Hessians of single examples, with nothing of the library in it."""
    total = torch.zeros(flat_weights(model).numel(), dtype=torch.float64)
    for row in range(len(x)):
        outputs = by_weights(model, lambda call, row=row: call(x[row : row + 1]).reshape(-1))
        z = outputs(flat_weights(model))
        jacobian = torch.func.jacrev(outputs)(flat_weights(model))
        curvature = torch.func.hessian(lambda z, row=row: loss_of_one(z, row))(z)
        total += torch.einsum("mi,mn,ni->i", jacobian, curvature, jacobian)
    return total / terms


def evidence(model, objective, batches, points=None, **settings):
    probe = landscape.Probe(model, objective, batches, products="loop", **settings)
    return probe.evidence(GgnDiagonalRequest(points=points))


@pytest.mark.parametrize("make", [relu_net, lambda: relu_net(biases=False), conv_net])
def test_the_diagonal_is_the_hessian_s_for_piecewise_linear_nets(make):
    model = make()
    x, y = data(shape=(1, 6, 6) if isinstance(model[0], nn.Conv2d) else (3,))
    found = evidence(model, "cross_entropy", batches(x, y))
    expected = hessian_diagonal(model, x, y)
    torch.testing.assert_close(found.diagonal, expected, rtol=1e-9, atol=1e-12)
    sizes = [parameter.numel() for parameter in model.parameters()]
    traces = found.traces.sum(0) / found.counts.sum()
    assert traces == pytest.approx([float(part.sum()) for part in expected.split(sizes)])


@pytest.mark.parametrize("way", ["loop", "batched"])
def test_the_diagonal_of_a_curved_net_is_gauss_newton_s(way):
    model, (x, y) = relu_net(activation=nn.Tanh), data()
    probe = landscape.Probe(model, "cross_entropy", batches(x, y), products=way)
    found = probe.evidence(GgnDiagonalRequest(points=None))
    expected = ggn_diagonal(
        model, x, lambda z, row: functional.cross_entropy(z[None], y[row : row + 1]), len(x)
    )
    torch.testing.assert_close(found.diagonal, expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(found.diagonal, hessian_diagonal(model, x, y), rtol=1e-3)
    exact = probe.ggnvp(torch.eye(probe.size, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(found.diagonal, exact, rtol=1e-9, atol=1e-12)


def test_labels_have_no_part_in_it():
    model, (x, y) = relu_net(), data()
    one = evidence(model, "cross_entropy", batches(x, y))
    two = evidence(model, "cross_entropy", batches(x, (y + 1) % 3))
    torch.testing.assert_close(one.diagonal, two.diagonal, rtol=1e-10, atol=1e-14)


class Tokens(nn.Module):
    """Logits (N, C, T) of sequences whose positions share one map."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x):
        return self.net(x).movedim(-1, 1)


def test_several_terms_an_example_are_weighted_as_terms():
    model = filled(Tokens())
    x, _ = data(6, shape=(4, 3))
    targets = torch.randint(0, 3, (6, 4), generator=generator(3))
    targets[0, 1:], targets[2] = -100, -100  # one term, and none
    told = int((targets != -100).sum())

    def loss(z, row):
        return functional.cross_entropy(
            z.view(1, 3, 4), targets[row : row + 1], reduction="sum", ignore_index=-100
        )

    found = evidence(model, "cross_entropy", [(x[:4], targets[:4]), (x[4:], targets[4:])])
    torch.testing.assert_close(
        found.diagonal, ggn_diagonal(model, x, loss, told), rtol=1e-9, atol=1e-12
    )
    assert list(found.counts) == [1, 4, 4, 4, 4]


def test_other_losses_and_outputs_without_classes():
    model = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)))
    x, y = data(classes=2)
    y = y.double()
    losses = {
        "mse": lambda z, row: ((z - y[row]) ** 2).sum(),
        "bce": lambda z, row: functional.binary_cross_entropy_with_logits(z[0], y[row]),
    }
    for name, loss in losses.items():
        found = evidence(model, name, batches(x, y))
        expected = ggn_diagonal(model, x, loss, len(x))
        torch.testing.assert_close(found.diagonal, expected, rtol=1e-9, atol=1e-12)


def test_points_take_the_first_examples():
    model, (x, y) = relu_net(), data()
    found = evidence(model, "cross_entropy", batches(x, y), points=7)
    expected = evidence(model, "cross_entropy", [(x[:7], y[:7])])
    torch.testing.assert_close(found.diagonal, expected.diagonal)
    assert len(found.counts) == 7


def test_gradients_are_held_in_groups():
    model, (x, y) = relu_net(), data()
    probe = landscape.Probe(model, "cross_entropy", batches(x, y), products="loop")
    whole = probe.evidence(GgnDiagonalRequest(points=None))
    small = probe.evidence(GgnDiagonalRequest(points=None, memory=5000))
    torch.testing.assert_close(small.diagonal, whole.diagonal)
    assert small.traces == pytest.approx(whole.traces)


def test_confident_examples_keep_their_digits_in_float32():
    model, (x, y) = relu_net(), data()
    with torch.no_grad():
        model[-1].weight.mul_(30)
    exact = evidence(model, "cross_entropy", batches(x, y)).diagonal
    single = evidence(model, "cross_entropy", batches(x, y), dtype=torch.float32).diagonal
    assert float((single.double() - exact).norm() / exact.norm()) < 1e-4


class Weighted(CrossEntropy):
    """Holds a tensor in single precision, so that no output in double precision is accepted."""

    def losses(self, outputs, batch):
        weight = torch.tensor([1.0, 2.0, 0.5])
        return functional.cross_entropy(outputs, batch[1], weight, reduction="none")


def test_an_objective_with_tensors_of_its_own_precision():
    model, (x, y) = relu_net(activation=nn.Tanh).float(), data()
    probe = landscape.Probe(model, Weighted(), batches(x.float(), y), products="loop")
    found = probe.evidence(GgnDiagonalRequest(points=None)).diagonal
    exact = probe.ggnvp(torch.eye(probe.size)).diagonal()
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


class Concave(Supervised):
    def losses(self, outputs, batch):
        return -(outputs**2).sum(1) + 0 * batch[1]


class Sums(Supervised):
    def losses(self, outputs, batch):
        return outputs.sum(1) + 0 * batch[1]


def test_losses_without_a_positive_curvature():
    model, (x, y) = relu_net(), data()
    with pytest.raises(NotApplicableError, match="not convex"):
        evidence(model, Concave(), batches(x, y))
    result = MinimumSharpness().compute(landscape.Probe(model, Concave(), batches(x, y)))
    assert result.status is Status.DECLINED
    flat = MinimumSharpness().compute(landscape.Probe(model, Sums(), batches(x, y)))
    assert (flat.value, flat.status) == (0.0, Status.OK)
    wide = filled(nn.Sequential(nn.Linear(3, 300)))
    many = MinimumSharpness().compute(landscape.Probe(wide, "cross_entropy", batches(x, y)))
    assert many.status is Status.DECLINED
    assert "300 outputs" in many.message


def objective_of(logs, weights, biases):
    sums = np.concatenate([[0.0], logs, [0.0]])
    return float(weights @ np.exp(-2 * np.diff(sums)) + biases @ np.exp(-2 * sums[1:]))


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_the_least_trace_against_scipy(depth, spread):
    source = np.random.default_rng(depth)
    weights, biases = np.exp(spread * source.normal(size=(2, depth)))
    found = least_trace(weights, biases)
    assert found.converged
    assert found.attained
    assert np.prod(found.alphas) == pytest.approx(1.0)
    sums = np.cumsum(np.log(found.alphas))
    assert objective_of(sums[:-1], weights, biases) == pytest.approx(found.value)
    assert found.factors @ np.concatenate([weights, biases]) == pytest.approx(found.value)
    if depth > 1:
        # No descent in any direction, and scipy finds nothing lower.
        for step in 1e-3 * source.normal(size=(20, depth - 1)):
            assert objective_of(sums[:-1] + step, weights, biases) >= found.value
        other = optimize.minimize(
            lambda logs: math.log(objective_of(logs, weights, biases)), np.zeros(depth - 1)
        )
        assert math.exp(other.fun) == pytest.approx(found.value, rel=1e-5)


def test_the_closed_form_without_biases():
    weights = np.array([3.0, 1e-7, 40.0, 2e5])
    found = least_trace(weights, np.zeros(4))
    assert found.value == pytest.approx(4 * np.prod(weights) ** 0.25, rel=1e-12)
    assert weights / found.alphas**2 == pytest.approx(np.full(4, found.value / 4))


@pytest.mark.parametrize(
    ("weights", "biases", "expected"),
    [
        ([0.0, 2.0, 3.0], [0.0, 0.0, 0.0], 0.0),
        ([1.0, 2.0, 0.0], [1.0, 1.0, 5.0], 5.0),  # nothing holds the last bias's scale but one
        ([0.0, 2.0], [3.0, 5.0], 2 * math.sqrt(6) + 5),  # 3 e^-2s + 2 e^2s + 5
        ([0.0, 2.0, 7.0], [0.0, 3.0, 5.0], 2 * math.sqrt(21) + 5),
        ([4.0, 0.0, 7.0], [2.0, 3.0, 5.0], 2 * math.sqrt(21) + 5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_layers_without_curvature_give_the_infimum(weights, biases, expected):
    found = least_trace(np.array(weights), np.array(biases))
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.converged
    assert not found.attained
    if len(weights) > 1:  # approached by factors that grow
        free = optimize.minimize(
            lambda logs: objective_of(logs, np.array(weights), np.array(biases)),
            np.zeros(len(weights) - 1),
            bounds=[(-12, 12)] * (len(weights) - 1),
            options={"ftol": 1e-14, "gtol": 1e-10},
        )
        assert free.fun == pytest.approx(expected, abs=1e-3)


def scaled(model, factors):
    """The same function: layer l times alpha_l, its bias times alpha_1 ... alpha_l."""
    other, product = copy.deepcopy(model), 1.0
    layers = [module for module in other if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            product *= factor
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.mul_(product)
    return other


def measured(model, x, y, objective="cross_entropy", **settings):
    probe = landscape.Probe(model, objective, batches(x, y), products="loop")
    return MinimumSharpness(**settings).compute(probe)


@pytest.mark.parametrize("make", [relu_net, lambda: relu_net(biases=False), conv_net])
def test_it_is_the_least_hessian_trace_of_rescaled_networks(make):
    model = make()
    x, y = data(10, shape=(1, 6, 6) if isinstance(model[0], nn.Conv2d) else (3,))

    def trace(logs):
        factors = np.exp([*logs, -sum(logs)])
        return float(hessian_diagonal(scaled(model, factors), x, y).sum())

    result = measured(model, x, y)
    found = optimize.minimize(trace, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6})
    assert result.value == pytest.approx(found.fun, rel=1e-6)
    assert result.diagnostics["trace"] == pytest.approx(trace([0.0, 0.0]))
    assert result.diagnostics["share"] == pytest.approx(result.value / trace([0.0, 0.0]))
    alphas = [entry["alpha"] for entry in result.diagnostics["layers"].values()]
    assert np.log(alphas[:2]) == pytest.approx(found.x, abs=1e-3)
    assert trace(np.log(alphas[:2])) == pytest.approx(result.value, rel=1e-8)


def permuted(model):
    other, order = copy.deepcopy(model), [2, 0, 1]
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight[order])
        other[0].bias.copy_(model[0].bias[order])
        other[2].weight.copy_(model[2].weight[:, order])
    return other


def neuron_scaled(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight[0].mul_(3)
        other[0].bias[0].mul_(3)
        other[2].weight[:, 0].div_(3)
    return other


def test_what_it_does_not_depend_on():
    model, (x, y) = relu_net(), data()
    base = measured(model, x, y)
    for same in (scaled(model, [5.0, 0.3, 1 / 1.5]), permuted(model)):
        again = measured(same, x, y)
        assert again.value == pytest.approx(base.value, rel=1e-8)
        assert again.stderr == pytest.approx(base.stderr, rel=1e-6)
    other = neuron_scaled(model)
    torch.testing.assert_close(other(x), model(x))
    assert abs(measured(other, x, y).value / base.value - 1) > 0.01
    assert set(MinimumSharpness.invariances) == {"layer", "permutation"}
    # The plain trace is not the same: what is tested is not the function alone.
    changed = measured(scaled(model, [5.0, 0.3, 1 / 1.5]), x, y).diagnostics["trace"]
    assert changed > 2 * base.diagnostics["trace"]


class Tenfold(CrossEntropy):
    def losses(self, outputs, batch):
        return 10 * super().losses(outputs, batch)


def test_it_scales_with_the_loss():
    model, (x, y) = relu_net(), data()
    tenfold = measured(model, x, y, Tenfold())
    assert tenfold.value == pytest.approx(10 * measured(model, x, y).value, rel=1e-9)


def test_the_interval_covers_the_value_of_all_data():
    model, (x, y) = relu_net(depth=2), data(1500)

    def of(part):
        data = [(x[part], y[part])]
        return MinimumSharpness(points=None).compute(landscape.Probe(model, "cross_entropy", data))

    whole = of(slice(None)).value
    runs = [of(slice(start, start + 30)) for start in range(0, 1500, 30)]
    hits = sum(run.interval[0] <= whole <= run.interval[1] for run in runs)
    assert hits >= 43  # of 50 at 95 %: fewer have a chance below 1 %
    spread = np.std([run.value for run in runs], ddof=1)
    assert np.mean([run.stderr for run in runs]) == pytest.approx(spread, rel=0.35)


def test_what_is_declined_and_why():
    x, y = data()

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(x + self.first(x).relu())

    class Backwards(nn.Module):
        """Two layers, registered in the other order: the biases tell."""

        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.first(x).relu())

    frozen = relu_net()
    frozen[0].bias.requires_grad_(False)
    shared = relu_net()
    shared[2].weight = shared[0].weight
    twice = relu_net()
    twice[2] = twice[0]
    norm = nn.BatchNorm1d(3, affine=False)
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
    reasons = {
        "changes the function": [
            relu_net(activation=nn.Tanh),
            relu_net(activation=nn.GELU),
            filled(Skip()),
            filled(Backwards()),
            twice,
            filled(nn.Sequential(nn.Linear(3, 3), norm, nn.Linear(3, 3))),
        ],
        "other parameters": [
            filled(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)))
        ],
        "frozen": [frozen],
        "shares": [shared],
    }
    for reason, models in reasons.items():
        for model in models:
            result = measured(model, x, y)
            assert result.status is Status.DECLINED
            assert reason in result.message
    normed = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    probe = landscape.Probe(filled(normed), "cross_entropy", batches(x, y), batch_norm="batch")
    assert "statistics of the batch" in MinimumSharpness().compute(probe).message
    restricted = landscape.Probe(relu_net(), "cross_entropy", batches(x, y)).restrict("0.*")
    assert MinimumSharpness().compute(restricted).status is Status.DECLINED


def test_a_single_layer_has_nothing_to_rescale():
    model, (x, y) = filled(nn.Linear(3, 3)), data()
    result = measured(model, x, y)
    assert result.value == pytest.approx(float(hessian_diagonal(model, x, y).sum()))
    assert result.diagnostics["share"] == pytest.approx(1.0)


def test_a_search_that_stops_early_says_so(monkeypatch):
    model, (x, y) = relu_net(), data()
    reached = measured(model, x, y)
    monkeypatch.setattr(minimum_sharpness, "_STEPS", 1)
    result = measured(model, x, y)
    assert result.status is Status.NOT_CONVERGED
    assert result.value > reached.value


def test_a_dead_layer_has_no_minimum():
    model, (x, y) = relu_net(biases=False), data()
    with torch.no_grad():
        model[2].weight.zero_()
    result = measured(model, x, y)
    assert result.value == 0.0
    assert not result.diagnostics["attained"]
    assert result.diagnostics["layers"]["0"]["alpha"] is None


def test_settings_are_checked():
    with pytest.raises(ValueError, match="points"):
        MinimumSharpness(points=0)
    with pytest.raises(ValueError, match="points"):
        GgnDiagonalRequest(points=0)
