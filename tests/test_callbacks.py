"""Hooks into training: they change nothing, lose nothing and stop nothing."""

from __future__ import annotations

import copy
import dataclasses
import logging
import random
import re
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import landscape
from landscape.callbacks import (
    LightningMonitor,
    Monitor,
    TensorBoardExporter,
    TrainerMonitor,
    WandbExporter,
)
from landscape.callbacks.row import COLUMNS
from landscape.results import Estimate

MEASURES = ["gradient-norm", "train-loss"]
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "measures-while-training.md"
EIGENVALUE = landscape.measures.get("hessian-top-eigenvalue", steps=8, probes=2, probe_steps=4)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


def data(count=24):
    source = torch.Generator().manual_seed(1)
    return torch.utils.data.TensorDataset(
        torch.randn(count, 4, generator=source), torch.randint(0, 3, (count,), generator=source)
    )


def batches():
    return [data()[:8], data()[8:12]]


def optimizer_of(model, rate=0.1):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def train(monitor=None, steps=range(6), model=None, loader=None):
    """A plain loop with dropout, batch norm and a loader that draws from a generator."""
    model = net() if model is None else model
    optimizer = optimizer_of(model)
    source = torch.Generator().manual_seed(2)
    loader = loader or torch.utils.data.DataLoader(data(), 4, shuffle=True, generator=source)
    torch.manual_seed(3)
    for step, (inputs, targets) in zip(steps, loader, strict=False):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        if monitor is not None:
            monitor.step(model, step, optimizer=optimizer, epoch=0)
    return state(model, optimizer)


def state(model, *optimizers):
    """Everything that two trainings must have in common, as bytes."""
    return {
        "weights": {k: v.numpy().tobytes() for k, v in model.state_dict().items()},
        "grad": [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "optimizers": [as_bytes(optimizer.state_dict()) for optimizer in optimizers],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "python": random.getstate(),
    }


def as_bytes(nested):
    if isinstance(nested, dict):
        return {key: as_bytes(value) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return [as_bytes(value) for value in nested]
    return nested.numpy().tobytes() if isinstance(nested, torch.Tensor) else nested


def monitored(**settings):
    return Monitor("cross_entropy", batches(), **{"measures": MEASURES, "every": 2} | settings)


def reads(path):
    numbers = set(COLUMNS) - {"measure", "status", "message"}
    return pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failing(landscape.Measure):
    """Fails from its second call on; draws from every random state."""

    name = "failing"
    cost_class = "cheap"
    calls: ClassVar[list] = []

    def estimate(self, probe, seed):  # noqa: ARG002
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        self.calls.append(seed)
        if len(self.calls) > 1:
            raise RuntimeError("no luck,\ntoday")
        return Estimate.exact(1.0)


@pytest.fixture(autouse=True)
def fresh_calls():
    Failing.calls.clear()


# A plain loop


def test_a_plain_loop_is_bit_identical_with_a_monitor(tmp_path):
    random.seed(0), np.random.seed(0)  # noqa: NPY002
    alone = train()
    monitor = monitored(measures=[*MEASURES, EIGENVALUE, Failing()], out=tmp_path / "rows.csv")
    assert train(monitor) == alone
    assert monitor.frame.step.unique().tolist() == [0, 2, 4]


def test_a_loader_that_shares_its_generator_with_training_changes_nothing():
    def trained(make_monitor):
        source = torch.Generator().manual_seed(5)
        held_out = torch.utils.data.DataLoader(data(), 8, generator=source)
        loader = torch.utils.data.DataLoader(data(), 4, shuffle=True, generator=source)
        monitor = make_monitor(held_out)
        after = train(monitor, loader=loader)
        return after, source.get_state().tolist(), monitor

    without = trained(lambda _: None)
    watched = trained(lambda held_out: Monitor("cross_entropy", held_out, MEASURES, every=1))
    assert watched[:2] == without[:2]
    assert set(watched[2].frame.status) == {"ok"}


def test_the_numbers_are_those_of_an_audit_of_the_same_weights():
    monitor, model = monitored(seed=4, measures=[EIGENVALUE, "train-loss"]), net()
    monitor.measure(model, 7)
    probe = landscape.Probe(model, "cross_entropy", batches())
    table = landscape.audit(probe, [EIGENVALUE, "train-loss"], seed=4)
    for row in monitor.rows:
        result = table[row.measure]
        assert (row.value, row.stderr) == (result.value, result.stderr)
        assert (row.low, row.high) == result.interval
        assert row.passes == result.cost.passes


def test_the_edge_is_that_of_the_optimiser_beside_the_top_eigenvalue_only():
    monitor, model = monitored(measures=[EIGENVALUE, "train-loss"]), net()
    monitor.measure(model, 0, optimizer=optimizer_of(model, 0.05))
    groups = [{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.1}]
    monitor.measure(model, 1, optimizer=torch.optim.SGD(groups, lr=0.2))
    monitor.measure(model, 2)
    frame = monitor.frame.pivot_table("edge", "step", "measure", dropna=False)
    assert frame.loc[0, "hessian-top-eigenvalue"] == pytest.approx(2 * 1.9 / 0.05)
    assert frame.isna().sum().sum() == 5
    assert monitor.frame.learning_rate.isna().tolist() == [False, False, True, True, True, True]


def test_settings_go_to_the_probe():
    monitor = monitored(dtype=torch.float64, batch_norm="batch", measures="train-loss")
    monitor.measure(net(), 0)
    probe = landscape.Probe(
        net(), "cross_entropy", batches(), dtype=torch.float64, batch_norm="batch"
    )
    assert monitor.rows[0].value == probe.loss()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every": 0}, "every must be a positive number of steps"),
        ({"every": "day"}, "every must be a positive number of steps"),
        ({"seed": -1}, "seed must be a non-negative"),
        ({"measures": "hessian-trice"}, "did you mean hessian-trace"),
        ({"dtyp": torch.float64}, "no setting dtyp"),
    ],
)
def test_wrong_settings_are_refused_before_training(settings, words):
    with pytest.raises(ValueError, match=words):
        monitored(**settings)


