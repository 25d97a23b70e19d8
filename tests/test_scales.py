"""Every spectral number scales with its operator, at any scale that its type can hold."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, measures
from landscape.evidence import SpectrumRequest, compute_spectrum
from landscape.linalg import (
    MatrixOperator,
    Rescaled,
    absolute_sum,
    hutch_plus_plus,
    hutchinson,
    krylov,
    lanczos_chains,
    xtrace,
)
from landscape.measures import (
    EffectiveDimension,
    HessianBottomEigenvalue,
    HessianFrobenius,
    HessianSpectralDensity,
    HessianTopEigenvalue,
    HessianTrace,
    RenyiSharpness,
)
from landscape.results import Status

SINGLE = [(torch.float32, scale) for scale in (1e-35, 1e-30, 1e20, 1e35)]
DOUBLE = [(torch.float64, scale) for scale in (1e-300, 1e-160, 1e160, 1e300)]
BUDGET = SpectrumRequest(steps=20, probes=4, probe_steps=8)


def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def matrix(symmetric):
    bulk = 0.1 * np.random.default_rng(0).normal(size=117)
    return symmetric(np.concatenate([[8.0, 3.0, -2.0], bulk]))


class Counted(MatrixOperator):
    """Counts its products."""

    products = 0

    def matmat(self, vectors):
        self.products += len(vectors)
        return super().matmat(vectors)


@pytest.mark.parametrize(("dtype", "scale"), SINGLE + DOUBLE)
def test_products_are_of_order_one(matrix, dtype, scale):
    operator = Counted(matrix.to(dtype) * scale)
    rescaled = Rescaled(operator)
    vectors = torch.randn(3, 120, generator=generator(), dtype=torch.float64).to(dtype)
    images = rescaled.matmat(vectors)
    assert 1e-3 < float(images.abs().max()) < 1e3
    torch.testing.assert_close(
        images.double(), vectors.double() @ matrix * (scale / rescaled.unit), rtol=1e-4, atol=1e-4
    )
    assert operator.products == rescaled.products
    # Only what the type can hardly hold takes a second look.
    assert operator.products == (6 if scale in (1e-35, 1e-30, 1e-300) else 3)


@pytest.mark.parametrize(("dtype", "scale"), SINGLE + DOUBLE)
@pytest.mark.parametrize("estimator", [hutchinson, hutch_plus_plus, xtrace])
def test_traces_scale(matrix, estimator, dtype, scale):
    plain = estimator(MatrixOperator(matrix.to(dtype)), 12, generator=generator())
    scaled = estimator(MatrixOperator(matrix.to(dtype) * scale), 12, generator=generator())
    assert scaled.value / scale == pytest.approx(plain.value, rel=1e-4)
    assert scaled.stderr / scale == pytest.approx(plain.stderr, rel=1e-3)


@pytest.mark.parametrize(("dtype", "scale"), SINGLE + DOUBLE)
def test_lanczos_scales(matrix, dtype, scale):
    small = MatrixOperator(matrix.to(dtype))
    large = MatrixOperator(matrix.to(dtype) * scale)
    start = torch.ones(120, dtype=dtype)
    bases = [krylov(each, start, 10, generator=generator()) for each in (small, large)]
    np.testing.assert_allclose(bases[1].values / scale, bases[0].values, rtol=1e-3, atol=1e-5)
    sums = [
        absolute_sum(lanczos_chains(each, torch.stack([start] * 2), 10), np.sqrt)
        for each in (small, large)
    ]
    for name in ("value", "quadrature_error"):
        ratio = getattr(sums[1], name) / scale**0.5
        assert ratio == pytest.approx(getattr(sums[0], name), rel=1e-2)


@pytest.mark.parametrize(("dtype", "scale"), SINGLE + DOUBLE)
def test_spectral_measures_scale(matrix, dtype, scale):
    small, large = (
        compute_spectrum(MatrixOperator(matrix.to(dtype) * factor), BUDGET, layers={})
        for factor in (1.0, scale)
    )
    linear = (HessianTopEigenvalue, HessianBottomEigenvalue, HessianTrace, HessianFrobenius)
    for kind in linear:
        one, two = kind().of_spectrum(small), kind().of_spectrum(large)
        assert two.status is one.status
        np.testing.assert_allclose(
            np.array([two.value, *two.interval]) / scale, [one.value, *one.interval], rtol=1e-3
        )
    free = [RenyiSharpness(alpha=alpha) for alpha in (0.5, 1.0, 2.0)] + [HessianSpectralDensity()]
    for measure in free:
        one, two = measure.of_spectrum(small), measure.of_spectrum(large)
        assert two.status is one.status
        np.testing.assert_allclose(
            [two.value, *two.interval], [one.value, *one.interval], rtol=1e-3
        )
    one = EffectiveDimension(z=0.1).of_spectrum(small)
    two = EffectiveDimension(z=0.1 * scale).of_spectrum(large)
    assert two.value == pytest.approx(one.value, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_zero_matrix_keeps_the_budget(dtype):
    operator = Counted(torch.zeros(40, 40, dtype=dtype))
    found = compute_spectrum(operator, BUDGET, layers={})
    assert operator.products <= BUDGET.passes
    assert found.unit == 1
    assert found.trace().value == 0


@pytest.mark.parametrize("scale", [1e-34, 1e34])
def test_a_scaled_loss_scales_the_measures_of_a_probe(scale):
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator()))
    batch = (torch.randn(20, 3, generator=generator()), torch.arange(20) % 2)

    def value(name, factor):
        def loss(model, data):
            terms = functional.cross_entropy(model(data[0]), data[1], reduction="none")
            return terms * factor

        result = measures.get(name).compute(Probe(net, loss, [batch]))
        assert result.status is Status.OK
        return result.value

    for name in ("hessian-top-eigenvalue", "hessian-trace", "hessian-frobenius"):
        assert value(name, scale) / scale == pytest.approx(value(name, 1.0), rel=1e-4)


def test_curvature_that_underflows_is_uncertain_or_undefined():
    net = nn.Linear(3, 2)
    batch = (torch.randn(8, 3, generator=generator()), torch.arange(8) % 2)

    def loss(model, data):
        return functional.cross_entropy(model(data[0]), data[1], reduction="none") * 1e-50

    probe = Probe(net, loss, [batch])
    for name in ("hessian-top-eigenvalue", "hessian-trace", "hessian-frobenius"):
        result = measures.get(name).compute(probe)
        assert result.status is Status.UNCERTAIN
        assert "float64" in result.message
    assert measures.get("renyi-sharpness").compute(probe).status is Status.UNDEFINED
