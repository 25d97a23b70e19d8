"""``landscape.correlate`` on tables of all kinds: frames, roles of columns, gaps, errors."""

import json

import numpy as np
import pandas as pd
import pytest

import landscape
from landscape.correlation import Correlations, Options

FAST = Options(bootstraps=100, permutations=100)
COLUMNS = [
    *("control", "models", "configurations", "missing"),
    *("tau", "tau_low", "tau_high", "tau_a", "spearman", "spearman_low", "spearman_high"),
    *("p", "p_holm", "p_bh", "psi", "psi_low", "psi_high", "cmi", "cmi_given"),
    *("sign_error_mean", "sign_error_p90", "sign_error_max", "environments"),
    *("partial[train_loss]", "partial_low[train_loss]", "partial_high[train_loss]", "note"),
]
FRAMES = ("table", "granulated", "sign_errors", "between", "differences", "frame")


@pytest.fixture
def frame():
    """3 x 2 x 2 configurations with 4 seeds; gap follows `good`; `flat` is constant."""
    rng = np.random.default_rng(0)
    lr, depth, drop = np.meshgrid([0.1, 0.01, np.nan], ["a", "b"], [True, False], indexing="ij")
    made = pd.DataFrame({"hp.lr": lr.ravel(), "hp.kind": depth.ravel(), "hp.dropout": drop.ravel()})
    made = made.loc[made.index.repeat(4)].set_axis([f"run{k}" for k in range(48)])
    made["hp.seed"] = np.tile(range(4), 12)
    latent = np.repeat(rng.normal(size=12), 4)
    made["gap_accuracy"] = (latent + 0.1 * rng.normal(size=48)) / 20
    made["train_loss"] = np.exp(rng.normal(size=48))
    made["good"] = latent**3 + 0.1 * rng.normal(size=48)
    made["noise"] = rng.normal(size=48)
    made["flat"] = 2.0
    made["parameter-count"] = np.where(made["hp.kind"] == "a", 10, 20)
    made["status"] = "converged"
    made["name"] = made.index
    return made


def test_the_frames_have_their_columns_and_the_input_is_not_changed(frame):
    before = frame.copy(deep=True)
    found = landscape.correlate(frame, options=FAST)
    pd.testing.assert_frame_equal(frame, before)
    assert found.table.columns.tolist() == COLUMNS
    assert found.table.index.tolist() == [
        *("good", "noise", "flat"),
        *("control: oracle", "control: random", "control: parameter count"),
    ]
    assert found.table.index.name == "measure"
    assert found.table["control"].tolist() == [False] * 3 + [True] * 3
    assert (found.table["configurations"] == 12).all()
    assert found.granulated.columns.tolist() == ["measure", "axis", "psi", "low", "high", "cells"]
    assert found.granulated.groupby("axis")["cells"].first().to_dict() == {
        "hp.lr": 4,
        "hp.kind": 6,
        "hp.dropout": 6,
    }
    assert found.sign_errors.columns.tolist() == [
        *("measure", "axis", "environment", "error", "weight", "effective_size")
    ]
    assert (
        found.between.index.tolist() == found.between.columns.tolist() == ["good", "noise", "flat"]
    )
    assert found.differences.columns.tolist() == [
        *("first", "second", "difference", "low", "high", "p", "p_holm"),
        *("strength", "configurations"),
    ]
    assert len(found.frame) == 48
    assert found.hyperparameters == ("hp.lr", "hp.kind", "hp.dropout")
    assert "48 models in 12 configurations" in found.methods


def test_the_union_of_environments_holds_every_one_once(frame):
    found = landscape.correlate(frame, options=FAST)
    errors = found.sign_errors[found.sign_errors["measure"] == "good"]
    union = errors[errors["axis"] == "all"]
    assert len(union) == len(errors) / 2 == found.table.loc["good", "environments"] == 24
    assert found.table.loc["good", "sign_error_mean"] == pytest.approx(union["error"].mean())
    assert found.table.loc["good", "sign_error_p90"] == pytest.approx(
        np.percentile(union["error"], 90)
    )
    assert (union["effective_size"] == 16).all()


