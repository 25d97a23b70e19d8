"""Sweeps: one record a measure and checkpoint, found again without loading, tables made of them."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import landscape
from landscape.cli import app
from landscape.populations import Sweep, Workers, rows_of, sweep, write_manifest, write_tables
from landscape.populations.engines.scheduling import Queue
from landscape.populations.jobs import Job
from landscape.populations.kinds import kind_of
from landscape.results import Store
from landscape.tasks import named_task
from landscape.tasks.kept import Kept

TASK = """
import torch, landscape

reads = []
source = torch.Generator().manual_seed(0)
inputs = torch.randn(40, 4, generator=source)
labels = inputs[:, :3].argmax(1)

def data():
    reads.append(1)
    return inputs[:30], labels[:30]

def net(width=6):
    return torch.nn.Sequential(
        torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 3)
    )

def task(width=6):
    return landscape.Task(
        model=lambda: net(width), objective="cross_entropy", train=data,
        test=(inputs[30:], labels[30:]),
    )

def no_data():
    return landscape.Task(
        model=net, objective="cross_entropy", train=lambda: inputs[:, "first"]
    )
"""
MEASURES = ("train-loss", "parameter-norm", "hessian-trace", "sam-gap")
HERE = Workers(count=0)


def net(seed, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three checkpoints of one task."""
    (tmp_path / "own.py").write_text(TASK)
    (tmp_path / "weights").mkdir()
    for seed in range(3):
        torch.save(net(seed).state_dict(), tmp_path / "weights" / f"{seed}.pt")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def manifest(folder, rows):
    """A manifest of (name, checkpoint, width, status)."""
    nothing = dict.fromkeys(
        ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap_loss", "gap_accuracy"),
        0.5,
    )
    frame = pd.DataFrame(
        {
            "name": name,
            "checkpoint": checkpoint,
            "initial": "weights/2.pt" if width == 6 else "",
            "task": "own.py:task",
            "arguments": json.dumps({"width": width}),
            "status": status,
            "message": "" if status == "converged" else f"loss 2.5 ({status})",
            "hp.width": width,
            "hp.seed": index,
            **nothing,
            "epochs": 3,
            "gradients": 3.0,
            "seconds": 0.1,
        }
        for index, (name, checkpoint, width, status) in enumerate(rows)
    )
    write_manifest(folder, frame, {"test_examples": 10, "preset": "tiny"})


def run(**settings):
    """A sweep of the three checkpoints in this process."""
    given = {"task": "own.py:task", "workers": HERE, "measures": MEASURES, "out": "out"}
    return sweep("weights/*.pt", **{**given, **settings})


def invoke(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)])


OWN = ("weights/*.pt", "--task", "own.py:task", "--workers", "0", "--out", "out")


def table(folder="out"):
    return pd.read_csv(Path(folder) / "table.csv", index_col="name")


def without_timings(folder):
    return (
        pd.read_csv(Path(folder) / "results.csv")
        .drop(columns=["seconds", "peak_memory"])
        .to_csv(index=False)
    )


def record_files(folder="out"):
    return sorted(Path(folder, "records").glob("*/*-*.json"))


# --- what comes out ---------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_values_are_those_of_an_audit_with_the_same_settings():
    swept = run()
    assert swept.measured == 12
    assert not swept.failed
    for seed in range(3):
        opened = landscape.open_task(
            named_task("own.py:task", {}),
            f"weights/{seed}.pt",
            landscape.Settings(products="loop"),
        )
        alone = landscape.audit(opened.probe, MEASURES)
        row = table().loc[f"weights/{seed}.pt"]
        for result in alone:
            assert row[result.measure] == result.value
        for name, value in opened.metrics().items():
            assert row[name] == value
        assert row["gap_accuracy"] == row["train_accuracy"] - row["test_accuracy"]
        assert row["gap_loss"] == row["test_loss"] - row["train_loss"]


@pytest.mark.usefixtures("folder")
def test_every_measure_of_a_checkpoint_is_a_record_named_by_its_content():
    run()
    assert len(record_files()) == 12
    for index_file in Path("out/records").glob("*/checkpoint.json"):
        index = json.loads(index_file.read_text())
        for measure in landscape.measures.available():
            if measure in MEASURES:
                made = landscape.measures.get(measure)
                key = Store.key(index["identity"], made.label, made.config, 0)
                assert Store(index_file.parent).load(measure, key).measure == made.label


@pytest.mark.usefixtures("folder")
def test_processes_give_the_same_bytes_as_no_process_in_any_order_and_hash_seed(monkeypatch):
    run(out="here")
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    paths = ["weights/2.pt", "weights/0.pt", "weights/1.pt"]
    sweep(paths, MEASURES, "there", task="own.py:task", workers=Workers(count=2))
    here, there = table("here"), table("there")
    assert list(there.index) == paths
    assert there.loc[here.index].to_csv() == here.to_csv()


