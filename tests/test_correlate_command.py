"""``landscape correlate``: tables of every kind, one line for every mistake, what is written."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import landscape
from landscape.cli import app
from landscape.commands.correlate import _columns, _split
from landscape.commands.tables import left_out, read_results

QUICK = ("--bootstraps", "100", "--permutations", "100")


def population():
    random = np.random.default_rng(0)
    grid = [(lr, width, seed) for lr in (1, 2, 3) for width in (8, 16, 32) for seed in (0, 1)]
    frame = pd.DataFrame(grid, columns=["hp.lr", "hp.width", "hp.seed"])
    noise = random.normal(size=(3, len(frame)))
    frame.insert(0, "name", [f"model-{place}" for place in range(len(frame))])
    frame["status"] = "converged"
    frame["train_loss"] = np.exp(noise[0])
    frame["gap_accuracy"] = 0.1 * frame["hp.lr"] + 0.02 * noise[1]
    frame["trace"] = np.exp(frame["gap_accuracy"])
    frame["tilted[t=1,p=2]"] = noise[2]
    frame["tilted[t=5,p=2]"] = -frame["gap_accuracy"]
    frame["trace@0.1"] = frame["trace"] + 0.1 * noise[2]
    frame["trace@1"] = frame["trace"] + noise[2]
    return frame


@pytest.fixture
def sweep(tmp_path):
    """A folder as landscape sweep leaves it: two models are no use, one measure failed."""
    frame = population()
    frame["message"] = ""
    frame.loc[1, ["status", "message"]] = ["not converged", "0.4 after 90 epochs"]
    frame.loc[4, "gap_accuracy"] = np.nan
    frame.loc[[6, 7], "trace"] = np.nan
    labels = ["trace", "tilted[t=1,p=2]", "tilted[t=5,p=2]"]
    rows = [
        {"name": name, "measure": label, "status": "failed" if np.isnan(value) else "ok"}
        for label in labels
        for name, value in zip(frame["name"], frame[label], strict=True)
    ]
    derived = {f"trace@{radius}": {"measure": "trace", "radius": radius} for radius in ("0.1", "1")}
    facts = {"measures": labels, "derived": derived, "test_examples": 500, "engine": "local"}
    folder = tmp_path / "sweep"
    folder.mkdir()
    frame.to_csv(folder / "table.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    (folder / "sweep.json").write_text(json.dumps(facts))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["correlate", *map(str, arguments)])


def test_a_sweep_is_ranked_on_the_screen_and_reported(sweep, tmp_path):
    out = tmp_path / "out"
    done = run(sweep, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == [
        "trace",
        "tilted[t=1,p=2]",
        "tilted[t=5,p=2]",
        "control:",
        "control:",
    ]
    assert "−1.00" in rows[2]  # the sign is kept
    assert "2 more rows (radii, layers)" in done.output
    assert "did not converge" in done.output
    assert f"Report: {out / 'report.html'}" in done.output.replace("\n", "")
    report = json.loads((out / "report.json").read_text())
    assert report["coverage"]["trace"] == {"ok": 16, "failed": 2}
    assert report["left_out"] == [
        ["model-1", "training: not converged (0.4 after 90 epochs)"],
        ["model-4", "no finite gap_accuracy"],
    ]
    assert report["correlations"]["settings"]["test_examples"] == 500
    assert report["correlations"]["settings"]["measures"][-1] == "trace@1"
    assert report["source"]["engine"] == "local"
    assert {path.name for path in (out / "figures").glob("*.png")} >= {"scans.png", "coverage.png"}
    assert pd.read_csv(out / "table.csv", index_col=0).loc["trace", "models"] == 14


def test_any_table_gives_its_numbers_as_json(tmp_path):
    frame = population().rename(columns={"hp.lr": "lr", "gap_accuracy": "risk"})
    frame = frame.drop(columns=["hp.width", "hp.seed"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    asked = ("--target", "risk", "--hyperparameters", "lr", "--measures", "trace,tilted[t=5,p=2]")
    done = run(tmp_path / "a.csv", *asked, "--out", tmp_path / "out", "--json", *QUICK)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["settings"]["measures"] == ["trace", "tilted[t=5,p=2]"]
    assert found["hyperparameters"] == ["lr"]
    assert found["settings"]["configurations"] == 3


def test_tables_of_lines_and_columns_are_the_same(tmp_path):
    frame = population()
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, double_precision=15)
    for name in ("a.tsv", "a.jsonl"):
        pd.testing.assert_frame_equal(read_results(tmp_path / name).frame, frame)


def test_parquet_is_read_like_csv(tmp_path):
    pytest.importorskip("pyarrow")
    population().to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_results(tmp_path / "a.parquet").frame, population())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "gap_acuracy"], r"no column 'gap_acuracy'; close: gap_accuracy"),
        (["--target", "status"], r"target 'status' must be numeric, but holds 'converged'"),
        (["--target", "flat"], r"target 'flat' is 3 in every model"),
        (["--hyperparameters", "lr,widht"], r"no column 'widht'"),
        (["--measures", "trase"], r"no column 'trase'; close: trace"),
        (["--measures", ","], r"--measures names no column"),
        (["--given", "train_los"], r"no column 'train_los'"),
        (["--colour", "depth"], r"no column 'depth' to colour by; there are lr, width"),
        (["--bootstraps", "3"], r"bootstraps must be .* at least 100, got 3"),
        (["--confidence", "1"], r"confidence must lie in \[0\.5, 1\), got 1"),
        (["--effective-size", "0"], r"effective_size must be at least 1"),
        (["--test-examples", "0"], r"test_examples must be .*at least 1"),
        (["--seeds", "sed"], r"no column 'sed'"),
        (["--strata", "lr,widht"], r"no column 'widht'"),
        (["--compare", "trace,trase"], r"no column 'trase'; close: trace"),
        (["--measures", "gap_accuracy"], r"no measure beside the target 'gap_accuracy'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, arguments, told):
    population().assign(flat=3.0).to_csv(tmp_path / "a.csv", index=False)
    done = run(tmp_path / "a.csv", "--out", tmp_path / "out", *arguments)
    assert one_line(done, told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.csv", None, "there is no table at"),
        ("a.xlsx", "x", r"must end in \.csv, \.tsv, \.parquet"),
        ("a.csv", "", "cannot be read"),
        ("a.csv", "gap_accuracy,trace\n", "holds no row"),
        ("a.csv", "gap_accuracy,trace\n0.1,1\n", "two models or more"),
        ("a.csv", "gap_accuracy,trace\n0.1,\n0.2,high\n", "no numeric column"),
        ("a.csv", "gap_accuracy,trace\n1,2\n2,n/a?\n3,4", "no numeric .*'trace' holds 'n/a\\?'"),
        ("a.csv", "lr,trace,gap,trace\n1,2,3,4\n", "several columns called trace; rename"),
        ("a.tsv", "lr\ttrace\ttrace\n1\t2\t3\n", "several columns called trace; rename"),
        (
            "a.csv",
            "lr;width;gap\n1;8;0,5\n",
            r"only column is 'lr;width;gap'.* commas .* semicolons",
        ),
        ("a.csv", "lr\tgap\n1\t8\n", r"separated by commas in \.csv, and here seem to be by tabs"),
        ("a.tsv", "lr,gap\n1,8\n", r"separated by tabs in \.tsv, and here seem to be by commas"),
        ("a.jsonl", "[1, 2]\n", "line 1 holds no object"),
        ("a.jsonl", '{"gap_accuracy": 1', "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read|pip install pyarrow"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = run(tmp_path / name, "--out", tmp_path / "out")
    assert one_line(done, told)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_table_is_one_line(tmp_path):
    assert one_line(run(tmp_path, "--out", tmp_path / "out"), r"holds no table\.csv")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    population().to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "a.csv", "--out", tmp_path / "file", *QUICK)
    assert one_line(done, "--out .*file cannot be written")


def one_line(done, told):
    import re

    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert re.search(told, done.stderr), done.stderr
    return True


def test_the_name_of_a_measure_selects_its_variants_and_radii(sweep):
    found = read_results(sweep)
    assert _columns("tilted", found) == ["tilted[t=1,p=2]", "tilted[t=5,p=2]"]
    assert _columns("trace", found) == ["trace", "trace@0.1", "trace@1"]
    assert _columns("tilted[t=5,p=2],trace@1", found) == ["tilted[t=5,p=2]", "trace@1"]
    assert _columns(None, found) == found.measures


def test_commas_inside_brackets_belong_to_a_label():
    assert _split("a[x=1,y=2], b,,c") == ["a[x=1,y=2]", "b", "c"]


def test_quotes_keep_a_name_with_a_comma_together():
    assert _split('lr, "initial,width" ,"a [1, 2]","say ""x"""') == [
        *("lr", "initial,width", "a [1, 2]", 'say "x"'),
    ]


