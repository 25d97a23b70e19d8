"""What the intervals, controls and partial taus promise, over simulated populations."""

import numpy as np
import pandas as pd
import pytest

import landscape
from landscape.correlation import Options
from landscape.correlation.bootstrap import resamples, spearman_interval, tau_interval, widened
from landscape.correlation.comparison import Sample, differences
from landscape.correlation.kendall import tau_b
from landscape.correlation.partial import left_over
from landscape.correlation.resampled_kendall import resampled_tau_b


def population(rng, grid=(3, 3, 4), seeds=3):
    """Jointly normal target, given column and measures by configuration; noise by seed."""
    cells = np.array(np.meshgrid(*map(range, grid), indexing="ij")).reshape(len(grid), -1).T
    count = len(cells)
    latent, other = rng.normal(size=(2, count))
    loss = 0.6 * latent + 0.8 * rng.normal(size=count)
    rows = np.repeat(np.arange(count), seeds)
    frame = pd.DataFrame({f"hp.{axis}": column[rows] for axis, column in enumerate(cells.T)})
    frame["hp.seed"] = np.tile(range(seeds), count)
    frame["gap_loss"] = latent[rows] + 0.1 * rng.normal(size=len(rows))
    frame["train_loss"] = loss[rows]
    frame["half"] = (latent + other)[rows] / np.sqrt(2) + 0.1 * rng.normal(size=len(rows))
    frame["exact"] = np.exp(loss)[rows]
    frame["square"] = (loss[rows] - 0.2) ** 2
    frame["near"] = loss[rows] + 0.02 * rng.normal(size=len(rows))
    return frame


@pytest.fixture(scope="module")
def tables():
    options = Options(bootstraps=200, permutations=100)
    return [
        landscape.correlate(
            population(np.random.default_rng([9, k])),
            "gap_loss",
            options=Options(bootstraps=options.bootstraps, seed=k),
        ).table
        for k in range(60)
    ]


def share(tables, name, statistic, truth):
    first, _, rest = statistic.partition("[")
    rest = f"[{rest}" if rest else ""
    rows = [table.loc[name] for table in tables]
    return np.mean(
        [row[f"{first}_low{rest}"] <= truth <= row[f"{first}_high{rest}"] for row in rows]
    )


def test_intervals_cover_the_truth(tables):
    variance = 1 + 0.01 / 3
    rho = 1 / np.sqrt(2) / variance
    assert share(tables, "half", "tau", 2 / np.pi * np.arcsin(rho)) > 0.87
    assert share(tables, "half", "psi", 2 / np.pi * np.arcsin(rho)) > 0.87
    assert share(tables, "half", "spearman", 6 / np.pi * np.arcsin(rho / 2)) > 0.87
    covariance = np.array(
        [[variance, 1 / np.sqrt(2), 0.6], [1 / np.sqrt(2), variance, 0.6 / np.sqrt(2)], [0, 0, 1]]
    )
    t_given, m_given = covariance[0, 2], covariance[1, 2]
    partial = (covariance[0, 1] - t_given * m_given) / np.sqrt(
        (variance - t_given**2) * (variance - m_given**2)
    )
    assert share(tables, "half", "partial[train_loss]", 2 / np.pi * np.arcsin(partial)) > 0.87


def test_the_random_control_is_told_from_zero_as_rarely_as_promised(tables):
    for statistic in ("tau", "spearman", "psi", "partial[train_loss]"):
        assert share(tables, "control: random", statistic, 0.0) >= 0.87
    assert np.mean([table.loc["control: random", "p"] < 0.1 for table in tables]) < 0.25


def test_the_oracle_is_near_one(tables):
    for table in tables:
        row = table.loc["control: oracle"]
        assert row["tau"] > 0.85
        assert row["partial[train_loss]"] > 0.75
        assert row["psi"] > 0.8


