"""Alignment of two checkpoints: the units of one in the order in which they match the other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from landscape.geometry import Verifier, find_pairs, find_symmetries
from landscape.geometry.hidden_units import HiddenUnits, candidates
from landscape.probing import ParamSpace, Probe
from landscape.slices.directions import State
from landscape.slices.paths import fitted_state

_SWEEPS = 100
# Of the product of both lengths: below it, a gain is rounding.
_GAIN = 1e-12
# Of the largest output, in double precision.
_UNCHANGED = 1e-5


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """A checkpoint whose units are permuted to match another's.

    Args:
        state: The permuted copy, by name, in the dtypes it was given in.
        orders: By place in the model, which unit of the original each unit of the copy is.
        gain: By how much <w1, w2> grew, w1 and w2 the weights of both checkpoints.
        distance: ||w1 - w2|| after the alignment.
        distance_before: The same before it.
        change: Largest change of an output of the other checkpoint over the data, as a share of its
            largest output, in double precision; rounding.
        sweeps: Sweeps over all permutations in the best try.
    """

    state: dict[str, Tensor] = field(repr=False)
    orders: dict[str, tuple[int, ...]] = field(repr=False)
    gain: float
    distance: float
    distance_before: float
    change: float
    sweeps: int


def align(probe: Probe, other: State, *, tries: int = 5, seed: int = 0) -> Alignment:
    """Permutes the hidden units of a checkpoint to match those of the probe's.

    argmax <w1, π(w2)> over permutations π of hidden units, channels and attention heads, one at a
    time given the others, each by an exact linear assignment, until nothing improves (weight
    matching, Ainsworth et al. 2023, algorithm 1). The permutations are those that the symmetry
    finder verifies on the model, so that the function of the other checkpoint stays as it is. Not
    covered are the units of a residual stream, which many maps share, and GL(h) within a head.

    The first try starts from the order as it is, so that the distance never grows; in the first
    sweep of the others, weights count once all permutations that move them are chosen. The second
    goes through the model from first to last, further ones in random orders.

    Args:
        probe: At w1.
        other: w2 by name, or a model; not modified.
        tries: Descents; the best one is kept.
        seed: Of the orders.

    Returns:
        The permuted copy, and what was gained.

    Raises:
        ValueError: If the other checkpoint does not fit the model, ``tries`` is not positive, or
            the permuted copy computes something else.

    Example:
        >>> import torch, landscape
        >>> from landscape.slices.alignment import align
        >>> layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        >>> model = torch.nn.Sequential(*layers)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(model, "cross_entropy", batches)
        >>> turned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        >>> for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        ...     turned[name] = turned[name].roll(3, dim)
        >>> align(probe, turned).distance
        0.0
    """
    if tries < 1:
        raise ValueError(f"tries must be positive, got {tries}")
    state = fitted_state(probe, other)
    model = probe.model_copy().double()
    layout = _layout(model)
    start = layout.flatten(_tensors(model)).detach().cpu()
    model.load_state_dict(state, strict=False)
    end = layout.flatten(_tensors(model)).detach().cpu()
    counted = torch.cat(
        [torch.full((size,), name in probe.space.names) for name, size in _sizes(layout)]
    )
    matching = _Matching(start * counted, end, permutable(probe))
    source = torch.Generator().manual_seed(seed)
    found = [matching.descend(number, source) for number in range(tries)]
    best = max(found, key=lambda descent: descent.product)

    before = probe.outputs_of(model).double()
    moved = end[best.index]
    with torch.no_grad():
        for name, part in layout.split(moved).items():
            _tensors(model)[name].copy_(part)
    after = probe.outputs_of(model).double()
    largest = before.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    change = float((after - before).abs().max() / largest)
    if not change <= _UNCHANGED:
        raise ValueError(
            f"the permuted copy of the other checkpoint changes its outputs by {change:.1e} of the "
            "largest; its units cannot be permuted as those of the probe's checkpoint can"
        )
    copied = model.state_dict()
    return Alignment(
        state={name: copied[name].to(tensor, copy=True) for name, tensor in state.items()},
        orders=best.orders,
        gain=best.product - float(matching.start @ end),
        distance=float((start - moved)[counted].norm()),
        distance_before=float((start - end)[counted].norm()),
        change=change,
        sweeps=best.sweeps,
    )


def permutable(probe: Probe) -> dict[str, Tensor]:
    """Units of a model that may be put in another order.

    Args:
        probe: The model and its data.

    Returns:
        By place in the model, in the order in which they run: (units, entries of a unit) places in
        a flat vector of all parameters and then all floating buffers, corresponding entries of all
        units in the same column.
    """
    names = {entry.name for entry in find_symmetries(probe) if entry.kind == "permutation"}
    model = probe.model_copy().double()
    layout = _layout(model)
    # Which entry is which is read off a model whose tensors hold the numbers of their entries.
    with torch.no_grad():
        for name, numbers in layout.split(torch.arange(layout.size).double()).items():
            _tensors(model)[name].copy_(numbers)
    found = {
        units.name: _places(model, layout, units)
        for units in candidates(Verifier(probe).executed())
        if units.name in names
    }
    entries = probe.space.flatten(layout.split(torch.arange(layout.size)))
    heads: dict[str, dict[int, list[Tensor]]] = {}
    for pair in find_pairs(probe).pairs:
        if pair.head is not None and f"heads of {pair.module}" in names:
            own = torch.cat([pair.left, pair.right]).flatten()
            rows = heads.setdefault(f"heads of {pair.module}", {})
            rows.setdefault(pair.head, []).append(entries[own])
    for name, rows in heads.items():
        found[name] = torch.stack([torch.cat(own) for own in rows.values()])
    return found


def _places(model: nn.Module, layout: ParamSpace, units: HiddenUnits) -> Tensor:
    def source(order: Tensor) -> Tensor:
        """Which entry comes to stand at each place."""
        with torch.no_grad():
            numbers = {name: part.clone() for name, part in _tensors(model).items()}
            units.permuted(order)(model)
            moved = layout.flatten(_tensors(model)).round().long().cpu()
            for name, part in numbers.items():
                _tensors(model)[name].copy_(part)
        return moved

    here = torch.arange(layout.size)
    following = source(torch.arange(units.count).roll(-1))  # from unit i + 1
    own = source(torch.zeros(units.count, dtype=torch.long)) == here
    rows = [here[own & (following != here)]]  # the entries of unit 0
    while len(rows) < units.count:
        rows.append(following[rows[-1]])
    return torch.stack(rows)


@dataclass(frozen=True)
class _Descent:
    product: float
    index: Tensor
    orders: dict[str, tuple[int, ...]]
    sweeps: int


class _Matching:
    """Coordinate descent over permutations.

    Args:
        start: w1, zero where an entry does not count, (N,) float64.
        end: w2, (N,).
        units: Places of the units by name.
    """

    def __init__(self, start: Tensor, end: Tensor, units: Mapping[str, Tensor]) -> None:
        self.start, self.end = start, end
        self._units = dict(units)
        self._least = _GAIN * float(start.norm() * end.norm())

    def descend(self, number: int, source: torch.Generator) -> _Descent:
        index = torch.arange(len(self.end))
        orders = {name: torch.arange(len(places)) for name, places in self._units.items()}
        sweeps, gained = 0, torch.inf
        while gained > self._least and sweeps < _SWEEPS:
            gained, starting = 0.0, number > 0 and sweeps == 0
            for name, weights in self._visits(starting, number, source):
                places = self._units[name]
                own, gain = self._assigned(weights[places], self.end[index[places]])
                if gain > self._least:
                    gained += gain
                    index[places] = index[places[own]]
                    orders[name] = orders[name][own]
            gained = torch.inf if starting else gained
            sweeps += 1
        told = {name: tuple(order.tolist()) for name, order in orders.items()}
        return _Descent(float(self.start @ self.end[index]), index, told, sweeps)

    def _visits(
        self, starting: bool, number: int, source: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """The permutations in the order of this sweep, each with w1 as far as it counts."""
        names = list(self._units)
        if number > 1:
            names = [names[place] for place in torch.randperm(len(names), generator=source)]
        waiting = torch.zeros(len(self.start), dtype=torch.int16)
        for name in names if starting else ():
            waiting[self._units[name]] += 1
        for name in names:
            if starting:
                waiting[self._units[name]] -= 1
            yield name, self.start * (waiting == 0)

    @staticmethod
    def _assigned(fixed: Tensor, moving: Tensor) -> tuple[Tensor, float]:
        """The best order of the rows of ``moving``, and what it gains over theirs."""
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - a second to import

        gains = fixed @ moving.T
        _, columns = linear_sum_assignment(gains.numpy(), maximize=True)
        order = torch.from_numpy(columns)
        return order, float(gains.gather(1, order[:, None]).sum() - gains.trace())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating buffers, each once."""
    buffers = {name: part for name, part in model.named_buffers() if part.is_floating_point()}
    return dict(model.named_parameters()) | buffers


def _layout(model: nn.Module) -> ParamSpace:
    found = _tensors(model)
    return ParamSpace(tuple(found), tuple(part.shape for part in found.values()))


def _sizes(layout: ParamSpace) -> Iterator[tuple[str, int]]:
    return zip(layout.names, layout.sizes, strict=True)
