"""What is wrong with a user's files is one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from landscape.cli import app

NET = """
from torch import nn

def build(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

def nothing():
    build()

def narrow():
    return nn.Linear(3, 3)

def failing():
    raise RuntimeError("no such\\nvariant")
"""
DATA = """
import torch
from torch.utils.data import DataLoader, TensorDataset

inputs, labels = torch.ones(8, 4), torch.arange(8) % 3
loader = DataLoader(TensorDataset(inputs, labels), batch_size=4, shuffle=True)
once = ((inputs, labels) for _ in range(2))
empty = []
unknown = [(inputs, labels + 3)]

def failing():
    return inputs[:, "first"]

def takes(split):
    return [(inputs, labels)]

def scalar(model, batch):
    return model(batch[0]).square().mean()

def elsewhere(model, batch):
    return torch.ones(len(batch[0]))
"""


def net(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder with a net, its weights and data, all of them right."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "data.py").write_text(DATA)
    torch.save(net().state_dict(), tmp_path / "w.pt")
    inputs, labels = np.ones((8, 4), dtype=np.float32), np.arange(8) % 3
    np.savez(tmp_path / "train.npz", x=inputs, y=labels)
    np.savez(tmp_path / "wide.npz", x=np.ones((8, 5), dtype=np.float32), y=labels)
    frame = pd.DataFrame(inputs, columns=list("abcd"))
    frame.assign(label=labels).to_csv(tmp_path / "train.csv", index=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


MODEL = ["--model", "net.py:build"]
RIGHT = [*MODEL, "--objective", "cross_entropy", "--data", "train.npz"]
FAST = ["--measures", "train-loss", "--out", "out"]


def options(**changed):
    """The right options with some others in their place; None leaves one out."""
    given = dict(zip(RIGHT[::2], RIGHT[1::2], strict=True))
    given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [part for pair in given.items() if pair[1] is not None for part in pair]


def refused(folder, *arguments, command="audit"):
    """The one line with which a command ends; nothing is written."""
    more = FAST if command == "audit" else []
    before = sorted(folder.iterdir())
    done = CliRunner().invoke(app, [command, *arguments, *more])
    assert done.exit_code == 2, (done.output, done.exception)
    return one_line(folder, done.stdout, done.stderr, before)


def one_line(folder, output, errors, before):
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith("landscape: ")
    after = [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"]
    assert after == before
    return line


def test_the_right_files_are_measured(folder):
    done = CliRunner().invoke(app, ["audit", "w.pt", *RIGHT, *FAST])
    assert done.exit_code == 0, done.output
    assert (folder / "out" / "report.html").is_file()


# --- checkpoints ------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def malicious():
    Path("w.pt").write_bytes(pickle.dumps({"state_dict": Malicious()}))


def malicious_archive():
    torch.save({"model": net().state_dict(), "args": Malicious()}, "w.pt")


def truncated():
    content = Path("w.pt").read_bytes()
    Path("w.pt").write_bytes(content[: len(content) // 2])


def web_page():
    Path("w.pt").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")


def another_architecture():
    torch.save(nn.LSTM(4, 3).state_dict(), "w.pt")


def missing_keys():
    state = net().state_dict()
    del state["2.bias"]
    torch.save(state, "w.pt")


def other_widths():
    torch.save(net(6).state_dict(), "w.pt")


def not_a_number():
    state = net().state_dict()
    state["2.bias"][0] = torch.nan
    torch.save(state, "w.pt")


CHECKPOINTS = {
    malicious: "no plain state_dict",
    malicious_archive: f"no plain state_dict: it needs {os.name}.mkdir",
    truncated: "truncated, corrupted",
    web_page: "is an HTML page",
    another_architecture: "looks like a checkpoint of another architecture",
    missing_keys: "missing 1 (2.bias)",
    other_widths: "0.weight is (6, 4) instead of (5, 4)",
    not_a_number: "the loss at the checkpoint is nan",
}


@pytest.mark.parametrize("command", ["audit", "validate", "slice"])
@pytest.mark.parametrize("spoil", CHECKPOINTS, ids=lambda spoil: spoil.__name__)
def test_a_checkpoint_that_cannot_be_used_is_one_line(spoil, command, folder):
    spoil()
    more = ["--out", "new/slice.nc"] if command == "slice" else []
    line = refused(folder, "w.pt", *RIGHT, *more, command=command)
    assert CHECKPOINTS[spoil] in line


# --- model, objective and data ----------------------------------------------------------------

PARTS = {
    "a file that is not there": (options(model="nets.py:build"), "there is no file"),
    "a function that is not there": (options(model="net.py:make"), "it has nn, build, nothing"),
    "a module that is not there": (options(model="nets:build"), "there is no module 'nets'"),
    "no form of a model": (options(model="resnet18"), "a model is given as file.py:name"),
    "a model that is None": (options(model="net.py:nothing"), "it returned NoneType"),
    "a model that raises": (
        options(model="net.py:failing"),
        "RuntimeError: no such (net.py, line 14)",
    ),
    "an argument that is not taken": (
        [*options(), "--arg", "depth=3"],
        "unexpected keyword argument 'depth'",
    ),
    "an argument without a value": ([*options(), "--arg", "width"], "--arg takes key=value"),
    "a directory that is not there": (options(model="hf:gone"), "there is no config.json in gone"),
    "an unknown objective": (options(objective="hinge"), "--objective must be one of"),
    "no objective": (options(objective=None), "--objective is missing"),
    "an objective without terms": (options(objective="data.py:scalar"), "a bare scalar"),
    "an objective without the model": (
        options(objective="data.py:elsewhere"),
        "no gradient reaches any parameter",
    ),
    "no data": (options(data=None), "--data is missing"),
    "data that are not there": (options(data="test.npz"), "test.npz"),
    "a loader that shuffles": (options(data="data.py:loader"), "give one with shuffle=False"),
    "a generator": (options(data="data.py:once"), "walkable many times, got a one-shot generator"),
    "empty data": (options(data="data.py:empty"), "no example in the data"),
    "data that raise": (options(data="data.py:failing"), "(data.py, line 12)"),
    "data with arguments": (options(data="data.py:takes"), "takes no arguments"),
    "a class that the model lacks": (options(data="data.py:unknown"), "out of bounds"),
    "a missing column": (options(data="train.csv", target="kind"), "has no column 'kind'"),
    "too many samples": (options(samples="9"), "between 1 and 8"),
    "test data that do not fit": (options(test_data="wide.npz"), "shapes cannot be multiplied"),
    "no test data of that name": (options(test_data="gone.npz"), "gone.npz"),
    "a task beside its parts": (options(task="net.py:build"), "give one of them"),
    "parts without a model": (options(model=None), "belong to --model, which is missing"),
    "an option that the task leaves without use": (
        ["--task", "digits", "--target", "label", "--max-length", "8"],
        "--target, --max-length belong to --model, which is missing",
    ),
    "a model as a task": (["--task", "net.py:build"], "must be a landscape.Task"),
}


@pytest.mark.parametrize("command", ["audit", "validate"])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_task_that_cannot_be_used_is_one_line(name, command, folder):
    arguments, words = PARTS[name]
    assert words in refused(folder, "w.pt", *arguments, command=command)


def test_a_library_that_is_not_installed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    line = refused(folder, "w.pt", *options(model="timm:resnet18"))
    assert "needs the package timm, which is not installed; pip install timm" in line
    monkeypatch.setitem(sys.modules, "transformers", None)
    line = refused(folder, "w.pt", *options(model="hf:bert"))
    assert "needs the package transformers, which is not installed" in line


TASKS = {
    "a syntax error": ("def task(:\n    pass\n", "SyntaxError: invalid syntax"),
    "an error": ("import math\nmath.sqrt(-1)\n", "ValueError: math domain error (task.py, line 2)"),
    "a missing package": ("import no_such_package\n", "No module named 'no_such_package'"),
    "an exit": ("import sys\nsys.exit(0)\n", "SystemExit: 0 (task.py, line 2)"),
    "a command line": (
        "def task():\n    raise SystemExit\n",
        "SystemExit (task.py, line 2)",
    ),
    "no task": ("task = 3\n", "must be a landscape.Task or a function that returns one, got int"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_file_that_cannot_be_used_is_one_line(name, folder):
    text, words = TASKS[name]
    (folder / "task.py").write_text(text)
    path = list(sys.path)
    assert words in refused(folder, "--task", "task.py:task")
    assert sys.path == path


ONCE = """
import torch
from torch import nn
from torch.autograd.function import once_differentiable

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return Square.apply(self.layer(x))
"""


def test_a_model_without_second_derivatives_keeps_its_first_ones(folder):
    (folder / "once.py").write_text(ONCE)
    measures = ["--measures", "train-loss,gradient-norm,hessian-trace", "--out", "out"]
    done = CliRunner().invoke(app, ["audit", *options(model="once.py:Net"), *measures])
    assert done.exit_code == 1, done.output
    rows = json.loads((folder / "out" / "report.json").read_text())["results"]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert "can be differentiated only once" in rows[2]["message"]


# --- configuration ----------------------------------------------------------------------------

CONFIGS = {
    "unknown key": ("modle: net.py:build\n", "has no option modle; there are allow_missing"),
    "broken": ("model: [net.py\nobjective: }\n", "config.yaml is no YAML"),
    "no options": ("- model\n- data\n", "must hold options by name"),
    "empty": ("", "must hold options by name"),
    "a config in a config": ("config: other.yaml\n", "has no option config"),
    "no text": ("\x00\x01", "config.yaml is no YAML"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_cannot_be_used_is_one_line(name, folder):
    text, words = CONFIGS[name]
    (folder / "config.yaml").write_text(text)
    assert words in refused(folder, "--config", "config.yaml")


def test_a_configuration_that_is_not_there_is_one_line(folder):
    assert "--config gone.yaml cannot be read" in refused(folder, "--config", "gone.yaml")


# --- as a user runs it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (malicious_archive, ["w.pt", *RIGHT], f"it needs {os.name}.mkdir"),
        (lambda: None, options(model="net.py:narrow"), "mat1 and mat2 shapes cannot be multiplied"),
        (
            lambda: Path("task.py").write_text("import no_such_package\n"),
            ["--task", "task.py:task"],
            "No module named 'no_such_package' (task.py, line 1)",
        ),
    ],
    ids=["malicious pickle", "shapes that do not fit", "a task that cannot be imported"],
)
def test_a_process_of_its_own_says_the_same(spoil, arguments, words, folder):
    spoil()
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "landscape", "audit", *arguments, *FAST],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert words in one_line(folder, done.stdout, done.stderr, before)
