"""The same code on CUDA: run where there is a device."""

from __future__ import annotations

import pytest
import torch
from test_probe_products import CASES, case, dense_ggn, dense_hessian, relative
from torch import nn

import landscape
from landscape import Probe

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("products", ["loop", "batched"])
@pytest.mark.parametrize("name", CASES)
def test_products_on_cuda_equal_the_dense_matrices(name, products, dtype, most):
    model, batches = case(name, dtype)
    probe = Probe(model, "cross_entropy", batches, device="cuda", products=products)
    vectors = torch.randn(4, probe.size, dtype=dtype)
    assert probe.hvp(vectors).device.type == "cuda"
    hessian = vectors.double() @ dense_hessian(model, batches)
    assert relative(probe.hvp(vectors).cpu(), hessian) < most
    ggn = vectors.double() @ dense_ggn(model, batches)
    assert relative(probe.ggnvp(vectors).cpu(), ggn) < most


def test_recurrent_nets_have_products_on_cuda():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    model, batches = Net(), [(torch.randn(5, 6, 3), torch.randint(0, 2, (5,)))]
    here, there = (
        Probe(model, "cross_entropy", batches, device=device, dtype=torch.float64)
        for device in ("cpu", "cuda")
    )
    vector = torch.randn(here.size, dtype=torch.float64)
    assert relative(there.hvp(vector).cpu(), here.hvp(vector)) < 1e-10


def test_neighbourhoods_are_the_same_on_both_devices():
    model, batches = case("mlp", torch.float64)
    names = [
        "max-sharpness", "min-sharpness", "adaptive-sharpness", "keskar-sharpness",
        "average-sharpness", "tilted-sharpness", "sam-gap", "sparse-gap", "critical-sharpness",
        "fisher-trace", "fisher-rao-norm", "gradient-covariance-trace",
    ]  # fmt: skip
    here, there = (
        landscape.audit(Probe(model, "cross_entropy", batches, device=device), names)
        for device in ("cpu", "cuda")
    )
    for one, two in zip(here, there, strict=True):
        assert two.value == pytest.approx(one.value, rel=1e-5, abs=1e-10), one.measure


def test_an_audit_gives_the_same_numbers_on_both_devices():
    model, batches = case("mlp")
    tables = [
        landscape.audit(Probe(model, "cross_entropy", batches, device=device), "quick")
        for device in ("cpu", "cuda")
    ]
    for here, there in zip(*tables, strict=True):
        assert there.value == pytest.approx(here.value, rel=1e-6, abs=1e-9)
    state = torch.cuda.get_rng_state()
    probe = Probe(model, "cross_entropy", batches, device="cuda")
    probe.hvp(torch.ones(probe.size))
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert tables[1].cost.peak_memory > 0