def test_wrong_objectives_batches_and_models_are_refused():
    with pytest.raises(ValueError, match="unknown objective"):
        Monitor("entropy", batches())
    with pytest.raises(TypeError, match="walkable many times"):
        Monitor("cross_entropy", iter(batches()))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got str"):
        monitored().measure("model", 0)


# What fails


def test_a_measure_that_fails_is_a_row_and_is_logged_once(caplog):
    monitor = monitored(measures=[Failing(), "train-loss"])
    assert train(monitor) == train()
    failing = monitor.frame.query("measure == 'failing'")
    assert failing.status.tolist() == ["ok", "failed", "failed"]
    assert failing.message.iloc[1] == "RuntimeError: no luck, today"
    assert failing.value.isna().tolist() == [False, True, True]
    assert monitor.frame.query("measure == 'train-loss'").status.tolist() == ["ok"] * 3
    assert [record.message for record in caplog.records if "luck" in record.message] == [
        "failing failed at step 2: RuntimeError: no luck, today (said once)"
    ]


def test_a_model_that_diverged_gives_rows_that_say_so(caplog):
    model = net()
    nn.init.constant_(model[4].weight, torch.nan)
    monitor = monitored()
    monitor.measure(model, 0)
    monitor.measure(model, 2)
    assert monitor.frame.status.tolist() == ["failed"] * 4
    assert "the loss at the checkpoint is nan" in monitor.frame.message[0]
    assert len(caplog.records) == 1


def test_an_exporter_and_a_file_that_fail_do_not_stop_training(caplog, tmp_path):
    class Broken:
        def export(self, step, rows):  # noqa: ARG002
            raise OSError("no network")

    (tmp_path / "no folder").write_text("")
    monitor = monitored(exporters=[Broken()], out=tmp_path / "no folder" / "rows.csv")
    assert train(monitor) == train()
    assert len(monitor.frame) == 6
    assert sorted(record.message.split(" ")[0] for record in caplog.records) == ["Broken", "file"]


def test_steps_that_begin_anew_every_epoch_are_told(caplog):
    monitor, model = monitored(), net()
    for step in (0, 1, 2, 0, 2, 0):
        monitor.step(model, step)
    assert monitor.frame.step.tolist() == [0, 0, 2, 2]
    assert len([record for record in caplog.records if "count steps on" in record.message]) == 1
    monitor.begin(0)
    assert len(monitor.step(model, 0)) == len(monitor.rows) == 2


# The file


def test_the_file_holds_the_frame(tmp_path):
    path = tmp_path / "run" / "rows.csv"
    monitor = monitored(out=path, measures=[EIGENVALUE, "train-loss", Failing()])
    train(monitor)
    pd.testing.assert_frame_equal(reads(path), monitor.frame, check_dtype=False)
    assert tuple(reads(path).columns) == COLUMNS
    assert path.read_text().count("step,epoch") == 1
    assert pd.read_csv(path).value.isna().sum() == 2  # NaN by pandas' own defaults
    pd.testing.assert_frame_equal(monitored(out=path).frame, monitor.frame)


