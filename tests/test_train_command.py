"""``landscape train``, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from landscape.cli import app
from landscape.training import METHODS

TASK = """
import torch, landscape

source = torch.Generator().manual_seed(0)
inputs = torch.randn(40, 4, generator=source)
data = inputs, inputs[:, :3].argmax(1)

def net(width=8):
    first, last = torch.nn.Linear(4, width), torch.nn.Linear(width, 3)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last)

def task(width=8):
    made = lambda: net(width)
    return landscape.Task(model=made, objective="cross_entropy", train=data, test=data)

class Broken(torch.nn.Linear):
    def forward(self, inputs):
        raise RuntimeError("out of order")

broken = landscape.Task(model=Broken(4, 3), objective="cross_entropy", train=data)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


OWN = ("--task", "own.py:task", "--epochs", "2", "--out", "run")


def metrics(folder):
    return pd.read_csv(folder / "run" / "metrics.csv")


def test_a_trained_task_can_be_audited_as_it_is(folder):
    done = run(*OWN, "--method", "sam", "--lr", "0.1", "--rho", "0.02", "--batch-size", "10")
    assert done.exit_code == 0, done.output
    assert "ended by budget" in done.stdout
    recipe = yaml.safe_load((folder / "run" / "recipe.yaml").read_text())
    assert (recipe["settings"], recipe["lr"], recipe["batch_size"]) == ({"rho": 0.02}, 0.1, 10)
    assert metrics(folder)["step"].tolist() == [0, 4, 8]
    arguments = ["run/last.pt", "--task", "own.py:task", "--measures", "train-loss", "--json"]
    audit = CliRunner().invoke(app, ["audit", *arguments])
    assert audit.exit_code == 0, audit.output
    value = json.loads(audit.stdout)["results"][0]["value"]
    assert value == pytest.approx(metrics(folder)["train_loss"].iloc[-1])


def test_options_come_from_yaml_and_go_back_into_it(folder):
    (folder / "run.yaml").write_text(
        "task: own.py:task\narg: {width: 5}\nmethod: gsam\nsetting: {alpha: 0.2}\nepochs: 1\n"
    )
    done = run("--config", "run.yaml", "--out", "run")
    assert done.exit_code == 0, done.output
    assert yaml.safe_load((folder / "run" / "recipe.yaml").read_text())["settings"] == {
        "alpha": 0.2
    }
    assert run("--config", "run/config.yaml", "--out", "again").exit_code == 0
    states = [torch.load(folder / name / "last.pt")["model"] for name in ("run", "again")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[0]["0.weight"].shape == (5, 4)


def test_the_top_eigenvalue_is_followed_beside_its_edges(folder):
    done = run(*OWN, "--method", "sam", "--lr", "0.1", "--monitor", "1", "--momentum", "0.5")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(folder / "run" / "edge.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["edge"].tolist() == pytest.approx([2 * 1.5 / 0.1] * 3)
    assert (table["sam_edge"] < table["edge"]).all()
    assert (folder / "run" / "edge.png").stat().st_size > 5000
    # Measuring does not change the training.
    assert (
        run(*OWN[:-1], "other", "--method", "sam", "--lr", "0.1", "--momentum", "0.5").exit_code
        == 0
    )
    pair = [torch.load(folder / name / "last.pt")["model"] for name in ("run", "other")]
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "sma"], "unknown method 'sma'; there are sgd, adamw, sam, asam"),
        (["--lr", "-1"], "lr must be a number"),
        (["--rho", "0.1", "--method", "nso"], "method 'nso' has no setting rho; it has"),
        (["--method", "momentum-sam", "--momentum", "0"], "needs a base optimiser with momentum"),
        (["--setting", "rho"], "key=value"),
        (["--initial", "own.py"], "--initial is for measuring"),
        (["--out", "own.py"], "--out own.py cannot be written"),
        (["--task", "own.py:broken"], "out of order"),
        (["missing.pt"], "missing.pt"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    done = run(*OWN, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_loaded_leaves_nothing_behind(folder):
    (folder / "bad.pt").write_text("no checkpoint")
    for source in (("bad.pt", "--task", "digits"), ("--task", "gone.py:task")):
        done = run(*source, "--epochs", 1, "--monitor", 1, "--out", "none")
        assert done.exit_code == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (folder / "none").exists()


@pytest.mark.usefixtures("folder")
def test_another_recipe_in_the_same_folder_is_one_line():
    assert run(*OWN).exit_code == 0
    done = run(*OWN, "--lr", "0.3")
    assert done.exit_code == 2
    assert "run holds a training with lr 0.05, not 0.3" in done.stderr


@pytest.mark.usefixtures("folder")
def test_a_divergence_is_told():
    done = run(*OWN, "--method", "sgd", "--lr", "1e38", "--epochs", "9")
    assert done.exit_code == 1
    assert "use a smaller --lr" in done.stderr


def test_an_interrupted_training_goes_on_with_the_same_bits(folder):
    options = [
        "--task",
        "own.py:task",
        "--method",
        "esam",
        "--epochs",
        "3000",
        "--save-every",
        "5000",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "landscape", "train", *options, "--gradients"]
    process = subprocess.Popen(
        [*command, "300", "--out", "run"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        if (folder / "run" / "metrics.csv").exists() and len(metrics(folder)) > 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.005)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted; run keeps every finished epoch" in told
    done = len(metrics(folder))
    assert run(*options, "--gradients", "300", "--out", "run").exit_code == 0
    assert run(*options, "--gradients", "300", "--out", "whole").exit_code == 0
    assert 3 < done < len(metrics(folder))
    pair = [torch.load(folder / name / "last.pt")["model"] for name in ("run", "whole")]
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_the_help_names_the_budget_and_every_method_is_known():
    done = CliRunner().invoke(app, ["train", "--help"], terminal_width=200)
    assert "--gradients" in done.output
    for method in METHODS:
        assert method in run("--method", "none").stderr
