"""What is refused, in one clear line."""

import pytest
import torch
from test_training_state import BASES, advance, made, network
from torch import nn

from landscape import training


def sam(model, **settings):
    return training.SAM(BASES["sgd"](model.parameters()), model, **settings)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda m: training.SAM(torch.optim.SGD, m), TypeError, "the class SGD; use torch.optim"),
        (lambda m: training.SAM(BASES["sgd"](m.parameters()), 3), TypeError, "got int"),
        (lambda m: sam(m, rho=-1), ValueError, "rho must be a number at least 0, got -1"),
        (lambda m: sam(m, rho=float("nan")), ValueError, "got nan"),
        (lambda m: sam(m, rho="big"), ValueError, "got 'big'"),
        (lambda m: sam(m, maximum=3), TypeError, "unknown setting 'maximum' of SAM"),
        (lambda m: sam(m, perturbation="global"), ValueError, "synchronised or local"),
        (
            lambda m: training.SAM(torch.optim.LBFGS(m.parameters()), m),
            ValueError,
            "LBFGS evaluates its own",
        ),
        (lambda m: training.SAM(sam(m), m), ValueError, "SAM evaluates its own"),
        (lambda m: sam(m).step(), TypeError, "SAM.step needs a closure"),
        (lambda m: made("esam", m).step(), TypeError, "ESAM.step needs a closure"),
        (lambda m: sam(m).step(lambda: 3.0), TypeError, "loss as a tensor, got float"),
        (lambda m: made("esam", m).step(lambda _: torch.ones(()), 4), ValueError, "each of the 4"),
        (lambda m: made("esam", m).step(lambda _: None, 4), ValueError, "got NoneType"),
        (lambda m: made("esam", m).step(3, 4), TypeError, "losses of rows"),
        (lambda m: made("esam", m).step(lambda _: None, 0), ValueError, "size must be"),
        (lambda m: made("rsam", m, alpha=1), ValueError, "differ from 1"),
        (lambda m: made("asam", m, adapt="some"), ValueError, "weights or all"),
        (
            lambda m: made("looksam", m, every=0),
            ValueError,
            "every must be a whole number of at least 1",
        ),
        (lambda m: made("tsam", m, samples=2.5), ValueError, "samples must be a whole number"),
        (
            lambda m: training.SAM(
                torch.optim.SGD([{"params": list(m.parameters()), "rho": -1.0}], lr=1.0), m
            ),
            ValueError,
            "rho must be a number at least 0, got -1.0",
        ),
        (
            lambda m: training.MomentumSAM(torch.optim.SGD(m.parameters(), lr=1.0), m),
            ValueError,
            r"this SGD has none; use SGD\(..., momentum=0.9\)",
        ),
        (lambda m: made("ssam-f", m).refresh_mask([]), ValueError, "at least one example"),
        (
            lambda m: sam(m).load_state_dict(BASES["sgd"](m.parameters()).state_dict()),
            ValueError,
            "the state of a plain optimiser, not of SAM",
        ),
        (
            lambda m: sam(m).load_state_dict(made("bsam", m).state_dict()),
            ValueError,
            "the state of BilateralSAM, not of SAM",
        ),
        (
            lambda m: training.FollowLearningRate(sam(m), "rho_min", high=1.0, lr_high=1.0),
            ValueError,
            "SAM has no setting 'rho_min'",
        ),
        (
            lambda m: training.FollowLearningRate(sam(m), high=1.0, lr_high=0.0),
            ValueError,
            "lr_low must be below lr_high",
        ),
    ],
)
def test_bad_input_is_one_clear_line(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong(network())


def test_a_state_of_other_shapes_is_refused_before_anything_changes():
    model = network()
    optimizer = made("looksam", model)
    advance(model, optimizer)
    state = optimizer.state_dict()
    other = nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    again = made("looksam", other)
    with pytest.raises(ValueError, match="parameters of other shapes"):
        again.load_state_dict(state)
    assert not again.memory
    assert not again.base_optimizer.state
