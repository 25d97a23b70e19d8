"""Populations trained in processes: the same for any number, after any kill, and in one command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

import landscape
from landscape.cli import app
from landscape.populations import Workers, read_design, read_manifest, train_population
from landscape.tasks import named_task, open_task
from landscape.training import Recipe, train

TASK = """
import multiprocessing, os, subprocess, time
import torch, landscape

source = torch.Generator().manual_seed(0)
inputs = torch.randn(40, 4, generator=source)
data = inputs[:30], inputs[:30, :3].argmax(1)
test = inputs[30:], inputs[30:, :3].argmax(1)

class Slow(torch.nn.Linear):
    def forward(self, inputs):
        time.sleep(0.004)
        return super().forward(inputs)

class Infinite(torch.nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) / (0 if self.training else 1)

def make_task(width, slow=False, fail=None):
    print("told by the user's code")
    if slow and multiprocessing.parent_process():
        subprocess.Popen(["sleep", "600"])
    if fail == "raise":
        raise RuntimeError("out of\\norder")
    if fail == "exit":
        raise SystemExit(3)
    if fail == "die":
        os.kill(os.getpid(), 9)
    kind = Slow if slow else Infinite if fail == "diverge" else torch.nn.Linear
    made = lambda: torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Tanh(), kind(width, 3))
    return landscape.Task(model=made, objective="cross_entropy", train=data, test=test)

def make_regression(width):
    made = lambda: torch.nn.Linear(4, 1)
    return landscape.Task(model=made, objective="mse", train=(inputs, inputs[:, :1]))
"""
DESIGN = {
    "task": "nets.py:make_task",
    "fixed": {"epochs": 60, "batch_size": 10},
    "axes": {
        "width": [4, 8],
        "method": ["sgd", {"method": "sam", "rho": 0.05}],
        "lr": [0.02, 0.2],
        "seed": [0],
    },
    "target_loss": 0.1,
}


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """A folder with a task, and a design in it with changed entries."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(TASK)

    def written(name="design", **changes):
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(DESIGN | changes, sort_keys=False))
        return path

    return written


@pytest.fixture(scope="module")
def whole(write):
    """A population that nobody disturbed."""
    design = read_design(write())
    folder = write().parent / "whole"
    return design, folder, train_population(design, folder, workers=0)


def weights(folder):
    return {
        str(path.relative_to(folder)): torch.load(path, weights_only=True)["model"]
        for path in sorted(folder.glob("models/*/*.pt"))
    }


def assert_equal(folder, other):
    """The same rows but for the time they took, and the same bits."""
    free = ["seconds", "task"]  # the path of the task is from the folder
    rows, others = (read_manifest(path)[0].drop(columns=free) for path in (folder, other))
    pd.testing.assert_frame_equal(rows, others, check_exact=True)
    states, other_states = weights(folder), weights(other)
    assert states.keys() == other_states.keys()
    assert len(states) == 2 * len(rows)
    for name, state in states.items():
        assert all(torch.equal(state[key], other_states[name][key]) for key in state), name


