"""``landscape slice`` and ``landscape plot``, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from landscape.cli import app
from landscape.tasks import CheckpointError, DigitsNet, digits_checkpoint
from landscape.tasks.slicing import natural_order


@pytest.fixture(scope="module", autouse=True)
def _cached_checkpoint():
    digits_checkpoint()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def small(out, *more):
    return run("slice", "--samples", 60, "--points", 5, "--out", out, *more)


def checkpoints(folder, *names):
    for number, name in enumerate(names):
        torch.manual_seed(number)
        torch.save(DigitsNet().state_dict(), folder / name)


def test_a_plane_is_written_drawn_and_drawn_again(tmp_path):
    out = tmp_path / "plane.nc"
    done = small(out)
    assert done.exit_code == 0, done.output
    assert "25 points, about" in done.output
    found = xr.load_dataset(out, engine="scipy")
    assert found.train_loss.shape == (5, 5)
    assert {"test_loss", "test_accuracy"} <= set(found.data_vars)
    assert (tmp_path / "plane.png").stat().st_size > 5000
    assert not (tmp_path / "plane.nc.partial").exists()
    again = run("plot", out, "--metric", "test_accuracy", "--out", tmp_path / "again.pdf")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("directions", ["eigen", "gradient", "random", "to:two.pt"])
def test_lines_in_all_directions(tmp_path, monkeypatch, directions):
    monkeypatch.chdir(tmp_path)
    checkpoints(tmp_path, "one.pt", "two.pt")
    done = small("line.nc", "--directions", directions, "--dimensions", 1, "--span", "-0.5", "1")
    assert done.exit_code == 0, done.output
    found = xr.load_dataset("line.nc", engine="scipy")
    assert found.train_loss.dims == ("alpha",)
    assert found.alpha.values[[0, -1]] == pytest.approx([-0.5, 1])


def test_planes_of_checkpoints_show_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints(tmp_path, *(f"epoch{number}.pt" for number in (1, 2, 10)))
    done = small("pca.nc", "--directions", "pca:epoch*.pt", "--span", -20, 20)
    assert done.exit_code == 0, done.output
    found = xr.load_dataset("pca.nc", engine="scipy")
    assert list(found.trajectory_label.values.astype(str)) == ["epoch1", "epoch2", "epoch10"]
    assert len(json.loads(found.attrs["explained_variance"])) == 2
    done = small("plane.nc", "--directions", "plane:epoch1.pt,epoch2.pt", "--batch-norm", "eval")
    assert done.exit_code == 0, done.output
    found = xr.load_dataset("plane.nc", engine="scipy")
    assert found.trajectory_residual.values == pytest.approx([0, 0, 0], abs=1e-4)


def test_a_tolerance_saves_points(tmp_path):
    out = tmp_path / "fine.nc"
    done = run(
        "slice", "--samples", 40, "--points", 33, "--tolerance", 0.02, "--span", -0.5, 0.5,
        "--scale", "linear",
        "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = xr.load_dataset(out, engine="scipy")
    assert 0 < found.attrs["evaluated_points"] < 33**2 / 2
    assert not found.evaluated.values.all()
    assert found.attrs["tolerance"] == 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--directions", "sideways"], "random, eigen"),
        (["--directions", "pca:none*.pt"], "no checkpoint matches"),
        (["--directions", "to:nowhere.pt"], "nowhere.pt"),
        (["--directions", "plane:one.pt"], "two checkpoints"),
        (["--directions", "momentum"], "no momentum"),
        (["--span", "1", "-1"], "ascending"),
        (["--metric", "beauty"], "train_loss"),
        (["--metric", "evaluated"], "train_loss"),
        (["--metric", "train_loss_stderr"], "train_loss"),
        (["--tolerance", "0"], "positive"),
        (["--out", "picture.png"], "data's file"),
        (["--batch-norm", "interpolate"], "nothing to interpolate"),
        (["--tolerance", "0.1", "--scale", "odd"], "scale"),
        (["--task", "chess"], "unknown task"),
        (["--batch-norm", "odd"], "batch_norm"),
        (["--out", "/proc/none/slice.nc"], "cannot be written"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = small(tmp_path / "x.nc", *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("x.nc*"))


def test_plot_refuses_what_is_no_slice(tmp_path):
    wrong = tmp_path / "wrong.nc"
    wrong.write_text("no netcdf")
    for arguments, message in (
        ([tmp_path / "none.nc"], "there is no slice"),
        ([wrong], "no slice"),
    ):
        done = run("plot", *arguments)
        assert done.exit_code == 2
        assert message in done.output
    assert small(tmp_path / "a.nc", "--dimensions", 1).exit_code == 0
    done = run("plot", tmp_path / "a.nc", "--out", tmp_path / "a.bmp")
    assert done.exit_code == 2
    assert ".svg" in done.output


def test_a_hard_kill_loses_a_block_at_most_and_changes_nothing(tmp_path):
    command = [
        sys.executable, "-m", "landscape", "slice", "--points", "24", "--samples", "500",
        "--out", "slice.nc",
    ]  # fmt: skip
    folders = [tmp_path / "killed", tmp_path / "whole"]
    for folder in folders:
        folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        command, cwd=folders[0], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    partial = folders[0] / "slice.nc.partial"
    deadline = time.monotonic() + 120
    while len(list(partial.glob("*.npy"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (folders[0] / "slice.nc").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.npy")}
    assert 2 <= len(kept) < 9
    for folder in folders:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    one, two = ((folder / "slice.nc").read_bytes() for folder in folders)
    assert one == two
    assert not partial.exists()


def test_names_are_read_in_numerical_order(tmp_path):
    for name in ("e10.pt", "e2.pt", "e1.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in natural_order(f"{tmp_path}/e*.pt")] == [
        "e1.pt",
        "e2.pt",
        "e10.pt",
    ]
    with pytest.raises(CheckpointError):
        natural_order(str(tmp_path / "x*.pt"))
