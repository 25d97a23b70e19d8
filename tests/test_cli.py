"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import landscape
from landscape.cli import app
from landscape.tasks import DigitsNet, digits_checkpoint

FAST = ["--samples", "60", "--measures", "train-loss,parameter-norm"]


@pytest.fixture(scope="module", autouse=True)
def _cached_checkpoint():
    digits_checkpoint()


def run(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def test_audit_without_arguments_audits_the_embedded_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("audit", "--measures", "quick", "--samples", 100)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "landscape-report"
    report = json.loads((folder / "report.json").read_text())
    values = {entry["measure"]: entry["value"] for entry in report["results"]}
    assert values["renyi-sharpness[alpha=0.5]"] < 0 < values["hessian-top-eigenvalue"]
    frame = pd.read_csv(folder / "results.csv", index_col="measure")
    assert frame["value"].to_dict() == pytest.approx(values)
    assert "report.html" in done.output
    assert report["extras"]["task"]["test_accuracy"] > 0.9
    assert report["provenance"]["terms"] == 100


def test_any_other_digits_checkpoint_can_be_audited(tmp_path):
    torch.manual_seed(0)
    state = DigitsNet((3, 5), 7).state_dict()
    files = tmp_path / "net.safetensors", tmp_path / "net.pt"
    safetensors.torch.save_file(state, files[0])
    torch.save(state, files[1])
    norms = []
    for file in files:
        done = run("audit", file, *FAST, "--out", tmp_path / "out", "--json")
        assert done.exit_code == 0, done.output
        norms.append(json.loads(done.stdout)["results"][1]["value"])
    truth = torch.cat([tensor.reshape(-1) for tensor in state.values()]).double().norm()
    assert norms == pytest.approx([float(truth)] * 2)


def truncated(path):
    path.write_bytes(digits_checkpoint().read_bytes()[:2000])


def corrupted(path):
    path.write_bytes(os.urandom(3000))


def truncated_torch(path):
    torch.save(DigitsNet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:4000])


def mismatching(path):
    state = DigitsNet().state_dict()
    state["output.weight"] = torch.zeros(10, 5)
    state["extra"] = torch.zeros(1)
    del state["conv2.bias"]
    safetensors.torch.save_file(state, path)


def pickled(path):
    torch.save(DigitsNet(), path)


