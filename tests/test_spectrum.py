"""The Spectrum on plain matrices: exact where it is complete, covering where it is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape.evidence import SpectrumRequest, TraceRequest, compute_spectrum
from landscape.linalg import MatrixOperator, krylov, rademacher

LAYERS = {"first": [slice(0, 50), slice(120, 150)], "rest": [slice(50, 120), slice(150, 300)]}
SEEDS = 60
# Intervals of 95 % fall below this share of 60 seeds once in a million tries.
COVERED = 0.8
SMALL = SpectrumRequest(steps=30, probes=6, probe_steps=10)


class Counted(MatrixOperator):
    """Counts its products."""

    products = 0

    def matmat(self, vectors):
        self.products += len(vectors)
        return super().matmat(vectors)


def halves(size):
    return {"low": [slice(0, size // 2)], "high": [slice(size // 2, size)]}


def block_trace(matrix, places):
    return sum(float(matrix.diagonal()[place].sum()) for place in places)


def spectrum_of(matrix, request=SMALL, layers=None):
    layers = halves(len(matrix)) if layers is None else layers
    return compute_spectrum(MatrixOperator(matrix), request, layers=layers)


def families():
    rng = np.random.default_rng(0)
    return {
        "hessian": np.concatenate([np.linspace(2, 40, 10), 0.3 * rng.normal(size=290)]),
        "ggn": np.concatenate([np.linspace(2, 40, 10), 10 ** rng.uniform(-4, 0, 190), [0] * 100]),
        "indefinite": rng.normal(size=300),
        "negative": -rng.uniform(0, 1, size=300),
    }


FAMILIES = families()


# -- complete: everything is exact ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 10, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_complete_spectrum_is_exact(symmetric, size, seed):
    values = np.sort(np.random.default_rng(seed).normal(size=size))
    matrix = symmetric(values, seed)
    request = SpectrumRequest(steps=30, probes=4, probe_steps=6, seed=seed)
    operator = Counted(matrix)
    found = compute_spectrum(operator, request, layers=halves(size))
    assert found.complete
    assert operator.products == size  # no probe is needed
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    assert found.known.all()
    exact = {
        "trace": (found.trace(), values.sum()),
        "frobenius": (found.frobenius_squared(), (values**2).sum()),
        **{
            layer: (mean, block_trace(matrix, halves(size)[layer]))
            for layer, mean in found.layer_traces().items()
        },
    }
    for mean, truth in exact.values():
        assert mean.value == pytest.approx(truth, abs=1e-11)
        assert mean.stderr == 0
        rounding = 1e-13 * (1 + np.abs(values).sum()) * size
        assert mean.interval() == pytest.approx((mean.value, mean.value), abs=rounding)
    for exponent in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0):
        total = found.absolute_sum(lambda x, exponent=exponent: x**exponent)
        assert total.value == pytest.approx((np.abs(values) ** exponent).sum(), rel=1e-9)
        assert total.stderr == total.quadrature_error == 0


@pytest.mark.parametrize(
    "values",
    [np.ones(12), np.zeros(12), [3.0] + [0.0] * 11, [1.0] * 6 + [-1.0] * 6],
    ids=["identity", "zero", "rank-one", "reflection"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_degenerate_small_matrices_are_exact(symmetric, values, dtype):
    found = spectrum_of(symmetric(values, dtype=dtype))
    assert found.complete
    atol = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(found.values, np.sort(values), atol=atol)
    assert found.trace().value == pytest.approx(np.sum(values), abs=10 * atol)
    assert found.frobenius_squared().value == pytest.approx(np.square(values).sum(), abs=10 * atol)
    assert found.absolute_sum(np.square).value == pytest.approx(
        np.square(values).sum(), abs=10 * atol
    )


@pytest.mark.parametrize("value", [-3.0, 0.0, 2.0])
def test_one_parameter(value):
    found = spectrum_of(torch.tensor([[value]]), layers={"only": [slice(0, 1)]})
    assert found.values.tolist() == [value]
    assert found.vectors.shape == (1, 1)
    assert found.trace().value == value
    assert found.layer_traces()["only"].value == value
    assert found.frobenius_squared().value == value**2
    assert found.absolute_sum(lambda x: x).value == abs(value)


def test_a_diagonal_matrix_with_both_signs():
    found = spectrum_of(torch.diag(torch.tensor([2.0, -6.0])))
    np.testing.assert_allclose(found.values, [-6, 2], rtol=1e-6)
    traces = found.layer_traces()
    assert traces["low"].value == pytest.approx(2, abs=1e-5)
    assert traces["high"].value == pytest.approx(-6, abs=1e-5)


# -- larger: estimates ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(FAMILIES))
def repeated(request, symmetric):
    """A matrix of 300 parameters and its spectra over many seeds."""
    matrix = symmetric(FAMILIES[request.param])
    return matrix, [spectrum_of(matrix, replace(SMALL, seed=seed), LAYERS) for seed in range(SEEDS)]


def covers(intervals, truth):
    rounding = 1e-10 * (1 + abs(truth))
    return np.mean([low - rounding <= truth <= high + rounding for low, high in intervals])


def unbiased(values, truth):
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return abs(np.mean(values) - truth) <= 3.5 * error + 1e-10 * (1 + abs(truth))


def test_the_trace_is_unbiased_and_covered(repeated):
    matrix, spectra = repeated
    truth = float(matrix.trace())
    means = [found.trace() for found in spectra]
    assert unbiased([mean.value for mean in means], truth)
    assert covers([mean.interval() for mean in means], truth) >= COVERED


def test_the_frobenius_norm_is_unbiased_and_covered(repeated):
    matrix, spectra = repeated
    truth = float(matrix.square().sum())
    means = [found.frobenius_squared() for found in spectra]
    assert unbiased([mean.value for mean in means], truth)
    assert covers([mean.interval() for mean in means], truth) >= COVERED


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_traces_are_unbiased_and_covered(repeated, layer):
    matrix, spectra = repeated
    truth = block_trace(matrix, LAYERS[layer])
    means = [found.layer_traces()[layer] for found in spectra]
    assert unbiased([mean.value for mean in means], truth)
    assert covers([mean.interval() for mean in means], truth) >= COVERED


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_absolute_sums_are_covered(repeated, exponent):
    matrix, spectra = repeated
    truth = float((torch.linalg.eigvalsh(matrix).abs() ** exponent).sum())
    sums = [found.absolute_sum(lambda x: x**exponent) for found in spectra[:20]]
    assert covers([total.interval() for total in sums], truth) >= COVERED


def test_layer_traces_add_up_to_the_trace(repeated):
    _, spectra = repeated
    for found in spectra[:10]:
        layers = found.layer_traces().values()
        whole = found.trace()
        assert sum(mean.value for mean in layers) == pytest.approx(whole.value, abs=1e-10)
        added = np.sum(list(found.layer_samples.values()), axis=0)
        np.testing.assert_allclose(added, found.trace_samples, atol=1e-10)


@pytest.mark.parametrize("steps", [2, 5, 30])
def test_the_exact_parts_are_those_of_the_basis(symmetric, steps):
    """tr and squared Frobenius norm of what touches the basis, and the layers' shares of it."""
    matrix = symmetric(FAMILIES["indefinite"])
    operator, request = MatrixOperator(matrix), replace(SMALL, steps=steps, seed=9)
    found = compute_spectrum(operator, request, layers=LAYERS)
    source = torch.Generator().manual_seed(9)
    start = rademacher(1, operator, source)[0]
    basis = krylov(operator, start, steps, generator=source).basis
    onto = basis.T @ basis
    out = torch.eye(300, dtype=torch.float64) - onto
    assert found.trace_exact == pytest.approx(float((onto @ matrix).trace()), abs=1e-10)
    inside = found.frobenius_exact * found.unit**2
    assert inside == pytest.approx(float((matrix @ onto).square().sum()), rel=1e-10)
    # A = Q Q' A + P A Q Q' + P A P, of which the probes sample the last.
    diagonal = (onto @ matrix + out @ matrix @ onto).diagonal()
    for layer, places in LAYERS.items():
        share = sum(float(diagonal[place].sum()) for place in places)
        assert found.layer_exact[layer] == pytest.approx(share, abs=1e-10)