def test_each_number_is_in_the_file_before_the_next_is_measured(tmp_path):
    path = tmp_path / "rows.csv"

    class Killed(BaseException):
        pass

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Kill(landscape.Measure):
        name = "kill"
        cost_class = "cheap"

        def estimate(self, probe, seed):  # noqa: ARG002
            raise Killed

    monitor = monitored(out=path, measures=["train-loss", Kill(), "gradient-norm"])
    with pytest.raises(Killed):
        train(monitor)
    assert reads(path).measure.tolist() == ["train-loss"]


def test_resumed_training_repeats_nothing_and_takes_out_later_rows(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    train(monitored(out=path), range(6))
    before = path.read_text()
    seconds = reads(path).query("step <= 2").seconds.tolist()
    resumed = monitored(out=path)
    resumed.step(net(), 2)  # as after a checkpoint at step 2
    assert reads(path).step.tolist() == [0, 0, 2, 2]
    assert reads(path).seconds.tolist() == seconds  # not measured again
    assert (tmp_path / "rows.csv.old").read_text() == before
    assert "2 rows of later steps" in caplog.text
    resumed.step(net(), 4)
    assert reads(path).step.tolist() == [0, 0, 2, 2, 4, 4]


def test_a_step_that_was_measured_in_part_is_completed(tmp_path):
    path = tmp_path / "rows.csv"
    train(monitored(out=path, measures="train-loss"), range(2, 6))
    resumed = monitored(out=path)
    assert [row.measure for row in resumed.step(net(), 4)] == ["gradient-norm"]
    assert reads(path).measure.tolist() == ["train-loss", "train-loss", "gradient-norm"]


def test_a_new_run_begins_the_file_anew(tmp_path):
    path = tmp_path / "rows.csv"
    train(monitored(out=path))
    before = path.read_text()
    train(monitored(out=path, measures="train-loss"), range(1))
    assert reads(path).measure.tolist() == ["train-loss"]
    assert (tmp_path / "rows.csv.old").read_text() == before


def test_a_line_that_a_kill_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "rows.csv"
    train(monitored(out=path))
    whole = reads(path)
    for lost in (5, len(path.read_text().splitlines()[-1]) + 1):
        path.write_text(path.read_text()[:-lost])
        monitored(out=path).step(net(), 4)
        assert reads(path)[["step", "measure"]].equals(whole[["step", "measure"]])


@pytest.mark.parametrize("length", [0, 10, 1000])
def test_a_file_cut_off_in_its_header_is_begun_anew(tmp_path, length):
    path = tmp_path / "rows.csv"
    path.write_text((",".join(COLUMNS) + "\n")[:length])
    monitored(out=path).step(net(), 4)
    assert len(reads(path)) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("step,loss\n1,2\n", "has other columns than this version writes"),
        ("my notes", "has other columns"),
        (",".join(COLUMNS) + "\n1,,a,,,,,," + "x" * 200_000 + ",,,,\n", "line 2 cannot be read"),
        (",".join(COLUMNS) + "\n1,,train-loss,many" + "," * 9 + "\n", "line 2 cannot be read"),
        (",".join(COLUMNS) + "\n1,2\n", "line 2 cannot be read .expected 13 cells, got 2"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content, words):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        monitored(out=path)
    assert path.read_text() == content
    with pytest.raises(ValueError, match="is no file"):
        monitored(out=tmp_path)


# Wrappers and processes


# torch imports its own compiler, which still uses torch.jit.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_wrappers_are_taken_off():
    plain = monitored()
    plain.measure(net(), 0)
    for wrapped in (
        torch.compile(net()),
        nn.DataParallel(net()),
        nn.DataParallel(torch.compile(net())),
    ):
        monitor = monitored()
        monitor.measure(wrapped, 0)
        assert monitor.frame.value.tolist() == plain.frame.value.tolist()


def test_a_model_with_a_submodule_named_module_is_measured_whole():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.head = net(), nn.Linear(3, 3)

        def forward(self, inputs):
            return self.head(self.module(inputs))

    monitor = monitored(measures="parameter-count")
    monitor.measure(Outer(), 0)
    assert monitor.rows[0].value == sum(p.numel() for p in Outer().parameters())


def _process(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    monitor = monitored(out=Path(folder) / f"rank{rank}.csv")
    model = nn.parallel.DistributedDataParallel(net())
    rows = monitor.step(model, 0)
    (Path(folder) / f"count{rank}").write_text(str(len(rows)))
    torch.distributed.destroy_process_group()


# Python warns of forks beside the threads of torch; the children only compute.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_only_the_first_process_measures_and_ddp_is_taken_off(tmp_path):
    torch.multiprocessing.start_processes(_process, (str(tmp_path),), 2, start_method="fork")
    assert [(tmp_path / f"count{rank}").read_text() for rank in (0, 1)] == ["2", "0"]
    assert set(reads(tmp_path / "rank0.csv").status) == {"ok"}
    assert not (tmp_path / "rank1.csv").exists()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_model_on_a_gpu_takes_batches_from_the_cpu():
    monitor = monitored(measures=["train-loss", EIGENVALUE])
    state_before = torch.cuda.get_rng_state()
    monitor.measure(net().cuda(), 0)
    assert monitor.frame.status.tolist() == ["ok", "ok"]
    assert torch.equal(torch.cuda.get_rng_state(), state_before)


# Lightning


def lightning_fit(callbacks, folder, package="lightning.pytorch", **settings):
    lightning = pytest.importorskip(package)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, _index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, _index):
            nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return optimizer_of(self)

    torch.manual_seed(3)
    module = Module()
    checkpoint = settings.pop("ckpt_path", None)
    trainer = lightning.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            "callbacks": callbacks,
            **settings,
        }
    )
    loader = torch.utils.data.DataLoader(data(), 8, shuffle=True)
    held_out = torch.utils.data.DataLoader(data(), 8)
    trainer.fit(module, loader, held_out, ckpt_path=checkpoint)
    return trainer, state(module, *trainer.optimizers)


