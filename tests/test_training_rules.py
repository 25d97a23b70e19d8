"""Each rule against its formula, written again in NumPy on flat vectors, over several steps."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from test_training_transcriptions import RULES, norm, rsam
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from landscape import training
from landscape.training import METHODS, RowOptimizer

LR, MU, ROWS, STEPS, SEED = 0.05, 0.9, 6, 5, 3


class Quadratic(nn.Module):
    """Row i has the loss wᵀ H_i w / 2 − b_iᵀ w, of a matrix and a vector."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        roots = rng.normal(size=(ROWS, 9, 9))
        self.H, self.b = roots @ roots.transpose(0, 2, 1) / 9, rng.normal(size=(ROWS, 9))
        start = torch.from_numpy(rng.normal(size=9))
        self.weight, self.bias = nn.Parameter(start[:6].view(2, 3)), nn.Parameter(start[6:])

    def row_losses(self, rows):
        w = torch.cat([self.weight.flatten(), self.bias])
        H, b = torch.from_numpy(self.H)[rows], torch.from_numpy(self.b)[rows]
        return 0.5 * torch.einsum("i,rij,j->r", w, H, w) - b @ w

    def numpy_losses(self, w, rows):
        return np.array([0.5 * w @ self.H[r] @ w - self.b[r] @ w for r in rows])

    def numpy_gradient(self, w, rows):
        return np.mean([self.H[r] @ w - self.b[r] for r in rows], axis=0)


class Net(nn.Module):
    """Two layers and cross-entropy; the reference differentiates by functional_call."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        for param in self.parameters():
            param.data = torch.randn(param.shape, generator=source, dtype=torch.float64)
        self.x = torch.randn(ROWS, 4, generator=source, dtype=torch.float64)
        self.y = torch.randint(0, 3, (ROWS,), generator=source)

    def row_losses(self, rows):
        return functional.cross_entropy(self.layers(self.x[rows]), self.y[rows], reduction="none")

    def _reference(self, flat, rows):
        named = dict(self.layers.named_parameters())
        parts = flat.split([p.numel() for p in named.values()])
        params = {n: v.view_as(p) for (n, p), v in zip(named.items(), parts, strict=True)}
        logits = functional_call(self.layers, params, (self.x[rows],))
        return functional.cross_entropy(logits, self.y[rows], reduction="none")

    def numpy_losses(self, w, rows):
        return self._reference(torch.from_numpy(w), rows).detach().numpy()

    def numpy_gradient(self, w, rows):
        flat = torch.from_numpy(w.copy()).requires_grad_()
        return torch.autograd.grad(self._reference(flat, rows).mean(), flat)[0].numpy()


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().copy()


@dataclass
class Reference:
    """What a transcription may use: losses, gradients, the same noise, the shapes, a memory."""

    model: Any
    settings: dict[str, Any]
    memory: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.shapes = [p.shape for p in self.model.parameters()]
        self.names = [name for name, _ in self.model.named_parameters()]
        self.source = torch.Generator().manual_seed(SEED)
        self.all = list(range(ROWS))
        self.momentum, self.size = None, ROWS

    def grad(self, w, rows=None):
        return self.model.numpy_gradient(w, self.all if rows is None else rows)

    def losses(self, w, rows=None):
        return self.model.numpy_losses(w, self.all if rows is None else rows)

    def normal(self):
        draws = [torch.randn(shape, generator=self.source) for shape in self.shapes]
        return np.concatenate([draw.double().flatten().numpy() for draw in draws])

    def cut(self, w):
        ends = np.cumsum([shape.numel() for shape in self.shapes])[:-1]
        return [
            part.reshape(shape) for part, shape in zip(np.split(w, ends), self.shapes, strict=True)
        ]


def advance(optimizer, model):
    """One step by the closure that the method asks for."""
    if isinstance(optimizer, RowOptimizer):
        return optimizer.step(model.row_losses, ROWS)

    def closure():
        loss = model.row_losses(torch.arange(ROWS)).mean()
        loss.backward()
        return loss

    return optimizer.step(closure)


def one_example(model, row):
    def closure():
        loss = model.row_losses(torch.tensor([row])).mean()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("problem", [Quadratic, Net])
@pytest.mark.parametrize(
    ("name", "rule", "settings"), RULES, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(RULES)]
)
def test_rule_agrees_with_its_formula(name, rule, settings, problem):
    model = problem()
    reference = Reference(problem(), settings)
    base = torch.optim.SGD(model.parameters(), lr=LR, momentum=MU)
    optimizer = METHODS[name](base, model, seed=SEED, **settings)
    if name == "ssam-f":
        optimizer.refresh_mask(one_example(model, row) for row in range(ROWS))
    w = flat(model)
    for _ in range(STEPS):
        direction = rule(reference, w, **settings)
        before = reference.momentum
        reference.momentum = direction if before is None else MU * before + direction
        move = -LR * reference.momentum
        advance(optimizer, model)
        assert norm(flat(model) - w - move) <= 1e-6 * norm(move)
        w = w + move


def test_momentum_sam_follows_the_first_moment_of_adamw():
    model, rho, beta = Net(), 0.3, 0.9
    base = torch.optim.AdamW(model.parameters(), lr=LR, betas=(beta, 0.99), weight_decay=0.1)
    optimizer = training.MomentumSAM(base, model, rho=rho)
    moment, square = np.zeros_like(flat(model)), np.zeros_like(flat(model))
    for step in range(1, 5):
        w = flat(model)
        ahead = w - rho * moment / norm(moment) if step > 1 else w
        g = model.numpy_gradient(ahead, list(range(ROWS)))
        moment, square = beta * moment + (1 - beta) * g, 0.99 * square + 0.01 * g**2
        first, second = moment / (1 - beta**step), square / (1 - 0.99**step)
        expected = w * (1 - LR * 0.1) - LR * first / (np.sqrt(second) + 1e-8)
        advance(optimizer, model)
        assert norm(flat(model) - expected) <= 1e-6 * norm(expected - w)


def test_friendly_sam_is_the_same_with_the_mean_before_or_after_the_gradient_where_sigma_is_one():
    rng = np.random.default_rng(0)
    g, m, decay = rng.normal(size=5), rng.normal(size=5), 0.6
    before, after = g - m, g - (decay * m + (1 - decay) * g)
    np.testing.assert_allclose(before / norm(before), after / norm(after))


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_renyi_sam_raises_the_loss_by_its_regulariser_but_not_its_gradient(alpha):
    """The two notes of its docstring: the value is as intended, the slope is not."""
    model = Quadratic()
    model.H, model.b = np.stack([np.eye(9)] * ROWS), np.zeros((ROWS, 9))
    reference, w, rho = Reference(model, {}), flat(model), 1e-4

    def regulariser(w):
        g = reference.grad(w)
        return -np.sign(1 - alpha) * np.sum(np.abs(g) ** (2 * alpha)) / np.sum(g**2) ** alpha

    g = reference.grad(w)
    P, G = np.sum(np.abs(g) ** (2 * alpha)), np.sum(g**2)
    moved = w - np.sign(1 - alpha) * rho * P / G ** (alpha + 1) * g
    rise = (reference.losses(moved) - reference.losses(w)).mean()
    assert rise == pytest.approx(rho * regulariser(w), rel=1e-3)
    extra = rsam(reference, w, rho, alpha) - g
    assert abs(extra @ w) == pytest.approx(norm(extra) * norm(w), rel=1e-6)  # along w
    assert regulariser(1.01 * w) == pytest.approx(regulariser(w), rel=1e-9)  # constant along w