BAD_FILES = {
    "missing": (lambda _: None, "w.pt", "there is no checkpoint"),
    "empty": (lambda path: path.touch(), "w.pt", "is empty"),
    "directory": (Path.mkdir, "w.pt", "is a directory"),
    "truncated safetensors": (truncated, "w.safetensors", "truncated, corrupted"),
    "corrupted safetensors": (corrupted, "w.safetensors", "truncated, corrupted"),
    "truncated torch": (truncated_torch, "w.pt", "truncated, corrupted"),
    "corrupted torch": (corrupted, "w.pt", "w.pt"),
    "text": (lambda path: path.write_text("hello"), "w.pt", "no torch checkpoint"),
    "mismatching": (
        mismatching,
        "w.safetensors",
        (
            "missing 1 (conv2.bias); unexpected 1 (extra); wrong shapes: 1 (output.weight is "
            "(10, 5) instead of (10, 32))"
        ),
    ),
    "whole model": (pickled, "w.pt", "no plain state_dict"),
    "not a state": (lambda path: torch.save([1, 2], path), "w.pt", "not a state_dict"),
    "nested": (lambda path: torch.save({"epoch": 3}, path), "w.pt", "entry 'epoch' is a int"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_checkpoint_is_one_line_and_exit_code_2(name, tmp_path):
    make, filename, words = BAD_FILES[name]
    path = tmp_path / filename
    make(path)
    done = run("audit", path, *FAST, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--measures", "hesian-trace"], "did you mean hessian-trace"),
        (["--measures", ""], "no measure asked for"),
        (["--measures", "train-loss,train-loss"], "more than once"),
        (["--task", "mnist"], "embedded tasks are digits"),
        (["--samples", "5000"], "between 1 and 1000"),
    ],
    ids=["unknown measure", "none", "twice", "task", "samples"],
)
def test_bad_options_are_one_line_and_exit_code_2(arguments, words, tmp_path):
    done = run("audit", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has what is asked for")
def test_cuda_asked_for_and_absent(tmp_path):
    done = run("audit", "--device", "cuda", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "use --device cpu" in done.stderr


def test_an_out_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    done = run("audit", *FAST, "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_a_failing_measure_is_a_row_and_exit_code_1(tmp_path, monkeypatch):
    from landscape.measures import ParameterNorm

    def broken(*_):
        raise RuntimeError("a <script> broke")

    monkeypatch.setattr(ParameterNorm, "estimate", broken)
    done = run("audit", *FAST, "--out", tmp_path / "out")
    assert done.exit_code == 1
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["results"]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[1]["message"] == "RuntimeError: a <script> broke"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a <script> broke" not in page


def test_the_same_audit_again_measures_nothing_twice(tmp_path, monkeypatch):
    arguments = ["audit", *FAST, "--out", tmp_path / "out"]
    assert run(*arguments).exit_code == 0
    calls = []
    compute = landscape.Measure.compute
    monkeypatch.setattr(
        landscape.Measure,
        "compute",
        lambda self, *rest: calls.append(self.name) or compute(self, *rest),
    )
    assert run(*arguments).exit_code == 0
    assert calls == []
    assert run(*arguments, "--seed", 1).exit_code == 0
    assert run(*arguments, "--fresh").exit_code == 0
    assert calls == ["train-loss", "parameter-norm"] * 2


def test_seeds_and_precision_are_passed_on(tmp_path):
    def value(*more):
        done = run(
            "audit", "--samples", 40, "--measures", "hessian-trace", "--json",
            "--out", tmp_path / "out", *more,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        return report["results"][0]["value"], report["provenance"]["dtype"]

    first, second = value("--seed", 1)[0], value("--seed", 2)[0]
    assert first != second
    assert value("--dtype", "float64")[1] == "float64"


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    command = [sys.executable, "-m", "landscape", "audit", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    records = tmp_path / "out" / "records"
    deadline = time.monotonic() + 100
    while not len(list(records.glob("*.json"))) >= 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"train-loss", "parameter-norm"} <= {row["measure"] for row in report["results"]}
    assert "Interrupted: not measured are" in report["warnings"][0]


def test_cross_check_shows_both_numbers(tmp_path):
    done = run(
        "audit", "--samples", 60, "--cross-check", "--out", tmp_path / "out",
        "--measures", "hessian-top-eigenvalue,hessian-trace,hessian-spectral-density",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {row["quantity"]: row for row in report["extras"]["cross_check"]}
    assert set(rows) == {row["measure"] for row in report["results"]}
    assert all(row["inside"] for row in rows.values()), rows
    assert rows["hessian-top-eigenvalue"]["peer_value"] == pytest.approx(
        rows["hessian-top-eigenvalue"]["ours"], rel=1e-2
    )


def test_noise_is_checked_against_the_trace_and_momentum_is_read(tmp_path):
    model = DigitsNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model(torch.zeros(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    path = tmp_path / "last.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    done = run(
        "audit", path, "--samples", 60, "--out", tmp_path / "out",
        "--measures", "hessian-trace,noise-stability,momentum-gap",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (row,) = report["extras"]["cross_check"]
    assert row["quantity"] == "noise-stability"
    assert row["peer"] == "hessian-trace"
    assert row["inside"]
    gap = next(entry for entry in report["results"] if entry["measure"] == "momentum-gap")
    assert gap["value"] is not None


def test_measures_lists_every_name():
    done = run("measures")
    assert done.exit_code == 0
    for name in landscape.measures.available():
        assert name in done.output


def test_python_dash_m_and_help():
    done = subprocess.run(
        [sys.executable, "-m", "landscape", "--help"], capture_output=True, text=True, check=True
    )
    assert "audit" in done.stdout
    assert "measures" in done.stdout


def test_the_symmetry_check_is_shown_and_kept(tmp_path):
    done = run(
        "audit",
        "--samples", 60,
        "--measures", "train-loss,gradient-norm",
        "--symmetry-check",
        "--out", tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "depends on the parametrisation" in " ".join(done.output.replace("│", " ").split())
    check = json.loads((tmp_path / "report.json").read_text())["extras"]["symmetry_check"]
    assert set(check["found"]) == {"layer", "neuron", "loss", "permutation"}
    loss, gradient = check["orbits"]
    assert loss["verdict"] == "unchanged"
    assert gradient["range"][1] > 3 * gradient["base"]["value"]
    page = (tmp_path / "report.html").read_text()
    assert "parametrisation" in page


def test_initial_weights_make_distances_known(tmp_path):
    path = tmp_path / "initial.pt"
    torch.save(DigitsNet().state_dict(), path)
    measured = ["audit", *FAST[:2], "--measures", "parameter-distance", "--out", tmp_path, "--json"]
    without, known = run(*measured), run(*measured, "--initial", path)
    assert json.loads(without.stdout)["results"][0]["status"] == "declined"
    assert json.loads(known.stdout)["results"][0]["value"] > 1
    wrong = run(*measured, "--initial", tmp_path / "nowhere.pt")
    assert wrong.exit_code == 2
    assert "nowhere.pt" in wrong.output


def test_an_audit_that_measured_nothing_is_an_error(tmp_path):
    done = run("audit", "--measures", "momentum-gap", "--samples", 60, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "nothing could be measured" in done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["results"]


def test_products_by_differences_are_asked_for_by_name(tmp_path):
    values = {}
    for way in ("auto", "finite_difference"):
        out = tmp_path / way
        done = run(
            "audit", "--measures", "hessian-top-eigenvalue", "--samples", 60, "--products", way,
            "--dtype", "float64", "--out", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        report = json.loads((out / "report.json").read_text())
        values[report["provenance"]["products"]] = report["results"][0]["value"]
    assert values["finite_difference"] == pytest.approx(values["auto"], rel=1e-3)  # kinks of ReLU
    assert values["finite_difference"] != values["auto"]


STIFF = """
import torch
import landscape


def net():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3).double()


source = torch.Generator().manual_seed(0)
inputs = torch.randn(20, 4, generator=source, dtype=torch.float64)
labels = torch.arange(20) % 3
labels[:3] = -1
task = landscape.Task(model=net, objective="cross_entropy", train=(inputs, labels))
"""


def test_the_models_precision_and_torchs_class_weights_reach_the_command(tmp_path, monkeypatch):
    """On the command line and from a file of options, beside settings of measures."""
    monkeypatch.chdir(tmp_path)
    Path("stiff.py").write_text(STIFF)
    options = {"task": "stiff.py:task", "class_weights": [0.3, 0.9, 1.7], "ignore_index": -1}
    measures = {"train-loss": None, "average-sharpness": {"samples": 8}}
    Path("own.yaml").write_text(json.dumps(options | {"measures": measures}))
    done = run("audit", "--config", "own.yaml", "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["provenance"]["dtype"] == "float64"
    again = run("audit", "--config", "out/config.yaml", "--out", "again", "--json")
    assert json.loads(again.stdout)["results"][1]["config"]["samples"] == 8
    from stiff import inputs, labels, net

    truth = torch.nn.functional.cross_entropy(
        net()(inputs),
        labels,
        weight=torch.tensor([0.3, 0.9, 1.7], dtype=torch.float64),
        ignore_index=-1,
    )
    value = report["results"][0]["value"]
    assert value == pytest.approx(float(truth.detach()), rel=1e-12)
    single = run("audit", "--config", "own.yaml", "--out", "other", "--dtype", "float32", "--json")
    assert json.loads(single.stdout)["provenance"]["dtype"] == "float32"
    wrong = run("audit", "--config", "own.yaml", "--class-weights", "a,b", "--out", "none")
    assert wrong.exit_code == 2
    assert "--class-weights takes one number a class" in wrong.output
