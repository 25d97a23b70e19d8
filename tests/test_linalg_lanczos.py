"""Lanczos on plain matrices against dense eigendecompositions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.linalg import MatrixOperator, krylov, lanczos_chains, project_out, rademacher

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run(matrix, steps, *, seed=0, **settings_):
    operator = MatrixOperator(matrix)
    start = rademacher(1, operator, generator(seed))[0]
    return krylov(operator, start, steps, generator=generator(seed + 1), **settings_)


def relation_error(found, matrix):
    """|| A Q^T - (Q^T T + remainder q_next e_k^T) ||, the relation that everything rests on."""
    images = found.basis @ matrix
    expected = found.images(np.eye(len(found.values)))
    return float((images - expected).abs().max())


def distances(values, truth):
    """Distance of each value to the nearest true eigenvalue."""
    return np.abs(np.asarray(values)[:, None] - truth[None]).min(1)


@pytest.mark.parametrize("seed", range(3))
def test_both_ends_of_a_dense_matrix(symmetric, seed):
    rng = np.random.default_rng(seed)
    bulk = rng.normal(size=190)
    truth = np.sort(np.concatenate([bulk, [9.0, 7.0, 6.0, -8.0, -5.0]]))
    found = run(symmetric(truth, seed), 60)
    np.testing.assert_allclose(found.values[-3:], truth[-3:], rtol=1e-10)
    np.testing.assert_allclose(found.values[:2], truth[:2], rtol=1e-10)


def test_the_largest_is_the_algebraically_largest():
    found = run(torch.diag(torch.tensor([2.0, -6.0], dtype=torch.float64)), 10)
    np.testing.assert_allclose(found.values, [-6.0, 2.0], rtol=1e-14)


def test_eigenvectors_belong_to_their_values(symmetric):
    matrix = symmetric([5.0, 3.0, -4.0, *np.linspace(-1, 1, 60)])
    found = run(matrix, 50)
    columns = found.vectors[:, [-1, -2, 0]]
    vectors = found.combine(columns)
    expected = torch.as_tensor(found.values[[-1, -2, 0]])[:, None] * vectors
    torch.testing.assert_close(vectors @ matrix, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(found.images(columns), vectors @ matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_residuals_are_those_of_the_ritz_pairs(symmetric, dtype, atol):
    matrix = symmetric(np.random.default_rng(3).normal(size=120), dtype=dtype)
    found = run(matrix, 25)
    ritz = found.combine(found.vectors)
    values = torch.as_tensor(found.values, dtype=dtype)[:, None]
    true = (ritz @ matrix - values * ritz).norm(dim=1)
    np.testing.assert_allclose(found.residuals, true.numpy(), atol=atol)


@given(
    values=st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=40),
    steps=st.integers(2, 45),
    seed=st.integers(0, 1000),
)
@QUICK
def test_each_residual_interval_holds_an_eigenvalue(symmetric, values, steps, seed):
    matrix = symmetric(values, seed)
    truth = np.linalg.eigvalsh(matrix.numpy())
    found = run(matrix, steps, seed=seed)
    rounding = 1e-13 * (1 + np.abs(truth).max())
    assert (distances(found.values, truth) <= found.residuals + rounding).all()
    assert found.values[-1] <= truth[-1] + rounding
    assert found.values[0] >= truth[0] - rounding


def spectra(seed):
    rng = np.random.default_rng(seed)
    yield "heavy tails", rng.normal(size=200) ** 3
    yield "outliers", np.concatenate([0.01 * rng.normal(size=190), rng.uniform(1, 10, 10)])
    pairs = np.repeat(rng.uniform(2, 5, 5), 2) * (1 + 1e-3 * rng.normal(size=10))
    yield "close pairs", np.concatenate([0.3 * rng.normal(size=190), pairs])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(4))
def test_within_each_error_bound_lies_an_eigenvalue(symmetric, dtype, seed):
    for name, values in spectra(seed):
        matrix = symmetric(values, seed, dtype)
        truth = np.linalg.eigvalsh(matrix.double().numpy())
        rounding = 1e-14 * np.abs(truth).max()  # of the truth
        for steps in (5, 10, 20, 40, 80):
            found = run(matrix, steps, seed=seed)
            excess = distances(found.values, truth) - found.error_bounds()
            assert excess.max() <= rounding, (name, steps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(4))
def test_after_sixty_steps_the_ends_lie_within_their_bounds(symmetric, dtype, seed):
    for name, values in spectra(seed):
        matrix = symmetric(values, seed, dtype)
        truth = np.linalg.eigvalsh(matrix.double().numpy())
        found = run(matrix, 60, seed=seed)
        for end in (0, -1):
            off = abs(found.values[end] - truth[end])
            assert off <= found.error_bounds()[end] + 1e-14 * np.abs(truth).max(), (name, end)


def test_error_bounds_get_sharp(symmetric):
    values = np.concatenate([np.linspace(-1, 1, 150), [4.0]])
    found = run(symmetric(values), 40)
    assert found.error_bounds()[-1] < 1e-8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_break_down_of_a_low_rank_matrix(symmetric, dtype):
    truth = np.concatenate([[5.0, 2.0, -3.0], np.zeros(47)])
    found = run(symmetric(truth, dtype=dtype), 20)
    assert len(found.values) == 20
    np.testing.assert_allclose(found.values[[-1, -2, 0]], [5.0, 2.0, -3.0], rtol=1e-6)
    np.testing.assert_allclose(np.sort(np.abs(found.values))[:-3], 0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_identity_breaks_down_at_every_step(dtype):
    found = run(torch.eye(30, dtype=dtype), 12)
    np.testing.assert_allclose(found.values, np.ones(12), rtol=1e-5)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-5)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(12, dtype=dtype))


def test_a_restart_finds_what_the_start_vector_lacks():
    # The start vector is an eigenvector: without a restart nothing else is ever seen.
    matrix = torch.diag(torch.tensor([1.0, 5.0, -2.0, 3.0], dtype=torch.float64))
    start = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    found = krylov(MatrixOperator(matrix), start, 4, generator=generator())
    np.testing.assert_allclose(found.values, [-2, 1, 3, 5], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_zero_matrix(dtype):
    found = run(torch.zeros(10, 10, dtype=dtype), 6)
    assert (found.values == 0).all()
    assert (found.residuals == 0).all()
    assert np.isfinite(found.error_bounds()).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_dimension(steps):
    found = run(torch.tensor([[-3.0]]), steps)
    np.testing.assert_allclose(found.values, [-3.0])
    assert found.remainder == 0


@pytest.mark.parametrize("size", [2, 5, 17])
def test_more_steps_than_dimensions_give_all_eigenvalues(symmetric, size):
    truth = np.sort(np.random.default_rng(size).normal(size=size))
    found = run(symmetric(truth), size + 10)
    assert len(found.values) == size
    np.testing.assert_allclose(found.values, truth, atol=1e-12)
    assert found.remainder == 0
    assert (found.residuals == 0).all()


@pytest.mark.parametrize("max_basis", [None, 8, 12, 25])
def test_the_lanczos_relation_holds_exactly(symmetric, max_basis):
    matrix = symmetric(np.random.default_rng(5).normal(size=100))
    for steps in (7, 12, 13, 40, 61):
        found = run(matrix, steps, max_basis=max_basis)
        assert relation_error(found, matrix) < 1e-12
        gram = found.basis @ found.basis.T
        torch.testing.assert_close(
            gram, torch.eye(len(found.values), dtype=torch.float64), atol=1e-12, rtol=0
        )
        assert abs(float((found.basis @ found.following).abs().max())) < 1e-12
        projected = (found.basis @ matrix @ found.basis.T).numpy()
        np.testing.assert_allclose(found.projected, projected, atol=1e-12)


def test_thick_restarts_converge_at_both_ends(symmetric):
    truth = np.sort(np.concatenate([np.random.default_rng(6).normal(size=300), [7.0, 6.5, -6.0]]))
    matrix = symmetric(truth)
    found = run(matrix, 150, max_basis=16)
    assert len(found.values) <= 16
    np.testing.assert_allclose(found.values[-2:], truth[-2:], rtol=1e-9)
    np.testing.assert_allclose(found.values[0], truth[0], rtol=1e-9)
    one_pass = run(matrix, 16)
    assert found.residuals[-1] < 1e-3 * one_pass.residuals[-1]


def test_a_restarted_basis_survives_break_downs(symmetric):
    matrix = symmetric(np.concatenate([[5.0, 4.0, -3.0], np.zeros(40)]))
    found = run(matrix, 30, max_basis=8)
    assert relation_error(found, matrix) < 1e-12
    np.testing.assert_allclose(found.values[[-1, -2, 0]], [5.0, 4.0, -3.0], atol=1e-12)


def test_each_step_costs_one_product(symmetric):
    matrix = symmetric(np.random.default_rng(7).normal(size=50))
    seen = []

    class Counted(MatrixOperator):
        def matmat(self, vectors):
            seen.append(len(vectors))
            return super().matmat(vectors)

    operator = Counted(matrix)
    for max_basis in (None, 8):
        seen.clear()
        start = torch.ones(50, dtype=torch.float64)
        krylov(operator, start, 20, generator=generator(), max_basis=max_basis)
        assert seen == [1] * 20


def test_wrong_input_is_refused():
    operator = MatrixOperator(torch.eye(20))
    with pytest.raises(ValueError, match="non-zero"):
        krylov(operator, torch.zeros(20), 5, generator=generator())
    with pytest.raises(ValueError, match="non-zero and finite"):
        krylov(operator, torch.full((20,), torch.nan), 5, generator=generator())
    with pytest.raises(ValueError, match="at least 8"):
        krylov(operator, torch.ones(20), 5, generator=generator(), max_basis=7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_product_that_is_not_finite_stops(bad):
    matrix = torch.eye(6)
    matrix[2, 3] = matrix[3, 2] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        run(matrix, 4)
    with pytest.raises(FloatingPointError, match="not finite"):
        lanczos_chains(MatrixOperator(matrix), torch.ones(2, 6), 4)


def test_project_out_removes_exactly():
    basis = torch.linalg.qr(torch.randn(50, 7, generator=generator(), dtype=torch.float64)).Q.T
    vectors = torch.randn(3, 50, generator=generator(1), dtype=torch.float64)
    left = project_out(vectors, basis)
    assert float((left @ basis.T).abs().max()) < 1e-14
    torch.testing.assert_close(project_out(left, basis), left)
    assert torch.equal(project_out(vectors, basis[:0]), vectors)


def test_rademacher_are_signs_that_the_seed_fixes():
    operator = MatrixOperator(torch.eye(1000))
    signs = rademacher(3, operator, generator(4))
    assert signs.shape == (3, 1000)
    assert signs.dtype == torch.float32
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert float(signs.mean().abs()) < 0.1
    assert torch.equal(signs, rademacher(3, operator, generator(4)))
    assert not torch.equal(signs, rademacher(3, operator, generator(5)))


# -- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reorthogonalise", [True, False])
def test_lockstep_chains_are_the_single_chains(symmetric, reorthogonalise):
    operator = MatrixOperator(symmetric(np.random.default_rng(8).normal(size=80)))
    starts = rademacher(4, operator, generator())
    together = lanczos_chains(operator, starts, 15, reorthogonalise=reorthogonalise)
    for start, chain in zip(starts, together, strict=True):
        (alone,) = lanczos_chains(operator, start[None], 15, reorthogonalise=reorthogonalise)
        np.testing.assert_allclose(chain.diagonal, alone.diagonal, atol=1e-10)
        np.testing.assert_allclose(chain.off_diagonal, alone.off_diagonal, atol=1e-10)
        assert chain.mass == pytest.approx(80, rel=1e-12)
        assert alone.mass == chain.mass


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_quadrature_is_exact_for_polynomials(symmetric, steps):
    values = np.random.default_rng(9).uniform(-1, 1, size=60)
    matrix = symmetric(values)
    start = torch.randn(1, 60, generator=generator(), dtype=torch.float64)
    (chain,) = lanczos_chains(MatrixOperator(matrix), start, steps)
    nodes, weights = chain.quadrature()
    assert len(nodes) == steps
    assert (weights >= 0).all()
    assert chain.mass == pytest.approx(float(start.square().sum()))
    eigenvalues, vectors = np.linalg.eigh(matrix.numpy())
    shares = (start.numpy()[0] @ vectors) ** 2
    for degree in range(2 * steps):
        assert weights @ nodes**degree == pytest.approx(shares @ eigenvalues**degree, abs=1e-10)
    beyond = shares @ eigenvalues ** (2 * steps)
    assert weights @ nodes ** (2 * steps) < beyond - 1e-6 * abs(beyond)


def test_a_shorter_quadrature_is_that_of_a_shorter_run(symmetric):
    operator = MatrixOperator(symmetric(np.random.default_rng(10).normal(size=50)))
    start = rademacher(1, operator, generator())
    (longer,) = lanczos_chains(operator, start, 12)
    (shorter,) = lanczos_chains(operator, start, 5)
    for mine, other in zip(longer.quadrature(5), shorter.quadrature(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    np.testing.assert_array_equal(longer.quadrature(99)[0], longer.quadrature()[0])


def test_without_reorthogonalisation_the_sums_stay_right(symmetric):
    values = np.concatenate([[20.0, 15.0], np.random.default_rng(11).uniform(-1, 1, size=298)])
    operator = MatrixOperator(symmetric(values, dtype=torch.float32))
    starts = rademacher(3, operator, generator())
    kept = lanczos_chains(operator, starts, 60)
    free = lanczos_chains(operator, starts, 60, reorthogonalise=False)
    for one, two in zip(kept, free, strict=True):
        (nodes, weights), (other_nodes, other_weights) = one.quadrature(), two.quadrature()
        # Ghost copies of converged eigenvalues share their weight.
        for function in (np.abs, np.square, lambda x: np.exp(-(x**2))):
            expected = weights @ function(nodes)
            assert other_weights @ function(other_nodes) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reorthogonalise", [True, False])
def test_a_chain_that_breaks_down_is_exact(symmetric, dtype, reorthogonalise):
    truth = np.repeat([3.0, -2.0, 0.5], 20)
    matrix = symmetric(truth, dtype=dtype)
    operator = MatrixOperator(matrix)
    starts = rademacher(3, operator, generator())
    chains = lanczos_chains(operator, starts, 10, reorthogonalise=reorthogonalise)
    eigenvalues, vectors = np.linalg.eigh(matrix.double().numpy())
    for start, chain in zip(starts.double().numpy(), chains, strict=True):
        assert len(chain.diagonal) == 3
        assert chain.exact
        nodes, weights = chain.quadrature()
        np.testing.assert_allclose(nodes, [-2, 0.5, 3], atol=1e-5)
        shares = (start @ vectors) ** 2
        expected = shares @ np.sqrt(np.abs(eigenvalues))
        assert weights @ np.sqrt(np.abs(nodes)) == pytest.approx(expected, rel=1e-5)


def test_chains_of_different_length_do_not_disturb_each_other(symmetric):
    matrix = symmetric(np.linspace(-1, 2, 40))
    operator = MatrixOperator(matrix)
    eigenvector = torch.linalg.eigh(matrix).eigenvectors[:, 5]
    start = rademacher(1, operator, generator())[0]
    starts = torch.stack([eigenvector * 2, start, torch.zeros_like(start)])
    short, full, none = lanczos_chains(operator, starts, 10)
    assert len(short.diagonal) == 1
    assert short.mass == pytest.approx(4)
    assert short.quadrature()[0] == pytest.approx([-1 + 5 * 3 / 39])
    (alone,) = lanczos_chains(operator, start[None], 10)
    assert len(full.diagonal) == 10
    assert not full.exact
    np.testing.assert_allclose(full.diagonal, alone.diagonal, atol=1e-12)
    assert none.mass == 0
    assert none.quadrature()[1].sum() == 0


def test_a_run_through_the_whole_space_ends(symmetric):
    values = np.array([1.0, -2.0, 4.0, 0.3])
    operator = MatrixOperator(symmetric(values))
    (chain,) = lanczos_chains(operator, rademacher(1, operator, generator()), 9)
    assert len(chain.diagonal) == 4
    np.testing.assert_allclose(chain.quadrature()[0], np.sort(values), atol=1e-12)
    assert chain.exact


def test_the_zero_matrix_gives_one_node_at_zero():
    operator = MatrixOperator(torch.zeros(5, 5))
    chains = lanczos_chains(operator, torch.ones(2, 5), 4)
    for chain in chains:
        nodes, weights = chain.quadrature()
        assert nodes.tolist() == [0.0]
        assert weights.tolist() == pytest.approx([5.0])