def test_the_basis_makes_the_trace_cheaper_than_hutchinson(symmetric):
    matrix = symmetric(FAMILIES["hessian"])
    truth = float(matrix.trace())
    errors, plain = [], []
    for seed in range(20):
        errors.append(spectrum_of(matrix, replace(SMALL, seed=seed)).trace().value - truth)
        probes = torch.randint(0, 2, (90, 300), generator=torch.Generator().manual_seed(seed))
        signs = 2.0 * probes.double() - 1
        plain.append(float(((signs @ matrix) * signs).sum(1).mean()) - truth)
    assert np.sqrt(np.mean(np.square(errors))) < 0.5 * np.sqrt(np.mean(np.square(plain)))


def test_known_pairs_are_eigenpairs(repeated):
    matrix, spectra = repeated
    truth = torch.linalg.eigvalsh(matrix).numpy()
    scale = np.abs(truth).max()
    for found in spectra[:10]:
        off = np.abs(found.known_values[:, None] - truth).min(1)
        assert (off <= 1e-4 * scale).all()
    found = spectra[0]
    top = found.vectors[0]
    assert float(top.norm()) == pytest.approx(1)
    assert float(top @ matrix @ top) == pytest.approx(found.values[-1])


def test_the_density_integrates_to_one(repeated):
    _, spectra = repeated
    for found in spectra[:3]:
        reach = 1.5 * np.abs(found.values).max()
        grid = np.linspace(-reach, reach, 8001)
        curve = found.density(grid, 0.01 * reach).values
        assert np.diff(grid) @ ((curve[1:] + curve[:-1]) / 2) == pytest.approx(1, abs=1e-6)


