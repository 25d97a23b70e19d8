"""A family of small nets on digits: the task of the embedded populations."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from landscape.tasks.digits import TRAIN, digits_data, digits_test
from landscape.tasks.task import Task

CLASSES, _SIDE, _BATCH = 10, 8, 500


def digits_nets(
    *,
    architecture: str = "mlp",
    width: int = 32,
    depth: int = 2,
    dropout: float = 0.0,
    batch_norm: bool = False,
    train_size: int = TRAIN,
    label_noise: float = 0.0,
    data_seed: int = 0,
) -> Task:
    """Small ReLU nets on 8x8 images of digits, of which some or all are trained on.

    "mlp" has ``depth`` hidden layers of ``width`` units; "cnn" has ``depth`` 3x3 convolutions of
    ``width`` channels, the first two with stride 2 (maps of 4x4, then 2x2), and a linear layer.

    Args:
        architecture: "mlp" or "cnn".
        width: Units or channels of a hidden layer.
        depth: Hidden layers.
        dropout: Probability of dropout after every hidden layer.
        batch_norm: Whether batch norm stands before every ReLU.
        train_size: Training examples, 10 to 1,000; a smaller subset is part of a larger one.
        label_noise: Share of the training labels that are replaced by another class.
        data_seed: Of the subset and of the wrong labels.

    Returns:
        The task; its 797 test examples are the same for all and have right labels.

    Raises:
        ValueError: If an argument is out of range.
    """
    if architecture not in _BUILDERS:
        raise ValueError(
            f"architecture must be one of {', '.join(_BUILDERS)}, got {architecture!r}"
        )
    _check_count("width", width, 1)
    _check_count("depth", depth, 1)
    _check_count("train_size", train_size, CLASSES, TRAIN)
    _check_count("data_seed", data_seed, 0)
    _check_share("dropout", dropout)
    _check_share("label_noise", label_noise)
    if batch_norm not in (True, False):
        raise ValueError(f"batch_norm must be true or false, got {batch_norm!r}")
    build = _BUILDERS[architecture]
    return Task(
        name="digits_nets",
        model=functools.partial(build, width, depth, dropout, batch_norm=batch_norm),
        objective="cross_entropy",
        train=functools.partial(_train, train_size, label_noise, data_seed),
        test=digits_test,
    )


def _check_count(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number from 0 to below 1, got {value!r}")


def _train(size: int, noise: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    images, labels = digits_data()[0]
    source = torch.Generator().manual_seed(seed)
    rows = torch.randperm(TRAIN, generator=source)[:size]
    images, labels = images[rows], labels[rows].clone()
    wrong = torch.randperm(size, generator=source)[: round(noise * size)]
    shifts = torch.randint(1, CLASSES, (len(wrong),), generator=source)  # never the class itself
    labels[wrong] = (labels[wrong] + shifts) % CLASSES
    return list(zip(images.split(_BATCH), labels.split(_BATCH), strict=True))


def _mlp(width: int, depth: int, dropout: float, *, batch_norm: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    size = _SIDE * _SIDE
    for _ in range(depth):
        norm = nn.BatchNorm1d(width) if batch_norm else None
        layers += _hidden(nn.Linear(size, width), norm, dropout)
        size = width
    return nn.Sequential(*layers, nn.Linear(size, CLASSES))


def _cnn(width: int, depth: int, dropout: float, *, batch_norm: bool) -> nn.Module:
    layers: list[nn.Module] = []
    channels, side = 1, _SIDE
    for _ in range(depth):
        norm = nn.BatchNorm2d(width) if batch_norm else None
        stride = 2 if side > 2 else 1
        layers += _hidden(nn.Conv2d(channels, width, 3, stride, padding=1), norm, dropout)
        channels, side = width, side // stride
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, CLASSES))


def _hidden(linear: nn.Module, norm: nn.Module | None, dropout: float) -> list[nn.Module]:
    drop = [nn.Dropout(dropout)] if dropout else []
    return [linear, *([] if norm is None else [norm]), nn.ReLU(), *drop]


_BUILDERS = {"mlp": _mlp, "cnn": _cnn}
