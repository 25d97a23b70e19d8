"""The embedded task: scikit-learn's 1,797 real images of digits and a small CNN."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from landscape.results import environment, to_json, write_atomically
from landscape.tasks.checkpoints import CheckpointError
from landscape.tasks.task import Task

TRAIN, TEST = 1000, 797
_BATCH = 500
_TARGET_LOSS = 0.008


Batches = list[tuple[Tensor, Tensor]]


class DigitsNet(nn.Module):
    """Two 3x3 convolutions with ReLU and max-pooling, then two linear layers.

    Args:
        channels: Channels of the two convolutions.
        hidden: Width of the hidden linear layer.
    """

    def __init__(self, channels: tuple[int, int] = (8, 16), hidden: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.hidden = nn.Linear(channels[1] * 4, hidden)
        self.output = nn.Linear(hidden, 10)

    def forward(
        self,
        images: Tensor,  # (N, 1, 8, 8)
    ) -> Tensor:  # (N, 10)
        """Logits."""
        features = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        features = functional.max_pool2d(functional.relu(self.conv2(features)), 2)
        logits: Tensor = self.output(functional.relu(self.hidden(features.flatten(1))))
        return logits

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> DigitsNet:
        """A net of the widths found in a state, the default ones where they are not found."""
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        first, second = shapes.get("conv1.weight", (8,)), shapes.get("conv2.weight", (16,))
        hidden = shapes.get("hidden.weight", (32,))
        if not all(widths and min(widths) > 0 for widths in (first, second, hidden)):
            raise CheckpointError(
                f"this is no digits net: its layers have shapes {first}, {second}, {hidden}"
            )
        return cls((first[0], second[0]), hidden[0])


def digits_task() -> Task:
    """8x8 grey images of digits, 1,000 to train and 797 to test in a fixed split."""
    return Task(
        name="digits",
        model=DigitsNet.like,
        objective="cross_entropy",
        train=digits_train,
        test=digits_test,
        checkpoint=digits_checkpoint,
    )


def digits_train() -> Batches:
    """The 1,000 training examples."""
    return _batches(*digits_data()[0])


def digits_test() -> Batches:
    """The 797 test examples."""
    return _batches(*digits_data()[1])


def _batches(images: Tensor, labels: Tensor) -> Batches:
    return list(zip(images.split(_BATCH), labels.split(_BATCH), strict=True))


@cache
def digits_data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((train images, labels), (test images, labels)); images (N, 1, 8, 8) in [0, 1]."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target, dtype=torch.long)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAIN], order[TRAIN:]
    return (images[train], labels[train]), (images[test], labels[test])


def train_digits(seed: int) -> DigitsNet:
    """Trains a digits net to a train loss below 0.008; a second or two on a CPU.

    SGD with momentum 0.9, learning rate 0.05, batches of 50.

    Args:
        seed: Of initial weights and order of the data.

    Returns:
        The trained net in evaluation mode.

    Raises:
        RuntimeError: If the loss is not reached in 200 epochs.
    """
    (images, labels), _ = digits_data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsNet()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(200):
        for rows in torch.randperm(TRAIN, generator=generator).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(functional.cross_entropy(model(images), labels))
        if loss < _TARGET_LOSS:
            return model.eval()
    raise RuntimeError(f"the digits net of seed {seed} stopped at train loss {loss:.3g}")


def digits_checkpoint(seed: int = 0) -> Path:
    """Path of the digits net of a seed; trained and written if it is not there.

    Args:
        seed: Of the training.

    Returns:
        A safetensors file; beside it lies a JSON file with metrics, seed and versions.
    """
    path = cache_folder() / f"digits-seed{seed}.safetensors"
    if not path.exists():
        start = time.perf_counter()
        model = train_digits(seed)
        facts = {
            "task": "digits",
            "seed": seed,
            "seconds": round(time.perf_counter() - start, 2),
            **_metrics(model),
            "environment": environment(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.with_suffix(".json"), to_json(facts))
        partial = path.with_suffix(f".{os.getpid()}.partial")
        safetensors.torch.save_file(model.state_dict(), partial, metadata={"task": "digits"})
        partial.replace(path)
    return path


def _metrics(model: nn.Module) -> dict[str, float]:
    found = {}
    with torch.no_grad():
        for part, (images, labels) in zip(("train", "test"), digits_data(), strict=True):
            outputs = model(images)
            found[f"{part}_loss"] = float(functional.cross_entropy(outputs.double(), labels))
            found[f"{part}_accuracy"] = float((outputs.argmax(1) == labels).double().mean())
    return found


def cache_folder() -> Path:
    """Where embedded checkpoints are kept: $LANDSCAPE_CACHE, or the user's cache directory."""
    if chosen := os.environ.get("LANDSCAPE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "landscape-toolkit"
