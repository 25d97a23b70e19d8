"""Relative flatness against the double sum over dense Hessian blocks, and its invariances."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import Status
from landscape.measures.relative_flatness import RelativeFlatness
from landscape.probing import CrossEntropy


def generator(seed):
    return torch.Generator().manual_seed(seed)


def filled(model, seed=0, scale=0.7):
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source))
    return model.double()


def data(count=14, shape=(4,), seed=5):
    source = generator(seed)
    x = torch.randn(count, *shape, generator=source, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=source)


def batches(x, y, first=5):
    return [(x[:first], y[:first]), (x[first:], y[first:])]


def mlp(activation=nn.ReLU, *, bias=True, width=5):
    return filled(
        nn.Sequential(nn.Linear(4, width, bias=bias), activation(), nn.Linear(width, 3, bias=bias))
    )


def conv_net():
    return filled(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)))


def data_of(model):
    return data(shape=(2, 3, 3)) if isinstance(model[0], nn.Conv2d) else data()


def measured(model, objective="cross_entropy", seed=0, **settings):
    probe = landscape.Probe(model, objective, batches(*data_of(model)), products="loop")
    return RelativeFlatness(**settings).compute(probe, seed)


def dense_block(model, name):
    """The Hessian in one weight, (out, in, out, in), with nothing of the library in it."""
    x, y = data_of(model)
    weight = dict(model.named_parameters())[name].detach()

    def loss(w):
        return functional.cross_entropy(torch.func.functional_call(model, {name: w}, (x,)), y)

    rows, inputs = len(weight), weight[0].numel()
    hessian = torch.func.hessian(loss)(weight).detach()
    return hessian.reshape(rows, inputs, rows, inputs), weight.flatten(1)


def dense_trace(model, name):
    hessian, weight = dense_block(model, name)
    return sum(
        float(weight[s] @ weight[t]) * float(hessian[s, :, t, :].trace())
        for s in range(len(weight))
        for t in range(len(weight))
    )


def dense_max(model, name):
    hessian, weight = dense_block(model, name)
    return sum(
        float(weight[s].square().sum() * torch.linalg.eigvalsh(hessian[s, :, s, :])[-1])
        for s in range(len(weight))
    )


MODELS = [mlp, lambda: mlp(nn.Tanh), lambda: mlp(bias=False), conv_net]


@pytest.mark.parametrize("make", MODELS)
def test_it_is_the_double_sum_over_rows(make):
    model = make()
    result = measured(model, layers=True)
    last = "3" if isinstance(model[0], nn.Conv2d) else "2"
    assert result.diagnostics["layer"] == last
    assert result.value == pytest.approx(dense_trace(model, f"{last}.weight"), rel=1e-9)
    assert (result.stderr, result.status) == (0.0, Status.OK)
    assert list(result.diagnostics["layers"]) == ["0", last]
    for layer, entry in result.diagnostics["layers"].items():
        expected = dense_trace(model, f"{layer}.weight")
        assert entry["value"] == pytest.approx(expected, rel=1e-9)
        assert entry["size"] == model[int(layer)].weight.numel()
        assert measured(model, layer=layer).value == entry["value"]


@pytest.mark.parametrize("make", MODELS)
def test_the_maximum_is_the_sum_over_neurons(make):
    model = make()
    result = measured(model, kind="max", layers=True)
    for layer, entry in result.diagnostics["layers"].items():
        assert entry["value"] == pytest.approx(dense_max(model, f"{layer}.weight"), rel=1e-7)
        assert entry["stderr"] <= 1e-6 * abs(entry["value"])
    assert result.status is Status.OK


def test_few_lanczos_steps_bound_the_maximum():
    model = conv_net()
    expected = dense_max(model, "3.weight")
    result = measured(model, kind="max", steps=2)
    assert result.status is Status.NOT_CONVERGED
    assert result.value < expected * (1 - 1e-6)
    assert result.interval[1] >= expected


def test_the_closed_form_of_the_last_layer():
    """mean ||phi||^2 (sum p_k ||w_k||^2 - ||sum p_k w_k||^2), whatever comes before."""
    model = mlp(nn.Tanh)
    features = model[:2](data()[0]).detach()
    weight = model[2].weight.detach()
    shares = model[2](features).softmax(1).detach()
    spread = shares @ weight.square().sum(1) - (shares @ weight).square().sum(1)
    expected = float((features.square().sum(1) * spread).mean())
    assert measured(model).value == pytest.approx(expected, rel=1e-10)


def test_the_estimator_of_one_product_is_unbiased():
    """vec((W q) r')' H vec((W q) r') over all signs q, r of the inputs has kappa as its mean."""
    model = mlp(nn.Tanh, width=3)
    hessian, weight = dense_block(model, "2.weight")
    signs = [torch.tensor(s, dtype=torch.float64) for s in itertools.product((-1, 1), repeat=3)]
    values = []
    for q, r in itertools.product(signs, signs):
        change = torch.outer(weight @ q, r)
        values.append(float(torch.einsum("ij,ijkl,kl->", change, hessian, change)))
    assert np.mean(values) == pytest.approx(measured(model).value, rel=1e-10)
    assert np.std(values) > 0.1 * np.mean(values)


def test_estimates_cover_the_exact_value():
    model = conv_net()
    exact = dense_trace(model, "3.weight")
    runs = [measured(model, matvecs=12, seed=seed) for seed in range(60)]
    assert all(run.stderr > 0 for run in runs)
    hits = sum(run.interval[0] <= exact <= run.interval[1] for run in runs)
    assert hits >= 52  # of 60 at 95 %: fewer have a chance below 1 %
    values = np.array([run.value for run in runs])
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(runs))
    assert values.std() < 0.2 * exact


def rescaled(model, factor):
    """The same function of a ReLU net: the first layer times a factor, the last divided by it."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(factor)
        other[0].bias.mul_(factor)
        other[2].weight.div_(factor)
    return other


def permuted(model):
    other, order = copy.deepcopy(model), [2, 0, 4, 1, 3]
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


@pytest.mark.parametrize("kind", ["trace", "max"])
def test_what_it_does_not_depend_on(kind):
    model = mlp()
    base = measured(model, kind=kind, layers=True)
    for same in (rescaled(model, 7.0), permuted(model)):
        again = measured(same, kind=kind, layers=True)
        for layer in ("0", "2"):
            one, two = (r.diagnostics["layers"][layer]["value"] for r in (base, again))
            assert two == pytest.approx(one, rel=1e-8)
    other = neuron_scaled(model)
    torch.testing.assert_close(other(data()[0]), model(data()[0]))
    assert abs(measured(other, kind=kind).value / base.value - 1) > 0.01
    assert "neuron" not in RelativeFlatness.invariances


def test_an_estimate_is_as_invariant_as_the_exact_value():
    model = conv_net()
    model[1] = nn.ReLU()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(7)
        other[0].bias.mul_(7)
        other[3].weight.div_(7)
    one, two = measured(model, matvecs=12), measured(other, matvecs=12)
    assert one.stderr > 0
    assert two.value == pytest.approx(one.value, rel=1e-8)


def test_the_scale_before_a_normalisation_layer():
    model = filled(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5, eps=0.0), nn.Linear(5, 3)))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(7)
        other[0].bias.mul_(7)
    one, two = (measured(net, layers=True).diagnostics["layers"] for net in (model, other))
    for layer in ("0", "2"):
        assert two[layer]["value"] == pytest.approx(one[layer]["value"], rel=1e-8)


class Tenfold(CrossEntropy):
    def losses(self, outputs, batch):
        return 10 * super().losses(outputs, batch)


def test_it_scales_with_the_loss():
    model = mlp()
    assert measured(model, Tenfold()).value == pytest.approx(10 * measured(model).value)


def test_which_layer_is_meant():
    model = mlp()
    assert measured(model, layer="0*").diagnostics["layer"] == "0"
    several = measured(model, layer="*")
    assert several.status is Status.DECLINED
    assert "matches 2 of 0.weight, 2.weight" in several.message
    assert measured(model, layer="head").status is Status.DECLINED
    model[2].weight.requires_grad_(False)
    assert measured(model).diagnostics["layer"] == "0"
    probe = landscape.Probe(mlp(), "cross_entropy", batches(*data())).restrict("0.*")
    assert RelativeFlatness().compute(probe).diagnostics["layer"] == "0"


def test_models_without_a_weight_matrix():
    x, _ = data(shape=(3, 4, 4))
    grouped = filled(
        nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten(), nn.Unflatten(1, (3, 4)))
    )
    probe = landscape.Probe(grouped, "mse", [(x, grouped(x).detach() + 1)])
    result = RelativeFlatness().compute(probe)
    assert result.status is Status.DECLINED
    assert "no Linear or ungrouped convolution" in result.message


def test_a_layer_of_zeros_and_a_single_layer():
    model = mlp()
    with torch.no_grad():
        model[2].weight.zero_()
    assert measured(model).value == 0.0
    assert measured(model, kind="max").value == 0.0
    alone = landscape.Probe(filled(nn.Linear(4, 3)), "cross_entropy", batches(*data()))
    result = RelativeFlatness(layers=True).compute(alone)
    assert result.diagnostics["layers"]["(root)"]["value"] == result.value > 0


@pytest.mark.parametrize(
    "wrong", [{"kind": "mean"}, {"matvecs": 5}, {"matvecs": 0}, {"steps": 0}, {"steps": 1.5}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RelativeFlatness(**wrong)
