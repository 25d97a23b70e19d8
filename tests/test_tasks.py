"""The embedded digits task."""

from __future__ import annotations

import json
from functools import partial

import pytest
import safetensors
import torch
from torch.nn import functional

from landscape import Probe, measures
from landscape.results import content_hash
from landscape.tasks import (
    CheckpointError,
    Settings,
    digits_checkpoint,
    digits_data,
    digits_task,
    open_task,
    read_checkpoint,
    train_digits,
)


def test_the_data_are_the_1797_real_images_in_a_fixed_split():
    (images, labels), (test_images, test_labels) = digits_data()
    assert images.shape == (1000, 1, 8, 8)
    assert test_images.shape == (797, 1, 8, 8)
    assert images.min() == 0
    assert images.max() == 1
    assert torch.bincount(torch.cat([labels, test_labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    assert labels[:8].tolist() == digits_data()[0][1][:8].tolist()


def test_training_is_seeded_and_reaches_its_loss():
    state = torch.get_rng_state()
    model, again = train_digits(3), train_digits(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert content_hash(model.named_parameters()) == content_hash(again.named_parameters())
    images, labels = digits_data()[0]
    with torch.no_grad():
        assert functional.cross_entropy(model(images), labels) < 0.01


def test_the_checkpoint_is_a_real_file_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDSCAPE_CACHE", str(tmp_path))
    path = digits_checkpoint(seed=1)
    written = path.stat().st_mtime_ns
    assert digits_checkpoint(seed=1) == path
    assert path.stat().st_mtime_ns == written
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"task": "digits"}
        assert "conv1.weight" in file.keys()  # noqa: SIM118 - not a mapping
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["train_loss"] < 0.01
    assert facts["test_accuracy"] > 0.9
    assert facts["train_loss"] == pytest.approx(
        open_task(digits_task(), path).metrics()["train_loss"], rel=1e-5
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.stem + ".json", path.name]


def test_samples_and_tasks_are_checked():
    assert open_task(digits_task(), settings=Settings(samples=777)).probe.terms == 777
    with pytest.raises(ValueError, match="between 1 and 1000"):
        open_task(digits_task(), settings=Settings(samples=0))
    with pytest.raises(TypeError, match=r"must be a landscape\.Task, got str"):
        open_task("digits")


def training_checkpoint(path, optimizer_of):
    """A digits net after one step, saved with its optimiser as training scripts do."""
    model = train_digits(3)
    optimizer = optimizer_of(model.parameters())
    images, labels = digits_data()[0]
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    return model, optimizer


@pytest.mark.parametrize(
    ("optimizer_of", "key"),
    [
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), "momentum_buffer"),
        (partial(torch.optim.AdamW, lr=1e-3), "exp_avg"),
    ],
)
def test_the_momentum_of_a_training_checkpoint_is_read(tmp_path, optimizer_of, key):
    path = tmp_path / "last.pt"
    model, optimizer = training_checkpoint(path, optimizer_of)
    opened = open_task(digits_task(), path, Settings(samples=64))
    loaded, probe = opened.model, opened.probe
    assert content_hash(loaded.named_parameters()) == content_hash(model.named_parameters())
    momentum = read_checkpoint(path).momentum(loaded)
    assert momentum is not None
    assert opened.learning_rate == optimizer.param_groups[0]["lr"]
    for name, parameter in model.named_parameters():
        assert torch.equal(momentum[name], optimizer.state[parameter][key])
    result = measures.get("momentum-gap", m=None).compute(probe)
    v = probe.space.flatten(momentum)
    expected = probe.loss(-0.05 * v / v.norm()) - probe.loss()
    assert result.value == pytest.approx(expected, rel=1e-4)
    plain = Probe(loaded, "cross_entropy", probe.batches)
    assert plain.identity() != probe.identity()


def test_an_optimiser_without_momentum_or_of_another_model_gives_none(tmp_path, caplog):
    path = tmp_path / "last.pt"
    model, _ = training_checkpoint(path, partial(torch.optim.SGD, lr=0.1))
    assert read_checkpoint(path).momentum(model) is None
    _, _ = training_checkpoint(path, partial(torch.optim.AdamW, lr=1e-3))
    model.conv1.weight.requires_grad_(False)
    assert read_checkpoint(path).momentum(model) is None
    assert "does not fit the model" in caplog.text
    torch.save(model.state_dict(), path)
    assert read_checkpoint(path).momentum(model) is None
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path / "none.pt")
