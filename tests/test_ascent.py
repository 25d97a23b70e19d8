"""The worst-case ascent: exact values on quadratics and linear losses, monotony, no surprises."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Probe, Status, measures
from landscape.evidence import AscentRequest, PartsRequest
from landscape.evidence.climbing import climb
from landscape.geometry import Elementwise, Euclidean, Filterwise, L2Ball, LinfBall

SIZE = 20


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.Parameter(weights.clone())

    def forward(self):
        return self.w


def probe_of(function, weights, batches=(0,), **settings):
    """A probe on function(w, batch), a scalar loss."""
    batches = [torch.as_tensor(batch, dtype=weights.dtype)[None] for batch in batches]
    return Probe(Point(weights), lambda m, b: function(m(), b[0])[None], batches, **settings)


def bowl(matrix, weights, **settings):
    return probe_of(lambda w, _: 0.5 * w @ matrix @ w, weights, **settings)


def spectrum(kind, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "one-outlier": np.concatenate([[10.0], rng.uniform(0, 1, SIZE - 1)]),
        "close-pair": np.concatenate([[5.0, 4.9], rng.uniform(0, 2, SIZE - 2)]),
        "dense": np.sort(rng.uniform(0, 3, SIZE)),
        "power-law": 4.0 / np.arange(1, SIZE + 1) ** 1.5,
        "indefinite": np.concatenate([[3.0, -9.0], rng.normal(size=SIZE - 2)]),
        "negative": -rng.uniform(0.5, 3, SIZE),
    }[kind]


def value(probe, name, **config):
    result = measures.get(name, **config).compute(probe)
    assert result.status in (Status.OK, Status.NOT_CONVERGED), result.message
    low, high = result.interval
    assert low <= result.value <= high
    assert np.isfinite(result.stderr)
    return result.value


def trust_region(matrix, slope, rho):
    """Exact max of slope x + x H x / 2 over |x| <= rho, by a dense eigendecomposition."""
    values, vectors = np.linalg.eigh(matrix)
    along = vectors.T @ slope

    def length(nu):
        return np.sqrt(((along / (nu - values)) ** 2).sum())

    floor = max(values[-1], 0.0)
    low = floor + 1e-12 * (1 + abs(floor))
    if length(low) < rho:
        assert values[-1] < 0, "the hard case is not meant here"
        x = along / -values
    else:
        high = floor + np.linalg.norm(slope) / rho + 1
        for _ in range(200):
            nu = (low + high) / 2
            low, high = (nu, high) if length(nu) > rho else (low, nu)
        x = along / (high - values)
    return float(along @ x + 0.5 * (values * x) @ x)


# -- quadratics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["one-outlier", "close-pair", "dense", "power-law"])
def test_at_a_minimum_it_is_the_largest_eigenvalue(symmetric, kind, dtype):
    seed = 7 if dtype == torch.float32 else 8
    values = spectrum(kind, seed)
    matrix = symmetric(values, seed, dtype)
    probe = bowl(matrix, torch.zeros(SIZE, dtype=dtype))
    rho = 0.05 if dtype == torch.float32 else 2.0
    truth = rho**2 * values.max() / 2
    found = value(probe, "max-sharpness", rho=rho, steps=50)
    assert found == pytest.approx(truth, rel=1e-3)
    assert found <= truth * (1 + (1e-5 if dtype == torch.float32 else 1e-12))
    assert value(probe, "min-sharpness", rho=rho) == 0


def test_at_a_saddle_each_end_has_its_eigenvalue(symmetric):
    values = spectrum("indefinite")
    probe = bowl(symmetric(values), torch.zeros(SIZE, dtype=torch.float64))
    up = value(probe, "max-sharpness", rho=0.3, steps=50)
    down = value(probe, "min-sharpness", rho=0.3, steps=50)
    assert up == pytest.approx(0.045 * values.max(), rel=1e-3)
    assert down == pytest.approx(-0.045 * values.min(), rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "rho"),
    [
        ("one-outlier", 0.05),
        ("one-outlier", 1.0),
        ("close-pair", 0.5),
        ("dense", 2.0),
        ("indefinite", 0.05),
        ("indefinite", 2.0),
        ("negative", 5.0),
    ],
)
def test_away_from_the_minimum_it_is_the_trust_region(symmetric, kind, rho):
    matrix = symmetric(spectrum(kind, 1), 1)
    w = torch.randn(SIZE, generator=generator(4), dtype=torch.float64)
    probe, dense, slope = bowl(matrix, w), matrix.numpy(), (matrix @ w).numpy()
    rise = trust_region(dense, slope, rho)
    fall = trust_region(-dense, -slope, rho)
    assert value(probe, "max-sharpness", rho=rho, steps=50) == pytest.approx(rise, rel=1e-3)
    assert value(probe, "min-sharpness", rho=rho, steps=50) == pytest.approx(fall, rel=1e-3)
    both = value(probe, "bilateral-sharpness", rho=rho, steps=50)
    assert both == pytest.approx(rise + fall, rel=1e-3)


@pytest.mark.parametrize("kind", ["one-outlier", "dense"])
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_adaptive_is_the_trust_region_in_scaled_coordinates(symmetric, kind, rho):
    matrix = symmetric(spectrum(kind, 2), 2)
    w = torch.randn(SIZE, generator=generator(5), dtype=torch.float64)
    w[3] = 0
    probe, scale = bowl(matrix, w), w.abs().numpy()
    inner = scale[:, None] * matrix.numpy() * scale
    truth = trust_region(inner, scale * (matrix @ w).numpy(), rho)
    assert value(probe, "adaptive-sharpness", rho=rho, steps=50) == pytest.approx(truth, rel=1e-3)


def test_adaptive_at_a_stationary_point_is_an_eigenvalue(symmetric):
    """L = (w - m)' H (w - m) / 2 at w = m != 0: rho^2/2 lambda_max(diag|w| H diag|w|)."""
    matrix = symmetric(spectrum("dense", 3), 3)
    m = torch.randn(SIZE, generator=generator(6), dtype=torch.float64)
    probe = probe_of(lambda w, _: 0.5 * (w - m) @ matrix @ (w - m), m)
    scale = m.abs().numpy()
    truth = 0.5 * 0.2**2 * np.linalg.eigvalsh(scale[:, None] * matrix.numpy() * scale).max()
    found = value(probe, "adaptive-sharpness", rho=0.2, steps=50)
    assert found == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("name", ["max-sharpness", "min-sharpness", "bilateral-sharpness"])
