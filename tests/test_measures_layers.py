"""Per-layer values against the diagonal blocks of a dense Hessian, and what rescaling does."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import measures

SPECTRAL = (
    "hessian-trace",
    "hessian-top-eigenvalue",
    "hessian-bottom-eigenvalue",
    "hessian-frobenius",
    "effective-dimension",
    "renyi-sharpness",
)


def data():
    source = torch.Generator().manual_seed(5)
    x = torch.randn(21, 4, generator=source, dtype=torch.float64)
    y = torch.randint(0, 3, (21,), generator=source)
    return [(x[:9], y[:9]), (x[9:], y[9:])]


def relu_net(biases=True):
    model = nn.Sequential(
        nn.Linear(4, 5, bias=biases), nn.ReLU(), nn.Linear(5, 3, bias=biases)
    ).double()
    source = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=source))
    return model


def rescaled(model, c):
    """The same function: the first layer's weights times c, the second's divided by it."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(c)
        other[2].weight.div_(c)
    return other


def dense_hessian(model):
    """By forward-over-reverse on the whole data, with nothing of the library in it."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    x, y = (torch.cat(parts) for parts in zip(*data(), strict=True))

    def loss(w):
        pieces = w.split([shape.numel() for shape in shapes.values()])
        named = {
            name: piece.view(shape)
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return functional.cross_entropy(torch.func.functional_call(model, named, (x,)), y)

    return torch.func.hessian(loss)(flat).numpy()


def probe_of(model):
    return landscape.Probe(model, "cross_entropy", data())


def truths(block):
    eigenvalues = np.linalg.eigvalsh(block)
    magnitudes = np.abs(eigenvalues)
    return {
        "hessian-trace": eigenvalues.sum(),
        "hessian-top-eigenvalue": eigenvalues[-1],
        "hessian-bottom-eigenvalue": eigenvalues[0],
        "hessian-frobenius": np.linalg.norm(block),
        "effective-dimension": (magnitudes / (magnitudes + 0.1)).sum(),
        "renyi-sharpness": math.log((magnitudes**2).sum() / magnitudes.sum() ** 2),
    }


def configured(name):
    own = {"effective-dimension": {"z": 0.1}, "renyi-sharpness": {"alpha": 2.0}}
    return measures.get(name, layers=True, **own.get(name, {}))


@pytest.fixture(scope="module")
def net():
    model = relu_net()
    return probe_of(model), dense_hessian(model)


@pytest.mark.parametrize("name", SPECTRAL)
def test_values_of_the_network_and_its_layers(net, name):
    probe, hessian = net
    result = configured(name).compute(probe)
    assert result.value == pytest.approx(truths(hessian)[name], rel=1e-7, abs=1e-9)
    layers = result.diagnostics["layers"]
    assert list(layers) == ["0", "2"]
    for layer, place in (("0", slice(0, 25)), ("2", slice(25, 43))):
        expected = truths(hessian[place, place])[name]
        assert layers[layer]["value"] == pytest.approx(expected, rel=1e-7, abs=1e-9), layer
        assert layers[layer]["size"] == place.stop - place.start
        assert layers[layer]["status"] == "ok"
        low, high = layers[layer]["interval"]
        assert low <= layers[layer]["value"] <= high


def test_layer_values_do_not_touch_the_network_s(net):
    probe, _ = net
    plain = measures.get("hessian-frobenius").compute(probe)
    layered = measures.get("hessian-frobenius", layers=True).compute(probe)
    assert plain.value == layered.value
    assert plain.measure == layered.measure  # the layers are no part of the label


def test_layers_are_paid_for(net):
    probe, _ = net
    plain = measures.get("hessian-frobenius").compute(probe)
    layered = measures.get("hessian-frobenius", layers=True).compute(probe)
    assert set(plain.evidence) < set(layered.evidence)
    assert len(layered.evidence) == 3
    assert layered.cost.products == plain.cost.products + 25 + 18


def test_a_network_of_one_layer_is_its_own_layer():
    model = nn.Linear(4, 3).double()
    result = measures.get("hessian-frobenius", layers=True).compute(probe_of(model))
    assert result.diagnostics["layers"]["(root)"]["value"] == result.value
    assert len(result.evidence) == 1


@pytest.mark.parametrize("c", [0.2, 7.0])
def test_layer_rescaling_of_a_relu_net(c):
    # Without biases: only then is the second layer's block scaled as a whole.
    model = relu_net(biases=False)
    before, after = probe_of(model), probe_of(rescaled(model, c))
    assert after.loss() == pytest.approx(before.loss(), rel=1e-12)
    for alpha in (0.5, 1.5, 2.0):
        measure = measures.get("renyi-sharpness", alpha=alpha, layers=True)
        one, two = measure.compute(before), measure.compute(after)
        for layer in ("0", "2"):
            assert two.diagnostics["layers"][layer]["value"] == pytest.approx(
                one.diagnostics["layers"][layer]["value"], rel=1e-6
            )
        # The whole network's is not invariant: its layers scale differently.
        assert two.value != pytest.approx(one.value, rel=1e-2)
    scales = {"0": c**-2, "2": c**2}
    for name in ("hessian-trace", "hessian-top-eigenvalue"):
        measure = measures.get(name, layers=True)
        one, two = measure.compute(before), measure.compute(after)
        for layer, scale in scales.items():
            assert two.diagnostics["layers"][layer]["value"] == pytest.approx(
                scale * one.diagnostics["layers"][layer]["value"], rel=1e-6
            )
        assert two.value != pytest.approx(one.value, rel=1e-2)


def test_the_gauss_newton_matrix_of_a_linear_model_is_its_hessian():
    model = nn.Linear(4, 3).double()
    probe = probe_of(model)
    for name in SPECTRAL:
        config = {} if name != "renyi-sharpness" else {"alpha": 2.0}
        hessian = measures.get(name, **config).compute(probe)
        ggn = measures.get(name, operator="ggn", **config).compute(probe)
        assert ggn.value == pytest.approx(hessian.value, rel=1e-7, abs=1e-9)
        assert ggn.measure.startswith(name)
        assert ggn.measure != hessian.measure


def test_the_gauss_newton_matrix_has_no_negative_curvature(net):
    probe, _ = net
    bottom = measures.get("hessian-bottom-eigenvalue", operator="ggn").compute(probe)
    top = measures.get("hessian-top-eigenvalue", operator="ggn").compute(probe)
    assert bottom.value > -1e-10 * top.value
    assert bottom.diagnostics["negative_mass"] == pytest.approx(0, abs=1e-9)