quiet = pytest.mark.filterwarnings("ignore")  # Lightning and the Trainer warn of small data


@quiet
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_is_bit_identical_and_counts_optimiser_steps(tmp_path, package):
    _, alone = lightning_fit([], tmp_path, package)
    monitor = monitored(measures=[*MEASURES, Failing()])
    _, watched = lightning_fit([LightningMonitor(monitor)], tmp_path, package)
    assert watched == alone
    # 3 batches an epoch; nothing from the sanity check, which runs before step 0.
    assert monitor.frame.step.unique().tolist() == [0, 2, 4, 6]
    assert monitor.frame.query("measure == 'train-loss'").epoch.tolist() == [0, 0, 1, 1]
    assert set(monitor.frame.learning_rate) == {0.1}


@quiet
def test_lightning_steps_are_not_batches_and_an_attribute_can_be_measured(tmp_path):
    monitor = monitored(every=1)
    callback = LightningMonitor(monitor, module="net")
    lightning_fit([callback], tmp_path, accumulate_grad_batches=3)
    assert monitor.frame.step.unique().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="has no attribute 'nut' to measure; its modules are net"):
        lightning_fit([LightningMonitor(monitor, module="nut")], tmp_path)


@quiet
def test_lightning_resumes_into_the_same_file(tmp_path):
    path = tmp_path / "rows.csv"
    first, _ = lightning_fit([LightningMonitor(monitored(out=path))], tmp_path)
    first.save_checkpoint(tmp_path / "at6.ckpt")
    before = reads(path)
    callback = LightningMonitor(monitored(out=path))
    lightning_fit([callback], tmp_path, max_epochs=3, ckpt_path=tmp_path / "at6.ckpt")
    after = reads(path)
    assert after.step.unique().tolist() == [0, 2, 4, 6, 8]
    pd.testing.assert_frame_equal(after[:8], before, check_dtype=False)


@quiet
def test_lightning_measures_at_the_ends_of_epochs(tmp_path):
    monitor = monitored(every="epoch")
    lightning_fit([LightningMonitor(monitor)], tmp_path)
    assert monitor.frame.step.unique().tolist() == [3, 6]


# Hugging Face


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def classifier_losses(model, batch):
    logits = model(batch["inputs"], batch["labels"])["logits"]
    return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


def examples():
    return [{"inputs": inputs, "labels": label} for inputs, label in data()]


def classifier_monitor(**settings):
    batch = {key: torch.stack([row[key] for row in examples()]) for key in ("inputs", "labels")}
    return Monitor(classifier_losses, [batch], **{"measures": MEASURES, "every": 2} | settings)


