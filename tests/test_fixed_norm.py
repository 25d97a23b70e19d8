"""Batch norm with fixed statistics: the fused affine map equals torch's to second derivatives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from landscape.probing.fixed_norm import use_fixed_statistics

NORMS = {
    "1d": (nn.BatchNorm1d, (5, 3)),
    "1d-sequence": (nn.BatchNorm1d, (5, 3, 4)),
    "2d": (nn.BatchNorm2d, (5, 3, 4, 2)),
    "3d": (nn.BatchNorm3d, (5, 3, 2, 2, 2)),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_value_and_two_derivatives_equal_torch(name, affine):
    torch.manual_seed(0)
    make, shape = NORMS[name]
    plain = make(3, affine=affine).double()
    plain.train()(torch.randn(*shape).double() * 3 + 1)
    plain.eval()
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    fused = copy.deepcopy(plain)
    use_fixed_statistics(fused)
    inputs = torch.randn(*shape).double()

    def derivatives(norm):
        x = inputs.clone().requires_grad_()
        leaves = [x, *norm.parameters()]
        value = norm(x)
        first = torch.autograd.grad(value.sin().sum(), leaves, create_graph=True)
        scalar = sum((part.cos() * part).sum() for part in first)
        return [value, *first, *torch.autograd.grad(scalar, leaves)]

    for ours, theirs in zip(derivatives(fused), derivatives(plain), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_training_mode_is_left_to_torch():
    norm = nn.BatchNorm1d(3)
    use_fixed_statistics(norm)
    before = norm.running_mean.clone()
    norm(torch.randn(8, 3) + 2)
    assert not torch.equal(norm.running_mean, before)