def test_a_name_that_was_split_at_its_comma_is_told_to_be_quoted(tmp_path):
    population().rename(columns={"hp.lr": "initial,lr"}).to_csv(tmp_path / "a.csv", index=False)
    done = run(tmp_path / "a.csv", "--hyperparameters", "initial,lr", "--out", tmp_path / "out")
    assert one_line(done, "commas separate names; quote one that holds a comma: '\"initial,lr\"'")


def test_the_settings_of_the_library_are_options(tmp_path):
    frame = population().rename(columns={"hp.seed": "run", "hp.lr": "initial,lr"})
    frame.to_csv(tmp_path / "a.csv", index=False)
    options = ("--seeds", "run", "--strata", '"initial,lr"', "--test-examples", "300")
    axes = ("--hyperparameters", 'width,"initial,lr"', "--confidence", "0.9")
    more = ("--effective-size", "2", "--environment", "values", "--json", "--out", tmp_path / "out")
    done = run(tmp_path / "a.csv", *options, *axes, *more, *QUICK)
    assert done.exit_code == 0, done.output
    settings = json.loads(done.stdout)["settings"]
    assert "run" not in settings["measures"]
    assert settings["hyperparameters"] == ["hp.width", "initial,lr"]
    assert settings["configurations"] == 9
    assert settings["strata"] == ["initial,lr"]
    assert (settings["test_examples"], settings["confidence"]) == (300, 0.9)
    assert (settings["effective_size"], settings["environment"]) == (2, "values")


