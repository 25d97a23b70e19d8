"""The quotient geometry of pairs of matrices that a function sees through their product only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from landscape.evidence.climbing import climb
from landscape.geometry import Elementwise, L2Ball, Pair, QuotientBall
from landscape.probing import ParamSpace

HEIGHTS, WIDTH, REST = (7, 6), 3, 5
METRICS = ("inv", "mix")


def pairs_of(count=2):
    """Pairs of shapes 7 x 3 and 6 x 3, one after the other, then parameters of no pair."""
    place, found = 0, []
    for index in range(count):
        matrices = []
        for height in HEIGHTS:
            size = height * WIDTH
            matrices.append(torch.arange(place, place + size).view(height, WIDTH))
            place += size
        found.append(Pair(f"pair {index}", *matrices))
    return found, place + REST


def point(size, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=source, dtype=torch.float64)


def moved_along_orbit(weights, pairs, seed, condition=100.0):
    """The same function elsewhere: (G A^-1, K A^T) with a random A for every pair."""
    source = torch.Generator().manual_seed(seed)
    found = weights.clone()
    for pair in pairs:
        draws = torch.randn(2, WIDTH, WIDTH, generator=source, dtype=torch.float64)
        left, right = torch.linalg.qr(draws).Q
        values = torch.logspace(0, np.log10(condition), WIDTH, dtype=torch.float64)
        a = (left * values) @ right
        found[pair.left] = weights[pair.left] @ torch.linalg.inv(a)
        found[pair.right] = weights[pair.right] @ a.T
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_projected_vectors_are_orthogonal_to_the_orbits(metric):
    pairs, size = pairs_of()
    weights = point(size)
    ball = QuotientBall(weights, pairs, metric)
    tangents = ball.horizontal(torch.stack([point(size, seed) for seed in range(1, 9)]))
    for seed in range(20):
        omega = point(WIDTH**2, 50 + seed).view(WIDTH, WIDTH)
        for pair in pairs:
            vertical = torch.zeros(1, size, dtype=torch.float64)
            vertical[0, pair.left] = -weights[pair.left] @ omega
            vertical[0, pair.right] = weights[pair.right] @ omega.T
            inner = ball.coordinates(tangents) @ ball.coordinates(vertical).T
            scale = ball.norm(tangents)[:, None] * ball.norm(vertical)
            assert (inner / scale).abs().max() < 1e-10
            assert ball.norm(ball.horizontal(vertical)) < 1e-10 * ball.norm(vertical)
    torch.testing.assert_close(ball.horizontal(tangents), tangents)


@pytest.mark.parametrize("metric", METRICS)
def test_the_metric_is_the_one_of_the_paper(metric):
    pairs, size = pairs_of(1)
    weights, tangent = point(size), point(size, 1)
    g, k = weights[pairs[0].left], weights[pairs[0].right]
    xg, xk = tangent[pairs[0].left], tangent[pairs[0].right]
    on_g, on_k = (torch.linalg.inv(g.T @ g), torch.linalg.inv(k.T @ k))
    if metric == "mix":
        on_g, on_k = k.T @ k, g.T @ g
    rest = slice(size - REST, size)
    square = torch.trace(on_g @ xg.T @ xg + on_k @ xk.T @ xk)
    square += ((tangent[rest] / weights[rest]) ** 2).sum()
    ball = QuotientBall(weights, pairs, metric)
    assert float(ball.norm(tangent[None])) == pytest.approx(float(square.sqrt()), rel=1e-12)
    back = ball.offsets(ball.coordinates(tangent[None]))[0]
    torch.testing.assert_close(back, tangent)


@pytest.mark.parametrize("metric", METRICS)
def test_geodesics_to_second_order(metric):
    """Against the differential equation; ten times better than a straight line at step 0.05."""
    pairs, size = pairs_of(1)
    weights = point(size)
    ball = QuotientBall(weights, pairs, metric)
    start = ball.project(point(size, 3)[None], 0.05)[0]
    start[size - REST :] = 0

    def flow(_, state):
        where, speed = (torch.from_numpy(part.copy()) for part in np.split(state, 2))
        here = QuotientBall(where, pairs, metric)
        bent = 2 * (speed - here.retract(speed[None])[0])
        return np.concatenate([speed.numpy(), -bent.numpy()])

    state = np.concatenate([weights.numpy(), start.numpy()])
    end = solve_ivp(flow, (0, 1), state, rtol=1e-11, atol=1e-13).y[:size, -1]
    true = torch.from_numpy(end) - weights
    straight = (start - true).norm()
    bent = (ball.retract(start[None])[0] - true).norm()
    assert bent < straight / 10


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_through_bent_paths(metric):
    pairs, size = pairs_of()
    ball = QuotientBall(point(size), pairs, metric)
    tangent, gradient = 0.1 * point(size, 1)[None], point(size, 2)[None]
    pulled = ball.pull_back(tangent, gradient)
    direction = point(size, 3)[None]
    step = 1e-6
    ends = [ball.retract(tangent + sign * step * direction) for sign in (1, -1)]
    slope = ((ends[0] - ends[1]) / (2 * step) * gradient).sum()
    assert float((pulled * direction).sum()) == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_the_steepest_direction_attains_the_dual_norm(metric):
    pairs, size = pairs_of()
    ball = QuotientBall(point(size), pairs, metric)
    gradients = torch.stack([point(size, seed) for seed in range(1, 5)])
    steepest = ball.steepest(gradients)
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(ball.norm(steepest), ones)
    torch.testing.assert_close((gradients * steepest).sum(1), ball.dual_norm(gradients))
    torch.testing.assert_close(ball.horizontal(steepest), steepest)
    others = ball.sample_surface(200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(ball.norm(others), torch.ones(200, dtype=torch.float64))
    assert ((gradients @ others.T) <= ball.dual_norm(gradients)[:, None] + 1e-12).all()
    inside = ball.norm(ball.project(10 * others, 0.5))
    torch.testing.assert_close(inside, torch.full((200,), 0.5, dtype=torch.float64))


def highest(ball, weights, pairs, rho, steps=20):
    """The rise that an ascent finds of a loss of the products G K^T and of the rest."""

    def loss(parameters):
        total = (parameters[-REST:] - 0.3).square().sum() * 0.1
        for pair in pairs:
            total = total + torch.sin(parameters[pair.left] @ parameters[pair.right].T).sum()
        return total

    base = loss(weights)

    def evaluate(tangents, gradient):
        offsets = ball.retract(tangents)
        parameters = weights + offsets
        rows = torch.func.vmap(torch.func.grad_and_value(loss))(parameters)
        return rows[1].double(), ball.pull_back(tangents, rows[0]) if gradient else rows[0]

    zero = torch.zeros(1, len(weights), dtype=weights.dtype)
    found = climb(
        evaluate,
        ball,
        rho,
        start=zero,
        candidates=zero,
        candidate_losses=base.double()[None],
        base=evaluate(zero, True)[1],
        steps=steps,
        generator=torch.Generator().manual_seed(0),
    )
    return float(found.losses[0] - base)


@pytest.mark.parametrize("metric", METRICS)
def test_an_ascent_finds_the_same_everywhere_on_an_orbit(metric):
    pairs, size = pairs_of()
    weights = point(size)
    rho = 0.3 if metric == "inv" else 1.0
    value = highest(QuotientBall(weights, pairs, metric), weights, pairs, rho)
    space = ParamSpace(("w",), (torch.Size([size]),))
    plain = highest(Elementwise().ball(weights, space), weights, pairs, 0.05)
    moved = []
    for seed in range(5):
        there = moved_along_orbit(weights, pairs, seed)
        found = highest(QuotientBall(there, pairs, metric), there, pairs, rho)
        assert found == pytest.approx(value, rel=1e-6)
        moved.append(highest(Elementwise().ball(there, space), there, pairs, 0.05))
    assert max(abs(other / plain - 1) for other in moved) > 0.05


def test_without_pairs_it_is_the_element_wise_ball():
    weights = point(8)
    weights[2] = 0
    ball, plain = QuotientBall(weights, []), L2Ball(weights.abs())
    rows = torch.stack([point(8, seed) for seed in range(3)]) * (weights != 0)
    torch.testing.assert_close(ball.norm(rows), plain.norm(rows))
    torch.testing.assert_close(ball.project(rows, 0.1), plain.project(rows, 0.1))
    torch.testing.assert_close(ball.steepest(rows), plain.steepest(rows))
    torch.testing.assert_close(ball.retract(rows), rows)


def test_scalars_follow_the_exponential():
    """For x -> G H x and the inv metric, geodesics are G e^(bt), H e^(bt)."""
    weights = torch.tensor([2.0, 0.5], dtype=torch.float64)
    pair = Pair("scalar", torch.tensor([[0]]), torch.tensor([[1]]))
    ball = QuotientBall(weights, [pair], "inv")
    b = 0.1
    found = weights + ball.retract((b * weights)[None])[0]
    torch.testing.assert_close(found, weights * (1 + b + b**2 / 2))
    slope = torch.tensor([[1.0, 4.0]], dtype=torch.float64)  # of any function of the product
    torch.testing.assert_close(ball.steepest(slope)[0], weights / 2**0.5)


def test_wrong_settings_are_refused():
    pair = Pair("a", torch.tensor([[0]]), torch.tensor([[1]]))
    with pytest.raises(ValueError, match="metric must be one of"):
        QuotientBall(torch.ones(2), [pair], "flat")
    with pytest.raises(ValueError, match="pairs overlap"):
        QuotientBall(torch.ones(3), [pair, Pair("b", torch.tensor([[1]]), torch.tensor([[2]]))])