def test_the_manifest_has_the_columns_that_are_promised(whole):
    _, folder, rows = whole
    assert [*rows] == [
        *("name", "checkpoint", "initial", "task", "arguments", "status", "message"),
        *("hp.width", "hp.method", "hp.lr", "hp.seed"),
        *("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("gap_loss", "gap_accuracy", "epochs", "gradients", "seconds"),
    ]
    assert len(rows) == 8
    assert set(rows["status"]) == {"converged", "not converged"}
    converged = rows[rows["status"] == "converged"]
    assert (converged["train_loss"] <= 0.1).all()
    late = rows[rows["status"] == "not converged"]
    assert (late["epochs"] == 60).all()
    assert late["message"].str.contains("the budget ended at train loss").all()
    assert (rows["gap_loss"] == rows["test_loss"] - rows["train_loss"]).all()
    assert (rows["gap_accuracy"] == rows["train_accuracy"] - rows["test_accuracy"]).all()
    assert set(rows["hp.method"]) == {"sgd", "sam(rho=0.05)"}
    sam = rows["hp.method"] != "sgd"
    assert (rows["gradients"] == rows["epochs"] * (1 + sam)).all()
    facts = read_manifest(folder)[1]
    assert facts["test_examples"] == 10
    assert facts["models"] == 8
    assert facts["counts"]["converged"] == len(converged)
    assert facts["design"]["axes"]["lr"] == [0.02, 0.2]
    assert facts["axes"] == ["width", "method", "lr", "seed"]
    assert {"torch", "landscape"} <= facts["versions"].keys()
    assert sorted(path.name for path in (folder / "models" / "m0000").iterdir()) == [
        *("initial.pt", "last.pt", "row.json")
    ]


def test_a_row_is_the_training_of_its_recipe_and_can_be_opened(whole):
    design, folder, rows = whole
    run, row = design.runs[3], rows.iloc[3]
    reference = str(folder / row["task"].rpartition(":")[0]) + ":make_task"
    task = named_task(reference, json.loads(row["arguments"]))
    trained = train(
        task,
        Recipe(
            method="sam",
            settings={"rho": 0.05},
            lr=0.2,
            batch_size=10,
            epochs=60,
            target_loss=0.1,
            seed=0,
        ),
    )
    assert run.recipe.lr == 0.2
    found = weights(folder)
    assert all(
        torch.equal(tensor, found["models/m0003/last.pt"][name])
        for name, tensor in trained.model.state_dict().items()
    )
    initial = task.build({}, seed=0).state_dict()
    assert all(
        torch.equal(tensor, found["models/m0003/initial.pt"][name])
        for name, tensor in initial.items()
    )
    opened = open_task(
        task,
        folder / row["checkpoint"],
        landscape.Settings(initial=folder / row["initial"]),
    )
    metrics = opened.metrics()
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert metrics[name] == pytest.approx(row[name], rel=1e-5)


def test_the_number_of_workers_changes_nothing(whole, tmp_path):
    design, folder, _ = whole
    train_population(design, tmp_path, workers=Workers(count=2))
    assert_equal(folder, tmp_path)


def test_finished_models_are_not_trained_again_and_lost_files_are(whole, tmp_path):
    design, folder, rows = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "models" / "m0002" / "last.pt").unlink()
    (tmp_path / "models" / "m0005" / "row.json").write_text("{")
    kept = tmp_path / "models" / "m0000" / "last.pt"
    before = kept.stat().st_mtime_ns
    again = train_population(design, tmp_path, workers=0)
    assert kept.stat().st_mtime_ns == before
    assert_equal(folder, tmp_path)
    same = [index for index in range(len(rows)) if index not in {2, 5}]
    assert (again["seconds"][same] == rows["seconds"][same]).all()


