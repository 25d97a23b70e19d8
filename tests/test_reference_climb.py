"""The ascent with compat="andriushchenko2023" against a plain NumPy transcription, step by step."""

import math

import numpy as np
import pytest
import torch

from landscape.evidence.climbing import checkpoints
from landscape.evidence.reference_climbing import reference_climb
from landscape.geometry import L2Ball, LinfBall

SIZE = 5


class Bumps:
    """A smooth loss with several maxima, steep enough for ascents to overshoot; NumPy only."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.mixing = rng.normal(size=(SIZE, SIZE)) * 1.5
        self.shift = rng.normal(size=SIZE)
        self.slope = rng.normal(size=SIZE) * 0.1

    def loss(self, d):
        return float(np.cos(self.mixing @ d + self.shift).sum() + self.slope @ d)

    def gradient(self, d):
        return -self.mixing.T @ np.sin(self.mixing @ d + self.shift) + self.slope


def projected(z, c, rho, norm):
    """Published projection; the bisection on mu is run to the end instead of to 1e-5."""
    if norm == "linf":
        return np.clip(z, -rho * c, rho * c)
    free = c > 0
    x, scale = np.where(free, z, 0.0), np.where(free, c, 1.0)
    if math.sqrt(((x / scale) ** 2).sum()) <= rho:
        return x
    low, high = 0.0, 1.0

    def at(mu):
        return np.where(free, x / (1 + 2 * mu / scale**2), 0.0)

    def norm_at(mu):
        return math.sqrt(((at(mu) / scale) ** 2).sum())

    while norm_at(high) > rho:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if norm_at(middle) > rho else (low, middle)
    return at(high)


def published_windows(steps):
    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return {math.ceil(share * steps) for share in shares[1:] if share <= 1}


def published(problem, c, rho, norm, steps, windows):
    """Section 3.3 of Andriushchenko et al.'s code: every point visited, the best loss, halvings."""
    step, momentum = 2 * rho, 0.75
    delta = previous = weights = best = np.zeros(SIZE)
    best_loss = problem.loss(weights)
    step_then, best_then, turn, improved = step, best_loss, 0, 0
    asked_gradients, asked_losses, halvings = [], [], []
    for i in range(steps):
        asked_gradients.append(weights)
        g = problem.gradient(weights)
        direction = np.sign(g) if norm == "linf" else g / (np.linalg.norm(g) + 1e-12)
        z = projected(delta + step * direction * c, c, rho, norm)
        delta, previous = momentum * z + (1 - momentum) * previous, delta
        weights = delta
        asked_losses.append(weights)
        loss = problem.loss(weights)
        if loss > best_loss:
            best, best_loss, improved = weights, loss, improved + 1
        if i in windows:
            stalled = improved < 0.75 * (i - turn)
            same = step_then == step and best_then == best_loss
            step_then, best_then, turn, improved = step, best_loss, i, 0
            if stalled or same:
                step /= 2
                weights = best  # delta goes on from where it was
                halvings.append(i)
    return asked_gradients, asked_losses, best, best_loss, halvings


def climbed(problems, ball, rho, steps):
    """The library's ascent on several problems at once, with everything that it asked for."""
    asked = {True: [], False: []}

    def evaluate(deltas, gradient):
        points = deltas.numpy()
        asked[gradient].append(points.copy())
        pairs = list(zip(problems, points, strict=True))
        losses = torch.tensor([p.loss(d) for p, d in pairs], dtype=torch.float64)
        return losses, torch.tensor(np.stack([p.gradient(d) for p, d in pairs]))

    base = torch.tensor([p.loss(np.zeros(SIZE)) for p in problems], dtype=torch.float64)
    found = reference_climb(evaluate, ball, rho, base, steps)
    return asked, found, base


SCALES = {
    "standard": np.ones(SIZE),
    "adaptive": np.array([0.3, 1.7, 0.05, 0.9, 2.5]),
    "adaptive-with-zeros": np.array([0.3, 0.0, 0.6, 0.9, 0.0]),
}


# Overshooting ascents are chaotic: rounding grows about tenfold in five steps.
@pytest.mark.parametrize(("steps", "close"), [(20, 1e-8), (50, 1e-4)])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("scale", SCALES)
def test_every_step_is_the_published_one(norm, scale, steps, close):
    c, rho = SCALES[scale], 0.8 if norm == "l2" else 0.4
    problems = [Bumps(seed) for seed in range(3)]
    ball = (L2Ball if norm == "l2" else LinfBall)(torch.tensor(c))
    asked, found, base = climbed(problems, ball, rho, steps)
    halved = 0
    for row, problem in enumerate(problems):
        points = published(problem, c, rho, norm, steps, published_windows(steps))
        gradients, losses, best, best_loss, halvings = points
        np.testing.assert_allclose([p[row] for p in asked[True]], gradients, atol=close)
        np.testing.assert_allclose([p[row] for p in asked[False]], losses, atol=close)
        np.testing.assert_allclose(found.best[row].numpy(), best, atol=close)
        assert float(found.losses[row]) == pytest.approx(best_loss, abs=close)
        assert float(found.losses[row]) >= float(base[row])
        halved += len(halvings)
    assert halved >= 3, "the test problem must make the ascent halve its step"


def test_the_offset_goes_on_at_a_halving():
    """Points differ from an ascent whose offset is reset with the weights."""
    problem, c, rho = Bumps(0), np.ones(SIZE), 0.8
    gradients, losses, _, _, halvings = published(problem, c, rho, "l2", 20, published_windows(20))
    asked, _, _ = climbed([problem], L2Ball(torch.tensor(c)), rho, 20)
    turn = halvings[0]
    assert not np.allclose(gradients[turn + 1], losses[turn])  # went back to the best point
    g = problem.gradient(gradients[turn + 1])
    reset = projected(gradients[turn + 1] + rho * g / np.linalg.norm(g), c, rho, "l2")
    reset = 0.75 * reset + 0.25 * gradients[turn + 1]
    assert not np.allclose(asked[False][turn + 1][0], reset, atol=1e-3)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [3, 5, 6, 8]),
        (20, [5, 9, 12, 15, 16, 18, 19, 20]),
        (50, [11, 21, 29, 35, 40, 44, 47, 50]),
    ],
)
def test_checkpoints_are_the_published_ones(steps, expected):
    assert checkpoints(steps) == expected


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_slope_at_the_start(norm):
    """A zero gradient moves nothing: the published ascent cannot leave a stationary point."""
    ball = (L2Ball if norm == "l2" else LinfBall)(torch.ones(3, dtype=torch.float64))

    def bowl(deltas, _):
        return deltas.square().sum(1).cpu(), 2 * deltas

    found = reference_climb(bowl, ball, 1.0, torch.zeros(2, dtype=torch.float64), 20)
    assert found.losses.tolist() == [0, 0]
    assert not found.best.any()
    assert not found.nan.any()


def test_points_without_a_finite_loss_are_counted_and_never_the_best():
    ball = L2Ball(torch.ones(1, dtype=torch.float64))

    def edge(deltas, _):
        losses = torch.where(deltas[:, 0] > 0.5, torch.nan, deltas[:, 0])
        losses[1] = torch.where(deltas[1, 0] > 0.5, torch.inf, deltas[1, 0])
        return losses, torch.ones_like(deltas)

    found = reference_climb(edge, ball, 1.0, torch.zeros(2, dtype=torch.float64), 20)
    assert found.nan[0] > 0
    assert found.infinite[1] > 0
    assert not found.losses.isnan().any()
