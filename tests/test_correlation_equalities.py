"""What must change nothing: rounding, the order of the rows, and runs that lack a measure."""

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import landscape
from landscape.correlation import Options
from landscape.correlation.levels import level_codes
from landscape.correlation.rounding import joined, scale

FAST = Options(bootstraps=100, permutations=100)


def grid(*sizes, seeds=1):
    cells = np.stack(np.meshgrid(*map(range, sizes), indexing="ij"), axis=-1).reshape(
        -1, len(sizes)
    )
    frame = pd.DataFrame(cells, columns=[f"hp.{axis}" for axis in range(len(sizes))])
    frame = frame.loc[frame.index.repeat(seeds)].reset_index(drop=True)
    frame["hp.seed"] = np.tile(range(seeds), len(cells))
    return frame


def test_gaps_that_differ_by_rounding_alone_are_ties():
    frame = grid(2, 12).sort_values(["hp.1", "hp.0"], ignore_index=True)
    frame["m"] = np.arange(24.0)
    frame["gap_accuracy"] = np.tile([1.0 - 0.95, 0.975 - 0.925], 12)
    frame.loc[0, "gap_accuracy"] = 0.2
    assert frame["gap_accuracy"].nunique() == 3
    found = landscape.correlate(frame, given=(), options=FAST)
    rounded = landscape.correlate(
        frame.assign(gap_accuracy=frame["gap_accuracy"].round(12)), given=(), options=FAST
    )
    pd.testing.assert_frame_equal(
        found.table.query("not control"), rounded.table.query("not control")
    )
    psi = found.granulated.set_index(["measure", "axis"])["psi"]
    assert psi["m", "hp.0"] == pytest.approx(-1 / 12)


def test_means_over_seeds_that_differ_by_rounding_alone_are_ties():
    rng = np.random.default_rng(0)
    frame = grid(5, 5, seeds=3)
    train, test = rng.integers(36, 41, len(frame)), rng.integers(15, 21, len(frame))
    frame["gap_accuracy"] = train / 40 - test / 20
    frame["m"] = rng.normal(size=len(frame))
    exact = [Fraction(int(a), 40) - Fraction(int(b), 20) for a, b in zip(train, test, strict=True)]
    means = [sum(exact[row : row + 3]) / 3 for row in range(0, 75, 3)]
    ranks = [sorted(set(means)).index(mean) for mean in means]
    assert len(set(ranks)) < 25
    tau = stats.kendalltau(frame.groupby(["hp.0", "hp.1"])["m"].mean(), ranks).statistic
    found = landscape.correlate(frame, given=(), options=FAST).table
    assert found.loc["m", "tau"] == pytest.approx(tau, abs=1e-12)


def test_an_outlier_does_not_tie_the_others():
    values = np.array([1.0, 2.0, 3.0, 1e18, np.nan])
    assert np.array_equal(joined(values, scale(values)), values, equal_nan=True)
    assert joined(np.array([1e-20, 2e-20, 1.0, 1.0 + 1e-15])).tolist() == [1e-20, 2e-20, 1, 1]


@pytest.mark.parametrize("axes", [None, []])
def test_the_order_of_the_rows_changes_nothing(axes):
    rng = np.random.default_rng(0)
    frame = grid(3, 4, seeds=2)
    frame["hp.kind"] = np.where(frame["hp.0"] == 1, "b", None)
    frame["gap_accuracy"] = rng.integers(0, 9, len(frame)) / 30
    frame["train_loss"] = rng.random(len(frame))
    frame["m"] = frame["gap_accuracy"] + 0.1 * rng.normal(size=len(frame))
    frame["part"] = frame["m"].where(rng.random(len(frame)) < 0.8)
    frame["parameters"] = rng.integers(1, 5, len(frame))
    options = Options(bootstraps=100, permutations=100, strata=("hp.0",) if axes is None else ())
    results = [
        landscape.correlate(
            frame if order is None else frame.sample(frac=1, random_state=order),
            hyperparameters=axes,
            options=options,
        )
        for order in (None, 1, 2)
    ]
    texts = {json.dumps(result.to_dict()) for result in results}
    assert len(texts) == 1
    assert sorted(results[0].frame.index) == list(range(len(frame)))