def test_only_what_is_asked_for_is_compared(frame):
    names = list(landscape.correlate(frame, options=FAST).table.query("not control").index)
    found = landscape.correlate(frame, compare=names[:2], options=FAST).differences
    assert found[["first", "second"]].values.tolist() == [names[:2]]
    assert found["p_holm"].tolist() == found["p"].tolist()
    with pytest.raises(ValueError, match="compare names 'nothing'"):
        landscape.correlate(frame, compare=["nothing"], options=FAST)


def test_the_result_survives_json(frame):
    frame.loc["run3", "good"] = np.inf
    found = landscape.correlate(frame, options=FAST)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    back = Correlations.from_dict(record)
    for name in FRAMES:
        pd.testing.assert_frame_equal(
            getattr(found, name).astype(object),
            getattr(back, name).astype(object),
            check_index_type=False,
            check_column_type=False,
        )
    assert back.notes == found.notes
    assert back.settings == record["settings"]
    assert json.loads(json.dumps(back.to_dict())) == record


def test_a_constant_measure_is_undefined_and_says_so(frame):
    row = landscape.correlate(frame, options=FAST).table.loc["flat"]
    assert row[["tau", "tau_low", "tau_a", "spearman", "p", "cmi"]].isna().all()
    assert row["sign_error_mean"] == 0.5
    assert "constant" in row["note"]


def test_missing_cells_are_counted_and_left_out_per_measure(frame):
    frame.loc["run0":"run3", "good"] = [np.nan, np.inf, -np.inf, np.nan]  # a whole configuration
    frame.loc["run9", "noise"] = np.nan
    found = landscape.correlate(frame, options=FAST)
    assert found.table.loc["good", ["models", "configurations", "missing"]].tolist() == [44, 11, 4]
    assert found.table.loc["noise", ["models", "configurations", "missing"]].tolist() == [47, 12, 1]
    assert "4 models have no finite value" in found.table.loc["good", "note"]
    alone = landscape.correlate(
        frame[["gap_accuracy", "good"]]
        .iloc[4:]
        .join(frame[["hp.lr", "hp.kind", "hp.dropout", "hp.seed"]]),
        options=FAST,
    )
    assert alone.table.loc["good", "tau"] == found.table.loc["good", "tau"]


def test_models_that_did_not_converge_are_left_out_unless_kept(frame):
    frame["status"] = frame["status"].where(np.arange(48) >= 2, ["not converged", "Diverged"] * 24)
    found = landscape.correlate(frame, options=FAST)
    assert len(found.frame) == 46
    assert "2 of 48 models did not converge: left out." in found.notes
    kept = Options(bootstraps=100, keep_unconverged=True)
    assert len(landscape.correlate(frame, options=kept).frame) == 48


def test_rows_without_a_target_are_left_out(frame):
    frame.loc["run5", "gap_accuracy"] = np.nan
    found = landscape.correlate(frame, options=FAST)
    assert len(found.frame) == 47
    assert any("1 models have no finite gap_accuracy" in note for note in found.notes)


def test_seeds_do_not_count_as_configurations(frame):
    found = landscape.correlate(frame, options=FAST)
    means = frame.groupby(["hp.lr", "hp.kind", "hp.dropout"], dropna=False).mean(numeric_only=True)
    from scipy import stats

    tau = stats.kendalltau(means["noise"], means["gap_accuracy"])
    assert found.table.loc["noise", "tau"] == pytest.approx(tau.statistic)
    assert found.table.loc["noise", "p"] == pytest.approx(tau.pvalue)


def test_a_foreign_table_needs_no_prefix_and_no_train_loss():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {0: rng.normal(size=9), "Ω <b>": rng.normal(size=9), ("a", 1): range(9)},
        index=pd.MultiIndex.from_product([range(3), list("abc")]),
    )
    found = landscape.correlate(table, "0", options=FAST)
    assert found.table.index[:2].tolist() == ["Ω <b>", "('a', 1)"]
    assert found.table["psi"].isna().all()
    assert any("No partial tau" in note for note in found.notes)
    assert any("Fewer than 10 configurations" in note for note in found.notes)
    assert any("every row counts as its own configuration" in note for note in found.notes)


