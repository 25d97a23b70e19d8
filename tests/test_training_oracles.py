"""The same steps by pytorch_optimizer, where its definitions are the same, and where they are not.

Its BSAM is another method (Bayesian SAM) and is not compared.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import training

oracle = pytest.importorskip("pytorch_optimizer")
pytestmark = pytest.mark.oracle

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.randint(0, 3, (12,), generator=torch.Generator().manual_seed(2))
STEPS, LR, MU = 7, 0.1, 0.9


def network(tensors="many"):
    torch.manual_seed(0)
    if tensors == "one":
        return nn.Linear(4, 3, bias=False).double()
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def closure_of(model, zero=None):
    def closure():
        if zero:
            zero.zero_grad()
        loss = functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    return closure


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def ours(method, tensors="many", **settings):
    model = network(tensors)
    base = torch.optim.SGD(model.parameters(), lr=LR, momentum=MU)
    optimizer = method(base, model, **settings)
    for _ in range(STEPS):
        optimizer.step(closure_of(model))
    return weights(model)


def theirs(method, tensors="many", **settings):
    model = network(tensors)
    optimizer = method(model.parameters(), torch.optim.SGD, lr=LR, momentum=MU, **settings)
    for _ in range(STEPS):
        closure = closure_of(model, zero=optimizer)
        closure()
        optimizer.step(closure)
    return weights(model)


def close(a, b):
    # They accumulate norms in float32.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_sam_agrees():
    close(ours(training.SAM, rho=0.5), theirs(oracle.SAM, rho=0.5))


def test_asam_of_all_parameters_agrees():
    found = ours(training.ASAM, rho=0.5, eta=0.0, adapt="all")
    close(found, theirs(oracle.SAM, rho=0.5, adaptive=True))


def test_asam_of_weights_alone_is_another_rule():
    found = ours(training.ASAM, rho=0.5, eta=0.0, adapt="weights")
    expected = theirs(oracle.SAM, rho=0.5, adaptive=True)
    assert not torch.allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 0.7])
def test_friendly_sam_agrees(sigma):
    found = ours(training.FriendlySAM, rho=0.5, sigma=sigma, decay=0.9)
    close(found, theirs(oracle.FriendlySAM, rho=0.5, sigma=sigma, lmbda=0.9))


def test_looksam_agrees_where_there_is_one_tensor():
    settings = {"rho": 0.5, "alpha": 0.7}
    found = ours(training.LookSAM, "one", every=3, **settings)
    close(found, theirs(oracle.LookSAM, "one", k=3, **settings))


def test_looksam_is_another_rule_where_there_are_several():
    """Theirs takes norms and inner products tensor by tensor."""
    settings = {"rho": 0.5, "alpha": 0.7}
    found = ours(training.LookSAM, every=3, **settings)
    assert not torch.allclose(found, theirs(oracle.LookSAM, k=3, **settings), rtol=1e-3)


def test_gsam_agrees_with_the_radius_following_the_learning_rate():
    def schedule(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)

    mine = network()
    optimizer = training.GSAM(
        torch.optim.SGD(mine.parameters(), lr=LR, momentum=MU), mine, alpha=0.4
    )
    scheduler = schedule(optimizer)
    radius = training.FollowLearningRate(optimizer, high=0.5, low=0.1, lr_high=LR)

    other = network()
    base = torch.optim.SGD(other.parameters(), lr=LR, momentum=MU)
    other_scheduler = schedule(base)
    other_radius = oracle.ProportionScheduler(
        other_scheduler, max_lr=LR, min_lr=0.0, max_value=0.5, min_value=0.1
    )
    reference = oracle.GSAM(other.parameters(), base, other, other_radius, alpha=0.4)
    for _ in range(STEPS):
        optimizer.step(closure_of(mine))
        scheduler.step()
        radius.step()
        reference.set_closure(functional.cross_entropy, X, Y)
        reference.step()
        other_scheduler.step()
        reference.update_rho_t()
    close(weights(mine), weights(other))
