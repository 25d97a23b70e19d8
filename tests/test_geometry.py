"""Balls and scales: norms, dual norms, steepest directions, projections, samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from landscape.geometry import (
    GEOMETRIES,
    Elementwise,
    Euclidean,
    Filterwise,
    L2Ball,
    LinfBall,
    as_geometry,
)
from landscape.probing import ParamSpace

BALLS = (L2Ball, LinfBall)
SIZE = 6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(seed, count=5, size=SIZE, dtype=torch.float64):
    return torch.randn(count, size, generator=generator(seed), dtype=dtype)


def scales(seed, spread=1.0, zeros=()):
    scale = torch.exp(spread * torch.randn(SIZE, generator=generator(seed), dtype=torch.float64))
    scale[list(zeros)] = 0
    return scale


def norms(ball, deltas):
    """||delta / c||_p by its definition, over the entries that may move."""
    free = ball.scale > 0
    order = 2 if isinstance(ball, L2Ball) else torch.inf
    return torch.linalg.vector_norm(deltas[:, free] / ball.scale[free], order, dim=1)


seeds = st.integers(0, 10_000)
radii = st.floats(1e-3, 1e3)
spreads = st.sampled_from([0.0, 1.0, 4.0])
held = st.sampled_from([(), (0,), (2, 5), (0, 1, 2, 3, 4)])


# -- norms and directions -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, spread=spreads, zeros=held)
def test_norm_is_its_definition(kind, seed, spread, zeros):
    ball = kind(scales(seed, spread, zeros))
    deltas = rows(seed + 1) * (ball.scale > 0)
    torch.testing.assert_close(ball.norm(deltas), norms(ball, deltas))
    assert ball.free == SIZE - len(zeros)


@pytest.mark.parametrize("kind", BALLS)
def test_leaving_the_free_directions_is_infinitely_far(kind):
    ball = kind(scales(0, zeros=(1,)))
    deltas = torch.zeros(2, SIZE, dtype=torch.float64)
    deltas[0, 1] = 1e-12
    assert ball.norm(deltas).tolist() == [math.inf, 0.0]


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=20, deadline=None)
@given(seed=seeds, spread=spreads, zeros=held)
def test_the_steepest_point_attains_the_dual_norm(kind, seed, spread, zeros):
    ball = kind(scales(seed, spread, zeros))
    gradients = rows(seed + 1)
    steepest, dual = ball.steepest(gradients), ball.dual_norm(gradients)
    order = 2 if kind is L2Ball else 1
    expected = torch.linalg.vector_norm(ball.scale * gradients, order, dim=1)
    torch.testing.assert_close(dual, expected)
    torch.testing.assert_close((gradients * steepest).sum(1), dual)
    torch.testing.assert_close(norms(ball, steepest), torch.ones(5, dtype=torch.float64))
    assert not steepest[:, list(zeros)].any()
    others = ball.sample_surface(200, generator(seed))
    assert ((gradients @ others.T).amax(1) <= dual * (1 + 1e-9)).all()


@pytest.mark.parametrize("kind", BALLS)
def test_no_slope_has_no_steepest_direction(kind):
    ball = kind(scales(0, zeros=(0,)))
    gradients = torch.zeros(2, SIZE, dtype=torch.float64)
    gradients[1, 0] = 3.0
    assert not ball.steepest(gradients).any()
    assert not ball.dual_norm(gradients).any()


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_tiny_and_huge_gradients_in_float32(kind, size):
    ball = kind(torch.tensor([1.0, 2.0, 0.5]))
    gradients = torch.tensor([[3.0, -1.0, 2.0]])
    torch.testing.assert_close(ball.steepest(size * gradients), ball.steepest(gradients))
    expected = size * float(ball.dual_norm(gradients))
    assert float(ball.dual_norm(size * gradients)) == pytest.approx(expected, rel=1e-5)


# -- projections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("way", ["project", "project_euclidean"])
@settings(max_examples=20, deadline=None)
@given(seed=seeds, rho=radii, spread=spreads, zeros=held)
def test_projections_land_inside_and_stay(kind, way, seed, rho, spread, zeros):
    ball = kind(scales(seed, spread, zeros))
    deltas = rows(seed + 1) * rho * torch.tensor([[0.1], [1.0], [3.0], [100.0], [0.0]])
    project = getattr(ball, way)
    once = project(deltas, rho)
    assert (norms(ball, once) <= rho * (1 + 1e-9)).all()
    assert not once[:, list(zeros)].any()
    torch.testing.assert_close(project(once, rho), once, rtol=1e-9, atol=1e-12 * rho)
    free = deltas * (ball.scale > 0)
    inside = norms(ball, free) <= rho
    torch.testing.assert_close(once[inside], free[inside], rtol=1e-14, atol=0)
    assert (norms(ball, once[~inside]) >= rho * (1 - 1e-9)).all()


def test_projecting_with_a_radius_a_row():
    deltas = rows(0, 3)
    rho = torch.tensor([0.1, 0.5, 100.0], dtype=torch.float64)
    for kind in BALLS:
        ball = kind(scales(1))
        found = ball.project(deltas, rho)
        for row, radius in enumerate(rho.tolist()):
            torch.testing.assert_close(found[row], ball.project(deltas[row, None], radius)[0])


def nearest_by_slsqp(point, scale, rho):
    """Minimises ||x - z||^2 under sum (x / c)^2 <= rho^2, in the coordinates u = x / (c rho)."""
    goal, lengths = point, scale * rho
    found = optimize.minimize(
        lambda u: ((lengths * u - goal) ** 2).sum(),
        np.clip(goal / lengths, -0.3, 0.3),
        jac=lambda u: 2 * lengths * (lengths * u - goal),
        constraints={"type": "ineq", "fun": lambda u: 1 - u @ u, "jac": lambda u: -2 * u},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert abs(found.x @ found.x - 1) < 1e-6
    return lengths * found.x


def nearest_by_dual(point, scale, rho):
    """The same by a root of the dual's slope, in logarithms of nu."""

    def excess(log_nu):
        shrunk = point * scale / (scale**2 + np.exp(log_nu))
        return np.log((shrunk**2).sum()) - 2 * np.log(rho)

    log_nu = optimize.brentq(excess, -200, 200, xtol=1e-13, rtol=1e-14)
    return point * scale**2 / (scale**2 + np.exp(log_nu))


