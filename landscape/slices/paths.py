"""Straight paths between two checkpoints, and the barrier on a path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from landscape.probing import Probe
from landscape.slices.directions import State, between
from landscape.slices.evaluation import Span, evaluate_slice

if TYPE_CHECKING:
    import xarray as xr

Buffers = Literal["interpolate", "eval"]

# How far the ends of a path may lie from 0 and 1 by rounding.
_AT = 1e-9


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """How high a path rises between its ends, by both conventions.

    Args:
        height: max_t [L(t) - (1 - t) L(0) - t L(1)] over the evaluated points, never negative
            (Entezari et al. 2022, definition 1).
        stderr: An upper bound of the standard error of the height at its position: the standard
            errors of the three losses, which share their examples, added up.
        position: The t of the height.
        above_ends: max_t L(t) - max(L(0), L(1)), never negative.
        highest: max_t L(t).
        start: L(0).
        end: L(1).
    """

    height: float
    stderr: float
    position: float
    above_ends: float
    highest: float
    start: float
    end: float


def interpolate(
    probe: Probe,
    other: State,
    *,
    points: int = 25,
    span: Span = (0.0, 1.0),
    buffers: Buffers = "interpolate",
    **settings: Any,
) -> xr.Dataset:
    """Losses on the line w(t) = (1 - t) w1 + t w2 between two checkpoints.

    Batch norm on the way (its statistics belong to neither end): interpolated along with the
    weights, or those of w1 everywhere, so that t = 1 is not w2 as it was trained; a probe made with
    batch_norm="recalibrate" re-estimates them at every point, which is best for merged weights.

    Args:
        probe: At w1.
        other: w2 by name, or a model; not modified.
        points: Number of points.
        span: First and last t.
        buffers: "interpolate" or "eval", those of w1.
        **settings: Of ``evaluate_slice``: metrics, test, tolerance, path, advance.

    Returns:
        A dataset as from ``evaluate_slice``, alpha being t; where 0 and 1 are among the points,
        the attribute "barrier" holds that of the training loss as JSON.

    Raises:
        ValueError: If the other checkpoint does not fit the model, or a setting is wrong.

    Example:
        >>> import torch, landscape
        >>> from landscape.slices.paths import barrier, interpolate
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(torch.nn.Linear(4, 3), "cross_entropy", batches)
        >>> line = interpolate(probe, torch.nn.Linear(4, 3), points=5)
        >>> barrier(line).height < 1e-6  # the loss of a linear model is convex
        True
    """
    if buffers not in get_args(Buffers):
        raise ValueError(
            f"buffers must be one of {get_args(Buffers)}, got {buffers!r}; to re-estimate them at "
            "every point, make the probe with batch_norm='recalibrate'"
        )
    state = fitted_state(probe, other)
    moving = differing_buffers(probe, state) if buffers == "interpolate" else []
    kept = {name: state[name] for name in (*probe.space.names, *moving)}
    line = evaluate_slice(
        probe, between(probe, kept), span, points, interpolate_buffers=bool(moving), **settings
    )
    line.attrs["buffers"] = buffers
    if _ends(line) is not None:
        line.attrs["barrier"] = json.dumps(asdict(barrier(line)))
    return line


def barrier(path: xr.Dataset, variable: str = "train_loss") -> Barrier:
    """The barrier on a path between two checkpoints, over its evaluated points in [0, 1].

    Args:
        path: From ``interpolate`` or ``bezier``, with points at t = 0 and 1.
        variable: A loss among its variables.

    Returns:
        The barrier. NaN where a loss on the path is NaN, infinite where one is.

    Raises:
        ValueError: If the path has no such variable or lacks its ends.
    """
    if variable not in path:
        raise ValueError(f"the path has no {variable!r}; it has {sorted(map(str, path.data_vars))}")
    ends = _ends(path)
    if ends is None:
        raise ValueError(
            "a barrier needs the losses of both ends; choose span and points so that t = 0 and "
            "t = 1 are evaluated"
        )
    inside = np.flatnonzero(path["evaluated"].values)
    inside = inside[(inside >= ends[0]) & (inside <= ends[1])]
    t = path["alpha"].values[inside].clip(0, 1)
    losses = path[variable].values[inside]
    start, end, highest = losses[0], losses[-1], losses.max()
    with np.errstate(invalid="ignore"):  # of infinite losses
        excess = losses - ((1 - t) * start + t * end)
    # At the ends it is zero by definition, also where rounding or an infinite loss says otherwise.
    excess[[0, -1]] = np.where(np.isnan(losses[[0, -1]]), np.nan, 0.0)
    top = int(excess.argmax())
    errors = path.get(f"{variable}_stderr")
    stderr = np.nan
    if errors is not None:
        own = errors.values[inside]
        at_an_end = top in {0, len(inside) - 1}
        stderr = 0.0 if at_an_end else own[top] + (1 - t[top]) * own[0] + t[top] * own[-1]
    return Barrier(
        height=float(excess[top]),
        stderr=float(stderr),
        position=float(t[top]),
        above_ends=0.0 if highest == max(start, end) else float(highest - max(start, end)),
        highest=float(highest),
        start=float(start),
        end=float(end),
    )


def _ends(path: xr.Dataset) -> tuple[int, int] | None:
    """Places of t = 0 and t = 1, where both were evaluated."""
    t, evaluated = path["alpha"].values, path["evaluated"].values
    places = [int(np.abs(t - end).argmin()) for end in (0.0, 1.0)]
    there = all(
        abs(t[p] - end) < _AT and evaluated[p] for p, end in zip(places, (0, 1), strict=True)
    )
    return (places[0], places[1]) if there else None


def fitted_state(probe: Probe, other: State) -> dict[str, Tensor]:
    """The tensors of another checkpoint by name, once they are seen to fit the probe's model.

    Args:
        probe: The model.
        other: Tensors by name, or a model.

    Returns:
        Name to tensor.

    Raises:
        TypeError: If it is neither.
        ValueError: If tensors are missing, unexpected, of another shape or not finite; if
            parameters tied in the model differ there; or if parameters that are not probed differ
            from those of the probe, since no path of the probe leads there.
    """
    if not isinstance(other, nn.Module | Mapping):
        raise TypeError(
            f"the other checkpoint must be a state_dict or a model, got {type(other).__name__}"
        )
    given = other.state_dict() if isinstance(other, nn.Module) else dict(other)
    state = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    model = probe.model_copy()
    mine = {name: part for name, part in model.state_dict().items() if isinstance(part, Tensor)}
    parameters = dict(model.named_parameters())
    buffers = {name for name, part in model.named_buffers() if part.is_floating_point()}
    problems = {
        "missing": [n for n in mine if n in parameters.keys() | buffers and n not in state],
        "unexpected": [name for name in state if name not in mine],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(part.shape)}"
            for name, part in mine.items()
            if name in state and state[name].shape != part.shape
        ],
    }
    if not any(problems.values()):
        problems |= _values(probe, model, state)
    if told := [f"{what}: {_listed(names)}" for what, names in problems.items() if names]:
        raise ValueError(f"the other checkpoint does not fit the model; {'; '.join(told)}")
    return state


def _values(probe: Probe, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What is wrong with the values of a state of the right names and shapes."""
    first = {id(part): name for name, part in model.named_parameters()}
    names = model.named_parameters(remove_duplicate=False)
    tied = [
        name
        for name, part in names
        if name in state and not torch.equal(state[name], state[first[id(part)]])
    ]
    fixed = [
        name
        for name, part in model.named_parameters()
        if name not in probe.space.names and not torch.equal(state[name].to(part), part)
    ]
    return {
        "NaN or infinite": [n for n in first.values() if not state[n].isfinite().all()],
        "tied in the model but not there": tied,
        "not probed, and so never moved, but not the same": fixed,
    }


def differing_buffers(probe: Probe, state: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating buffers, such as statistics of batch norm, that differ in a state."""
    return [
        name
        for name, part in probe.model_copy().named_buffers()
        if part.is_floating_point()
        and name in state
        and not torch.equal(state[name].to(part), part)
    ]


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
