"""Spectral sums: the two rules bracket the truth, intervals hold it, trivial cases are exact."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from landscape.linalg import (
    MatrixOperator,
    absolute_sum,
    density,
    lanczos_chains,
    project_out,
    rademacher,
    standard_error,
    student_quantile,
)

SIZE = 400
POWERS = (0.25, 0.5, 1.0, 1.5, 1.9)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Diagonal:
    """A diagonal matrix: the truth of any function is known for every start vector."""

    def __init__(self, values, dtype=torch.float64):
        self.values = torch.as_tensor(np.asarray(values), dtype=dtype)
        self.size, self.dtype = len(self.values), dtype
        self.device = torch.device("cpu")

    def matmat(self, vectors):
        return vectors * self.values


def power(exponent):
    return lambda values: values**exponent


def gaussian(count, size, seed=0):
    # On a diagonal matrix signs would weight all eigenvalues alike.
    return torch.randn(count, size, generator=generator(seed), dtype=torch.float64)


def families():
    rng = np.random.default_rng(0)
    signs = np.where(rng.uniform(size=SIZE) < 0.25, -1, 1)
    dense = rng.normal(size=(SIZE, SIZE)) / np.sqrt(2 * SIZE)
    return {
        "uniform": rng.uniform(-1, 1, SIZE),
        "positive": rng.uniform(0, 1, SIZE),
        "semicircle": np.linalg.eigvalsh(dense + dense.T),
        "log-uniform-3": 10 ** rng.uniform(-3, 0, SIZE) * signs,
        "log-uniform-8": 10 ** rng.uniform(-8, 0, SIZE) * signs,
        "half-zero": np.where(np.arange(SIZE) % 2, rng.uniform(0, 1, SIZE), 0.0),
        "outliers": np.concatenate([np.linspace(3, 50, 10), 0.1 * rng.normal(size=SIZE - 10)]),
    }


FAMILIES = families()
# The library takes outliers out of the chains before, so they are no case for the quadrature.
BULKS = [name for name in FAMILIES if name != "outliers"]


# -- the bracket ----------------------------------------------------------------------------------


@st.composite
def spectra(draw):
    """Eigenvalues of very different kinds: smooth, clustered, many decades, zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    size = draw(st.integers(3, 120))
    kind = draw(st.sampled_from(["uniform", "normal", "decades", "clusters", "decay"]))
    values = {
        "uniform": rng.uniform(-1, 1, size),
        "normal": rng.normal(size=size),
        "decades": 10 ** rng.uniform(-7, 2, size) * rng.choice([-1, 1], size, p=[0.3, 0.7]),
        "clusters": rng.choice([3.0, -1.0, 0.01], size) + 1e-4 * rng.normal(size=size),
        "decay": (1.0 + np.arange(size)) ** -2,
    }[kind]
    zeros = draw(st.sampled_from([0.0, 0.3, 0.8]))
    return np.where(rng.uniform(size=size) < zeros, 0.0, values)