def clustered():
    rng = np.random.default_rng(3)

    def cluster(centre, count, width):
        return centre * (1 + width * rng.normal(size=count))

    return {
        "one": np.concatenate([[100.0, 50, 20], cluster(1, 197, 1e-3)]),
        "rounded": np.concatenate([[100.0, 50, 20], np.ones(197)]),
        "several": np.concatenate([cluster(c, 40, 1e-4) for c in (8, 4, 2, 1, -1)]),
        "outlier": np.append(0.1 * rng.normal(size=199), 50),
    }


@pytest.mark.parametrize("name", clustered())
@pytest.mark.parametrize("budget", [(20, 3, 6), (30, 5, 12)])
def test_intervals_hold_where_eigenvalues_cluster(symmetric, name, budget):
    values = clustered()[name]
    matrix = symmetric(values, dtype=torch.float32)
    steps, probes, probe_steps = budget
    truths = [values.sum(), (values**2).sum(), np.abs(values).sum()]
    hits = []
    for seed in range(16):
        request = SpectrumRequest(steps=steps, probes=probes, probe_steps=probe_steps, seed=seed)
        found = spectrum_of(matrix, request)
        sums = (found.trace(), found.frobenius_squared(), found.absolute_sum(lambda x: x))
        ends = [each.interval() for each in sums]
        hits.append([low <= truth <= high for (low, high), truth in zip(ends, truths, strict=True)])
    assert np.mean(hits) >= 0.88


@pytest.mark.parametrize("name", ["one", "several"])
def test_deviations_tell_the_variance_of_samples(symmetric, name):
    matrix = symmetric(clustered()[name])
    draws = [spectrum_of(matrix, replace(SMALL, seed=seed, probes=16)) for seed in range(12)]
    total = [found.absolute_sum(np.sqrt) for found in draws]
    pairs = [
        ([each.trace_samples for each in draws], [x.trace_deviations for x in draws]),
        ([x.frobenius_samples for x in draws], [x.frobenius_deviations for x in draws]),
        ([x.samples for x in total], [x.deviations for x in total]),
        *(
            (
                [each.layer_samples[layer] for each in draws],
                [each.layer_deviations[layer] for each in draws],
            )
            for layer in ("low", "high")
        ),
    ]
    for samples, deviations in pairs:
        seen = np.mean([np.var(each, ddof=1) for each in samples])
        assert np.mean(np.square(deviations)) == pytest.approx(seen, rel=0.5)


# -- special matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_zero_matrix(dtype):
    found = spectrum_of(torch.zeros(100, 100, dtype=dtype))
    assert not found.complete
    assert (found.values == 0).all()
    for mean in (found.trace(), found.frobenius_squared(), *found.layer_traces().values()):
        assert mean.value == mean.stderr == 0
    total = found.absolute_sum(lambda x: x)
    assert total.value == total.stderr == total.quadrature_error == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_multiple_of_the_identity(dtype):
    found = spectrum_of(3 * torch.eye(200, dtype=dtype))
    assert found.values == pytest.approx(3, rel=1e-10 if dtype == torch.float64 else 1e-4)
    # What is alike in all directions is known from the dimension alone.
    rel = 1e-9 if dtype == torch.float64 else 1e-4
    for estimate, truth in (
        (found.trace(), 600),
        (found.frobenius_squared(), 1800),
        (found.absolute_sum(np.sqrt), 200 * 3**0.5),
    ):
        assert estimate.value == pytest.approx(truth, rel=rel)
        assert estimate.stderr < rel * truth


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_low_rank_is_found_exactly(symmetric, dtype):
    values = np.concatenate([[5.0, 3.0, -2.0], np.zeros(197)])
    found = spectrum_of(symmetric(values, dtype=dtype))
    rel = 1e-9 if dtype == torch.float64 else 1e-4
    assert found.values[[-1, -2, 0]] == pytest.approx([5, 3, -2], rel=rel)
    assert found.trace().value == pytest.approx(6, rel=rel)
    assert found.frobenius_squared().value == pytest.approx(38, rel=rel)
    assert found.absolute_sum(lambda x: x).value == pytest.approx(10, rel=10 * rel)