@pytest.mark.usefixtures("folder")
def test_two_equal_sweeps_give_equal_tables_to_the_byte():
    run(out="first", measures="quick")
    run(out="second", measures="quick")
    first, second = Path("first"), Path("second")
    assert (first / "table.csv").read_bytes() == (second / "table.csv").read_bytes()
    assert without_timings(first) == without_timings(second)


@pytest.mark.usefixtures("folder")
def test_layers_and_scans_have_columns_of_their_own():
    renyi = landscape.measures.get("renyi-sharpness", layers=True)
    rise = landscape.measures.get("max-sharpness", scan="around")
    run(measures=[renyi, rise])
    found, report = table(), json.loads(Path("out/sweep.json").read_text())
    assert report["measures"] == [renyi.label, rise.label]
    radii = [f"{rise.label}@{radius:g}" for radius in rise.all_radii]
    layers = [f"{renyi.label}:{which}-layer" for which in ("first", "last")]
    assert list(report["derived"]) == [*layers, f"{renyi.label}:mean-of-layers", *radii]
    assert list(found.columns[-8:]) == list(report["derived"])
    assert found[radii].apply(lambda row: row.is_monotonic_increasing, axis=1).all()
    assert (found[f"{rise.label}@{rise.radius:g}"] == found[rise.label]).all()
    mean = found[f"{renyi.label}:mean-of-layers"]
    assert np.allclose(mean, found[layers].mean(axis=1))
    assert report["derived"][radii[0]] == {"measure": rise.label, "radius": rise.all_radii[0]}


# --- going on ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_what_is_finished_is_not_loaded_again():
    run()
    before = Path("out/table.csv").read_bytes()
    for path in Path("weights").iterdir():
        os.utime(path, (0, 0))  # the bytes count, not the times
    sys.modules["own"].net = None  # which would fail
    again = run()
    assert again.measured == 0
    assert Path("out/table.csv").read_bytes() == before


@pytest.mark.usefixtures("folder")
def test_more_measures_are_added_to_what_there_is():
    assert run(measures="train-loss").measured == 3
    assert run(measures=("sam-gap", "train-loss")).measured == 3
    assert run(measures="train-loss").measured == 0


