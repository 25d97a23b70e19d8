"""Planes through several checkpoints, and where the checkpoints lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.probing import Probe
from landscape.slices.directions import Direction, State, flat_states


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Checkpoints seen in a plane.

    Args:
        coordinates: Their coordinates along the directions, (K, D) float64.
        residuals: Euclidean distance of each to the plane, (K,) float64.
        labels: What they are called.
        explained_variance: Share of the total variance along each direction; None if unknown.
    """

    coordinates: Tensor
    residuals: Tensor
    labels: tuple[str, ...]
    explained_variance: tuple[float, ...] | None = None


def projected(
    probe: Probe,
    directions: Sequence[Direction],
    states: Sequence[State],
    labels: Sequence[str] = (),
    **settings: Any,
) -> Trajectory:
    """Least-squares coordinates of checkpoints in the plane, and how far off it they are.

    Args:
        probe: At the point (0, 0).
        directions: That span the plane; they need not be orthogonal.
        states: The checkpoints.
        labels: Their names; numbers if left out.
        **settings: Further fields of the trajectory.

    Returns:
        The trajectory.

    Raises:
        ValueError: If a checkpoint does not fit the model.
    """
    steps = flat_states(probe.space, states) - probe.weights().double().cpu()
    basis = torch.stack([direction.vector.double().cpu() for direction in directions], 1)
    coordinates = torch.linalg.lstsq(basis, steps.T).solution.T
    residuals = (steps - coordinates @ basis.T).norm(dim=1)
    named = tuple(labels) or tuple(str(number) for number in range(len(states)))
    return Trajectory(coordinates=coordinates, residuals=residuals, labels=named, **settings)


def plane(
    probe: Probe, first: State, second: State, labels: Sequence[str] = ("second", "third")
) -> tuple[list[Direction], Trajectory]:
    """The plane through three checkpoints, with orthogonal axes (Garipov et al. 2018, section 3).

    Axis 1 goes from the probe's checkpoint to the first of the others, axis 2 at a right angle to
    it towards the second. Both are unit vectors, so that coordinates are distances.

    Args:
        probe: At the first checkpoint, the origin.
        first: Another.
        second: And another.
        labels: What the two are called.

    Returns:
        The directions, and where all three lie.

    Raises:
        ValueError: If the three lie on a line, or one does not fit the model.
    """
    rows = flat_states(probe.space, [first, second]) - probe.weights().double().cpu()
    one, two = rows
    if not one.any():
        raise ValueError(f"{labels[0]} has the same weights as the checkpoint")
    one = one / one.norm()
    rest = two - (two @ one) * one
    if not rest.norm() > 1e-6 * two.norm():
        raise ValueError("the three checkpoints lie on a line; they span no plane")
    directions = [
        Direction(
            kind="plane",
            vector=axis.to(device=probe.device, dtype=probe.dtype),
            label=text,
            unit="‖δ‖₂",
        )
        for axis, text in (
            (one, f"towards {labels[0]}"),
            (rest / rest.norm(), f"towards {labels[1]}, at a right angle"),
        )
    ]
    here = dict(probe.space.split(probe.weights()))
    seen = projected(probe, directions, [here, first, second], ["checkpoint", *labels])
    return directions, seen


def principal_directions(
    probe: Probe,
    states: Sequence[State],
    labels: Sequence[str] = (),
    *,
    count: int = 2,
    centred: bool = False,
) -> tuple[list[Direction], Trajectory]:
    """Principal directions of a trajectory of checkpoints, as unit vectors.

    The rows w_k - w are decomposed as they are, so that the plane goes through the checkpoint w of
    the probe, or about their mean ("centred", the habit of Li et al. 2018; the plane through w is
    then parallel to the one of least squares, and residuals tell how far off the points are).

    Args:
        probe: At the checkpoint through which the plane goes.
        states: The trajectory.
        labels: Such as epochs.
        count: Number of directions.
        centred: Whether the mean is taken off first.

    Returns:
        The directions and the trajectory in them.

    Raises:
        ValueError: If the trajectory does not span so many directions.
    """
    steps = flat_states(probe.space, states) - probe.weights().double().cpu()
    rows = steps - steps.mean(0) if centred else steps
    _, sizes, axes = torch.linalg.svd(rows, full_matrices=False)
    shares = sizes.square() / sizes.square().sum()
    if len(sizes) < count or not sizes[count - 1] > 1e-9 * sizes[0]:
        raise ValueError(
            f"{len(states)} checkpoints do not span {count} directions; give more of them, or "
            "ones that differ"
        )
    directions = []
    for number in range(count):
        # The sign is free: the first checkpoint lies on the positive side.
        sign = -1.0 if steps[0] @ axes[number] < 0 else 1.0
        share = float(shares[number])
        directions.append(
            Direction(
                kind="principal",
                vector=(sign * axes[number]).to(device=probe.device, dtype=probe.dtype),
                label=f"PC {number + 1} ({100 * share:.1f} %)",
                unit="‖δ‖₂",
                info={"rank": number + 1, "share": share, "centred": centred},
            )
        )
    explained = tuple(float(share) for share in shares[:count])
    seen = projected(probe, directions, states, labels, explained_variance=explained)
    return directions, seen