@pytest.mark.parametrize("seed", range(6))
def test_euclidean_projection_is_the_nearest_point(seed):
    ball = L2Ball(scales(seed, 0.7))
    z = 3 * rows(seed + 50, 1)
    expected = nearest_by_slsqp(z[0].numpy(), ball.scale.numpy(), 0.5)
    found = ball.project_euclidean(z, 0.5)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert ((found - z.numpy()) ** 2).sum() <= ((expected - z.numpy()) ** 2).sum() + 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spread", [1.0, 6.0])
@pytest.mark.parametrize("zeros", [(), (0, 3)])
def test_euclidean_projection_against_the_dual(seed, spread, zeros):
    ball = L2Ball(scales(seed, spread, zeros))
    free = (ball.scale > 0).numpy()
    z = 10 * rows(seed + 50, 1) * ball.scale.mean()
    expected = np.zeros(SIZE)
    expected[free] = nearest_by_dual(z[0].numpy()[free], ball.scale.numpy()[free], 0.3)
    np.testing.assert_allclose(ball.project_euclidean(z, 0.3)[0].numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_euclidean_projection_follows_the_scale(factor):
    scale, z = scales(0, 2.0, (1,)), 5 * rows(1)
    plain = L2Ball(scale).project_euclidean(z, 0.7)
    scaled = L2Ball(factor * scale).project_euclidean(factor * z, 0.7)
    torch.testing.assert_close(scaled, factor * plain, rtol=1e-9, atol=0)


def test_euclidean_projection_in_float32_with_extreme_scales():
    scale = torch.tensor([1e-8, 1.0, 1e8, 0.0])
    z = torch.tensor([[1.0, 2.0, -3e8, 5.0]])
    found = L2Ball(scale).project_euclidean(z, 0.5)
    expected = nearest_by_dual(
        z[0, :3].double().numpy(), scale[:3].double().numpy().astype(float), 0.5
    )
    np.testing.assert_allclose(found[0, :3].numpy(), expected, rtol=1e-5)
    assert found[0, 3] == 0


# -- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("zeros", [(), (0, 4)])
def test_surface_samples_have_norm_one(kind, zeros):
    ball = kind(scales(3, 1.0, zeros))
    points = ball.sample_surface(500, generator(1))
    torch.testing.assert_close(norms(ball, points), torch.ones(500, dtype=torch.float64))
    assert not points[:, list(zeros)].any()
    signs = (points > 0).double().mean(0)[ball.scale > 0]
    assert (signs - 0.5).abs().max() < 4.5 * 0.5 / 500**0.5


@pytest.mark.parametrize("kind", BALLS)
@pytest.mark.parametrize("zeros", [(), (0, 4)])
def test_inside_samples_are_uniform(kind, zeros):
    ball = kind(scales(3, 1.0, zeros))
    points = ball.sample_inside(4000, generator(2))
    distances = norms(ball, points).numpy()
    share = distances**ball.free
    assert stats.kstest(share, "uniform").pvalue > 1e-3
    assert not points[:, list(zeros)].any()
    # Every orthant alike, and no entry favoured.
    unit = (points / ball.scale)[:, ball.scale > 0]
    spread = unit.square().mean(0)
    torch.testing.assert_close(spread, spread.mean().expand_as(spread), rtol=0.1, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gaussian_samples_have_the_scales_as_standard_deviations(dtype):
    scale = scales(3, 1.0, (2,)).to(dtype)
    draws = L2Ball(scale).gaussian(4000, generator(3))
    assert draws.dtype == dtype
    assert not draws[:, 2].any()
    free = scale > 0
    unit = (draws / scale)[:, free].double()
    assert (unit.std(0) - 1).abs().max() < 4.5 / 8000**0.5
    assert unit.mean(0).abs().max() < 4.5 / 4000**0.5
    for entry in unit.T:
        assert stats.kstest(entry.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("way", ["sample_surface", "sample_inside", "gaussian"])
@pytest.mark.parametrize("kind", BALLS)
def test_samples_depend_on_the_seed_and_not_on_the_precision(kind, way):
    scale = scales(0)
    first = getattr(kind(scale), way)(3, generator(5))
    again = getattr(kind(scale), way)(3, generator(5))
    other = getattr(kind(scale), way)(3, generator(6))
    single = getattr(kind(scale.float()), way)(3, generator(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(single.double(), first, rtol=1e-5, atol=1e-6)


# -- scales ---------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """Parameters of every number of dimensions."""

    def __init__(self):
        super().__init__()
        draws = generator(7)
        self.gain = nn.Parameter(torch.tensor(-1.5))
        self.conv = nn.Parameter(torch.randn(3, 2, 2, 2, generator=draws))
        self.matrix = nn.Parameter(torch.randn(4, 5, generator=draws))
        self.bias = nn.Parameter(torch.randn(4, generator=draws))
        with torch.no_grad():
            self.matrix[2] = 0


@pytest.fixture(scope="module")
def weights():
    model = Scaled()
    space = ParamSpace.of(model)
    return space.flatten(dict(model.named_parameters())).detach(), space, model


def by_a_loop(model, rule):
    scales = []
    for parameter in (entry.detach() for entry in model.parameters()):
        for index in np.ndindex(*parameter.shape):
            if parameter.dim() >= 2:
                square = sum(float(entry) ** 2 for entry in parameter[index[0]].flatten())
                scales.append(math.sqrt(square))
            elif rule == "exclude":
                scales.append(0.0)
            elif rule == "elementwise":
                scales.append(abs(float(parameter[index])))
            else:
                entries = parameter.reshape(-1)
                scales.append(math.sqrt(sum(float(entry) ** 2 for entry in entries)))
    return scales


@pytest.mark.parametrize("rule", ["exclude", "elementwise", "tensor"])
def test_filterwise_scales_against_a_loop(weights, rule):
    flat, space, model = weights
    found = Filterwise(one_dimensional=rule).scale(flat, space)
    np.testing.assert_allclose(found.numpy(), by_a_loop(model, rule), rtol=1e-6)
    ball = Filterwise(one_dimensional=rule).ball(flat, space)
    excluded = 5 if rule == "exclude" else 0
    assert ball.free == space.size - 5 - excluded  # one row of five is zero


def test_elementwise_and_euclidean_scales(weights):
    flat, space, _ = weights
    assert torch.equal(Euclidean().scale(flat, space), torch.ones_like(flat))
    assert torch.equal(Elementwise().scale(flat, space), flat.abs())
    assert torch.equal(Elementwise(eta=0.25).scale(flat, space), flat.abs() + 0.25)
    assert Elementwise().ball(flat, space).free == space.size - 5
    assert Elementwise(eta=0.25).ball(flat, space).free == space.size


def test_norms_name_balls(weights):
    flat, space, _ = weights
    assert isinstance(Euclidean().ball(flat, space, "l2"), L2Ball)
    assert isinstance(Euclidean().ball(flat, space, "linf"), LinfBall)


def test_geometries_by_name():
    assert set(GEOMETRIES) == {"euclidean", "elementwise", "filterwise"}
    assert as_geometry("euclidean", eta=0.5) == Euclidean()
    assert as_geometry("elementwise", eta=0.5) == Elementwise(eta=0.5)
    assert as_geometry("filterwise", one_dimensional="tensor") == Filterwise(
        one_dimensional="tensor"
    )
    assert hash(as_geometry("elementwise")) == hash(Elementwise())


def test_wrong_settings_are_refused(weights):
    flat, space, _ = weights
    with pytest.raises(ValueError, match="geometry must be one of"):
        as_geometry("layerwise")
    with pytest.raises(ValueError, match="eta must be finite and not negative"):
        as_geometry("elementwise", eta=-0.1)
    with pytest.raises(ValueError, match="eta must be finite and not negative"):
        Elementwise(eta=math.nan)
    with pytest.raises(ValueError, match="one_dimensional must be one of"):
        as_geometry("filterwise", one_dimensional="zero")
    with pytest.raises(ValueError, match="norm must be one of"):
        Euclidean().ball(flat, space, "l1")
