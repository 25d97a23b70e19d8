"""Searches in balls: they find what lies in reach, and say so where they may have missed it."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Probe, Status, measures
from landscape.evidence import AscentRequest, PartsRequest
from landscape.evidence.curved_directions import curved_directions, unit
from landscape.evidence.refining import refine, remaining
from landscape.geometry import Elementwise, Euclidean, L2Ball, LinfBall

NET_SEEDS = (0, 1, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(weights, dtype=torch.float64).clone())

    def forward(self):
        return self.w


def probe_of(function, weights):
    """A probe on a scalar function of the weights."""
    batches = [torch.zeros(1)]
    return Probe(Point(weights), lambda m, _: function(m())[None], batches, products="loop")


def measured(probe, name, **config):
    result = measures.get(name, m=None, **config).compute(probe)
    low, high = result.interval
    assert low <= result.value <= high
    return result


def honest(result, truth):
    """Whether a result holds the truth or says that it may not."""
    return result.status is not Status.OK or result.interval[1] >= truth * (1 - 1e-3)


# -- valleys in which every step overshoots -------------------------------------------------------


def valley(size=40, *, rotated=False):
    """Curvatures over six decades, with the steep directions at their minimum but for rounding."""
    curvature = torch.logspace(3, -3, size, dtype=torch.float64)
    w = torch.full((size,), 0.02, dtype=torch.float64)
    w[: size // 2] = 1e-5
    turn = torch.eye(size, dtype=torch.float64)
    if rotated:
        draws = torch.randn(size, size, generator=generator(1), dtype=torch.float64)
        turn = torch.linalg.qr(draws).Q
    matrix = turn @ torch.diag(curvature) @ turn.T
    return probe_of(lambda w: 0.5 * w @ matrix @ w, turn @ w), matrix.numpy(), (turn @ w).numpy()


def lowest(matrix, w, rho):
    """Exact largest fall of w'Hw/2 within rho, for a positive H: the trust region's step."""
    values, vectors = np.linalg.eigh(matrix)
    along = vectors.T @ (matrix @ w)
    low, high = 0.0, np.linalg.norm(along) / rho
    if np.linalg.norm(along / values) <= rho:
        high = 0.0
    for _ in range(200):
        shift = (low + high) / 2
        longer = np.linalg.norm(along / (values + shift)) > rho
        low, high = (shift, high) if longer else (low, shift)
    step = vectors @ (-along / (values + high))
    return 0.5 * w @ matrix @ w - 0.5 * (w + step) @ matrix @ (w + step)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("rho", [0.005, 0.05])
def test_a_descent_finds_the_fall_in_a_stiff_valley(rotated, rho):
    probe, matrix, w = valley(rotated=rotated)
    truth = lowest(matrix, w, rho)
    result = measured(probe, "min-sharpness", rho=rho)
    assert 0.9 * truth <= result.value <= truth * (1 + 1e-9)
    assert result.value >= 0.95 * truth or result.status is Status.NOT_CONVERGED
    assert honest(result, truth)


def test_a_descent_in_a_box_of_a_stiff_valley():
    """Along the axes of the box every entry goes to its own minimum, or as far as the box."""
    probe, matrix, w = valley()
    rho = 0.01
    there = w - np.clip(w, -rho, rho)
    truth = 0.5 * np.diag(matrix) @ (w**2 - there**2)
    result = measured(probe, "min-sharpness", rho=rho, norm="linf")
    assert result.value >= 0.95 * truth
    assert honest(result, truth)


def test_a_slope_that_could_not_be_followed_is_not_called_settled():
    """Two gradients cannot turn into the valley: the value is a lower bound and says so."""
    probe, matrix, w = valley(rotated=True)
    result = measured(probe, "min-sharpness", rho=0.05, steps=1)
    assert result.status is Status.NOT_CONVERGED
    assert "At least" in result.message
    assert result.interval[1] >= lowest(matrix, w, 0.05) * (1 - 1e-3)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nothing_to_fall_is_certain_at_an_exact_minimum(norm):
    probe = probe_of(lambda w: (w - 1).square().sum(), np.ones(5))
    result = measured(probe, "min-sharpness", rho=0.1, norm=norm)
    assert result.value == 0
    assert result.interval == (0, 0)
    assert result.status is Status.OK


def test_a_saddle_without_slope_is_left():
    probe = probe_of(lambda w: w[0] ** 2 - 3 * w[1] ** 2, np.zeros(4))
    result = measured(probe, "min-sharpness", rho=0.1)
    assert result.value == pytest.approx(0.03, rel=1e-3)


# -- several maxima -------------------------------------------------------------------------------


def classifier(seed):
    """A small trained ReLU classifier whose boxes have many maxima."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inputs = torch.randn(192, 10)
        labels = inputs[:, :4].argmax(1)
        model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return Probe(model, "cross_entropy", [(inputs[:64], labels[:64])], products="loop")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("adaptive-sharpness", {"norm": "linf", "rho": 0.01}),
        ("max-sharpness", {"norm": "linf", "rho": 0.005}),
        ("max-sharpness", {"rho": 0.5}),
    ],
)
@pytest.mark.parametrize("seed", [0, 3])
def test_other_starts_find_no_more_than_the_interval_or_the_status_says(name, config, seed):
    probe = classifier(seed)
    one = measured(probe, name, **config)
    more = measured(probe, name, restarts=4, **config)
    assert more.value >= one.value * (1 - 1e-6)
    assert honest(one, more.value)


