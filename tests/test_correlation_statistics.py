"""Tau, granulated tau, mutual information and sign-error against plain double loops."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from landscape.correlation.bootstrap import resampled_spearman, resamples, spearman
from landscape.correlation.cleaning import clean
from landscape.correlation.environments import pooled
from landscape.correlation.granulated import granulated, psi_errors
from landscape.correlation.kendall import tau_a, tau_b, tau_table
from landscape.correlation.mutual_information import Conditions, cmi_score
from landscape.correlation.options import Options
from landscape.correlation.permutation import benjamini_hochberg, holm, p_value
from landscape.correlation.resampled_kendall import (
    below_in_both,
    resampled_numerator,
    resampled_tau_b,
)
from landscape.correlation.sign_error import hoeffding_weight, sign_errors

NAN = float("nan")
VALUES = st.integers(-4, 4).map(float)  # many ties


def pairs(low, high, missing=False):
    value = st.one_of(VALUES, st.just(NAN)) if missing else VALUES
    return st.lists(st.tuples(value, value), min_size=low, max_size=high).map(
        lambda rows: np.array(rows).reshape(-1, 2).T
    )


def brute_tau(a, b):
    """(tau-a, tau-b) by the definition."""
    rows = [i for i in range(len(a)) if math.isfinite(a[i]) and math.isfinite(b[i])]
    total = untied_a = untied_b = count = 0
    for i, j in itertools.combinations(rows, 2):
        total += np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])
        untied_a += a[i] != a[j]
        untied_b += b[i] != b[j]
        count += 1
    if not untied_a or not untied_b:
        return NAN, NAN
    return total / count, total / math.sqrt(untied_a * untied_b)


@settings(deadline=None, max_examples=60)
@given(pairs(2, 12, missing=True))
def test_tau_is_that_of_the_double_loop(sample):
    a, b = sample
    assert (tau_a(a, b), tau_b(a, b)) == pytest.approx(brute_tau(a, b), nan_ok=True)


@pytest.mark.parametrize("size", [2, 40, 1001, 5000])
def test_tau_and_spearman_are_those_of_scipy(size):
    rng = np.random.default_rng(size)
    a, b = rng.integers(0, size, size).astype(float), rng.normal(size=size)
    a[:2] = 0, size
    assert tau_b(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-5)
    table = tau_table({"a": a, "b": b})
    assert table[0, 1] == table[1, 0] == tau_b(a, b)
    assert np.diag(table) == pytest.approx([1, 1])


def repeated(values, weights):
    return np.repeat(values, weights.astype(int))


@pytest.mark.parametrize(("size", "levels"), [(6, 3), (300, 20), (900, None), (1200, 7)])
def test_resamples_have_the_correlations_of_their_repeated_rows(size, levels):
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=(2, size))
    if levels:
        a = np.floor(stats.norm.cdf(a) * levels)
        b = np.where(rng.random(size) < 0.5, b, 0.0)
    weights = resamples(size, 100, 3)
    tau, rho = resampled_tau_b(a, b, weights), resampled_spearman(a, b, weights)
    for k in (0, 41, 99):
        x, y = repeated(a, weights[:, k]), repeated(b, weights[:, k])
        if np.ptp(x) and np.ptp(y):
            assert tau[k] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-10)
            assert rho[k] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(pairs(2, 9), st.integers(0, 100))
def test_weighted_sums_are_those_of_the_double_loop(sample, seed):
    a, b = sample
    w = np.random.default_rng(seed).integers(0, 4, (len(a), 3)).astype(np.float32)
    signs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    assert resampled_numerator(a, b, w) == pytest.approx(
        0.5 * np.einsum("ik,ij,jk->k", w, signs, w)
    )
    below = ((a[None] < a[:, None]) & (b[None] < b[:, None])) @ w
    assert below_in_both(a, b, w) == pytest.approx(below)


@pytest.mark.parametrize("ties", [False, True])
def test_counts_below_in_many_bins_are_those_of_the_matrix(ties):
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 1500))
    if ties:
        a, b = np.round(a), np.round(b, 1)
    w = rng.integers(0, 3, (1500, 4)).astype(np.float32)
    matrix = (a[None] < a[:, None]) & (b[None] < b[:, None])
    assert (below_in_both(a, b, w) == matrix.astype(np.float32) @ w).all()


def factorial(*sizes):
    cells = np.array(list(itertools.product(*map(range, sizes))))
    return {str(axis): cells[:, axis] for axis in range(len(sizes))}


def brute_psi(target, values, levels):
    """psi by axis and Psi, cell by cell."""
    psis = []
    for axis in levels:
        cells = {}
        for row in range(len(target)):
            key = tuple(levels[name][row] for name in levels if name != axis)
            if math.isfinite(values[row]):
                cells.setdefault(key, []).append(row)
        taus = []
        for rows in cells.values():
            signs = [
                np.sign(target[i] - target[j]) * np.sign(values[i] - values[j])
                for i, j in itertools.combinations(rows, 2)
            ]
            taus += [np.mean(signs)] if signs else []
        psis.append(np.mean(taus) if taus else NAN)
    known = [psi for psi in psis if math.isfinite(psi)]
    return psis, np.mean(known) if known else NAN


@settings(deadline=None, max_examples=40)
@given(pairs(18, 18, missing=True), st.integers(0, 1000))
def test_psi_is_that_of_the_loop_over_cells(sample, seed):
    levels = factorial(3, 2, 3)
    keep = np.random.default_rng(seed).random(18) < 0.8
    if keep.sum() < 2:
        return
    target = np.nan_to_num(sample[0])[keep]
    values = np.stack([sample[1], np.arange(18.0)], axis=1)[keep]
    levels = {name: codes[keep] for name, codes in levels.items()}
    axes = granulated(target, values, levels)
    found = psi_errors(axes)[0]
    for k in range(2):
        psis, psi = brute_psi(target, values[:, k], levels)
        assert [axis.psi[k] for axis in axes.values()] == pytest.approx(psis, nan_ok=True)
        assert found[k] == pytest.approx(psi, nan_ok=True)


def test_psi_of_a_monotone_measure_in_a_factorial_is_one():
    levels = factorial(3, 3)
    target = levels["0"] + 10.0 * levels["1"]
    axes = granulated(target, np.stack([target**3, -target, 0 * target], axis=1), levels)
    psi, error, configurations, _ = psi_errors(axes)
    assert psi.tolist() == pytest.approx([1, -1, 0])
    assert error[:2].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert configurations.tolist() == [9, 9, 9]


def test_the_error_of_psi_sums_over_pairs_that_share_a_model():
    rng = np.random.default_rng(0)
    levels = factorial(3, 4)
    target, measure = rng.normal(size=(2, 12))
    axes = granulated(target, measure[:, None], levels)
    terms = []
    for name in levels:
        psi = axes[name].psi[0]
        others = [other for other in levels if other != name]
        inside = [
            pair
            for pair in itertools.combinations(range(12), 2)
            if all(levels[o][pair[0]] == levels[o][pair[1]] for o in others)
        ]
        for i, j in inside:
            sign = np.sign(target[i] - target[j]) * np.sign(measure[i] - measure[j])
            terms.append(({i, j}, (sign - psi) / len(inside) / 2))
    variance = sum(x * y for one, x in terms for other, y in terms if one & other)
    assert variance > 0
    assert psi_errors(axes)[1][0] == pytest.approx(math.sqrt(variance))


def brute_cmi(measure, target, levels):
    """min over |S| <= 2 of I / H, from counts of ordered pairs."""
    rows = [i for i in range(len(measure)) if math.isfinite(measure[i])]
    scores = []
    for size in range(3):
        for names in itertools.combinations(levels, size):
            counts, total = {}, 0
            for i, j in itertools.permutations(rows, 2):
                u = tuple((levels[name][i], levels[name][j]) for name in names)
                key = (int(measure[i] > measure[j]), int(target[i] > target[j]))
                table = counts.setdefault(u, np.zeros((2, 2)))
                table[key] += 1
                total += 1
            information = entropy = 0.0
            for table in counts.values():
                p = table / total
                pm, pt, pu = p.sum(1), p.sum(0), p.sum()
                entropy -= sum(x * math.log(x / pu) for x in pt if x > 0)
                information += sum(
                    p[a, b] * math.log(p[a, b] * pu / (pm[a] * pt[b]))
                    for a in range(2)
                    for b in range(2)
                    if p[a, b] > 0
                )
            if entropy > 1e-9:
                scores.append(information / entropy)
    return min(scores) if scores else NAN


@settings(deadline=None, max_examples=25)
@given(pairs(12, 12, missing=True))
def test_the_information_score_is_that_of_the_double_loop(sample):
    levels = factorial(2, 2, 3)
    measure, target = sample[0], np.nan_to_num(sample[1])
    score, _ = cmi_score(measure, target, Conditions(levels, 12))
    known = np.isfinite(measure)
    if known.sum() < 2 or np.ptp(measure[known]) == 0 or np.ptp(target[known]) == 0:
        assert math.isnan(score)
    else:
        assert score == pytest.approx(brute_cmi(measure, target, levels), abs=1e-6, nan_ok=True)


def test_the_information_score_is_one_for_the_target_itself_in_either_direction():
    target = np.random.default_rng(1).normal(size=24)
    conditions = Conditions(factorial(2, 3, 4), 24)
    assert cmi_score(target, target, conditions)[0] == pytest.approx(1)
    assert cmi_score(-target, target, conditions)[0] == pytest.approx(1)


def runs(sizes, seeds, rng):
    import pandas as pd

    cells = np.repeat(np.array(list(itertools.product(*map(range, sizes)))), seeds, axis=0)
    frame = pd.DataFrame({f"hp.{axis}": column for axis, column in enumerate(cells.T)})
    frame["gap_accuracy"] = rng.integers(0, 30, len(frame)) / 100
    frame["m"] = rng.integers(0, 6, len(frame)).astype(float)
    frame.loc[rng.random(len(frame)) < 0.1, "m"] = NAN
    return frame


@pytest.mark.parametrize("examples", [None, 2000])
def test_sign_errors_are_those_of_the_double_loop(examples):
    frame = runs((3, 2), 4, np.random.default_rng(7)).sample(frac=1, random_state=1).iloc[:-3]
    axes = ["hp.0", "hp.1"]
    population = clean(frame, "gap_accuracy", axes, ["m"], (), seeds=None, options=Options())
    found = sign_errors(population, population.measures["m"][:, None], examples)
    keys = list(zip(*(population.levels[name] for name in axes), strict=True))
    labels = [population.labels[name] for name in axes]
    expected = {}
    records = frame.to_dict("records")
    for one, two in itertools.permutations(records, 2):
        differ = [name for name in axes if one[name] != two[name]]
        weight = 1.0
        gap = one["gap_accuracy"] - two["gap_accuracy"]
        if examples is not None:
            h = max(0.0, 1 - 2 * math.exp(-2 * examples * (abs(gap) / 2) ** 2)) ** 2
            weight = max(h - 0.5, 0.0)
        if len(differ) == 1 and math.isfinite(one["m"] + two["m"]):
            error = (1 - np.sign(one["m"] - two["m"]) * np.sign(gap)) / 2
            key = (tuple(str(one[n]) for n in axes), tuple(str(two[n]) for n in axes))
            expected.setdefault(key, []).append((weight, weight * error))
    assert 2 * len(found.axis) == len(expected)  # both directions are one here
    for row in range(len(found.axis)):
        key = tuple(
            tuple(labels[axis][code] for axis, code in enumerate(keys[end[row]]))
            for end in (found.first, found.second)
        )
        w, errors = np.array(expected[key]).T
        assert found.weight[row, 0] == pytest.approx(w.sum())
        if w.sum() > 0:
            assert found.error[row, 0] == pytest.approx(errors.sum() / w.sum())
            assert found.size[row, 0] == pytest.approx(w.sum() ** 2 / (w**2).sum())


def test_pooled_environments_are_those_of_the_double_loop():
    frame = runs((3, 2, 2), 2, np.random.default_rng(8)).sample(frac=1, random_state=1).iloc[:-3]
    axes = ["hp.0", "hp.1", "hp.2"]
    population = clean(frame, "gap_accuracy", axes, ["m"], (), seeds=None, options=Options())
    pairs = sign_errors(population, population.measures["m"][:, None], 2000)
    found, names = pooled(population, pairs)
    expected = {}
    for one, two in itertools.combinations(frame.to_dict("records"), 2):
        differ = [name for name in axes if one[name] != two[name]]
        if len(differ) != 1 or not math.isfinite(one["m"] + two["m"]):
            continue
        (axis,) = differ
        gap = one["gap_accuracy"] - two["gap_accuracy"]
        h = max(0.0, 1 - 2 * math.exp(-2 * 2000 * (abs(gap) / 2) ** 2)) ** 2
        weight = max(h - 0.5, 0.0)
        error = (1 - np.sign(one["m"] - two["m"]) * np.sign(gap)) / 2
        values = frozenset((str(one[axis]), str(two[axis])))
        for other in set(axes) - {axis}:
            key = (axis, values, other, str(one[other]))
            expected.setdefault(key, []).append((weight, weight * error))
    assert len(names) == len(expected) == 3 * 4 + 1 * 5 + 1 * 5
    for row, name in enumerate(names):
        axis, change, other, value = re.fullmatch(r"(.+): (.+); (.+)=(.+)", name).groups()
        w, errors = np.array(expected[axis, frozenset(change.split(" | ")), other, value]).T
        assert found.axis[row] == axis
        assert found.weight[row, 0] == pytest.approx(w.sum())
        if w.sum() > 0:
            assert found.error[row, 0] == pytest.approx(errors.sum() / w.sum())
            assert found.size[row, 0] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert (found.weight > 0).sum() > 10


def test_sign_errors_of_equal_reversed_and_constant_orders():
    frame = runs((3, 3), 4, np.random.default_rng(2))
    population = clean(frame, "gap_accuracy", None, ["m"], (), seeds=None, options=Options())
    t = population.target + 1e-6 * np.arange(len(frame))
    population = clean(
        frame.assign(gap_accuracy=t), "gap_accuracy", None, ["m"], (), seeds=None, options=Options()
    )
    found = sign_errors(population, np.stack([t, -t, 0 * t], axis=1), None)
    assert (found.error == [0, 1, 0.5]).all()
    assert (found.size == 16).all()


def test_hoeffding_weights_grow_with_the_difference_up_to_a_half():
    weights = hoeffding_weight(np.array([0.0, 0.01, 0.05, 0.5]), 10_000)
    assert weights[:2].tolist() == [0, 0]
    assert 0 < weights[2] < weights[3] <= 0.5


def test_exact_p_values_count_all_permutations():
    rng = np.random.default_rng(3)
    measure, target = rng.normal(size=(2, 6))
    least = abs(tau_b(measure, target)) - 1e-12
    share = np.mean(
        [abs(tau_b(measure, np.array(t))) >= least for t in itertools.permutations(target)]
    )
    assert p_value(measure, target, None, 100, 0) == pytest.approx(share)


def test_permutations_within_strata_ignore_what_the_strata_explain():
    rng = np.random.default_rng(5)
    strata = np.repeat(np.arange(4), 10)
    measure, target = 10 * strata + rng.normal(size=(2, 40))
    assert p_value(measure, target, None, 200, 0) < 1e-6
    assert p_value(measure, target, strata, 200, 0) > 0.05
    inside = measure + 5 * (target - 10 * strata)
    assert p_value(inside, target, strata, 200, 0) == pytest.approx(1 / 201)


def test_p_values_of_ties_among_few_models_are_uniform_at_most():
    rng = np.random.default_rng(6)
    found = [p_value(*rng.integers(0, 3, (2, 9)).astype(float), None, 100, k) for k in range(100)]
    found = np.array([p for p in found if math.isfinite(p)])
    assert np.mean(found <= 0.1) < 0.1 + 3 * math.sqrt(0.09 / len(found))


def test_adjusted_p_values_follow_their_procedures():
    p = np.array([0.01, NAN, 0.04, 0.03, 0.5])
    assert holm(p) == pytest.approx([0.04, NAN, 0.09, 0.09, 0.5], nan_ok=True)
    assert benjamini_hochberg(p) == pytest.approx(
        [0.04, NAN, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5], nan_ok=True
    )