@given(
    values=spectra(),
    exponent=st.floats(0.25, 1.9),
    steps=st.integers(2, 30),
    seed=st.integers(0, 1000),
)
@example(  # atoms at zero beside tight clusters: a Gauss node comes to lie at the end of Radau's
    values=np.array(
        [2.99994145, 2.99986588, 2.99985985, 2.99992869, 3.0000621, 3.00003864, 3.00006942]
        + [0.00998357, 0.00977499, 0.01001093, 0.00999243, 0.0101421, 0.01008437]
        + [-0.99997979, -1.00007584, -0.99992739]
        + [0.0] * 6
    ),
    exponent=0.5,
    steps=12,
    seed=0,
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_the_bracket_holds_the_truth(values, exponent, steps, seed):
    starts = gaussian(3, len(values), seed)
    chains = lanczos_chains(Diagonal(values), starts, steps)
    found = absolute_sum(chains, power(exponent))
    truth = float((starts.numpy() ** 2).mean(0) @ np.abs(values) ** exponent)
    # What is negative must have been seen, above single precision's rounding; the Spectrum knows
    # both ends of the spectrum.
    seen = min(chain.quadrature()[0].min() for chain in chains)
    assume(values.min() >= 0 or seen < -1e-6 * np.abs(values).max())
    low, high = found.bracket
    # Eigenvalues that differ by roundings, or lie below them, are one to any Lanczos run.
    rounding = 1e-7 * truth + len(values) * (1e-15 * np.abs(values).max()) ** exponent
    assert low - rounding <= truth <= high + rounding
    assert low - rounding <= found.value <= high + rounding


@given(values=spectra(), z=st.floats(1e-3, 10), steps=st.integers(2, 30))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_the_bracket_holds_an_effective_dimension(values, z, steps):
    starts = gaussian(2, len(values))
    found = absolute_sum(lanczos_chains(Diagonal(values), starts, steps), lambda x: x / (x + z))
    truth = float((starts.numpy() ** 2).mean(0) @ (np.abs(values) / (np.abs(values) + z)))
    low, high = found.bracket
    rounding = 1e-7 * truth + 1e-12 * len(values)
    assert low - rounding <= truth <= high + rounding


@pytest.mark.parametrize("name", ["uniform", "log-uniform-3", "half-zero"])
def test_the_bracket_closes_with_the_steps(name):
    starts = gaussian(2, SIZE)
    widths = []
    for steps in (6, 18, 54):
        low, high = absolute_sum(
            lanczos_chains(Diagonal(FAMILIES[name]), starts, steps), power(0.5)
        ).bracket
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]
    assert widths[2] < 0.7 * widths[1]


# -- the value ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [20, 30])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 1.9])
@pytest.mark.parametrize("name", BULKS)
def test_the_quadrature_error_holds(name, exponent, steps):
    values = FAMILIES[name]
    # The truth is that of the same vectors, so that no sampling error enters.
    starts = gaussian(8, SIZE, seed=steps)
    found = absolute_sum(lanczos_chains(Diagonal(values), starts, steps), power(exponent))
    truth = float((starts.numpy() ** 2).mean(0) @ np.abs(values) ** exponent)
    # Below float32's rounding a bracket is too narrow for its place to matter.
    assert abs(found.value - truth) <= found.quadrature_error * 1.001 + 1e-7 * truth


@pytest.mark.parametrize("name", BULKS)
def test_intervals_cover(name):
    values = FAMILIES[name]
    exponents = (0.5, 1.0, 1.5)
    hits = []
    for seed in range(24):
        chains = lanczos_chains(Diagonal(values), gaussian(8, SIZE, seed), 20)
        for exponent in exponents:
            low, high = absolute_sum(chains, power(exponent)).interval()
            hits.append(low <= (np.abs(values) ** exponent).sum() <= high)
    assert (np.mean(np.reshape(hits, (-1, len(exponents))), axis=0) >= 0.8).all()


@pytest.mark.parametrize("name", ["uniform", "semicircle"])
def test_the_value_does_not_jump_as_the_plain_gauss_rule_does(name):
    # In lambda an odd rule has a node near zero and an even one has none.
    values = FAMILIES[name]
    starts = gaussian(6, SIZE)
    truth = float((starts.numpy() ** 2).mean(0) @ np.abs(values) ** 0.5)
    ours, plain = [], []
    for steps in range(14, 20):
        chains = lanczos_chains(Diagonal(values), starts, steps)
        ours.append(absolute_sum(chains, power(0.5)).value - truth)
        rules = [chain.quadrature() for chain in chains]
        plain.append(np.mean([w @ np.abs(x) ** 0.5 for x, w in rules]) - truth)
    assert np.std(ours) < 0.2 * np.std(plain)
    assert np.abs(ours).max() < 0.3 * np.abs(plain).max()