def trainer_fit(callbacks, folder, resume=None, **settings):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    arguments = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "lr_scheduler_type": "constant",
            "learning_rate": 0.01,
            "weight_decay": 0.1,
            **settings,
        }
    )
    trainer = transformers.Trainer(
        Classifier(), arguments, train_dataset=examples(), callbacks=callbacks
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, state(trainer.model, trainer.optimizer)


@quiet
def test_the_trainer_is_bit_identical_and_counts_optimiser_steps(tmp_path):
    _, alone = trainer_fit([], tmp_path)
    monitor = classifier_monitor(measures=[*MEASURES, Failing()])
    _, watched = trainer_fit([TrainerMonitor(monitor)], tmp_path)
    assert watched == alone
    assert monitor.frame.step.unique().tolist() == [0, 2, 4, 6]
    assert monitor.frame.query("measure == 'train-loss'").epoch.iloc[-1] == 2
    assert set(monitor.frame.learning_rate) == {0.01}


@quiet
def test_the_trainer_resumes_into_the_same_file(tmp_path):
    path, folder = tmp_path / "rows.csv", tmp_path / "run"
    settings = {"save_strategy": "steps", "save_steps": 4, "num_train_epochs": 2}
    trainer_fit([TrainerMonitor(classifier_monitor(out=path))], folder, **settings)
    before = reads(path)
    callback = TrainerMonitor(classifier_monitor(out=path))
    trainer_fit([callback], folder, resume=str(folder / "checkpoint-4"), **settings)
    after = reads(path)
    assert after.step.tolist() == before.step.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    pd.testing.assert_frame_equal(after[:6], before[:6])
    assert after.seconds[6] != before.seconds[6]  # measured again, after the checkpoint


@quiet
def test_the_trainer_measures_at_the_ends_of_epochs_and_in_full_precision(tmp_path):
    monitor = classifier_monitor(every="epoch")
    trainer, _ = trainer_fit([TrainerMonitor(monitor)], tmp_path, bf16=True)
    assert monitor.frame.step.unique().tolist() == [3, 6]
    clean = Classifier()
    clean.load_state_dict(copy.deepcopy(trainer.model.state_dict()))
    again = classifier_monitor()
    again.measure(clean, 6)
    assert monitor.frame.value.tolist()[2:] == again.frame.value.tolist()


# Exporters


def test_tensorboard_reads_the_numbers_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monitor = monitored(
        measures=[EIGENVALUE, "train-loss", Failing()], exporters=[TensorBoardExporter(tmp_path)]
    )
    train(monitor)
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    top = monitor.frame.query("measure == 'hessian-top-eigenvalue'")
    for tag, column in (("", "value"), ("/low", "low"), ("/high", "high"), ("/edge", "edge")):
        read = events.Scalars(f"landscape/hessian-top-eigenvalue{tag}")
        assert [event.step for event in read] == [0, 2, 4]
        assert [event.value for event in read] == pytest.approx(top[column].tolist(), rel=1e-6)
    assert len(events.Scalars("landscape/failing")) == 1  # the rows without a number are left out


@pytest.mark.slow  # starts a process of wandb's own
def test_wandb_keeps_the_numbers_of_a_run_that_counts_steps_faster(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="landscape") as run:
        for count in range(20):
            run.log({"other": count})
        monitor = monitored(exporters=[WandbExporter(run)])
        train(monitor)
        last = monitor.frame.query("step == 4").set_index("measure")
        assert run.summary["landscape/step"] == 4
        for measure in MEASURES:
            assert run.summary[f"landscape/{measure}"] == last.value[measure]
            assert run.summary[f"landscape/{measure}/low"] == last.low[measure]
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 60  # another process writes it
    while b"landscape/gradient-norm/high" not in record.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_is_missing_is_said_with_what_to_install(monkeypatch, tmp_path):
    for name in list(sys.modules):
        if name.split(".")[0] in {"lightning", "pytorch_lightning", "transformers", "tensorboard"}:
            monkeypatch.delitem(sys.modules, name)
    for name in ("lightning", "pytorch_lightning", "transformers", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for make, install in (
        (lambda: LightningMonitor(monitored()), "pip install lightning"),
        (lambda: TrainerMonitor(monitored()), re.escape("pip install 'transformers[torch]'")),
        (lambda: TensorBoardExporter(tmp_path), "pip install tensorboard"),
    ):
        with pytest.raises(ValueError, match=f"^[A-Za-z]* needs a library .*: {install}$"):
            make()
    with pytest.raises(TypeError, match=r"wandb.init\(\) returns, got NoneType.*pip install wandb"):
        WandbExporter(None)


# The page


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@quiet
@pytest.mark.parametrize("block", BLOCKS, ids=["loop", "lightning", "trainer"])
def test_the_blocks_of_the_page_run(block, tmp_path, monkeypatch, capsys):
    for library in ("lightning", "transformers"):
        if f"from {library}" in block or f"import {library}" in block:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})
    assert "value" in capsys.readouterr().out
    (rows,) = tmp_path.glob("run/*.csv")
    assert set(reads(rows).status) <= {"ok", "uncertain"}
    assert len(block.splitlines()) < 41