@pytest.mark.parametrize(
    "spoil", [lambda text: text[: len(text) // 2], lambda _: "", lambda _: "[1]"]
)
@pytest.mark.usefixtures("folder")
def test_a_spoiled_file_is_measured_anew(spoil):
    run()
    before = Path("out/table.csv").read_bytes(), without_timings("out")
    record, index = record_files()[5], min(Path("out/records").glob("*/checkpoint.json"))
    record.write_text(spoil(record.read_text()))
    assert run().measured == 1
    index.write_text(spoil(index.read_text()))
    assert run().measured == 0
    assert (Path("out/table.csv").read_bytes(), without_timings("out")) == before


@pytest.mark.parametrize("change", ["weights", "code", "seed", "samples", "initial"])
@pytest.mark.usefixtures("folder")
def test_what_changes_a_number_changes_the_record(change):
    run(measures="train-loss")
    settings = {}
    if change == "weights":
        torch.save(net(9).state_dict(), "weights/0.pt")
    elif change == "code":
        Path("own.py").write_text(TASK + "\n# another version\n")
    elif change == "seed":
        settings["seed"] = 1
    elif change == "samples":
        settings["settings"] = landscape.Settings(samples=20)
    else:
        settings["settings"] = landscape.Settings(initial="weights/2.pt")
    assert run(measures="train-loss", **settings).measured == (1 if change == "weights" else 3)


@pytest.mark.usefixtures("folder")
def test_a_partial_sweep_has_tables_too():
    run()
    done = table()
    for path in record_files()[:2]:
        path.unlink()
    report = write_tables(Path("out"))
    assert report["counts"]["unfinished"] >= 1
    partial = table()
    assert partial[list(MEASURES)].isna().to_numpy().sum() == 2
    assert run().measured == 2
    pd.testing.assert_frame_equal(table(), done)


@pytest.mark.usefixtures("folder")
def test_checkpoints_that_failed_are_found_again_without_loading_them(monkeypatch):
    for seed in range(100):
        Path(f"weights/{seed}.pt").write_bytes(b"no checkpoint %d" % seed)
    first = run(measures="train-loss")
    assert first.report["counts"]["failed"] == 100
    monkeypatch.setattr("landscape.populations.bench.open_task", None)
    again = run(measures="train-loss")
    assert again.measured == 0
    assert again.report["counts"] == first.report["counts"]


# --- manifests --------------------------------------------------------------------------------


def test_a_manifest_says_task_arguments_and_initial_weights_of_every_row(folder):
    torch.save(net(5, width=8).state_dict(), "weights/wide.pt")
    manifest(
        folder,
        [
            ("a", "weights/0.pt", 6, "converged"),
            ("b", "weights/wide.pt", 8, "converged"),
            ("c", "weights/1.pt", 6, "not converged"),
            ("d", "", 6, "diverged"),
        ],
    )
    swept = sweep(folder, ("train-loss", "parameter-distance"), "out", workers=HERE)
    found = table()
    assert list(found["status"]) == ["measured", "measured", "skipped", "skipped"]
    assert list(found["training_status"])[2:] == ["not converged", "diverged"]
    assert "not converged" in found["message"]["c"]
    assert found["train-loss"].notna().tolist() == [True, True, False, False]
    assert found["parameter-distance"].notna().tolist() == [True, False, False, False]
    assert found["train_loss"].notna().tolist() == [True, True, False, False]  # not the manifest's
    assert list(found["hp.width"]) == [6, 8, 6, 6]
    assert swept.report["test_examples"] == 10
    assert swept.report["population"]["preset"] == "tiny"
    everything = sweep(folder / "manifest.csv", "train-loss", "out", workers=HERE, everything=True)
    assert everything.measured == 1
    assert list(table()["status"]) == ["measured"] * 3 + ["skipped"]


def test_a_population_may_be_moved(folder, tmp_path_factory):
    manifest(folder, [("a", "weights/0.pt", 6, "converged")])
    sweep(folder, "train-loss", "out", workers=HERE)
    elsewhere = tmp_path_factory.mktemp("moved") / "population"
    folder.rename(elsewhere)
    again = sweep(elsewhere, "train-loss", elsewhere / "out", workers=HERE)
    assert again.measured == 0
    elsewhere.rename(folder)


@pytest.mark.usefixtures("folder")
def test_data_and_model_are_made_once_for_a_kind():
    task = named_task("own.py:task", {})
    kept = Kept(task)
    for seed in range(3):
        opened = landscape.open_task(task, f"weights/{seed}.pt", kept=kept)
        fresh = landscape.open_task(task, f"weights/{seed}.pt")
        assert opened.probe.identity() == fresh.probe.identity()
        assert opened.metrics() == fresh.metrics()
    assert len(sys.modules["own"].reads) == 1 + 3


def test_a_worker_stays_with_its_kind():
    kinds = [kind_of("landscape.tasks:digits_nets", {"width": width}) for width in (4, 8)]
    job = functools.partial(Job, checkpoint=Path("w.pt"), initial=None)
    jobs = [job(key=str(number), kind=kinds[number % 2]) for number in range(8)]
    queue = Queue(jobs)
    taken = [(queue.take(0), queue.take(1)) for _ in range(3)]
    assert {first.kind.key for first, _ in taken} == {kinds[0].key}
    assert {second.kind.key for _, second in taken} == {kinds[1].key}
    rest = [queue.take(0), queue.take(0)]
    assert {one.kind.key for one in rest} == {kind.key for kind in kinds}
    assert not queue


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_that_cannot_be_read_is_a_row_and_exit_code_1():
    whole = Path("weights/1.pt").read_bytes()
    Path("weights/1.pt").write_bytes(whole[: len(whole) // 2])
    done = invoke(*OWN, "--measures", "train-loss,sam-gap")
    assert done.exit_code == 1, done.output
    assert "2 of 3 checkpoints measured, 1 failed" in done.stdout
    found = table()
    assert list(found["status"]) == ["measured", "failed", "measured"]
    assert "truncated" in found["message"]["weights/1.pt"]
    rows = pd.read_csv("out/results.csv").set_index(["name", "measure"])
    assert list(rows.loc["weights/1.pt"]["status"]) == ["failed", "failed"]
    Path("weights/1.pt").write_bytes(whole)  # another content is another checkpoint
    assert invoke(*OWN, "--measures", "train-loss,sam-gap").exit_code == 0


BROKEN = '''
from landscape.measures import Measure
from landscape.results import Estimate
from pathlib import Path
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class Fragile(Measure):
    """Raises while there is a file."""
    name, meaning, formula, source, cost_class = "fragile", "", "", "", "free"

    def estimate(self, probe, seed):
        if Path("broken").exists():
            raise RuntimeError("out of order")
        return Estimate.exact(1.0)
'''


def test_a_measure_that_raises_is_a_row_and_measured_again_on_demand(folder):
    (folder / "fragile.py").write_text(BROKEN)
    sys.path.insert(0, str(folder))
    try:
        from fragile import Fragile
    finally:
        sys.path.remove(str(folder))
    measures = ["train-loss", Fragile()]
    Path("broken").touch()
    swept = run(measures=measures)
    assert swept.failed == 3
    assert {entry["message"] for entry in swept.report["failures"]} == {
        "RuntimeError: out of order"
    }
    assert list(table()["status"]) == ["measured"] * 3
    Path("broken").unlink()
    assert run(measures=measures).measured == 0
    assert run(measures=measures, retry_failed=True).measured == 3
    assert list(table()["fragile"]) == [1, 1, 1]


WRONG = {
    "no file": (("gone/*.pt",), "gone/*.pt matches no file"),
    "a folder without checkpoints": (("empty",), "there is no checkpoint in empty"),
    "an unknown measure": ((*OWN, "--measures", "hessian-trance"), "unknown measure"),
    "an unknown task": (("weights/*.pt", "--task", "mnist"), "unknown task 'mnist'"),
    "a task that is not there": (("weights", "--task", "own.py:mask"), "own.py has no 'mask'"),
    "data that raise": (("weights", "--task", "own.py:no_data"), "(own.py, line 26)"),
    "a task beside a manifest": (("pop", "--task", "own.py:task"), "--task: the manifest says"),
    "a manifest that is none": (("weights.csv",), "has no column checkpoint"),
    "a manifest beside files": (
        ("pop", "weights"),
        "pop is a manifest, and a manifest stands alone",
    ),
    "two manifests": (("pop", "pop"), "a manifest stands alone"),
    "a pattern of manifests": (("po*", "weights"), "a manifest stands alone"),
    "a design": (("design.yaml",), "design.yaml is no checkpoint; give weights"),
    "a design among files": (("*/*.p[ty]", "design.yaml"), "design.yaml is no checkpoint"),
    "code": (("own.p*", "--task", "own.py:task"), "own.py is no checkpoint"),
    "no task": (("weights",), "digits is assumed, since neither --task nor --model is given, but "),
    "an address for local": ((*OWN, "--address", "auto"), "address belongs to engine ray"),
    "too many samples": ((*OWN, "--samples", "99"), "between 1 and 30"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_line_and_nothing_is_written(name, folder):
    (folder / "empty").mkdir()
    (folder / "pop").mkdir()
    (folder / "design.yaml").write_text("preset: tiny")
    manifest(folder / "pop", [("a", "weights/0.pt", 6, "converged")])
    Path("weights.csv").write_text("name\na\n")
    arguments, words = WRONG[name]
    before = sorted(folder.iterdir())
    done = invoke(*arguments)
    assert done.exit_code == 2, (done.output, done.exception)
    (line,) = done.stderr.splitlines()
    assert line.startswith("landscape: ")
    assert words in line
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.usefixtures("folder")
def test_checkpoints_of_digits_need_no_task_and_others_fail_where_it_is_named():
    torch.save(landscape.tasks.DigitsNet().state_dict(), "digits.pt")
    asked = ("--measures", "parameter-norm", "--workers", "0", "--samples", "20")
    done = invoke("weights/0.pt", "digits.pt", *asked, "--out", "some")
    assert done.exit_code == 1, done.output
    assert list(table("some")["status"]) == ["failed", "measured"]
    done = invoke("weights/0.pt", *asked, "--task", "digits", "--out", "none")
    assert done.exit_code == 1, done.output
    assert list(table("none")["status"]) == ["failed"]


@pytest.mark.usefixtures("folder")
def test_the_command_goes_on_and_says_what_is_left():
    first = invoke(*OWN, "--measures", "train-loss")
    assert first.exit_code == 0, first.output
    assert first.stderr == "3 of 3 checkpoints to do, 1 measures each\n"
    assert first.stdout.startswith("3 of 3 checkpoints measured; ")
    again = invoke("--config", "out/config.yaml", *OWN[:1])
    assert again.exit_code == 0, again.output
    assert again.stderr.startswith("0 of 3 checkpoints to do")


@pytest.mark.usefixtures("folder")
def test_a_checkpoint_given_twice_is_measured_once():
    Path("weights/copy.pt").write_bytes(Path("weights/0.pt").read_bytes())
    ready = Sweep(
        rows_of(["weights", "weights/0.pt"], "own.py:task"), "train-loss", "out", workers=HERE
    )
    assert len(ready.rows.rows) == 4
    assert len(ready.todo) == 3
    assert ready.run().measured == 3
    assert table()["train-loss"].nunique() == 3
