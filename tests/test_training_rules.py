"""Each rule against its formula, written again in NumPy on flat vectors, over several steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
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
        self.momentum = None

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


def norm(v):
    return np.sqrt(np.sum(v * v))


def top(scores, count):
    mask = np.zeros(len(scores))
    mask[np.argsort(-scores)[:count]] = 1
    return mask


def sam(r, w, rho):
    g = r.grad(w)
    return r.grad(w + rho * g / norm(g))


def asam(r, w, rho, eta, adapt):
    g = r.grad(w)
    parts = zip(r.names, r.cut(w), strict=True)
    T = np.concatenate(
        [
            (np.abs(p) + eta if adapt == "all" or "weight" in name else np.ones(p.shape)).ravel()
            for name, p in parts
        ]
    )
    return r.grad(w + rho * T**2 * g / norm(T * g))


def gsam(r, w, rho, alpha):
    g = r.grad(w)
    gp = r.grad(w + rho * g / norm(g))
    cosine = g @ gp / norm(g) / norm(gp)
    vertical = g - cosine * norm(g) * gp / norm(gp)
    return gp - alpha * vertical


def looksam(r, w, rho, alpha, every):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step % every == 0:
        gp = r.grad(w + rho * g / norm(g))
        cosine = g @ gp / norm(g) / norm(gp)
        r.memory["v"] = gp - norm(gp) * cosine * g / norm(g)
        return gp
    return g + alpha * norm(g) / norm(r.memory["v"]) * r.memory["v"]


def m_sam(r, w, rho, micro_batch):
    total = np.zeros_like(w)
    for start in range(0, ROWS, micro_batch):
        rows = r.all[start : start + micro_batch]
        g = r.grad(w, rows)
        total += len(rows) * r.grad(w + rho * g / norm(g), rows)
    return total / ROWS


def friendly(r, w, rho, sigma, decay):
    g = r.grad(w)
    d = g - sigma * r.memory["m"] if "m" in r.memory else g
    r.memory["m"] = decay * r.memory["m"] + (1 - decay) * g if "m" in r.memory else g
    return r.grad(w + rho * d / norm(d))


def momentum_sam(r, w, rho):
    v = r.momentum
    return r.grad(w if v is None else w - rho * v / norm(v))


def ssam_f(r, w, rho, sparsity):
    if "mask" not in r.memory:  # the test refreshes before the first step
        fisher = sum(r.grad(w, [row]) ** 2 for row in r.all)
        r.memory["mask"] = top(fisher, round((1 - sparsity) * len(w)))
    g = r.grad(w)
    return r.grad(w + rho * r.memory["mask"] * g / norm(g))


def ssam_d(r, w, rho, sparsity, drop, refresh_every, total_steps):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step == 0:
        mask = top(r.normal(), round((1 - sparsity) * len(w)))
    else:
        mask = r.memory["mask"]
        if step % refresh_every == 0:
            share = drop / 2 * (1 + math.cos(math.pi * step / total_steps))
            live, dead = np.flatnonzero(mask), np.flatnonzero(mask == 0)
            count = min(round(share * len(live)), len(dead))
            chance = r.normal()
            mask = mask.copy()
            mask[live[np.argsort(np.abs(g[live]))[:count]]] = 0
            mask[dead[np.argsort(-chance[dead])[:count]]] = 1
    r.memory["mask"] = mask
    return r.grad(w + rho * mask * g / norm(g))


def fsam(r, w, rho, keep, refresh_every):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step % refresh_every == 0:
        matrix = np.concatenate([np.full(s.numel(), len(s) > 1) for s in r.shapes])
        mask = np.ones_like(w)
        mask[matrix] = top(g[matrix] ** 2, round(keep * matrix.sum()))
        r.memory["mask"] = mask
    return r.grad(w + rho * r.memory["mask"] * g / norm(g))


def esam(r, w, rho, beta, gamma):
    g = r.grad(w)
    chosen = torch.rand(len(r.shapes), generator=r.source).numpy() < beta
    b = np.concatenate([np.full(s.numel(), c) for s, c in zip(r.shapes, chosen, strict=True)])
    if not chosen.any():
        return g
    shifted = w + rho * b / beta * g / norm(g)
    rise = r.losses(shifted) - r.losses(w)
    return r.grad(shifted, np.sort(np.argsort(-rise)[: math.ceil(gamma * ROWS)]).tolist())


def bsam(r, w, rho, rho_min):
    g = r.grad(w)
    up = r.grad(w + rho * g / norm(g))
    down = r.grad(w - rho_min * g / norm(g))
    return up + g - norm(up) / norm(down) * down


def tsam(r, w, tilt, samples, rho, sigma, radius):
    losses, grads = [], []
    for _ in range(samples):
        noise = sigma * r.normal()
        noise = noise * min(1, radius / norm(noise))
        g = r.grad(w + noise)
        point = w + noise + rho * g / norm(g)
        losses.append(r.losses(point).mean())
        grads.append(r.grad(point))
    q = np.exp(tilt * (np.array(losses) - max(losses)))
    return (q / q.sum()) @ np.array(grads)


def nso(r, w, sigma, pairs, plain):
    noises = [sigma * r.normal() for _ in range(pairs)]
    noisy = sum(r.grad(w + u) + r.grad(w - u) for u in noises) / (2 * pairs)
    return plain * r.grad(w) + (1 - plain) * noisy


def rsam(r, w, rho, alpha):
    g = r.grad(w)
    G, P = np.sum(g**2) + 1e-16, np.sum(np.abs(g) ** (2 * alpha)) + 1e-16
    return r.grad(w - np.sign(1 - alpha) * rho * P / G ** (alpha + 1) * g)


def lpf_sgd(r, w, gamma, parts):
    widths = np.concatenate(
        [
            np.broadcast_to(
                np.sqrt((p**2).sum(axis=tuple(range(1, p.ndim)), keepdims=True))
                if p.ndim > 1
                else norm(p),
                p.shape,
            ).ravel()
            for p in r.cut(w)
        ]
    )
    total = np.zeros_like(w)
    for rows in np.array_split(r.all, parts):
        total += len(rows) / ROWS * r.grad(w + gamma * widths * r.normal(), rows.tolist())
    return total


def plain(r, w, **_):
    return r.grad(w)


def wasam(r, w, rho, **_):
    return sam(r, w, rho)


Rule = Callable[..., np.ndarray]
RULES: list[tuple[str, Rule, dict[str, Any]]] = [
    ("sam", sam, {"rho": 0.3}),
    ("asam", asam, {"rho": 0.5, "eta": 0.01, "adapt": "weights"}),
    ("asam", asam, {"rho": 0.5, "eta": 0.0, "adapt": "all"}),
    ("gsam", gsam, {"rho": 0.3, "alpha": 0.4}),
    ("looksam", looksam, {"rho": 0.3, "alpha": 0.7, "every": 3}),
    ("m-sam", m_sam, {"rho": 0.3, "micro_batch": 4}),
    ("friendly-sam", friendly, {"rho": 0.3, "sigma": 0.8, "decay": 0.6}),
    ("momentum-sam", momentum_sam, {"rho": 0.3}),
    ("ssam-f", ssam_f, {"rho": 0.3, "sparsity": 0.4}),
    (
        "ssam-d",
        ssam_d,
        {"rho": 0.3, "sparsity": 0.4, "drop": 0.5, "refresh_every": 2, "total_steps": 10},
    ),
    ("fsam", fsam, {"rho": 0.3, "keep": 0.3, "refresh_every": 2}),
    ("esam", esam, {"rho": 0.3, "beta": 0.6, "gamma": 0.4}),
    ("bsam", bsam, {"rho": 0.3, "rho_min": 0.1}),
    ("tsam", tsam, {"tilt": 2.0, "samples": 4, "rho": 0.1, "sigma": 0.1, "radius": 0.3}),
    ("nso", nso, {"sigma": 0.1, "pairs": 2, "plain": 0.25}),
    ("nso", nso, {"sigma": 0.1, "pairs": 1, "plain": 0.0}),
    ("rsam", rsam, {"rho": 0.3, "alpha": 1.2}),
    ("rsam", rsam, {"rho": 0.1, "alpha": 0.5}),
    ("lpf-sgd", lpf_sgd, {"gamma": 0.1, "parts": 4}),
    ("swa", plain, {"start": 0}),
    ("ema", plain, {"decay": 0.9}),
    ("wasam", wasam, {"rho": 0.3, "start": 0}),
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


def test_every_method_has_a_transcription():
    assert {name for name, _, _ in RULES} == set(METHODS)


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