def test_the_folder_of_another_design_is_refused(whole, write, tmp_path):
    _, folder, _ = whole
    other = read_design(write("other", target_loss=0.2))
    with pytest.raises(ValueError, match="holds the population of another design; give another"):
        train_population(other, folder)
    (tmp_path / "models").mkdir()
    with pytest.raises(ValueError, match="holds models of unknown origin"):
        train_population(other, tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is of no population that was trained"):
        train_population(other, tmp_path)


def test_models_that_fail_die_or_diverge_are_rows(write, tmp_path):
    axes = {"fail": ["raise", "exit", "die", None, "diverge"]}
    design = read_design(write("failing", axes=axes, fixed={"epochs": 3, "width": 4}))
    rows = train_population(design, tmp_path, workers=1).set_index("hp.fail")
    assert rows.loc["none", "status"] == "not converged"
    broken = rows.loc["diverge"]
    assert (broken["status"], broken["checkpoint"]) == ("diverged", "")
    assert broken["message"] == "the train loss is no longer finite"
    assert broken["initial"] == "models/m0004/initial.pt"
    assert pd.isna(broken["train_loss"])
    told = {
        "raise": "out of",
        "exit": "SystemExit: 3",
        "die": "3 workers died of it, the last: killed by SIGKILL",
    }
    for kind, message in told.items():
        row = rows.loc[kind]
        assert (row["status"], row["checkpoint"], row["initial"]) == ("failed", "", "")
        assert message in row["message"]
        assert "\n" not in row["message"]
        assert pd.isna(row["gap_accuracy"])
    assert "told by the user's code" in (tmp_path / "workers.log").read_text()
    # A process that was killed is tried again by the next call, an error is not.
    assert not (tmp_path / "models" / "m0002" / "row.json").exists()
    assert (tmp_path / "models" / "m0000" / "row.json").exists()


def test_a_task_without_test_data_and_accuracy_has_empty_columns(write, tmp_path):
    design = read_design(
        write("regression", task="nets.py:make_regression", axes={"width": [1]}, target_loss=10)
    )
    rows = train_population(design, tmp_path, workers=0)
    assert rows["status"].tolist() == ["converged"]
    assert rows["train_loss"].notna().all()
    assert rows[["train_accuracy", "test_loss", "gap_loss", "gap_accuracy"]].isna().all(axis=None)
    assert read_manifest(tmp_path / "manifest.csv")[1]["test_examples"] is None


# Kills


def start(design, out, workers=2):
    options = ["--population", str(design), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "landscape", "train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def processes_of(parent, command="spawn_main"):
    """The processes that a process has started, by a part of their command."""
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if command in line]


def alive(pid):
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait(condition, seconds=120):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def finished(folder):
    return list(folder.glob("models/*/row.json"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
SLOW = {
    "fixed": {"epochs": 40, "batch_size": 10, "slow": True},
    "axes": {**DESIGN["axes"], "lr": [0.02]},
    "target_loss": 0.001,
}


@pytest.fixture(scope="module")
def slow(write):
    path = write("slow", **SLOW)
    folder = path.parent / "slow"
    train_population(read_design(path), folder, workers=0)
    return path, folder


@pytest.mark.slow
@needs_proc
def test_after_kills_of_all_and_of_a_worker_nothing_runs_and_the_bits_are_the_same(slow, tmp_path):
    path, whole_folder = slow
    parent = start(path, tmp_path)
    wait(lambda: len(finished(tmp_path)) >= 1)
    workers = processes_of(parent.pid)
    assert len(workers) == 2
    theirs = [pid for worker in workers for pid in processes_of(worker, "sleep")]
    assert len(theirs) >= 2
    parent.kill()
    parent.communicate()
    wait(lambda: not any(alive(pid) for pid in [*workers, *theirs]), 30)
    done = len(finished(tmp_path))
    assert 1 <= done < 4
    with pytest.raises(ValueError, match="is not finished, run it again to go on"):
        read_manifest(tmp_path)

    again = start(path, tmp_path, workers=1)
    (worker,) = wait(lambda: processes_of(again.pid))
    theirs = wait(lambda: processes_of(worker, "sleep"))
    os.kill(worker, signal.SIGKILL)
    told, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert told.startswith("4 models: ")
    assert not errors
    assert not any(alive(pid) for pid in theirs)
    assert_equal(whole_folder, tmp_path)


@pytest.mark.slow
@needs_proc
def test_an_interrupt_is_one_line_and_leaves_no_process(slow, tmp_path):
    path, _ = slow
    parent = start(path, tmp_path, workers=1)
    wait(lambda: len(finished(tmp_path)) >= 1)
    workers = processes_of(parent.pid)
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert errors.count("\n") == 1
    assert f"interrupted; {tmp_path} keeps every finished model" in errors
    assert workers
    assert not any(alive(pid) for pid in workers)


# The command


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_tells_how_it_went_and_where_it_is(whole, write, tmp_path):
    _, folder, _ = whole
    done = run("--population", write(), "--out", folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("8 models: ")
    assert f"{folder}: manifest.csv" in done.stdout
    bad = write("bad", axes={"fail": ["raise"]}, fixed={"epochs": 1, "width": 4})
    failed = run("--population", bad, "--out", tmp_path / "bad", "--workers", 0)
    assert failed.exit_code == 1
    assert "1 models failed, such as m0000: RuntimeError: out of (nets.py" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "0.05"], "--lr cannot be used with --population"),
        (["--task", "digits", "--method", "sgd"], "--task, --method cannot be used"),
        (["last.pt"], "a checkpoint cannot be used with --population"),
        (["--population", "gone"], "there is no file gone; presets are digits-smoke"),
        (["--workers", "-1"], "workers"),
        (["--engine", "ray", "--workers", "0"], "workers must be a whole number of at least 1"),
        (["--address", "auto"], "address belongs to engine ray"),
    ],
)
def test_options_that_make_no_sense_are_refused(write, tmp_path, arguments, message):
    out = tmp_path / "out"
    done = run("--population", write(), "--out", out, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"), [("--workers", 2), ("--engine", "local"), ("--address", "auto")]
)
def test_workers_without_a_population_are_refused(option, value):
    done = run(option, value)
    assert done.exit_code == 2
    assert f"{option} belongs to --population, which is missing" in done.stderr


# The manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns=["task", "gap_loss"]), "no column task, gap_loss"),
        (lambda rows: rows.filter(regex="^(?!hp)"), "has no hyper-parameter"),
        (lambda rows: rows[:0], "has no models"),
        (lambda rows: rows.assign(train_loss="low"), "column train_loss must hold numbers"),
        (lambda rows: pd.concat([rows, rows]), "has the name 'm0000' twice"),
        (lambda rows: rows.assign(status="done"), "has status 'done'; there are converged"),
        (lambda rows: rows.assign(arguments="[3]"), "must be a JSON object"),
        (lambda rows: rows.assign(arguments="{"), "must be a JSON object"),
    ],
)
def test_a_broken_manifest_is_one_sentence(whole, tmp_path, change, message):
    change(whole[2]).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ValueError, match=r"manifest\.csv") as error:
        read_manifest(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_manifest_or_unreadable_facts_are_one_sentence(whole, tmp_path):
    with pytest.raises(ValueError, match="there is no manifest"):
        read_manifest(tmp_path)
    whole[2].to_csv(tmp_path / "manifest.csv", index=False)
    assert read_manifest(tmp_path)[1] == {}
    for text, message in (("{", "cannot be read"), ("[]", "must hold facts by name")):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_manifest(tmp_path)
