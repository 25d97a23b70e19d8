"""PyHessian as a third truth beside closed forms and dense Hessians."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import measures

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def classifier():
    source = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=source))
    x = torch.randn(60, 6, generator=source)
    y = torch.randint(0, 4, (60,), generator=source)
    return model, x, y


@pytest.fixture(scope="module")
def peer(classifier):
    """PyHessian's top eigenvalue and trace samples."""
    from pyhessian import hessian

    model, x, y = classifier
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        # It calls backward(create_graph=True), which torch advises against.
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        theirs = hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
        (top,), _ = theirs.eigenvalues(maxIter=2000, tol=1e-7)
        samples = np.array(theirs.trace(maxIter=300, tol=0.0))
    model.zero_grad()
    return top, samples


@pytest.fixture(scope="module")
def probe(classifier):
    model, x, y = classifier
    return landscape.Probe(model, "cross_entropy", [(x[:25], y[:25]), (x[25:], y[25:])])


def test_the_top_eigenvalue_agrees(probe, peer):
    top, _ = peer
    assert measures.get("hessian-top-eigenvalue").compute(probe).value == pytest.approx(
        top, rel=1e-3
    )


@pytest.mark.parametrize("matvecs", [None, 60])
def test_the_trace_agrees(probe, peer, matvecs):
    _, samples = peer
    assert len(samples) == 300
    error = samples.std(ddof=1) / 300**0.5
    ours = measures.get("hessian-trace", matvecs=matvecs).compute(probe)
    assert abs(ours.value - samples.mean()) < 3.5 * np.hypot(error, ours.stderr)
    assert ours.stderr < 2 * error