@pytest.mark.parametrize("seed", NET_SEEDS)
@pytest.mark.parametrize("rho", [0.01, 0.3])
def test_the_corners_of_a_box(seed, rho):
    """A convex loss is largest at one of 256 corners."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(8, 8))
    matrix, w = root @ root.T, rng.normal(size=8) * 0.1
    dense = torch.from_numpy(matrix)
    probe = probe_of(lambda w: 0.5 * w @ dense @ w, w)
    points = w + rho * np.array(list(itertools.product([-1, 1], repeat=8)))
    truth = (0.5 * np.einsum("ki,ij,kj->k", points, matrix, points)).max() - 0.5 * w @ matrix @ w
    result = measured(probe, "max-sharpness", rho=rho, norm="linf")
    assert result.value <= truth * (1 + 1e-9)
    assert result.value >= 0.95 * truth or result.status is not Status.OK


def test_a_higher_maximum_away_from_the_gradient_is_found():
    """The slope leads to a low hill; the high one stands where the curvature is largest."""

    def hills(w):
        return 0.5 * w[0] + 4 * (w[1] ** 2) + 2 * (w[1] ** 3) + 0.1 * w[2]

    probe = probe_of(hills, np.zeros(6))
    result = measured(probe, "max-sharpness", rho=0.5)
    assert result.value >= 4 * 0.25 + 2 * 0.125
    assert result.status in (Status.OK, Status.UNCERTAIN)


def test_starts_that_disagree_are_told():
    """Both ends of the steep direction are maxima, one 40 % lower, and nothing else leads there."""
    probe = probe_of(lambda w: 4 * w[0] ** 2 + 2 * w[0] ** 3, np.zeros(3))
    result = measured(probe, "max-sharpness", rho=0.5)
    assert result.value == pytest.approx(1.25, rel=1e-6)
    apart = result.diagnostics["starts_apart"]
    assert apart == pytest.approx(0) or result.status is Status.UNCERTAIN
    assert result.interval[1] == pytest.approx(
        result.value + apart + result.diagnostics["ascent_error"]
    )


def test_a_search_costs_no_more_than_it_planned():
    probe = classifier(1)
    for direction, norm in itertools.product(("up", "down"), ("l2", "linf")):
        request = AscentRequest(
            direction=direction, norm=norm, radii=(0.02, 0.1), parts=PartsRequest(size=32)
        )
        with probe.meter() as spent:
            probe.evidence(request)
        passes = spent.gradients + spent.forwards / 3
        assert 0 < passes <= request.passes


def test_the_same_seed_gives_the_same_bits():
    first, second = (measured(classifier(2), "max-sharpness", rho=0.3) for _ in range(2))
    assert first.value == second.value
    assert first.interval == second.interval


# -- the pieces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curved_directions_are_the_top_eigenvectors(dtype):
    draws = torch.randn(9, 9, generator=generator(2), dtype=torch.float64)
    vectors = torch.linalg.qr(draws).Q
    values = torch.tensor([9.0, -8, 5, 3, 1, 0.5, 0.1, 0, -0.2], dtype=torch.float64)
    scale = torch.rand(9, generator=generator(3), dtype=dtype) + 0.5
    matrix = (vectors * values @ vectors.T).to(dtype) / scale / scale[:, None]
    slope = torch.randn(1, 9, generator=generator(4), dtype=dtype)

    def evaluate(deltas, _gradient, _rows):
        return deltas.sum(1), slope + deltas @ matrix

    found, directions = curved_directions(
        evaluate, L2Ball(scale), 0.5, base=slope, first=unit(slope * scale), steps=9
    )
    rel = 1e-3 if dtype == torch.float32 else 1e-8
    torch.testing.assert_close(
        found[0], values.sort(descending=True).values, rtol=rel, atol=10 * rel
    )
    alignment = (directions[0, 0].double() @ vectors[:, 0]).abs()
    assert float(alignment) == pytest.approx(1, abs=rel)


@pytest.mark.parametrize("kind", [L2Ball, LinfBall])
def test_refining_reaches_a_point_with_no_slope_along_the_boundary(kind):
    scale = torch.tensor([1.0, 0.2, 0.0, 3.0, 0.7], dtype=torch.float64)
    ball = kind(scale)

    def wavy(deltas, _gradient, _rows):
        return (3 * deltas + 1).sin().sum(1), 3 * (3 * deltas + 1).cos()

    start = torch.zeros(3, 5, dtype=torch.float64)
    start[1:] = 0.5 * ball.sample_inside(2, generator(5))
    base = wavy(torch.zeros(3, 5, dtype=torch.float64), True, None)[0]
    found = refine(wavy, ball, 0.6, start=start, base=base, steps=60)
    assert float(ball.norm(found.best).max()) <= 0.6 * (1 + 1e-12)
    losses, gradients = wavy(found.best, True, None)
    torch.testing.assert_close(losses, found.losses)
    left = ball.face(ball.coordinates(found.best), ball.slopes(gradients), 0.6).slopes
    assert float(left.abs().max()) < 0.02
    assert float(found.late.max()) < 0.05 * float(found.losses.min() - base[0])


def test_refining_finds_the_top_of_a_narrow_ridge():
    matrix = torch.diag(torch.logspace(2, -2, 6, dtype=torch.float64))

    def bowl(deltas, _gradient, _rows):
        moved = deltas - 0.1
        return -0.5 * ((moved @ matrix) * moved).sum(1), -moved @ matrix

    zero = torch.zeros(1, 6, dtype=torch.float64)
    base = bowl(zero, True, None)[0]
    found = refine(bowl, L2Ball(torch.ones(6, dtype=torch.float64)), 5.0, start=zero, base=base,
                   steps=30)  # fmt: skip
    assert float(found.losses) == pytest.approx(0, abs=1e-3 * -float(base))


def test_what_remains_is_never_nothing_while_something_is_gained():
    assert remaining([]) == 0
    assert remaining([0.0, 0.0, 0.0, 0.0]) == 0
    assert remaining([1.0]) == pytest.approx(10)
    # Gaps that close like 1 / k: after 40 steps 1 / 40 is left.
    gains = [1 / k - 1 / (k + 1) for k in range(1, 41)]
    assert remaining(gains) >= 1 / 41
    # Gaps that halve: nearly nothing.
    assert remaining([0.5**k for k in range(40)]) < 1e-7


@pytest.mark.parametrize("geometry", [Euclidean(), Elementwise()])
def test_entries_without_extent_do_not_move_in_any_phase(geometry):
    probe = probe_of(lambda w: (w + 0.1).square().sum() + w[0] ** 3, [0.5, 0.0, -0.3, 0.0])
    ball = geometry.around(probe, "linf")
    ascent = probe.evidence(
        AscentRequest(radii=(0.2,), geometry=geometry, norm="linf", parts=PartsRequest(size=None))
    )
    free = ball.scale > 0
    w = probe.weights()
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    moved = w + 0.2 * ball.scale * corners
    losses = (moved + 0.1).square().sum(1) + moved[:, 0] ** 3
    truth = float(losses.max()) - probe.loss()
    assert ascent.free == int(free.sum())
    assert float(ascent.rises[0, 0]) == pytest.approx(truth, rel=1e-9)
