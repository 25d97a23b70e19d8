"""``landscape correlate``: tables of every kind, one line for every mistake, what is written."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

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
    return re.search(told, done.stderr)


def test_the_name_of_a_measure_selects_its_variants_and_radii(sweep):
    found = read_results(sweep)
    assert _columns("tilted", found) == ["tilted[t=1,p=2]", "tilted[t=5,p=2]"]
    assert _columns("trace", found) == ["trace", "trace@0.1", "trace@1"]
    assert _columns("tilted[t=5,p=2],trace@1", found) == ["tilted[t=5,p=2]", "trace@1"]
    assert _columns(None, found) == found.measures


def test_commas_inside_brackets_belong_to_a_label():
    assert _split("a[x=1,y=2], b,,c") == ["a[x=1,y=2]", "b", "c"]


def test_models_without_a_record_have_no_value(sweep):
    records = pd.read_csv(sweep / "results.csv").iloc[5:]
    records.to_csv(sweep / "results.csv", index=False)
    coverage = read_results(sweep).coverage
    assert coverage["trace"] == {"ok": 11, "failed": 2, "no value": 5}


def test_rows_without_a_name_are_told_by_their_number():
    frame = pd.DataFrame({"gap": [1.0, np.nan]})
    assert left_out(frame, frame.index[:1], "gap") == [("row 1", "no finite gap")]
