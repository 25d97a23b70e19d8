"""Trace estimators: unbiased, as accurate as their theory says, honest about their error."""

import numpy as np
import pytest
import torch

from landscape.linalg import (
    MatrixOperator,
    SampleMean,
    hutch_plus_plus,
    hutchinson,
    student_quantile,
    xtrace,
)
from landscape.linalg.trace import _leave_one_out

ESTIMATORS = (hutchinson, hutch_plus_plus, xtrace)
SEEDS = 120


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Counted(MatrixOperator):
    """Counts its products."""

    products = 0

    def matmat(self, vectors):
        self.products += len(vectors)
        return super().matmat(vectors)


def few_outliers(size=150):
    """A Hessian-like spectrum: ten outliers, a small bulk with both signs."""
    bulk = 0.05 * np.random.default_rng(0).normal(size=size - 10)
    return np.concatenate([np.linspace(2, 40, 10), bulk])


@pytest.fixture(scope="module")
def outliers(symmetric):
    return symmetric(few_outliers())


@pytest.fixture(scope="module")
def samples(outliers):
    """Estimates over many seeds, by estimator, on the same matrix with 60 products."""
    operator = MatrixOperator(outliers)
    return {
        estimator: [estimator(operator, 60, generator=generator(seed)) for seed in range(SEEDS)]
        for estimator in ESTIMATORS
    }


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_are_unbiased(samples, outliers, estimator):
    values = np.array([found.value for found in samples[estimator]])
    error = values.std(ddof=1) / SEEDS**0.5
    assert abs(values.mean() - float(outliers.trace())) < 3.5 * error


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_intervals_cover(samples, outliers, estimator):
    truth = float(outliers.trace())
    covered = [low <= truth <= high for low, high in (s.interval() for s in samples[estimator])]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_standard_errors_are_of_the_right_size(samples, estimator):
    values = np.array([found.value for found in samples[estimator]])
    spread = values.std(ddof=1)
    told = np.sqrt(np.mean([found.stderr**2 for found in samples[estimator]]))
    assert 0.75 * spread < told < 2.5 * spread


def test_hutchinson_has_the_variance_of_its_theory(samples, outliers):
    values = np.array([found.value for found in samples[hutchinson]])
    variance = 2 * float((outliers**2).sum() - outliers.diagonal().square().sum()) / 60
    # The sample variance of n normal values scatters by sqrt(2 / n).
    assert values.var(ddof=1) == pytest.approx(variance, rel=4 * (2 / SEEDS) ** 0.5)


def test_deflating_estimators_win_on_few_outliers(samples, outliers):
    truth = float(outliers.trace())
    rms = {
        estimator: np.sqrt(np.mean([(found.value - truth) ** 2 for found in samples[estimator]]))
        for estimator in ESTIMATORS
    }
    assert rms[hutch_plus_plus] < rms[hutchinson] / 20
    assert rms[xtrace] < rms[hutch_plus_plus]


@pytest.mark.parametrize("matvecs", [6, 12, 30, 61])
def test_xtrace_is_unbiased_also_on_an_indefinite_matrix(symmetric, matvecs):
    matrix = symmetric(np.concatenate([[6.0, -5.0], np.random.default_rng(1).normal(size=78)]))
    operator = MatrixOperator(matrix)
    values = np.array(
        [xtrace(operator, matvecs, generator=generator(seed)).value for seed in range(SEEDS)]
    )
    error = values.std(ddof=1) / SEEDS**0.5
    assert abs(values.mean() - float(matrix.trace())) < 3.5 * error


def brute_force(matrix, tests):
    """XTrace by its definition: for each i, the QR without test vector i and its remainder."""
    size, count = tests.shape
    images = matrix @ tests
    estimates = []
    for i in range(count):
        others = np.delete(images, i, axis=1)
        basis, _ = np.linalg.qr(others)
        probe = tests[:, i] - basis @ (basis.T @ tests[:, i])
        # On the sphere of the complement's dimension, as the whole vector was on that of R^P.
        probe *= np.sqrt((size - count + 1) / (probe @ probe))
        estimates.append(np.trace(basis.T @ matrix @ basis) + probe @ matrix @ probe)
    return np.array(estimates)


@pytest.mark.parametrize("count", [3, 8, 20])
def test_xtrace_is_leave_one_out(symmetric, count):
    matrix = symmetric(np.concatenate([[9.0, -4.0], np.random.default_rng(2).normal(size=48)]))
    draws = np.random.default_rng(3).normal(size=(50, count))
    tests = draws * np.sqrt(50) / np.linalg.norm(draws, axis=0)
    dense = matrix.numpy()
    basis, triangle = np.linalg.qr(dense @ tests)
    fast = _leave_one_out(
        triangle,
        basis.T @ tests,
        basis.T @ dense @ basis,
        basis.T @ dense @ tests,
        50,
    )
    np.testing.assert_allclose(fast, brute_force(dense, tests), rtol=1e-9)


