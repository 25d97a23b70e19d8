"""Directions in which a landscape is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from landscape.evidence import SpectrumRequest
from landscape.geometry.hidden_units import is_norm
from landscape.probing import ParamSpace, Probe

Normalisation = Literal["filter", "layer", "none"]
OneDimensional = Literal["exclude", "tensor"]
State = Mapping[str, Tensor] | nn.Module


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A vector along which weights move; a step of 1 adds it once.

    Args:
        kind: What it is, such as "random" or "eigenvector".
        vector: (P,).
        label: For an axis.
        unit: What a step of 1 is, for an axis.
        info: Further facts for the record, JSON-able.
        buffers: Changes of buffers that go along where they are interpolated.
    """

    kind: str
    vector: Tensor
    label: str
    unit: str
    info: dict[str, Any] = field(default_factory=dict)
    buffers: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def norm(self) -> float:
        """Euclidean length."""
        return float(self.vector.double().norm())

    def record(self) -> dict[str, Any]:
        """Kind, length, content hash and facts."""
        array = self.vector.detach().cpu().contiguous().numpy()
        digest = hashlib.blake2b(array.tobytes(), digest_size=12).hexdigest()
        return {"kind": self.kind, "norm": self.norm, "hash": digest, **self.info}


def random(
    probe: Probe,
    seed: int = 0,
    *,
    normalisation: Normalisation = "filter",
    one_dimensional: OneDimensional = "exclude",
    only: str | Sequence[str] | None = None,
    density: float = 1.0,
) -> Direction:
    """A Gaussian direction, as long as the weights filter by filter (Li et al. 2018, section 4).

    d_i <- d_i ||w_i|| / ||d_i||, i a filter (an index of the first dimension of a tensor with two
    dimensions or more, "filter") or a whole tensor ("layer").

    Args:
        probe: At the checkpoint.
        seed: Of the draw.
        normalisation: "filter", "layer" or "none".
        one_dimensional: Biases and parameters of norms: "exclude" leaves them where they are,
            "tensor" scales each tensor as a whole. With normalisation "none", "tensor" lets them
            be drawn like all others.
        only: Shell-style patterns of the parameters that move; None moves all.
        density: Share of entries that move, drawn at random.

    Returns:
        The direction.

    Raises:
        ValueError: If a setting is unknown, or nothing is left that moves.

    Example:
        >>> import torch, landscape
        >>> from landscape.slices import random
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(torch.nn.Linear(4, 3), "cross_entropy", batches)
        >>> direction = random(probe, seed=1)
        >>> weight = probe.space.split(probe.weights())["weight"]
        >>> moved = probe.space.split(direction.vector)["weight"]
        >>> torch.allclose(moved.norm(dim=1), weight.norm(dim=1))
        True
    """
    if normalisation not in get_args(Normalisation):
        raise ValueError(
            f"normalisation must be one of {get_args(Normalisation)}, got {normalisation!r}"
        )
    if one_dimensional not in get_args(OneDimensional):
        raise ValueError(
            f"one_dimensional must be one of {get_args(OneDimensional)}, got {one_dimensional!r}"
        )
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density}")
    source = torch.Generator().manual_seed(seed)
    # On the CPU and in one precision, so that every device and dtype gets the same direction.
    draw = torch.randn(probe.size, generator=source)
    keep = torch.rand(probe.size, generator=source) < density
    drawn = (draw * keep).to(device=probe.device, dtype=probe.dtype)
    wanted = set((probe.space if only is None else probe.space.select(only)).names)
    weights = probe.space.split(probe.weights())
    of_norms = {
        f"{name}.{own}" if name else own
        for name, module in probe.modules().items()
        if is_norm(module)
        for own, _ in module.named_parameters(recurse=False)
    }
    pieces = {
        name: _normalised(
            piece.reshape(-1) if name in of_norms else piece,
            weights[name].reshape(-1) if name in of_norms else weights[name],
            normalisation,
            one_dimensional,
        )
        if name in wanted
        else torch.zeros_like(piece)
        for name, piece in probe.space.split(drawn).items()
    }
    vector = probe.space.flatten(pieces)
    if not vector.any():
        raise ValueError("the direction is zero: no parameter that may move is left")
    told = {"filter": "filter-normalised", "layer": "layer-normalised", "none": "Gaussian"}
    info = {
        "seed": seed,
        "normalisation": normalisation,
        "one_dimensional": one_dimensional,
        "only": None if only is None else [only] if isinstance(only, str) else list(only),
        "density": density,
    }
    unit = {"filter": "filter norms", "layer": "layer norms", "none": "standard deviations"}
    return Direction(
        kind="random",
        vector=vector,
        label=f"random direction, {told[normalisation]}",
        unit=unit[normalisation],
        info=info,
    )


def _normalised(
    piece: Tensor, weight: Tensor, normalisation: Normalisation, one_dimensional: OneDimensional
) -> Tensor:
    if piece.dim() < 2 and one_dimensional == "exclude":
        return torch.zeros_like(piece)
    if normalisation == "none":
        return piece
    whole = normalisation == "layer" or piece.dim() < 2
    rows, targets = (part.reshape(1, -1) if whole else part.flatten(1) for part in (piece, weight))
    lengths = rows.norm(dim=1, keepdim=True)
    ratios = targets.norm(dim=1, keepdim=True) / torch.where(lengths > 0, lengths, 1)
    found: Tensor = (rows * ratios).view_as(piece)
    return found


