"""Directions of a slice from a line of text, with the checkpoints that it names."""

from __future__ import annotations

import re
from pathlib import Path

from landscape.slices import (
    Direction,
    Trajectory,
    between,
    eigenvectors,
    gradient,
    momentum,
    orthogonalised,
    plane,
    principal_directions,
    random,
)
from landscape.tasks.checkpoints import CheckpointError
from landscape.tasks.opening import Opened

KINDS = "random, eigen, gradient, momentum, pca:GLOB, to:CKPT, plane:CKPT,CKPT"


def directions_of(
    text: str, opened: Opened, *, dimensions: int = 2, seed: int = 0
) -> tuple[list[Direction], Trajectory | None]:
    """The directions that a text such as "random" or "pca:run/*.pt" stands for.

    "gradient", "momentum" and "to:CKPT" name one direction; in a plane a random one at a right
    angle joins it.

    Args:
        text: One of random, eigen, gradient, momentum, pca:GLOB, to:CKPT, plane:CKPT,CKPT.
        opened: Probe at the checkpoint, and the task by which others are loaded.
        dimensions: 1 or 2.
        seed: Of random directions and of the Lanczos run.

    Returns:
        The directions, and checkpoints in their plane where the text names some.

    Raises:
        ValueError: If the text is none of these, or does not fit the dimensions.
        CheckpointError: If a checkpoint cannot be read.
    """
    probe, load_state = opened.probe, opened.state_of
    kind, _, rest = text.partition(":")
    if (kind in {"pca", "to", "plane"}) != bool(rest):
        raise ValueError(f"directions must be one of {KINDS}, got {text!r}")
    if kind == "pca":
        paths = natural_order(rest)
        states = [load_state(path) for path in paths]
        labels = [path.stem for path in paths]
        return principal_directions(probe, states, labels, count=dimensions)
    if kind == "plane":
        paths = [Path(part) for part in rest.split(",")]
        if len(paths) != 2 or dimensions != 2:
            raise ValueError("plane:CKPT,CKPT takes two checkpoints and gives two dimensions")
        one, two = (load_state(path) for path in paths)
        return plane(probe, one, two, [path.stem for path in paths])
    if kind == "random":
        found = [random(probe, seed + number) for number in range(dimensions)]
    elif kind == "eigen":
        found = eigenvectors(probe, dimensions, seed=seed)
    elif kind in {"gradient", "momentum", "to"}:
        first = {
            "gradient": lambda: gradient(probe),
            "momentum": lambda: momentum(probe),
            "to": lambda: between(probe, load_state(Path(rest)), Path(rest).stem),
        }[kind]()
        found = [first, *(random(probe, seed + number) for number in range(dimensions - 1))]
    else:
        raise ValueError(f"directions must be one of {KINDS}, got {text!r}")
    return orthogonalised(found), None


def natural_order(pattern: str) -> list[Path]:
    """Files that match a pattern, numbers in their names in numerical order.

    Returns:
        At least one path.

    Raises:
        CheckpointError: If nothing matches.
    """
    anchor = Path(pattern).anchor
    paths = list(Path(anchor).glob(str(Path(pattern).relative_to(anchor))))
    if not paths:
        raise CheckpointError(f"no checkpoint matches {pattern}")

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    return sorted(paths, key=key)
