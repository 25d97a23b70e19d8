"""Whatever is killed at whatever moment: the same command goes on, and the same table comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from landscape.populations import Workers, sweep

TASK = """
import os, signal, torch, landscape
from pathlib import Path

source = torch.Generator().manual_seed(0)
inputs = torch.randn(200, 4, generator=source)
labels = inputs[:, :3].argmax(1)

class Net(torch.nn.Sequential):
    def forward(self, x):
        if Path("deadly").exists() and float(self[0].bias[0]) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def net():
    return Net(torch.nn.Linear(4, 20), torch.nn.Tanh(), torch.nn.Linear(20, 3))

task = landscape.Task(model=net, objective="cross_entropy", train=(inputs, labels))
"""
MEASURES = "hessian-trace,hessian-top-eigenvalue,renyi-sharpness,average-sharpness,sam-gap"
MODELS = 4

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(TASK)
    for seed in range(MODELS):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3))
        if seed == 0:
            with torch.no_grad():
                made[0].bias[0] = 7
        torch.save(made.state_dict(), tmp_path / f"{seed}.pt")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own", None)


def start(out, *more):
    command = [sys.executable, "-m", "landscape", "sweep", "*.pt", "--task", "own.py:task"]
    return subprocess.Popen(
        [*command, "--measures", MEASURES, "--out", out, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def children(parent):
    """Processes of a parent that measure."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                command = status.with_name("cmdline").read_text()
                if "spawn_main" in command:
                    found.append(int(status.parent.name))
        except (OSError, IndexError):
            continue
    return found


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.02)


def records(out):
    return [path.name for path in Path(out, "records").glob("*/*-*.json")]


def values(out):
    frame = pd.read_csv(Path(out) / "results.csv").drop(columns=["seconds", "peak_memory"])
    return Path(out, "table.csv").read_bytes(), frame.to_csv(index=False)


def undisturbed():
    swept = sweep("*.pt", MEASURES, "whole", task="own.py:task", workers=Workers(count=0))
    assert not swept.failed
    return values("whole")


@pytest.mark.usefixtures("folder")
def test_a_killed_sweep_leaves_no_orphans_and_goes_on_also_when_a_worker_is_killed():
    whole = undisturbed()
    sweeping = start("out", "--workers", "2")
    until(lambda: len(records("out")) >= 3)
    workers = children(sweeping.pid)
    assert len(workers) == 2
    sweeping.kill()
    sweeping.communicate()
    until(lambda: not any(alive(worker) for worker in workers), seconds=20)
    left = set(records("out"))
    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("records/*/*-*.json")}
    assert 3 <= len(left) < 7 * MODELS

    again = start("out", "--workers", "1")
    until(lambda: len(records("out")) >= len(left) + 2)
    os.kill(children(again.pid)[0], signal.SIGKILL)
    output, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert f"{MODELS} of {MODELS} checkpoints measured" in output
    assert values("out") == whole
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())  # none twice
    assert list(Path("out/records").glob("*/.*")) == []


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_at_which_every_worker_dies_is_a_row_and_the_others_are_measured():
    Path("deadly").touch()
    swept = sweep(["0.pt", "1.pt"], "sam-gap", "out", task="own.py:task", workers=Workers(count=1))
    found = pd.read_csv("out/table.csv", index_col="name")
    assert list(found["status"]) == ["failed", "measured"]
    assert "3 workers died" in found["message"]["0.pt"]
    assert "SIGKILL" in found["message"]["0.pt"]
    assert swept.failed == 1


@pytest.mark.usefixtures("folder")
def test_an_interrupt_stops_at_once_and_keeps_the_records():
    sweeping = start("out", "--workers", "1")
    until(lambda: len(records("out")) >= 2)
    workers = children(sweeping.pid)
    sweeping.send_signal(signal.SIGINT)
    output, errors = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 130, errors
    assert output == ""
    assert errors.splitlines()[-1].startswith("landscape: interrupted; ")
    assert len(errors.splitlines()) == 2
    assert not any(alive(worker) for worker in workers)
    assert len(records("out")) >= 2
    found = pd.read_csv("out/table.csv")
    assert set(found["status"]) <= {"measured", "unfinished"}
