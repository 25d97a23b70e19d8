"""Every measure on quadratic bowls, whose Hessian and therefore every answer is known."""

import math

import numpy as np
import pytest
import torch

from landscape import Status, measures
from landscape.evidence import SpectrumRequest, compute_spectrum
from landscape.linalg import MatrixOperator
from landscape.measures import RenyiSharpness

ALPHAS = (0.25, 0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0, math.inf)


def spectrum_with_negatives(size=20, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([[8.0, 5.0, -2.0], 0.3 * rng.normal(size=size - 3)])


@pytest.fixture(scope="module")
def bowl(quadratic, symmetric):
    """A probe of 20 parameters, 40 % of whose eigenvalues are negative, and its eigenvalues."""
    matrix = symmetric(spectrum_with_negatives())
    return quadratic(matrix), matrix, torch.linalg.eigvalsh(matrix).numpy()


def value(probe, name, **config):
    result = measures.get(name, **config).compute(probe)
    assert result.status is Status.OK, result.message
    return result.value


def renyi(eigenvalues, alpha):
    """-H_alpha by its definition, |lambda| in both sums."""
    shares = np.abs(eigenvalues) / np.abs(eigenvalues).sum()
    shares = shares[shares > 0]
    if alpha == 1:
        return float(shares @ np.log(shares))
    if math.isinf(alpha):
        return float(np.log(shares.max()))
    return float(np.log((shares**alpha).sum()) / (alpha - 1))


# -- a complete spectrum --------------------------------------------------------------------------


def test_trace(bowl):
    probe, matrix, _ = bowl
    result = measures.get("hessian-trace").compute(probe)
    assert result.value == pytest.approx(float(matrix.trace()), rel=1e-10)
    assert result.stderr == 0
    assert result.interval == pytest.approx((result.value, result.value), rel=1e-12)
    layers = result.diagnostics["layers"]
    assert layers["low"]["value"] == pytest.approx(float(matrix.diagonal()[:10].sum()), rel=1e-10)
    assert layers["high"]["value"] == pytest.approx(float(matrix.diagonal()[10:].sum()), rel=1e-10)
    assert [layers[name]["size"] for name in ("low", "high")] == [10, 10]


@pytest.mark.parametrize("method", ["xtrace", "hutch++", "hutchinson"])
def test_trace_by_a_dedicated_estimator(bowl, method):
    probe, matrix, _ = bowl
    result = measures.get("hessian-trace", matvecs=60, method=method).compute(probe, seed=3)
    low, high = result.interval
    truth = float(matrix.trace())
    assert low - 1e-9 <= truth <= high + 1e-9
    assert 0 < result.cost.products <= 60
    assert result.diagnostics["method"] == method
    assert result.diagnostics["products"] == result.cost.products
    if method == "xtrace":
        assert result.value == pytest.approx(truth, rel=1e-10)


def test_both_ends(bowl):
    probe, _, eigenvalues = bowl
    top = measures.get("hessian-top-eigenvalue").compute(probe)
    bottom = measures.get("hessian-bottom-eigenvalue").compute(probe)
    assert top.value == pytest.approx(eigenvalues[-1], rel=1e-10)
    assert bottom.value == pytest.approx(eigenvalues[0], rel=1e-10)
    np.testing.assert_allclose(top.diagnostics["eigenvalues"], eigenvalues[::-1][:5], rtol=1e-9)
    assert top.diagnostics["ratio_to_fifth"] == pytest.approx(eigenvalues[-1] / eigenvalues[-5])
    negative = -eigenvalues[eigenvalues < 0].sum() / np.abs(eigenvalues).sum()
    assert bottom.diagnostics["negative_mass"] == pytest.approx(negative, rel=1e-9)
    assert bottom.diagnostics["negative_mass_interval"] == pytest.approx([negative, negative])
    assert bottom.diagnostics["ratio_to_largest"] == pytest.approx(
        -eigenvalues[0] / np.abs(eigenvalues).max()
    )


def test_the_top_is_not_the_largest_in_magnitude(quadratic):
    probe = quadratic(torch.diag(torch.tensor([2.0, -6.0], dtype=torch.float64)))
    assert value(probe, "hessian-top-eigenvalue") == pytest.approx(2)
    assert value(probe, "hessian-bottom-eigenvalue") == pytest.approx(-6)


def test_frobenius(bowl):
    probe, matrix, _ = bowl
    result = measures.get("hessian-frobenius").compute(probe)
    assert result.value == pytest.approx(float(matrix.norm()), rel=1e-10)
    assert result.stderr == 0
    assert result.diagnostics["squared"] == pytest.approx(float(matrix.square().sum()), rel=1e-10)


@pytest.mark.parametrize("z", [0.01, 1.0, 100.0])
def test_effective_dimension(bowl, z):
    probe, _, eigenvalues = bowl
    truth = (np.abs(eigenvalues) / (np.abs(eigenvalues) + z)).sum()
    assert value(probe, "effective-dimension", z=z) == pytest.approx(truth, rel=1e-9)


def test_flat_share_and_density(bowl):
    probe, _, eigenvalues = bowl
    result = measures.get("hessian-spectral-density", width=0.02).compute(probe)
    flat = np.abs(eigenvalues) < 0.01 * np.abs(eigenvalues).max()
    assert result.value == pytest.approx(flat.mean())
    grid = np.array(result.diagnostics["grid"])
    shifts = (grid[:, None] - eigenvalues) / result.diagnostics["width"]
    kernel = np.exp(-(shifts**2) / 2) / (result.diagnostics["width"] * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(result.diagnostics["density"], kernel.mean(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.diagnostics["eigenvalues"], eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_renyi(bowl, alpha):
    probe, _, eigenvalues = bowl
    result = measures.get("renyi-sharpness", alpha=alpha).compute(probe)
    assert result.value == pytest.approx(renyi(eigenvalues, alpha), rel=1e-9)
    assert result.interval == pytest.approx((result.value, result.value))
    assert result.diagnostics["entropy"] == pytest.approx(-result.value)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_normalised_renyi(bowl, alpha):
    probe, _, eigenvalues = bowl
    normalised = value(probe, "renyi-sharpness", alpha=alpha, normalized=True)
    assert normalised == pytest.approx(renyi(eigenvalues, alpha) / math.log(20), rel=1e-9)
    assert -1 <= normalised <= 0


def test_renyi_of_order_two_is_the_spec_s_formula(bowl):
    probe, matrix, eigenvalues = bowl
    expected = math.log(float(matrix.square().sum()) / np.abs(eigenvalues).sum() ** 2)
    assert value(probe, "renyi-sharpness", alpha=2.0) == pytest.approx(expected, rel=1e-9)


def inside(result):
    low, high = result.interval
    return low <= result.value <= high


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("c", [1e-4, 1.0, -3.0])
def test_renyi_of_a_multiple_of_the_identity(quadratic, alpha, c):
    probe = quadratic(c * torch.eye(12, dtype=torch.float64))
    result = measures.get("renyi-sharpness", alpha=alpha).compute(probe)
    assert result.value == pytest.approx(-math.log(12), rel=1e-9)
    assert inside(result)
    assert value(probe, "renyi-sharpness", alpha=alpha, normalized=True) == pytest.approx(-1)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("c", [5.0, -5.0])
def test_renyi_of_rank_one(quadratic, symmetric, alpha, c):
    probe = quadratic(symmetric([c, *[0.0] * 11]))
    result = measures.get("renyi-sharpness", alpha=alpha).compute(probe)
    # Eleven eigenvalues of 1e-16 instead of 0 add 11 * 2e-8 at alpha = 0.5.
    assert result.value == pytest.approx(0, abs=2e-6)
    assert result.value <= 0
    assert inside(result)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_one_parameter_carries_all(quadratic, alpha):
    result = measures.get("renyi-sharpness", alpha=alpha).compute(
        quadratic(torch.tensor([[3.0]], dtype=torch.float64))
    )
    assert result.value == 0
    assert inside(result)


def test_renyi_does_not_explode_near_one(bowl):
    probe, _, eigenvalues = bowl
    values = [value(probe, "renyi-sharpness", alpha=alpha) for alpha in (0.999, 1.0, 1.001)]
    assert values == pytest.approx([renyi(eigenvalues, 1.0)] * 3, abs=5e-3)
    assert values[0] < values[1] < values[2]  # sharpness rises with alpha


def test_renyi_rises_with_its_order(bowl):
    probe, _, _ = bowl
    values = [value(probe, "renyi-sharpness", alpha=alpha) for alpha in ALPHAS]
    assert values == sorted(values)


# -- how the numbers scale ------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1e-3, 40.0])
def test_the_loss_scale(quadratic, symmetric, c):
    matrix = symmetric(spectrum_with_negatives())
    probe, scaled = quadratic(matrix), quadratic(matrix, scale=c)
    for name in ("hessian-trace", "hessian-top-eigenvalue", "hessian-bottom-eigenvalue"):
        assert value(scaled, name) == pytest.approx(c * value(probe, name), rel=1e-8)
    assert value(scaled, "hessian-frobenius") == pytest.approx(
        c * value(probe, "hessian-frobenius"), rel=1e-8
    )
    assert value(scaled, "effective-dimension", z=c) == pytest.approx(
        value(probe, "effective-dimension", z=1.0), rel=1e-8
    )
    for alpha in ALPHAS:
        assert value(scaled, "renyi-sharpness", alpha=alpha) == pytest.approx(
            value(probe, "renyi-sharpness", alpha=alpha), rel=1e-8
        )
    assert value(scaled, "hessian-spectral-density") == value(probe, "hessian-spectral-density")


def test_a_flat_loss(quadratic):
    probe = quadratic(torch.zeros(6, 6, dtype=torch.float64))
    for name in (
        "hessian-trace",
        "hessian-top-eigenvalue",
        "hessian-bottom-eigenvalue",
        "hessian-frobenius",
        "effective-dimension",
        "gradient-norm",
        "train-loss",
    ):
        assert value(probe, name) == 0
    undefined = measures.get("renyi-sharpness").compute(probe)
    assert undefined.status is Status.UNDEFINED
    assert math.isnan(undefined.value)
    assert "zero" in undefined.message


# -- estimated on a larger bowl -------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimated(symmetric):
    """Spectra of 400 parameters over many seeds, at a third of the standard budget."""
    values = spectrum_with_negatives(400)
    operator = MatrixOperator(symmetric(values))
    requests = [SpectrumRequest(steps=30, probes=6, probe_steps=16, seed=s) for s in range(40)]
    return values, [compute_spectrum(operator, request, layers={}) for request in requests]


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_renyi_intervals_cover(estimated, alpha):
    values, spectra = estimated
    truth = renyi(values, alpha)
    hits = []
    for spectrum in spectra:
        estimate = RenyiSharpness(alpha=alpha).of_spectrum(spectrum)
        low, high = estimate.interval
        assert low <= estimate.value <= high
        assert estimate.value == pytest.approx(truth, abs=0.3)
        hits.append(low - 1e-9 <= truth <= high + 1e-9)
    assert np.mean(hits) >= 0.8


@pytest.mark.parametrize("alpha", [0.5, 1.5, 2.0])
def test_renyi_standard_errors_are_of_the_right_size(estimated, alpha):
    _, spectra = estimated
    estimates = [RenyiSharpness(alpha=alpha).of_spectrum(spectrum) for spectrum in spectra]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    told = np.sqrt(np.mean([estimate.stderr**2 for estimate in estimates]))
    assert 0.6 * spread < told < 1.7 * spread


def test_estimated_renyi_is_continuous_at_one(estimated):
    _, spectra = estimated
    for spectrum in spectra[:5]:
        found = [RenyiSharpness(alpha=a).of_spectrum(spectrum).value for a in (0.999, 1.0, 1.001)]
        assert found[0] == pytest.approx(found[1], abs=0.02)
        assert found[2] == pytest.approx(found[1], abs=0.02)


def test_estimated_renyi_near_one_keeps_a_useful_interval(estimated):
    _, spectra = estimated
    for spectrum in spectra[:5]:
        at_one = RenyiSharpness(alpha=1.0).of_spectrum(spectrum).interval
        near = RenyiSharpness(alpha=1.001).of_spectrum(spectrum).interval
        assert near[1] - near[0] < 3 * (at_one[1] - at_one[0])


# -- baselines ------------------------------------------------------------------------------------


def test_baselines(bowl):
    probe, matrix, _ = bowl
    w = torch.linspace(-1, 1, 20, dtype=torch.float64)
    assert value(probe, "train-loss") == pytest.approx(float(w @ matrix @ w / 2))
    assert value(probe, "gradient-norm") == pytest.approx(float((matrix @ w).norm()))
    assert value(probe, "parameter-norm") == pytest.approx(float(w.norm()))
    layers = measures.get("parameter-norm").compute(probe).diagnostics["layers"]
    assert layers["low"]["value"] == pytest.approx(float(w[:10].norm()))
    assert layers["high"]["value"] == pytest.approx(float(w[10:].norm()))
    assert layers["high"]["size"] == 10


def test_the_loss_tells_its_spread_over_examples(named_case):
    probe = named_case("uneven-batches").probe()
    result = measures.get("train-loss").compute(probe)
    losses = probe.term_losses()
    assert result.value == pytest.approx(float(losses.mean()))
    assert result.diagnostics["terms"] == 11
    assert result.diagnostics["example_stderr"] == pytest.approx(float(losses.std()) / 11**0.5)


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("renyi-sharpness", {"alpha": 0.0}, "alpha must be positive"),
        ("renyi-sharpness", {"alpha": -1.0}, "alpha must be positive"),
        ("renyi-sharpness", {"alpha": math.nan}, "alpha must be positive"),
        ("effective-dimension", {"z": 0.0}, "z must be positive"),
        ("hessian-spectral-density", {"width": 0.0}, "width must lie in"),
        ("hessian-spectral-density", {"points": 3}, "points be at least 10"),
        ("hessian-trace", {"matvecs": 5}, "matvecs must be at least 6"),
        ("hessian-trace", {"matvecs": 60, "method": "exact"}, "method must be one of"),
        ("hessian-trace", {"operator": "fisher"}, "operator must be"),
        ("hessian-frobenius", {"probes": 1}, "must be at least 2"),
    ],
)
def test_wrong_settings_are_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        measures.get(name, **config)


def test_compute_refuses_what_is_no_probe(bowl):
    measure = measures.get("hessian-trace")
    with pytest.raises(TypeError, match=r"measures a landscape\.Probe, got Linear"):
        measure.compute(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="seed must be a non-negative integer"):
        measure.compute(bowl[0], seed=-1)