# -- exact cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", POWERS)
@pytest.mark.parametrize(
    "values",
    [
        np.full(30, 2.5),
        np.full(30, -2.5),
        np.array([2.0, -6.0]),
        np.repeat([1.0, -2.0, 3.0], 20),
        np.repeat([0.0, 5.0], 20),
        np.array([3.0]),
        np.zeros(10),
        np.array([1.0, -2.0, 0.5, 4.0, -0.1, 2.2]),
    ],
    ids=["c", "-c", "diag(2,-6)", "three", "projector", "P=1", "zero", "P=6"],
)
def test_an_exhausted_chain_is_exact(values, exponent):
    starts = gaussian(3, len(values))
    chains = lanczos_chains(Diagonal(values), starts, 12)
    found = absolute_sum(chains, power(exponent))
    truth = float((starts.numpy() ** 2).mean(0) @ np.abs(values) ** exponent)
    tolerance = 1e-12 + len(values) * 1e-15**exponent  # what a zero eigenvalue may round to
    assert found.value == pytest.approx(truth, rel=1e-10, abs=tolerance)
    assert found.quadrature_error <= tolerance + 1e-10 * truth


def test_exhausted_chains_of_one_mass_have_no_error():
    starts = rademacher(4, Diagonal(np.ones(50)), generator())
    found = absolute_sum(lanczos_chains(Diagonal(np.full(50, 4.0)), starts, 5), np.sqrt)
    assert found.value == pytest.approx(100, rel=1e-12)
    assert found.stderr < 1e-10
    assert found.interval() == pytest.approx((100, 100), rel=1e-10)


def test_a_zero_start_adds_nothing():
    starts = torch.stack([torch.zeros(20, dtype=torch.float64), torch.ones(20).double()])
    found = absolute_sum(lanczos_chains(Diagonal(np.full(20, 2.0)), starts, 4), power(1.0))
    assert found.samples.tolist() == pytest.approx([0.0, 40.0])