def between(probe: Probe, other: State, label: str = "other") -> Direction:
    """From the checkpoint to another one of the same model; a step of 1 arrives there.

    Args:
        probe: At the checkpoint.
        other: Tensors by name, or a model.
        label: What the other is called on an axis.

    Returns:
        The direction, with the differences of the buffers.

    Raises:
        ValueError: If a tensor is missing or of another shape, or both are the same.
    """
    state = other.state_dict() if isinstance(other, nn.Module) else dict(other)
    there = probe.space.gathered(state, label).to(device=probe.device, dtype=probe.dtype)
    vector = there - probe.weights()
    if not vector.any():
        raise ValueError(f"{label} has the same weights as the checkpoint; there is no direction")
    buffers = {
        name: state[name].to(tensor) - tensor
        for name, tensor in probe.model_copy().named_buffers()
        if tensor.is_floating_point() and name in state and state[name].shape == tensor.shape
    }
    return Direction(
        kind="difference", vector=vector, label=f"to {label}", unit="", buffers=buffers
    )


def gradient(probe: Probe) -> Direction:
    """The unit vector of steepest ascent of the loss."""
    return _unit("gradient", probe.gradient(), "gradient")


def momentum(probe: Probe) -> Direction:
    """The unit vector of the optimiser's running mean of gradients.

    Returns:
        The direction.

    Raises:
        ValueError: If the probe has no momentum.
    """
    if probe.momentum is None:
        raise ValueError(
            "the probe has no momentum; give it to Probe(..., momentum=...), or a checkpoint with "
            "the optimiser's state"
        )
    return _unit("momentum", probe.momentum, "momentum")


def eigenvectors(probe: Probe, count: int = 2, *, seed: int = 0) -> list[Direction]:
    """Unit eigenvectors of the largest eigenvalues of the Hessian, from the shared spectrum.

    Args:
        probe: At the checkpoint.
        count: How many.
        seed: Of the Lanczos run.

    Returns:
        Directions, largest eigenvalue first; ``info["curvature"]`` holds v'Hv.

    Raises:
        ValueError: If the run found fewer.
    """
    found = probe.evidence(SpectrumRequest(seed=seed)).vectors
    if len(found) < count:
        raise ValueError(
            f"{count} eigenvectors were asked for, the Lanczos run kept {len(found)}: the model "
            "has too few parameters, or too many for a Krylov basis in memory"
        )
    vectors = found[:count].to(device=probe.device, dtype=probe.dtype)
    curvatures = (vectors * probe.hvp(vectors)).sum(1, dtype=torch.float64)
    return [
        _unit(
            "eigenvector",
            vector,
            f"eigenvector {number}, λ = {curvature:.3g}",
            rank=number,
            curvature=curvature,
            seed=seed,
        )
        for number, (vector, curvature) in enumerate(
            zip(vectors, curvatures.tolist(), strict=True), 1
        )
    ]


def _unit(kind: str, vector: Tensor, label: str, **info: Any) -> Direction:
    length = vector.double().norm()
    if not length > 0:
        raise ValueError(f"the {kind} is zero here; it gives no direction")
    unit = (vector.double() / length).to(vector.dtype)
    return Direction(kind=kind, vector=unit, label=label, unit="‖δ‖₂", info=info)


def orthogonalised(directions: Sequence[Direction]) -> list[Direction]:
    """Each direction without what lies along the ones before it, with its own length kept.

    Returns:
        As many directions.

    Raises:
        ValueError: If one lies in the span of those before it.
    """
    found: list[Direction] = []
    for direction in directions:
        vector = direction.vector.double()
        for _ in range(2):  # the second time for what rounding left
            for other in found:
                axis = other.vector.double()
                vector = vector - (vector @ axis) / (axis @ axis) * axis
        left = float(vector.norm())
        if left < 1e-6 * direction.norm:
            raise ValueError(f"{direction.label} lies in the span of the directions before it")
        scaled = (vector * (direction.norm / left)).to(direction.vector)
        found.append(
            replace(
                direction,
                vector=scaled,
                info={**direction.info, "orthogonalised": True},
                buffers={},
            )
            if found
            else direction
        )
    return found


def cosine(one: Direction, two: Direction) -> float:
    """Cosine of the angle between two directions."""
    first, second = one.vector.double(), two.vector.double()
    return float(first @ second / (first.norm() * second.norm()))


def flat_states(space: ParamSpace, states: Sequence[State]) -> Tensor:  # (K, P), float64, CPU
    """The parameters of several checkpoints as rows."""
    rows = []
    for number, state in enumerate(states):
        tensors = state.state_dict() if isinstance(state, nn.Module) else dict(state)
        rows.append(space.gathered(tensors, f"checkpoint {number}").double().cpu())
    return torch.stack(rows)
