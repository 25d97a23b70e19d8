"""Errors of means over Markov chains, against closed forms."""

import math

import numpy as np
import pytest

from landscape.linalg.chains import ChainMean, effective_draws, split_rhat


def autoregressive(phi, chains=4, draws=4000, seed=0, spread=0.0):
    """x' = phi x + noise, with variance 1; effective share (1 - phi) / (1 + phi)."""
    source = np.random.default_rng(seed)
    noise = source.normal(size=(chains, draws)) * math.sqrt(1 - phi**2)
    found = np.empty((chains, draws))
    found[:, 0] = source.normal(size=chains)
    for draw in range(1, draws):
        found[:, draw] = phi * found[:, draw - 1] + noise[:, draw]
    return found + spread * source.normal(size=(chains, 1))


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregression(phi):
    values = autoregressive(phi)
    expected = values.size * (1 - phi) / (1 + phi)
    assert effective_draws(values) == pytest.approx(expected, rel=0.15)


def test_effective_draws_are_capped():
    assert effective_draws(autoregressive(-0.98)) == pytest.approx(16000 * math.log10(16000))


def test_autocorrelations_by_brute_force():
    """The formula on a short table, with sums written out."""
    values = autoregressive(0.7, chains=3, draws=40)
    halves = [row[half] for half in (slice(0, 20), slice(20, 40)) for row in values]
    means = [half.mean() for half in halves]
    within = np.mean([half.var(ddof=1) for half in halves])
    total = within * 19 / 20 + np.var(means, ddof=1)

    def correlation(lag):
        covariances = [
            sum((half[i] - m) * (half[i + lag] - m) for i in range(20 - lag)) / 19
            for half, m in zip(halves, means, strict=True)
        ]
        return 1 - (within - np.mean(covariances)) / total if lag else 1.0

    time, last = -1.0, math.inf
    for lag in range(0, 20, 2):
        pair = correlation(lag) + correlation(lag + 1)
        if pair <= 0:
            break
        last = min(last, pair)
        time += 2 * last
    assert effective_draws(values) == pytest.approx(120 / time)
    assert split_rhat(values) == pytest.approx(math.sqrt(total / within))


def test_rhat_tells_agreement_from_disagreement():
    assert split_rhat(autoregressive(0.5)) == pytest.approx(1, abs=0.01)
    # Offsets of standard deviation s between many chains: R-hat = sqrt(1 + s^2).
    apart = autoregressive(0.0, chains=400, draws=400, spread=1.5)
    assert split_rhat(apart) == pytest.approx(math.sqrt(1 + 1.5**2), rel=0.05)
    # Chains that drift together: halves lie s apart, so that V = W + s^2 / 4.
    drifting = autoregressive(0.0, chains=20, draws=400)
    drifting[:, 200:] += 4.0
    assert split_rhat(drifting) == pytest.approx(math.sqrt(1 + 4), rel=0.05)
    assert split_rhat(np.arange(8.0).reshape(2, 4)) > 1.1


def test_chains_that_disagree_count_as_few_draws():
    apart = autoregressive(0.0, chains=4, spread=20.0)
    assert effective_draws(apart) < 10


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_the_error_is_that_of_the_mean(phi):
    found = [ChainMean.of(autoregressive(phi, draws=500, seed=seed)) for seed in range(60)]
    values = np.array([mean.value for mean in found])
    told = math.sqrt(np.mean([mean.stderr**2 for mean in found]))
    assert told == pytest.approx(values.std(ddof=1), rel=0.3)
    hits = [mean.interval()[0] <= 0 <= mean.interval()[1] for mean in found]
    assert 0.87 <= np.mean(hits) <= 1


def test_degenerate_chains():
    constant = ChainMean.of(np.full((3, 10), 2.0))
    assert (constant.value, constant.stderr, constant.rhat) == (2.0, 0.0, 1.0)
    stuck = np.repeat([[1.0], [2.0]], 10, axis=1)
    assert split_rhat(stuck) == math.inf
    assert effective_draws(stuck) <= 4
    short = ChainMean.of(np.array([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]]))
    assert short.value == 3.0
    assert short.stderr == pytest.approx(math.sqrt(2.0 / 2))  # of the chain means 2 and 4
    assert math.isnan(short.rhat)
    with pytest.raises(ValueError, match="2 or more chains"):
        ChainMean.of(np.zeros((1, 10)))
