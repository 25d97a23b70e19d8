"""What was once loaded or counted wrongly: dtypes, averages, padding, shifted labels, arguments."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import generator, labelled, mlp
from torch import nn
from typer.testing import CliRunner

import landscape
from landscape import Probe, Settings, Task, open_task
from landscape.cli import app
from landscape.tasks import parsed
from landscape.tasks.checkpoints import Checkpoint, CheckpointError

transformers = pytest.importorskip("transformers")
DATA = labelled(7, 5)


def task(**changes):
    return Task(**{"model": mlp, "objective": "cross_entropy", "train": DATA} | changes)


def test_a_float32_checkpoint_is_not_rounded_to_the_type_of_the_model(tmp_path):
    torch.save(mlp().state_dict(), tmp_path / "w.pt")
    opened = open_task(task(model=lambda: mlp().bfloat16()), tmp_path / "w.pt")
    assert opened.probe.loss() == Probe(mlp(), "cross_entropy", DATA).loss()
    assert opened.probe.provenance()["handled"] == []
    torch.save(mlp().double().state_dict(), tmp_path / "d.pt")
    assert open_task(task(), tmp_path / "d.pt").probe.dtype == torch.float64


def test_averages_are_not_taken_for_the_weights():
    averaged = nn.Sequential(*copy.deepcopy(mlp()))
    nn.init.zeros_(averaged[0].weight)
    state = {f"ema_model.{k}": v for k, v in averaged.state_dict().items()}
    state |= {f"model.{k}": v for k, v in mlp().state_dict().items()}
    model = nn.Sequential(*copy.deepcopy(mlp()))
    nn.init.zeros_(model[2].weight)
    notes = Checkpoint(path=Path("w.pt"), state=state).load_into(model, allow_missing=True)
    assert torch.equal(model[0].weight, mlp()[0].weight)
    assert "prefix 'model.' removed from the names" in notes


def test_two_sets_of_weights_that_fit_alike_are_refused():
    state = {
        f"{name}.{k}": v for name in ("student", "tutor") for k, v in mlp().state_dict().items()
    }
    with pytest.raises(CheckpointError, match=r"twice, under 'student\.' and 'tutor\.'"):
        Checkpoint(path=Path("w.pt"), state=state).load_into(mlp(), allow_missing=True)


def test_weights_before_training_need_no_average(tmp_path):
    torch.save({"model": mlp().state_dict(), "ema": mlp().state_dict()}, tmp_path / "w.pt")
    torch.save(mlp().state_dict(), tmp_path / "init.pt")
    settings = Settings(ema=True, initial=str(tmp_path / "init.pt"))
    opened = open_task(task(), tmp_path / "w.pt", settings)
    assert torch.equal(opened.probe.initial, opened.probe.weights())


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config).eval()


def test_padding_on_the_left_makes_no_terms(gpt2):
    ids = torch.randint(3, 50, (1, 6), generator=generator())
    padded = torch.cat([torch.ones(1, 3, dtype=torch.long), ids], 1)
    batch = {
        "input_ids": padded,
        "attention_mask": (torch.arange(9) >= 3).long()[None],
        "position_ids": (torch.arange(9) - 3).clamp_min(0)[None],
    }
    plain = Probe(gpt2, "causal_lm", [{"input_ids": ids}])
    left = Probe(gpt2, "causal_lm", [batch])
    assert left.terms == plain.terms == 5
    assert left.loss() == pytest.approx(plain.loss(), rel=1e-6)


def test_labels_that_are_shifted_already_are_refused(gpt2):
    text = torch.randint(3, 50, (2, 9), generator=generator())
    with pytest.raises(ValueError, match="those of the following tokens already"):
        Probe(gpt2, "causal_lm", [(text[:, :-1], text[:, 1:])])
    shifted = Probe(gpt2, "masked_lm", [(text[:, :-1], text[:, 1:])])
    assert shifted.loss() == pytest.approx(
        Probe(gpt2, "causal_lm", [{"input_ids": text}]).loss(), rel=1e-6
    )


def test_a_class_without_an_output_is_told():
    with pytest.raises(ValueError, match="class for which the model has no output"):
        Probe(mlp(), "cross_entropy", labelled(7, classes=9))


def test_a_metric_of_a_whole_batch_is_refused():
    mean = {"share": lambda outputs, batch: (outputs.argmax(1) == batch[1]).float().mean()}
    with pytest.raises(ValueError, match="metric 'share' gives one number for a batch"):
        open_task(task(metrics=mean)).metrics()
    each = {"share": lambda outputs, batch: (outputs.argmax(1) == batch[1]).float()}
    found = open_task(task(metrics=each)).metrics()
    assert found["train_share"] == pytest.approx(open_task(task()).metrics()["train_accuracy"])


def test_test_data_that_change_are_refused():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, _):
            return torch.randn(4), torch.tensor(0)

    with pytest.raises(ValueError, match="two walks over the test data"):
        open_task(task(test=Noisy()))


def test_arguments_are_read_as_numbers_where_they_are_such():
    texts = [
        "a=1e-3",
        "b=3",
        "c=true",
        "d=None",
        "e=[1,2]",
        "f=on",
        "g=12:30",
        "h=.5",
        "i=1e5",
        "j=relu",
        "k=",
    ]
    assert parsed(texts) == {
        "a": 1e-3,
        "b": 3,
        "c": True,
        "d": None,
        "e": [1, 2],
        "f": "on",
        "g": "12:30",
        "h": 0.5,
        "i": 1e5,
        "j": "relu",
        "k": "",
    }


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_config_of_an_audit_serves_the_other_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("audit", "--samples", 60, "--measures", "train-loss", "--out", "out")
    assert done.exit_code == 0, done.output
    done = run("validate", "--config", "out/config.yaml")
    assert done.exit_code == 0, done.output
    assert "60 examples of 1,000" in done.output


def test_yes_is_no_number(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"samples": True}))
    done = run("audit", "--config", tmp_path / "c.yaml", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_folders_do_not_lend_their_modules_to_each_other(tmp_path):
    for name, width in (("one", 3), ("two", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sizes.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / name / f"net_{name}.py").write_text(
            "import landscape, torch\nfrom sizes import WIDTH\n"
            "task = landscape.Task(model=lambda: torch.nn.Linear(WIDTH, 2), objective='mse', "
            "train=(torch.ones(4, WIDTH), torch.ones(4, 2)))\n"
        )
    sizes = {}
    for name in ("one", "two"):
        out = tmp_path / f"out-{name}"
        done = run(
            "audit", "--task", f"{tmp_path}/{name}/net_{name}.py:task", "--measures",
            "parameter-count", "--out", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        sizes[name] = json.loads((out / "report.json").read_text())["results"][0]["value"]
    assert sizes == {"one": 8, "two": 12}
    assert landscape.__file__  # still ours
