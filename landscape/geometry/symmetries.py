"""Symmetries: changes of the weights that leave the function of a model as it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from landscape.geometry.attention import find_pairs
from landscape.geometry.hidden_units import (
    Change,
    HiddenUnits,
    Normalised,
    candidates,
    normalised,
)
from landscape.geometry.quotient import Pair
from landscape.probing import Objective, Probe
from landscape.probing.scaled_loss import ScaledLoss

#: Function-preserving changes and the loss scale, in the order of the invariance tables.
TRANSFORMATIONS = {
    "layer": "rescaling of consecutive layers of a ReLU net",
    "neuron": "rescaling of single hidden units",
    "norm": "scale of weights before a normalisation layer",
    "attention": "GL(h) on query-key and value-output pairs",
    "loss": "scale of the loss",
    "permutation": "permutation of hidden units and heads",
}

# In double precision; some models compute norms in single precision whatever they are given.
_UNCHANGED = 1e-5
# Of what a part of the change does.
_SHARE, _ROUNDING = 1e-4, 1e-12
# While looking, wide enough that a wrong candidate shows.
_LOOKING = 2.0


@dataclass(frozen=True)
class Symmetry:
    """A family of changes that leave the outputs of a model as they are.

    Args:
        kind: A key of ``TRANSFORMATIONS``.
        name: Where in the model it acts.
        sample: Gives a random element, a change of a model in place; factors are log-uniform
            within the spread.
    """

    kind: str
    name: str
    sample: Callable[[torch.Generator, float], Change] = field(repr=False)


@dataclass(frozen=True)
class Transformed:
    """A checkpoint after random elements of symmetries.

    Args:
        probe: On the transformed copy of the model.
        change: Largest change of an output over the data, as a share of the largest output (of
            the losses, where the objective gives no outputs).
    """

    probe: Probe
    change: float


def find_symmetries(probe: Probe) -> list[Symmetry]:
    """The symmetries of a probe's model.

    Candidates are read off the order in which modules run and their shapes; each is kept if a
    random element leaves the outputs on the first batch unchanged to 1e-5 in double precision. So
    activations, branches and functional code need not be known. Only parameters of the probe are
    changed. Not found are symmetries of a residual stream, whose units many maps share.

    Args:
        probe: The model and its data.

    Returns:
        Layer-wise and neuron-wise rescaling and permutations of hidden units, scales before norms,
        GL(h) of attention pairs, permutations of heads.
    """
    finder = _Finder(probe)
    executed = finder.executed()
    rescalable = finder.hidden(executed, finder.neuron_wise)
    found = [finder.layer_wise(units) for units in rescalable]
    found += [finder.neuron_wise(units) for units in rescalable]
    found += [finder.permutation(units) for units in finder.hidden(executed, finder.permutation)]
    found += [entry for pair in normalised(executed) if finder.keeps(entry := _norm_scale(pair))]
    pairs = find_pairs(probe).pairs
    linear = [_general_linear(probe, pair) for pair in pairs]
    found += finder.kept(linear)
    found += finder.kept(_head_permutations(probe, pairs))
    order = list(TRANSFORMATIONS)
    return sorted(found, key=lambda symmetry: order.index(symmetry.kind))


def transform(
    probe: Probe, symmetries: Sequence[Symmetry], seed: int = 0, spread: float = 10.0
) -> Transformed:
    """A copy of the checkpoint, changed by a random element of each of the symmetries.

    Args:
        probe: The model and its data; not modified.
        symmetries: Applied one after the other.
        seed: Of the random elements.
        spread: Factors lie between 1/spread and spread, those before norms between 1 and spread,
            condition numbers of GL(h) are spread^2.

    Returns:
        A probe on the changed copy, and how far the outputs moved.

    Raises:
        ValueError: If the spread is not above 1.

    Example:
        >>> import torch, landscape
        >>> from landscape.geometry import find_symmetries, transform
        >>> layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> model = torch.nn.Sequential(*layers)
        >>> probe = landscape.Probe(model, "cross_entropy", batches)
        >>> found = find_symmetries(probe)
        >>> [symmetry.kind for symmetry in found]
        ['layer', 'neuron', 'permutation']
        >>> transform(probe, found[:1]).change < 1e-5
        True
    """
    if not spread > 1:
        raise ValueError(f"spread must be above 1, got {spread}")
    source = torch.Generator().manual_seed(seed)
    changes = [symmetry.sample(source, spread) for symmetry in symmetries]

    def change(model: nn.Module) -> None:
        for one in changes:
            one(model)

    before = probe.outputs_of(probe.model_copy())
    other = probe.changed(change)
    return Transformed(other, _difference(before, other.outputs_of(other.model_copy())))


def scaled_loss(probe: Probe, factor: float) -> Probe:
    """A probe on the same model whose loss is a multiple.

    Args:
        probe: The model and its data.
        factor: Positive.

    Returns:
        The probe.

    Raises:
        ValueError: If the factor is not positive.
    """
    objective: Objective = ScaledLoss(probe.objective, factor)
    return probe.changed(lambda model: None, objective)  # noqa: ARG005


class _Finder:
    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._model = probe.model_copy().double()
        self._before = probe.outputs_of(self._model, first=True)

    def executed(self) -> list[tuple[str, nn.Module]]:
        """Leaves in the order in which they run; those that run twice cannot be changed once."""
        order: list[str] = []
        leaves = {name: m for name, m in self._model.named_modules() if not list(m.children())}
        handles = [
            module.register_forward_pre_hook(lambda *_, name=name: order.append(name))
            for name, module in leaves.items()
        ]
        try:
            self._probe.outputs_of(self._model, first=True)
        finally:
            for handle in handles:
                handle.remove()
        told = [name for name in order if order.count(name) == 1]
        return [(name, leaves[name]) for name in told]

    def keeps(self, *symmetries: Symmetry) -> bool:
        """Whether random elements leave the outputs, and parameters that are not probed, alone.

        Some of the changed entries alone must move the outputs far more than all of them together,
        so that maps which hardly matter at this checkpoint are not taken for symmetric.

        Returns:
            True if all of them together hold.
        """
        source = torch.Generator().manual_seed(0)
        changed = copy.deepcopy(self._model)
        with torch.no_grad():
            try:
                for symmetry in symmetries:
                    symmetry.sample(source, _LOOKING)(changed)
            except (AttributeError, RuntimeError, TypeError):
                return False  # a module of the user's own, with other shapes than its kind has
        old, new = dict(self._model.named_parameters()), dict(changed.named_parameters())
        moved = {name for name in old if not torch.equal(old[name], new[name])}
        if not moved or not moved <= set(self._probe.space.names):
            return False
        whole = self._moves(changed)
        if whole > _UNCHANGED:
            return False
        with torch.no_grad():
            for name in moved:
                keep = torch.rand(old[name].shape, generator=source) < 0.5
                new[name].copy_(torch.where(keep.to(old[name].device), old[name], new[name]))
        return whole <= _SHARE * self._moves(changed) + _ROUNDING

    def _moves(self, model: nn.Module) -> float:
        return _difference(self._before, self._probe.outputs_of(model, first=True))

    def hidden(
        self,
        executed: Sequence[tuple[str, nn.Module]],
        make: Callable[[HiddenUnits], Symmetry],
    ) -> list[HiddenUnits]:
        """Hidden units on which a symmetry acts, each place once."""
        found: dict[str, HiddenUnits] = {}
        done: set[str] = set()
        for units in candidates(executed):
            symmetry = make(units)
            if not {units.producers[-1], symmetry.name} & (done | found.keys()) and self.keeps(
                symmetry
            ):
                done.add(units.producers[-1])
                found[symmetry.name] = units
        return list(found.values())

    def neuron_wise(self, units: HiddenUnits) -> Symmetry:
        """Every unit by a factor of its own."""
        return self._rescaling("neuron", units)

    def layer_wise(self, units: HiddenUnits) -> Symmetry:
        """All units by one factor."""
        return self._rescaling("layer", units)

    def _rescaling(self, kind: str, units: HiddenUnits) -> Symmetry:
        count = units.count if kind == "neuron" else 1

        def sample(source: torch.Generator, spread: float) -> Change:
            return units.scaled(_log_uniform(count, source, spread).expand(units.count))

        entry = units.entry(self._model)  # a norm may stand behind several maps
        return Symmetry(kind, f"{' + '.join(entry)} → {' + '.join(units.consumers)}", sample)

    def permutation(self, units: HiddenUnits) -> Symmetry:
        """The units in another order."""

        def sample(source: torch.Generator, spread: float) -> Change:  # noqa: ARG001
            return units.permuted(_derangement(units.count, source))

        return Symmetry("permutation", units.name, sample)

    def kept(self, symmetries: list[Symmetry]) -> list[Symmetry]:
        """Those that hold, tried together first and in halves where they do not."""
        if not symmetries or self.keeps(*symmetries):
            return symmetries
        if len(symmetries) == 1:
            return []
        half = len(symmetries) // 2
        return self.kept(symmetries[:half]) + self.kept(symmetries[half:])


def _difference(before: Tensor, after: Tensor) -> float:
    before, after = before.double(), after.double()
    largest = float(before.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    found = float((after - before).abs().max()) / largest
    return found if math.isfinite(found) else math.inf


def _log_uniform(count: int, source: torch.Generator, spread: float) -> Tensor:
    draws = torch.rand(count, generator=source, dtype=torch.float64)
    return torch.exp((2 * draws - 1) * math.log(spread))


def _derangement(count: int, source: torch.Generator) -> Tensor:
    """A random cyclic order, so that no unit stays in its place."""
    order = torch.randperm(count, generator=source)
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found


def _norm_scale(pair: Normalised) -> Symmetry:
    def sample(source: torch.Generator, spread: float) -> Change:
        # Upwards only: against small activations the epsilon of the norm would count.
        return pair.scaled(float(_log_uniform(1, source, math.sqrt(spread))) * math.sqrt(spread))

    return Symmetry("norm", pair.name, sample)


def _general_linear(probe: Probe, pair: Pair) -> Symmetry:
    def sample(source: torch.Generator, spread: float) -> Change:
        width = pair.left.shape[1]
        draws = torch.randn(2, width, width, generator=source, dtype=torch.float64)
        turns, signs = torch.linalg.qr(draws)
        turns = turns * signs.diagonal(dim1=1, dim2=2).sign()[:, None]
        stretch = _log_uniform(width, source, spread)
        forward = turns[0] * stretch @ turns[1]
        backward = turns[1].mT / stretch @ turns[0].mT

        def change(flat: Tensor) -> None:
            left, right = flat[pair.left].double(), flat[pair.right].double()
            flat[pair.left] = (left @ backward.to(flat.device)).to(flat.dtype)
            flat[pair.right] = (right @ forward.mT.to(flat.device)).to(flat.dtype)

        return _on_flat(probe, change)

    return Symmetry("attention", pair.name, sample)


def _head_permutations(probe: Probe, pairs: Sequence[Pair]) -> list[Symmetry]:
    """One a module: its heads, with both their pairs, in another order."""
    modules: dict[str, dict[int, list[Pair]]] = {}
    for pair in pairs:
        if pair.head is not None:
            modules.setdefault(pair.module, {}).setdefault(pair.head, []).append(pair)

    def symmetry(name: str, heads: list[list[Pair]]) -> Symmetry:
        places = [torch.cat([torch.cat([p.left, p.right]).flatten() for p in own]) for own in heads]

        def sample(source: torch.Generator, spread: float) -> Change:  # noqa: ARG001
            order = _derangement(len(heads), source).tolist()

            def change(flat: Tensor) -> None:
                old = flat.clone()
                for here, there in enumerate(order):
                    flat[places[here]] = old[places[there]]

            return _on_flat(probe, change)

        return Symmetry("permutation", f"heads of {name}", sample)

    return [
        symmetry(name, list(heads.values())) for name, heads in modules.items() if len(heads) > 1
    ]


def _on_flat(probe: Probe, change: Callable[[Tensor], None]) -> Change:
    space = probe.space

    def applied(model: nn.Module) -> None:
        flat = space.flatten(dict(model.named_parameters())).detach().clone()
        change(flat)
        for name, value in space.split(flat).items():
            model.get_parameter(name).copy_(value)

    return applied