def test_without_chains_the_known_eigenvalues_are_all():
    found = absolute_sum([], np.sqrt, eigenvalues=np.array([4.0, -9.0]))
    assert found.value == found.exact == 5.0
    assert found.stderr == 0
    assert found.interval() == (5.0, 5.0)
    assert found.bracket == (5.0, 5.0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
def test_known_eigenvalues_are_counted_once_and_exactly(symmetric, exponent):
    rng = np.random.default_rng(1)
    outliers = np.array([30.0, 20.0, -15.0])
    values = np.concatenate([outliers, rng.uniform(-1, 1, 197)])
    matrix = symmetric(values)
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    known = eigenvalues.abs() > 2
    basis = vectors[:, known].T

    class Deflated(MatrixOperator):
        def matmat(self, block):
            return project_out(super().matmat(block), basis)

    operator = Deflated(matrix)
    truth = (np.abs(values) ** exponent).sum()
    hits, errors = [], []
    for seed in range(20):
        starts = project_out(rademacher(8, operator, generator(seed)), basis)
        chains = lanczos_chains(operator, starts, 20)
        found = absolute_sum(chains, power(exponent), eigenvalues=eigenvalues[known].numpy())
        low, high = found.interval()
        hits.append(low <= truth <= high)
        errors.append(found.value - truth)
        assert found.exact == pytest.approx((np.abs(outliers) ** exponent).sum(), rel=1e-10)
    assert np.mean(hits) >= 0.8
    assert abs(np.mean(errors)) < 0.02 * truth


def test_the_value_is_the_exact_part_plus_the_mean_of_the_samples():
    chains = lanczos_chains(Diagonal(FAMILIES["uniform"]), gaussian(5, SIZE), 12)
    found = absolute_sum(chains, power(0.5), eigenvalues=np.array([16.0]))
    assert found.value == pytest.approx(4 + found.samples.mean())
    assert (found.stderr, found.degrees) == standard_error(found.samples, found.deviations)
    low, high = found.interval()
    half = np.hypot(student_quantile(found.degrees) * found.stderr, found.quadrature_error)
    assert (low, high) == pytest.approx((found.value - half, found.value + half))


# -- density --------------------------------------------------------------------------------------


def trapezoid(values, grid):
    return float(((values[1:] + values[:-1]) / 2) @ np.diff(grid))


@pytest.mark.parametrize("known", [0, 7])
def test_a_density_integrates_to_one(known):
    values = np.sort(FAMILIES["semicircle"])
    rest = values[: SIZE - known]
    chains = lanczos_chains(Diagonal(rest), gaussian(4, len(rest)), 20)
    grid = np.linspace(-3, 3, 4001)
    found = density(chains, grid, 0.02, eigenvalues=values[SIZE - known :], size=SIZE)
    assert trapezoid(found.values, grid) == pytest.approx(1, abs=1e-9)
    assert (found.low >= 0).all()
    assert (found.low <= found.values).all()
    assert (found.values <= found.high).all()
    assert (found.high - found.low).max() > 0


def test_a_density_of_exhausted_chains_is_the_smoothed_sum():
    values = np.array([-1.0, 0.5, 2.0, 3.0])
    starts = torch.ones(2, 4, dtype=torch.float64)  # equal weights
    chains = lanczos_chains(Diagonal(values), starts, 10)
    grid, width = np.linspace(-2, 5, 300), 0.3
    found = density(chains, grid, width, eigenvalues=np.array([4.0]), size=5)
    shifts = (grid[:, None] - np.array([*values, 4.0])) / width
    expected = np.exp(-(shifts**2) / 2).sum(1) / (5 * width * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    # Shorter runs find less of it; the whole run holds the truth.
    assert (found.low - 1e-10 <= expected).all()
    assert (expected <= found.high + 1e-10).all()


@pytest.mark.parametrize("name", ["uniform", "semicircle", "log-uniform-3"])
def test_the_band_of_a_density_holds_the_smoothed_truth_where_it_is_high(name):
    values = FAMILIES[name]
    reach = values.max() - min(values.min(), 0)
    width = 0.005 * reach
    grid = np.linspace(values.min() - 0.03 * reach, values.max() + 0.03 * reach, 200)
    truth = np.exp(-(((grid[:, None] - values) / width) ** 2) / 2).sum(1)
    truth /= SIZE * width * np.sqrt(2 * np.pi)
    single = 1 / (SIZE * width * np.sqrt(2 * np.pi))
    for count, steps in ((5, 12), (10, 24)):
        within = []
        for seed in range(8):
            draws = gaussian(count, SIZE, seed)
            draws *= SIZE**0.5 / draws.norm(dim=1, keepdim=True)
            chains = lanczos_chains(Diagonal(values), draws, steps)
            found = density(chains, grid, width, eigenvalues=np.zeros(0), size=SIZE)
            held = (found.low <= truth) & (truth <= found.high)
            within.append(held[truth > single].mean())
        assert np.mean(within) >= 0.9


def test_a_density_scales_with_the_operator():
    values, scale = FAMILIES["uniform"], 1e-300
    grid = np.linspace(-1.1, 1.1, 50)
    found = [
        density(
            lanczos_chains(Diagonal(values * factor), gaussian(4, SIZE), 12),
            grid * factor,
            0.01 * factor,
            eigenvalues=np.zeros(0),
            size=SIZE,
        )
        for factor in (1.0, scale)
    ]
    for mine, other in zip(vars(found[0]).values(), vars(found[1]).values(), strict=True):
        np.testing.assert_allclose(other * scale, mine, rtol=1e-6, atol=1e-9)


def test_a_density_without_chains_is_exact():
    grid = np.linspace(-1, 3, 801)
    found = density([], grid, 0.1, eigenvalues=np.array([0.0, 1.0, 2.0]), size=3)
    assert trapezoid(found.values, grid) == pytest.approx(1, abs=1e-9)
    peak = found.values[np.argmin(np.abs(grid - 1))]
    assert peak == pytest.approx(1 / (3 * 0.1 * np.sqrt(2 * np.pi)))
    np.testing.assert_array_equal(found.low, found.high)
