"""What rounding of the products does is in every spectral interval."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, audit
from landscape.evidence import SpectrumRequest, TraceRequest, compute_spectrum
from landscape.linalg import MatrixOperator
from landscape.measures import (
    EffectiveDimension,
    HessianBottomEigenvalue,
    HessianFrobenius,
    HessianTopEigenvalue,
    HessianTrace,
    RenyiSharpness,
)
from landscape.results import Status

SIZE = 60
MEASURES = {
    "top": HessianTopEigenvalue(steps=90),
    "bottom": HessianBottomEigenvalue(steps=90),
    "trace": HessianTrace(steps=90),
    "frobenius": HessianFrobenius(steps=90),
    "renyi": RenyiSharpness(steps=90),
    "dimension": EffectiveDimension(steps=90),
}


class Rounded(MatrixOperator):
    """A matrix whose products are those of another one, and that knows the difference."""

    def __init__(self, matrix, error):
        super().__init__(matrix + error)
        self.error = error
        self.asked = []

    def rounding_errors(self, vectors):
        self.asked.append(len(vectors))
        return vectors.double() @ self.error


def errors(kind, matrix, size, seed):
    """Errors of a given relative size: random, a share of the matrix, or of its top alone."""
    draws = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).double()
    values, vectors = torch.linalg.eigh(matrix)
    found = {
        "random": draws + draws.T,
        "share": -matrix,
        "top": -values[-1] * torch.outer(vectors[:, -1], vectors[:, -1]),
    }[kind]
    return size * found * (matrix.norm() / found.norm())


@pytest.fixture(scope="module")
def matrix(symmetric):
    bulk = np.random.default_rng(0).exponential(size=SIZE - 4)
    return symmetric(np.concatenate([[50.0, 20.0, 10.0, -5.0], bulk]))


@pytest.fixture(scope="module")
def truth(matrix):
    values = torch.linalg.eigvalsh(matrix).numpy()
    sizes = np.abs(values)
    return {
        "top": values[-1],
        "bottom": values[0],
        "trace": values.sum(),
        "frobenius": float(matrix.norm()),
        "renyi": -2 * np.log(np.sqrt(sizes).sum() / np.sqrt(sizes.sum())),
        "dimension": (sizes / (sizes + 1)).sum(),
    }


@pytest.mark.parametrize("kind", ["random", "share", "top"])
@pytest.mark.parametrize("size", [1e-6, 1e-3])
def test_intervals_hold_the_truth_without_rounding(matrix, truth, kind, size):
    held = {name: [] for name in MEASURES}
    for seed in range(8):
        operator = Rounded(matrix, errors(kind, matrix, size, seed))
        request = SpectrumRequest(steps=90, probes=4, probe_steps=6, seed=seed)
        found = compute_spectrum(operator, request, layers={})
        assert operator.asked == [SIZE]  # of a matrix that is known completely
        for name, measure in MEASURES.items():
            low, high = measure.of_spectrum(found).interval
            held[name].append(low <= truth[name] <= high)
    assert {name: np.mean(hits) for name, hits in held.items() if np.mean(hits) < 0.75} == {}


@pytest.mark.parametrize("kind", ["random", "share"])
def test_layer_traces_hold_the_truth_without_rounding(matrix, kind):
    layers = {"low": [slice(0, 20)], "high": [slice(20, SIZE)]}
    held = []
    for seed in range(8):
        operator = Rounded(matrix, errors(kind, matrix, 1e-3, seed))
        request = SpectrumRequest(steps=90, seed=seed)
        for layer, mean in (
            compute_spectrum(operator, request, layers=layers).layer_traces().items()
        ):
            low, high = mean.interval()
            held.append(low <= float(matrix.diagonal()[layers[layer][0]].sum()) <= high)
    assert np.mean(held) >= 0.75


@pytest.mark.parametrize("memory", [4 << 30, 8 * SIZE * 8])  # the second keeps no basis
def test_where_two_digits_are_lost_the_advice_is_float64(matrix, memory):
    request = SpectrumRequest(steps=90, memory=memory)
    operator = Rounded(matrix, errors("share", matrix, 0.4, 0))
    found = compute_spectrum(operator, request, layers={})
    for name in ("top", "trace", "frobenius", "renyi", "dimension"):
        estimate = MEASURES[name].of_spectrum(found)
        assert estimate.status is Status.UNCERTAIN, name
        assert "--dtype float64" in estimate.message
    for name, value in (("top", 50.0), ("trace", float(matrix.trace()))):
        low, high = MEASURES[name].of_spectrum(found).interval
        assert low <= value <= high


@pytest.mark.parametrize("error", [None, torch.nan, torch.inf])
def test_unknown_errors_leave_a_few_units_in_the_last_place(matrix, error):
    class Silent(MatrixOperator):
        def rounding_errors(self, vectors):
            return None if error is None else torch.full_like(vectors, error)

    request = SpectrumRequest(steps=90)
    silent = compute_spectrum(Silent(matrix), request, layers={})
    plain = compute_spectrum(MatrixOperator(matrix), request, layers={})
    assert not silent.rounding.measured
    assert silent.rounding == plain.rounding
    assert 0 < silent.rounding.largest * silent.unit < 1e-14 * 50


def test_without_rounding_intervals_are_as_narrow_as_arithmetic(matrix):
    operator = Rounded(matrix, torch.zeros_like(matrix))
    found = compute_spectrum(operator, SpectrumRequest(steps=90), layers={})
    assert found.rounding.measured
    low, high = MEASURES["top"].of_spectrum(found).interval
    assert high - low < 1e-13 * 50


@pytest.mark.parametrize("memory", [4 << 30, 8 * 320 * 8])
def test_rounding_is_measured_once_with_few_vectors(symmetric, memory):
    large = symmetric(np.random.default_rng(1).normal(size=320))
    operator = Rounded(large, torch.zeros_like(large))
    compute_spectrum(operator, SpectrumRequest(memory=memory), layers={})
    assert sum(operator.asked) <= 4


@pytest.mark.parametrize("size", [1e-6, 1e-2, 0.3])
def test_a_dedicated_trace_holds_rounding_too(matrix, size):
    class Fixed:
        def __init__(self, operator):
            self.fixed = operator

        def operator(self, _):
            return self.fixed

    held = []
    for seed in range(10):
        probe = Fixed(Rounded(matrix, errors("share", matrix, size, seed)))
        # As many products as parameters read the trace off, so that rounding is all there is.
        found = TraceRequest(matvecs=SIZE, seed=seed).compute(probe)
        low, high = found.interval()
        held.append(low <= float(matrix.trace()) <= high)
    assert np.mean(held) >= 0.8


@pytest.mark.parametrize("size", [36, 12, 4])
def test_rounding_is_measured_on_several_batches(size):
    """Nets fitted to some thousandths, in batches of which the first may be an easy one."""
    held = []
    for seed in range(4):
        torch.manual_seed(seed)
        inputs = torch.randn(36, 5)
        targets = 1e3 * torch.sin(inputs[:, :1])
        net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        optimizer = torch.optim.LBFGS(net.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure(net=net, optimizer=optimizer, inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = functional.mse_loss(net(inputs.double()), targets.double())
            loss.backward()
            return loss

        optimizer.step(closure)
        names = ["gradient-norm", "hessian-top-eigenvalue", "hessian-trace"]
        batches = list(zip(inputs.split(size), targets.split(size), strict=True))
        single = audit(Probe(net.float(), "mse", batches), names)
        double = audit(Probe(net, "mse", batches, dtype=torch.float64, checks="off"), names)
        for name in names:
            low, high = single[name].interval
            told = single[name].status is Status.UNCERTAIN
            held.append(told or low <= double[name].value <= high)
    assert np.mean(held) >= 0.75