def test_few_distinct_eigenvalues_leave_no_quadrature_error(symmetric):
    found = spectrum_of(symmetric(np.repeat([1.0, -2.0, 3.0], 100)))
    total = found.absolute_sum(np.sqrt)
    assert total.quadrature_error < 1e-6 * total.value


@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision_agrees(symmetric, name):
    matrix = symmetric(FAMILIES[name])
    double, single = spectrum_of(matrix), spectrum_of(matrix.float())
    scale = np.abs(FAMILIES[name]).max()
    assert single.values[-1] == pytest.approx(double.values[-1], abs=1e-5 * scale)
    assert single.values[0] == pytest.approx(double.values[0], abs=1e-5 * scale)
    for one, two in (
        (single.trace(), double.trace()),
        (single.frobenius_squared(), double.frobenius_squared()),
    ):
        assert one.value == pytest.approx(two.value, abs=1e-4 * scale + 0.05 * two.stderr)


# -- budget, seed, memory -------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [4 << 30, 300 * 8 * 60])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_budget_is_kept(symmetric, name, memory):
    operator = Counted(symmetric(FAMILIES[name]))
    request = replace(SMALL, memory=memory)
    compute_spectrum(operator, request, layers=LAYERS)
    assert 0 < operator.products <= request.passes == 90


def test_the_seed_fixes_every_number(symmetric):
    matrix = symmetric(FAMILIES["hessian"])
    one, two, other = (spectrum_of(matrix, replace(SMALL, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.trace_samples, two.trace_samples)
    assert one.absolute_sum(np.sqrt).value == two.absolute_sum(np.sqrt).value
    assert one.trace().value != other.trace().value


@pytest.mark.parametrize("vectors", [8, 40, 60, 100])  # 8: no basis is kept
def test_bounded_memory_gives_consistent_results(symmetric, vectors):
    values = np.concatenate([[20.0, 15, 10, -8], np.random.default_rng(2).normal(size=296) / 3])
    matrix = symmetric(values)
    request = replace(SMALL, steps=60, probe_steps=15)
    bounded = replace(request, memory=vectors * 300 * 8)
    hits = []
    for seed in range(12):
        found = spectrum_of(matrix, replace(bounded, seed=seed), LAYERS)
        assert len(found.vectors) <= vectors
        assert found.values[-1] == pytest.approx(20, rel=1e-8)
        assert found.values[0] == pytest.approx(-8, rel=1e-6)
        estimates = [
            (found.trace(), float(matrix.trace())),
            (found.frobenius_squared(), float(matrix.square().sum())),
            (found.absolute_sum(np.sqrt), np.sqrt(np.abs(values)).sum()),
            *(
                (mean, block_trace(matrix, LAYERS[layer]))
                for layer, mean in found.layer_traces().items()
            ),
        ]
        hits += [covers([estimate.interval()], truth) for estimate, truth in estimates]
        layers = found.layer_traces().values()
        assert sum(mean.value for mean in layers) == pytest.approx(found.trace().value, abs=1e-9)
    assert np.mean(hits) >= COVERED
    whole = spectrum_of(matrix, request, LAYERS)
    # Without a basis the outliers are not taken out of the probes.
    assert found.trace().stderr < (5 if vectors > 8 else 50) * whole.trace().stderr


def test_too_little_memory_is_refused(symmetric):
    matrix = symmetric(FAMILIES["hessian"])
    with pytest.raises(ValueError, match="memory of at least"):
        spectrum_of(matrix, replace(SMALL, memory=7 * 300 * 8))


@pytest.mark.parametrize(
    "wrong",
    [{"operator": "fisher"}, {"steps": 1}, {"probes": 1}, {"probe_steps": 1}, {"steps": 0}],
)
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        SpectrumRequest(**wrong)


@pytest.mark.parametrize("wrong", [{"method": "exact"}, {"matvecs": 5}])
def test_wrong_trace_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        TraceRequest(**wrong)


def test_equal_requests_are_one():
    assert SpectrumRequest(seed=1) == SpectrumRequest(seed=1)
    assert hash(SpectrumRequest(seed=1)) == hash(SpectrumRequest(seed=1))
    assert SpectrumRequest(seed=1) != SpectrumRequest(seed=2)
    assert SpectrumRequest(operator="ggn") != SpectrumRequest()


def test_a_matrix_that_is_not_finite_stops():
    matrix = torch.eye(40)
    matrix[3, 4] = matrix[4, 3] = torch.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        spectrum_of(matrix)