def test_a_column_that_one_text_keeps_from_being_a_measure_is_told(tmp_path):
    frame = population()
    frame["spoilt"] = frame["trace"].astype(object)
    frame.loc[3, "spoilt"] = "n/a?"
    frame.to_csv(tmp_path / "a.csv", index=False)
    done = run(tmp_path / "a.csv", "--out", tmp_path / "out", *QUICK)
    assert done.exit_code == 0, done.output
    assert done.stderr == (
        "landscape: Left out as measures: "
        "spoilt (1 of 18 values are no numbers, the first 'n/a?').\n"
    )
    asked = run(tmp_path / "a.csv", "--measures", "spoilt", "--out", tmp_path / "none", *QUICK)
    assert one_line(asked, r"column 'spoilt' must be numeric, but holds .*'n/a\?'")


def test_the_number_of_parameters_of_a_sweep_is_only_the_control(sweep):
    frame = pd.read_csv(sweep / "table.csv").assign(**{"parameter-count": range(18)})
    frame.to_csv(sweep / "table.csv", index=False)
    facts = json.loads((sweep / "sweep.json").read_text())
    facts["measures"].append("parameter-count")
    (sweep / "sweep.json").write_text(json.dumps(facts))
    assert "parameter-count" not in read_results(sweep).measures
    assert "parameter-count" in read_results(sweep).frame
    correlations = landscape.correlate(read_results(sweep).frame, measures=["trace"])
    assert "control: parameter count" in correlations.table.index


def test_models_without_a_record_have_no_value(sweep):
    records = pd.read_csv(sweep / "results.csv").iloc[5:]
    records.to_csv(sweep / "results.csv", index=False)
    coverage = read_results(sweep).coverage
    assert coverage["trace"] == {"ok": 11, "failed": 2, "no value": 5}


def test_rows_without_a_name_are_told_by_their_number():
    frame = pd.DataFrame({"gap": [1.0, np.nan]})
    assert left_out(frame, frame.index[:1], "gap") == [("row 1", "no finite gap")]