def test_bilateral_is_the_sum_of_both(symmetric, name):
    probe = bowl(symmetric(spectrum("indefinite")), torch.ones(SIZE, dtype=torch.float64))
    config = {"rho": 0.3, "scan": (0.1, 1.0)}
    found = {n: measures.get(n, **config).compute(probe) for n in ("max-sharpness", name)}
    parts = ["max-sharpness", "min-sharpness"] if name == "bilateral-sharpness" else [name]
    values = [[p["value"] for p in scan(measures.get(n, **config).compute(probe))] for n in parts]
    assert [p["value"] for p in scan(found[name])] == pytest.approx(list(np.sum(values, axis=0)))


def scan(result):
    return result.diagnostics["scan"]["points"]


# -- linear losses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, np.ones_like),
        ({"geometry": "elementwise"}, np.abs),
        ({"geometry": "elementwise", "eta": 0.3}, lambda w: np.abs(w) + 0.3),
    ],
)
@pytest.mark.parametrize("rho", [1e-3, 30.0])
def test_a_linear_loss_rises_by_the_dual_norm(config, scale, rho):
    w = torch.randn(SIZE, generator=generator(1), dtype=torch.float64)
    g = torch.randn(SIZE, generator=generator(2), dtype=torch.float64)
    probe = probe_of(lambda w, _: w @ g, w)
    slopes = scale(w.numpy()) * g.numpy()
    for norm, order in (("linf", 1), ("l2", 2)):
        # The value is a difference of two losses, whose rounding it cannot beat.
        expected = rho * np.linalg.norm(slopes, order)
        room = 1e-12 * expected + 1e-15 * abs(float(w @ g))
        for name in ("max-sharpness", "min-sharpness"):
            found = value(probe, name, rho=rho, norm=norm, **config)
            assert found == pytest.approx(expected, abs=room)
        one = value(probe, "max-sharpness", rho=rho, norm=norm, one_step=True, **config)
        assert one == pytest.approx(expected, abs=room)


def test_a_box_on_a_quadratic_against_all_corners(symmetric):
    """A convex loss is largest at a corner of the box."""
    rng = np.random.default_rng(0)
    matrix = symmetric(rng.uniform(0.1, 2, 8), 0)
    w = torch.randn(8, generator=generator(3), dtype=torch.float64)
    probe = bowl(matrix, w)
    corners = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    for rho in (0.01, 0.2):
        points = w.numpy() + rho * corners
        losses = 0.5 * np.einsum("ki,ij,kj->k", points, matrix.numpy(), points)
        truth = losses.max() - 0.5 * w.numpy() @ matrix.numpy() @ w.numpy()
        found = value(probe, "max-sharpness", rho=rho, norm="linf", restarts=4)
        assert 0.9 * truth <= found <= truth * (1 + 1e-12)


# -- small nets -----------------------------------------------------------------------------------


def relu_net(seed, dtype=torch.float32):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    draws = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=draws))
    batch = (
        torch.randn(24, 4, generator=draws, dtype=dtype),
        torch.randint(0, 3, (24,), generator=draws),
    )
    return Probe(model.to(dtype), "cross_entropy", [batch], products="loop")


RHOS = (0.01, 0.1, 1.0)