def test_the_whole_of_xtrace_agrees_with_brute_force(symmetric):
    matrix = symmetric(few_outliers(60))
    found = xtrace(MatrixOperator(matrix), 24, generator=generator(7))
    draws = torch.randn(12, 60, generator=generator(7), dtype=torch.float64)
    tests = (draws * (60**0.5 / draws.norm(dim=1, keepdim=True))).T.numpy()
    estimates = brute_force(matrix.numpy(), tests)
    assert found.value == pytest.approx(estimates.mean(), rel=1e-9)
    # Enlarged, since the estimates are not independent.
    assert found.stderr == pytest.approx(1.5 * estimates.std(ddof=1) / 12**0.5, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("estimator", [hutch_plus_plus, xtrace])
@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_is_exact(symmetric, estimator, rank, dtype):
    values = np.concatenate([np.arange(1.0, rank + 1), np.zeros(80 - rank)])
    matrix = symmetric(values, dtype=dtype)
    found = estimator(MatrixOperator(matrix), 30, generator=generator())
    assert found.value == pytest.approx(values.sum(), rel=1e-9 if dtype == torch.float64 else 1e-4)
    assert found.stderr < (1e-9 if dtype == torch.float64 else 1e-4) * values.sum()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_tiny_matrices(symmetric, estimator, size):
    matrix = symmetric(np.arange(1.0, size + 1))
    operator = Counted(matrix)
    found = estimator(operator, 12, generator=generator())
    assert operator.products == found.products <= 12
    if estimator is not hutchinson:  # the budget suffices for the exact trace
        assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
        assert found.stderr == 0
        assert found.interval() == (found.value, found.value)


def test_xtrace_reads_the_trace_off_where_the_budget_allows(symmetric):
    matrix = symmetric(np.random.default_rng(4).normal(size=20))
    found = xtrace(MatrixOperator(matrix), 20, generator=generator())
    assert found.value == pytest.approx(float(matrix.trace()), rel=1e-12)
    assert found.stderr == 0
    assert found.products == 20


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("matvecs", [6, 7, 8, 31])
def test_the_budget_is_kept(outliers, estimator, matvecs):
    operator = Counted(outliers)
    found = estimator(operator, matvecs, generator=generator())
    assert operator.products == found.products <= matvecs


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_single_precision(outliers, estimator):
    double = estimator(MatrixOperator(outliers), 30, generator=generator(3))
    single = estimator(MatrixOperator(outliers.float()), 30, generator=generator(3))
    assert single.value == pytest.approx(double.value, rel=1e-4)
    assert single.stderr == pytest.approx(double.stderr, rel=1e-2)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_zero_matrix(estimator):
    found = estimator(MatrixOperator(torch.zeros(40, 40)), 12, generator=generator())
    assert found.value == 0
    assert found.stderr == 0


@pytest.mark.parametrize("estimator", [hutchinson, xtrace])
def test_a_multiple_of_the_identity(estimator):
    found = estimator(MatrixOperator(3 * torch.eye(40)), 12, generator=generator())
    assert found.value == pytest.approx(120, rel=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_seed_fixes_the_number(outliers, estimator):
    operator = MatrixOperator(outliers)
    one, two, other = (estimator(operator, 12, generator=generator(s)) for s in (1, 1, 2))
    assert one == two
    assert other.value != one.value


@pytest.mark.parametrize(
    ("estimator", "least"), [(hutchinson, 2), (hutch_plus_plus, 6), (xtrace, 6)]
)
def test_too_few_products_are_refused(outliers, estimator, least):
    operator = MatrixOperator(outliers)
    with pytest.raises(ValueError, match=f"at least {least} products, got matvecs={least - 1}"):
        estimator(operator, least - 1, generator=generator())
    assert np.isfinite(estimator(operator, least, generator=generator()).value)


def test_a_sample_mean_is_the_mean_with_a_student_interval():
    mean = SampleMean.of(np.array([1.0, 2.0, 3.0, 6.0]), exact=10.0)
    assert mean.value == 13.0
    assert mean.stderr == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    assert mean.degrees == 3
    low, high = mean.interval()
    # t quantile 0.975 with three degrees of freedom, from a table
    assert high - mean.value == pytest.approx(3.182446 * mean.stderr, rel=1e-6)
    assert low + high == pytest.approx(26)
    wide = mean.interval(0.99)
    assert wide[0] < low
    assert wide[1] > high


def test_student_quantiles_tend_to_the_normal_one():
    assert student_quantile(1) == pytest.approx(12.7062, rel=1e-5)
    assert student_quantile(100_000) == pytest.approx(1.95996, rel=1e-4)