def test_several_given_columns_are_also_given_together(frame):
    found = landscape.correlate(
        frame, given=("train_loss", "noise"), measures=["good"], options=FAST
    )
    names = [name for name in found.table if name.startswith("partial[")]
    assert names == ["partial[train_loss]", "partial[noise]", "partial[train_loss, noise]"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_handful_of_models_gives_notes_instead_of_errors(count):
    table = pd.DataFrame({"gap": np.arange(count), "m": np.arange(count) ** 2.0})
    found = landscape.correlate(table, "gap", options=FAST)
    assert found.table.loc["m", "tau"] == 1
    assert any("no tau can be told from 0" in note for note in found.notes)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(frame):
    one, two = (landscape.correlate(frame, options=FAST).table for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    other = landscape.correlate(frame, options=Options(bootstraps=100, seed=1)).table
    assert one.loc["good", "tau_low"] != other.loc["good", "tau_low"]
    assert one.loc["good", "tau"] == other.loc["good", "tau"]


def test_accuracy_targets_are_weighted_where_the_test_set_is_known(frame):
    plain = landscape.correlate(frame, options=FAST)
    weighted = landscape.correlate(frame, options=Options(bootstraps=100, test_examples=10_000))
    assert weighted.sign_errors["weight"].max() < plain.sign_errors["weight"].max()
    assert "10000 test examples" in weighted.methods
    loss = frame.rename(columns={"gap_accuracy": "gap_loss"})
    found = landscape.correlate(loss, "gap_loss", options=Options(bootstraps=100, test_examples=50))
    assert any("gap_loss is no accuracy" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"target": "gap_acuracy"}, "no column 'gap_acuracy'; did you mean gap_accuracy"),
        ({}, {"measures": ["goood"]}, "did you mean good"),
        ({}, {"hyperparameters": ["lr"]}, "no column 'lr'"),
        ({}, {"given": ["loss"]}, "no column 'loss'"),
        ({}, {"measures": ["name"]}, "must be numeric"),
        ({}, {"measures": ["gap_accuracy"]}, "cannot also be a measure"),
        ({}, {"measures": ["good"], "hyperparameters": ["good"]}, "both hyper-parameter and"),
        ({"gap_accuracy": np.nan}, {}, "needs two models or more"),
        ({"hp.kind": [[1]] * 48}, {}, "no scalars"),
        ({}, {"options": Options(strata=("hp.seed",))}, "strata must be hyper-parameters"),
        ({"good": 1j}, {"measures": ["good"]}, "must hold real numbers"),
        ({"good": pd.Timestamp("2020-01-01")}, {"measures": ["good"]}, "must hold real numbers"),
        ({"control: random": 1.0}, {}, "'control: random' is the name of a control"),
        ({}, {"measures": []}, "no numeric column left"),
    ],
)
def test_bad_tables_are_one_sentence(frame, change, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        landscape.correlate(frame.assign(**change), **arguments)
    assert "\n" not in str(caught.value)


def test_doubled_columns_are_refused(frame):
    doubled = pd.concat([frame, frame[["good"]]], axis=1)
    with pytest.raises(ValueError, match="several columns called good"):
        landscape.correlate(doubled)


@pytest.mark.parametrize("name", ["hyperparameters", "measures", "given"])
def test_a_bare_text_for_a_list_of_columns_is_refused(frame, name):
    with pytest.raises(TypeError, match=f"{name} must be a list"):
        landscape.correlate(frame, **{name: "good"})
    with pytest.raises(TypeError, match="must be a pandas DataFrame"):
        landscape.correlate({"good": [1]})


@pytest.mark.parametrize(
    "settings",
    [
        {"bootstraps": 10},
        {"permutations": 1.5},
        {"seed": -1},
        {"confidence": 1.0},
        {"oracle_noise": -1.0},
        {"oracle_noise": np.inf},
        {"confidence": "a"},
        {"test_examples": 0},
        {"test_examples": True},
        {"test_examples": 10.5},
        {"test_examples": "a"},
        {"keep_unconverged": "no"},
        {"effective_size": 0.0},
        {"environment": "pairs"},
    ],
)
def test_impossible_options_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Options(**settings)
