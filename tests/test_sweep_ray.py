"""The engine ray: the same records and the same bytes as without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from landscape.cli import app
from landscape.populations import Workers, sweep

TASK = """
import torch, landscape

source = torch.Generator().manual_seed(0)
inputs = torch.randn(200, 4, generator=source)
labels = inputs[:, :3].argmax(1)

def net():
    return torch.nn.Sequential(
        torch.nn.Linear(4, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3)
    )

task = landscape.Task(model=net, objective="cross_entropy", train=(inputs, labels))
"""
MEASURES = "hessian-trace,renyi-sharpness,average-sharpness,sam-gap"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(TASK)
    for seed in range(3):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3))
        torch.save(made.state_dict(), tmp_path / f"{seed}.pt")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own", None)


def values(out):
    frame = pd.read_csv(Path(out) / "results.csv").drop(columns=["seconds", "peak_memory"])
    return Path(out, "table.csv").read_bytes(), frame.to_csv(index=False)


@pytest.mark.usefixtures("folder")
def test_a_sweep_on_ray_gives_the_bytes_of_a_local_one():
    """Kills on Ray: examples/benchmarks/sweep_kills.py."""
    pytest.importorskip("ray")
    sweep("*.pt", MEASURES, "here", task="own.py:task", workers=Workers(count=0))
    command = [sys.executable, "-m", "landscape", "sweep", "*.pt", "--task", "own.py:task"]
    command += ["--measures", MEASURES, "--out", "there", "--engine", "ray", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr + Path("there", "results.csv").read_text()
    assert done.stderr.splitlines() == [done.stderr.strip()]  # nothing of ray's own
    assert "3 of 3 checkpoints measured" in done.stdout
    assert values("there") == values("here")


def test_without_ray_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(app, ["sweep", "0.pt", "--task", "own.py:task", "--engine", "ray"])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        "landscape: engine ray needs the package ray, which is not installed; pip install "
        "'landscape-toolkit[ray]'"
    )
    assert not (folder / "landscape-sweep").exists()


def test_a_cluster_that_is_not_there_is_one_line(folder):
    pytest.importorskip("ray")
    where = ["--engine", "ray", "--address", "127.0.0.1:1"]
    done = CliRunner().invoke(app, ["sweep", "0.pt", "--task", "own.py:task", *where])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("landscape: no Ray cluster can be reached at 127.0.0.1:1: ")
    assert not (folder / "landscape-sweep").exists()