def test_functions_of_train_loss_have_no_partial_tau(tables):
    taus = {name: [table.loc[name, "tau"] for table in tables] for name in ("exact", "near")}
    assert np.mean(taus["exact"]) > 0.3  # what partial tau takes away
    for name in ("square", "near"):
        partial = np.array([table.loc[name, "partial[train_loss]"] for table in tables])
        assert abs(partial.mean()) < 3 * partial.std() / np.sqrt(len(tables)) + 0.02
        assert share(tables, name, "partial[train_loss]", 0.0) > 0.87
    for table in tables:
        row = table.loc["exact"]
        assert row["partial[train_loss]"] == 0
        assert np.isnan(row["partial_low[train_loss]"])
        assert "nothing is left" in row["note"]


def test_partial_tau_of_normal_columns_is_that_of_their_partial_correlation():
    rng = np.random.default_rng(0)
    z, e, f = rng.normal(size=(3, 20_000))
    x, y = z + e, -z + 0.5 * e + f  # given z, correlated 0.5 / sqrt(1.25)
    found = tau_b(left_over(np.exp(x), z[:, None]), left_over(y, z[:, None] ** 3))
    assert found == pytest.approx(2 / np.pi * np.arcsin(0.5 / np.sqrt(1.25)), abs=0.015)


def test_partial_tau_given_a_column_of_few_values_compares_within_them():
    rng = np.random.default_rng(1)
    z = rng.integers(0, 3, 300).astype(float)
    x, y = 10 * z + rng.normal(size=(2, 300))
    assert tau_b(x, y) > 0.6
    assert abs(tau_b(left_over(x, z[:, None]), left_over(y, z[:, None]))) < 0.15


def test_a_perfect_order_has_an_interval_that_shrinks_with_the_pairs():
    lows = []
    for count in (3, 4, 5, 6, 12, 48):
        values = np.arange(float(count))
        resampled = resampled_tau_b(values, values, resamples(count, 100, 0))
        low, high = tau_interval(values, values, resampled, 0.95)
        assert high == 1
        lows.append(low)
        mirrored = tau_interval(values, -values, -resampled, 0.95)
        assert mirrored == (-1, -low)
        rho = spearman_interval(1.0, 1.0, resampled, count=count, reached=low, confidence=0.95)
        least = (3 * low - 1) / 2 if low > 0 else (low**2 + 2 * low - 1) / 2
        assert rho == (pytest.approx(least), 1)
        rho = spearman_interval(-1.0, -1.0, resampled, count=count, reached=-low, confidence=0.95)
        assert rho == (-1, pytest.approx(-least))
    assert lows == sorted(lows)
    assert lows[-2] == pytest.approx(1 - 2 * -np.log(0.025) / 66)


def test_widening_never_narrows_nor_leaves_the_range():
    assert widened(0.0, (-0.5, 0.5), 10, 0.95) == (-0.5, 0.5)
    low, high = widened(0.9, (0.85, 1.3), 3, 0.95)
    assert low < 0.85
    assert high == 1


def test_a_better_measure_is_told_from_a_worse_one_and_equal_ones_are_not():
    rng = np.random.default_rng(2)
    target = rng.normal(size=200)
    measures = {
        "good": target + 0.3 * rng.normal(size=200),
        "poor": target + 2.0 * rng.normal(size=200),
        "alike": target + 2.0 * rng.normal(size=200),
    }
    measures["same"] = measures["poor"] * 3
    weights = resamples(200, 300, 0)
    samples = {
        name: Sample(tau_b(values, target), resampled_tau_b(values, target, weights), 200)
        for name, values in measures.items()
    }
    found = differences(
        list(measures), lambda first, second: (samples[first], samples[second]), 0.95
    ).set_index(["first", "second"])
    assert found.loc[("good", "poor"), "low"] > 0.2
    assert found.loc[("good", "poor"), "p_holm"] < 1e-6
    assert found.loc[("poor", "alike"), "low"] < 0 < found.loc[("poor", "alike"), "high"]
    assert found.loc[("poor", "same"), ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert (found["p_holm"] >= found["p"]).all()
