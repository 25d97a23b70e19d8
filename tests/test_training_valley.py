"""A valley of minima, uv = 1, on which the trace of the Hessian is u² + v²: who goes where."""

import pytest
import torch
from torch import nn

from landscape import training
from landscape.training import METHODS, RowOptimizer

STEPS, LR = 600, 0.05
FLATTEST, START = 2.0, 9.06  # u = v = 1, and the minimum that the base optimiser finds


class Valley(nn.Module):
    """L = (uv − 1)²/2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0], [0.4]], dtype=torch.float64))

    def closure(self):
        loss = self.row_losses(torch.arange(2)).mean()
        loss.backward()
        return loss

    def row_losses(self, rows):
        return (0.5 * (self.weight.prod() - 1) ** 2).expand(len(rows))


def trace_after(optimizer, model):
    for _ in range(STEPS):
        if isinstance(optimizer, RowOptimizer):
            optimizer.step(model.row_losses, 2)
        else:
            optimizer.step(model.closure)
    u, v = model.weight.detach().flatten().tolist()
    assert u * v == pytest.approx(1, abs=0.1)
    return u**2 + v**2


def trace_of(name, momentum=0.0, **settings):
    model = Valley()
    base = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum)
    return trace_after(METHODS[name](base, model, **settings), model)


def test_the_base_optimiser_stays_where_it_comes_down():
    assert trace_of("ema") == pytest.approx(START, abs=0.01)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sam", {"rho": 0.2}),
        ("gsam", {"rho": 0.2}),
        ("looksam", {"rho": 0.2, "alpha": 0.7}),
        ("friendly-sam", {"rho": 0.2}),
        ("momentum-sam", {"rho": 0.2, "momentum": 0.9}),
        ("ssam-f", {"rho": 0.2}),
        ("esam", {"rho": 0.2}),
        ("m-sam", {"rho": 0.2, "micro_batch": 1}),
        ("bsam", {"rho": 0.2, "rho_min": 0.1}),
        ("tsam", {"tilt": 5.0, "samples": 2, "sigma": 0.1, "rho": 0.1}),
        ("nso", {"sigma": 0.2}),
    ],
)
def test_methods_in_round_balls_walk_to_the_flat_end(name, settings):
    assert trace_of(name, **settings) < FLATTEST + 1


@pytest.mark.parametrize(("name", "drifts"), [("sam", True), ("asam", False)])
def test_a_ball_relative_to_the_weights_sees_no_flat_end(name, drifts):
    """The flow changes u² − v² at the rate −2 (u ∂L/∂u − v ∂L/∂v) of the perturbed loss.

    All minima of the valley are one up to a rescaling, to which |w| ⊙ ball is blind.
    """
    model = Valley()
    settings = {"eta": 0.0} if name == "asam" else {}
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    METHODS[name](base, model, rho=0.2, **settings).step(model.closure)
    u, v = (model.weight.detach() * model.weight.grad).flatten().tolist()
    assert (u - v > 0.1) if drifts else u == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_the_step_of_renyi_sam_grows_as_the_gradient_shrinks(alpha):
    """Its note on the need of a warm-up: ten times the gradient, a tenth of the step."""
    weight = nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))
    model = nn.Module()
    model.weight = weight
    lengths = []
    for scale in (1e-2, 1e-3):
        points = []

        def closure(scale=scale, points=points):
            points.append(weight.detach().clone())
            weight.grad = scale * weight.detach()
            return scale * weight.detach().square().sum() / 2

        base = torch.optim.SGD([weight], lr=0.0)
        training.RenyiSAM(base, model, alpha=alpha, rho=0.1).step(closure)
        lengths.append(float((points[1] - points[0]).norm()))
    assert lengths[1] / lengths[0] == pytest.approx(10, rel=1e-3)