def test_levels_are_sorted_and_floats_joined():
    column = pd.Series([10.0, 0.1 + 0.2, np.nan, 0.3, 9.0])
    codes, texts = level_codes(column)
    assert codes.tolist() == [2, 0, 3, 0, 1]
    assert texts == ["0.3", "9.0", "10.0", "nan"]
    codes, texts = level_codes(pd.Series(["b", 10, None, "a", 9], dtype=object))
    assert codes.tolist() == [3, 1, 4, 2, 0]
    assert texts[:4] == ["9", "10", "a", "b"]


def test_a_measure_that_equals_the_target_where_it_is_known_has_tau_1():
    rng = np.random.default_rng(0)
    frame = grid(4, 5, seeds=3)
    frame["gap_loss"], frame["train_loss"] = rng.normal(size=(2, len(frame)))
    frame["m"] = frame["gap_loss"].where(frame["hp.seed"] == 0)
    found = landscape.correlate(frame, "gap_loss", options=FAST).table.loc["m"]
    names = ["tau", "tau_a", "spearman", "psi", "cmi", "partial[train_loss]"]
    assert found[names].tolist() == pytest.approx([1] * 6, abs=1e-6)


def test_a_measure_does_not_differ_from_itself_where_both_are_known():
    rng = np.random.default_rng(0)
    frame = grid(40, seeds=2)
    frame["gap_loss"] = rng.normal(size=80)
    frame["a"] = frame["gap_loss"] + 0.5 * rng.normal(size=80)
    frame["b"] = frame["a"].where(frame["gap_loss"].abs() < 1)
    frame["minus"] = -frame["a"]
    found = landscape.correlate(frame, "gap_loss", given=(), options=FAST)
    pairs = found.differences.set_index(["first", "second"])
    assert pairs.loc[("a", "b"), ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    both = frame["b"].notna().groupby(frame["hp.0"]).any().sum()
    assert pairs.loc[("a", "b"), "configurations"] == both < 40
    assert pairs.loc[("a", "minus"), "configurations"] == 40
    assert pairs.loc[("a", "minus"), "difference"] > 0.5
    assert pairs.loc[("a", "minus"), "strength"] == 0
    assert found.between.loc["a", "b"] == 1


def test_ties_among_few_configurations_leave_p_small_after_holm():
    rng = np.random.default_rng(1)
    frame = grid(3, 3, 3)
    frame["gap_accuracy"] = np.round(rng.random(27) * 20) / 60
    frame = frame.join(pd.DataFrame(rng.normal(size=(27, 60))).add_prefix("m"))
    frame["m0"] = frame["gap_accuracy"]
    found = landscape.correlate(frame, given=(), compare=["m0"], options=FAST).table
    assert found.loc["m0", "p_holm"] < 0.005
    assert found.loc["m1":"m59", "p_holm"].min() > 0.05


def test_too_few_permutations_of_many_configurations_for_holm_are_noted():
    frame = grid(2, 151)
    frame = frame.join(pd.DataFrame(np.random.default_rng(0).random((302, 6))).add_prefix("m"))
    frame["gap_accuracy"] = frame["m0"]
    for permutations, noted in ((100, True), (120, False)):
        options = Options(bootstraps=100, permutations=permutations, strata=("hp.0",))
        found = landscape.correlate(frame, given=(), options=options)
        assert any("too few for 6 measures" in note for note in found.notes) == noted
        assert (found.table.loc["m0", "p_holm"] > 0.05) == noted


def test_one_pair_of_configurations_with_many_seeds_does_not_decide_the_environments():
    frame = grid(4, 4)
    more = frame[(frame["hp.0"] == 0) & (frame["hp.1"] < 2)]
    frame = pd.concat([frame, *[more.assign(**{"hp.seed": seed}) for seed in (1, 2, 3)]])
    frame["gap_accuracy"], frame["m"] = np.random.default_rng(0).random((2, len(frame)))
    found = landscape.correlate(frame, given=(), options=FAST)
    assert found.settings["environment"] == "values"
    assert any(note.startswith("1 of 48 pairs of configurations") for note in found.notes)


def test_values_near_the_largest_float_are_ranked_like_others():
    frame = grid(2, 2, seeds=3)
    values = np.repeat([1.7e308, -1.7e308, 1e308, 1e-300], 3)
    small = np.repeat([4.0, 1.0, 3.0, 2.0], 3)
    found, plain = (
        landscape.correlate(frame.assign(gap_loss=t, m=t[::-1]), "gap_loss", given=(), options=FAST)
        for t in (values, small)
    )
    own = found.table.query("not control"), plain.table.query("not control")
    pd.testing.assert_frame_equal(*own)