@pytest.mark.parametrize("name", ["max-sharpness", "min-sharpness", "adaptive-sharpness"])
@pytest.mark.parametrize(("norm", "seed"), [("l2", 0), ("linf", 2)])
def test_it_does_not_fall_as_the_radius_grows(name, norm, seed):
    probe = relu_net(seed)
    factor = 1.0 if norm == "l2" else 0.1
    radii = [factor * rho for rho in RHOS]
    config = {"norm": norm, "m": 12}
    alone = [measures.get(name, rho=rho, **config).compute(probe).value for rho in radii]
    assert alone[0] > 0
    assert alone == sorted(alone)
    once = measures.get(name, rho=radii[1], scan=tuple(radii), **config).compute(probe)
    points = scan(once)
    assert [point["at"] for point in points] == pytest.approx(radii)
    within = [point["value"] for point in points]
    assert within == sorted(within)
    np.testing.assert_allclose(within, alone, rtol=0.1)
    for point in points:
        assert point["interval"][0] <= point["value"] <= point["interval"][1]


@pytest.mark.parametrize("name", ["max-sharpness", "bilateral-sharpness", "keskar-sharpness"])
@pytest.mark.parametrize("config", [{"steps": 8}, {"one_step": True}])
def test_radii_as_a_sequence_or_as_a_scan(name, config):
    probe = relu_net(0)
    first = measures.get(name, rho=(0.1, 0.02, 0.4), **config)
    second = measures.get(name, rho=0.1, scan=(0.4, 0.02), **config)
    assert first == second
    assert first.compute(probe).value == second.compute(relu_net(0)).value
    around = measures.get(name, rho=0.1, scan="around", **config)
    assert around.all_radii == pytest.approx((0.025, 0.05, 0.1, 0.2, 0.4))
    found = around.compute(probe)
    assert scan(found)[2]["value"] == found.value


@pytest.mark.parametrize("compat", [None, "andriushchenko2023"])
@pytest.mark.parametrize("geometry", [Euclidean(), Elementwise(), Filterwise()])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_rises_are_those_of_points_in_the_ball(geometry, norm, compat):
    """No random search of the same ball finds more, and nothing is below zero."""
    probe = relu_net(1, torch.float64)
    rho = 0.3 if norm == "l2" else 0.03
    parts = PartsRequest(size=12)
    ascent = probe.evidence(
        AscentRequest(radii=(rho,), geometry=geometry, norm=norm, parts=parts, compat=compat)
    )
    base = probe.evidence(parts)
    ball = geometry.ball(probe.weights(), probe.space, norm)
    random = rho * ball.sample_surface(100, generator(0))
    for part in range(2):
        others = base.parts.losses(random, [part] * 100).numpy() - base.losses[part]
        assert ascent.rises[0, part] >= max(others.max(), 0.0)
        # Nor is it more than the gradient's bound and the curvature inside can give.
        steepest = rho * float(ball.dual_norm(base.gradients([part])))
        assert ascent.rises[0, part] > 0.5 * steepest


def test_climb_stays_inside_the_ball():
    visited = []
    for kind in (L2Ball, LinfBall):
        ball = kind(torch.tensor([1.0, 0.2, 0.0, 3.0], dtype=torch.float64))

        def wavy(deltas, _, ball=ball):
            visited.append(float(ball.norm(deltas).max()))
            return deltas.mul(7).sin().sum(1).cpu(), 7 * deltas.mul(7).cos()

        zero = torch.zeros(3, 4, dtype=torch.float64)
        losses, slopes = wavy(zero, True)
        found = climb(
            wavy,
            ball,
            0.6,
            start=zero,
            candidates=zero,
            candidate_losses=losses,
            base=slopes,
            steps=30,
            generator=generator(),
        )
        assert float(ball.norm(found.best).max()) <= 0.6 * (1 + 1e-12)
        torch.testing.assert_close(wavy(found.best, False)[0], found.losses)
        assert (found.late >= 0).all()
    assert max(visited) <= 0.6 * (1 + 1e-12)


def test_more_restarts_and_another_seed():
    probe = relu_net(2)
    one = measures.get("max-sharpness", rho=1.0, m=8).compute(probe)
    many = measures.get("max-sharpness", rho=1.0, m=8, restarts=2).compute(probe)
    assert many.value >= one.value * (1 - 1e-6)
    again = measures.get("max-sharpness", rho=1.0, m=8, restarts=2).compute(relu_net(2))
    assert again.value == many.value


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rho": 0.0}, "rho must be a positive, finite number"),
        ({"rho": float("nan")}, "rho must be a positive, finite number"),
        ({"scan": "wide"}, 'scan must be .* or "around"'),
        ({"norm": "l1"}, "norm must be one of"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"compat": "foret2021"}, "compat must be None or one of"),
        ({"compat": "andriushchenko2023", "restarts": 2}, "single start"),
        ({"compat": "andriushchenko2023", "one_step": True}, "no published variant"),
        ({"m": 0}, "m must be a positive integer"),
    ],
)
def test_wrong_settings_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        measures.get("max-sharpness", **config)
