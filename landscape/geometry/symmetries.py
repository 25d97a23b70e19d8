"""Symmetries: changes of the weights that leave the function of a model as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from landscape.geometry.attention import find_pairs, general_linear
from landscape.geometry.hidden_units import (
    HiddenUnits,
    Normalised,
    candidates,
    normalised,
)
from landscape.geometry.quotient import Pair
from landscape.geometry.verification import (
    Change,
    Sample,
    Verifier,
    difference,
    log_uniform,
    on_flat,
)
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
    sample: Sample = field(repr=False)


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


def find_symmetries(probe: Probe, spread: float = 10.0) -> list[Symmetry]:
    """The symmetries of a probe's model.

    Candidates are read off the order in which modules run and their shapes; each is kept if a
    random element leaves the outputs on the first batch unchanged to 1e-5 in double precision. So
    activations, branches and functional code need not be known. Only parameters of the probe are
    changed. Not found are symmetries of a residual stream, whose units many maps share.

    Args:
        probe: The model and its data.
        spread: Factors with which they are tried lie between 1/spread and spread; a clamp that
            small factors do not reach makes no symmetry.

    Returns:
        Layer-wise and neuron-wise rescaling and permutations of hidden units, scales before norms,
        GL(h) of attention pairs, permutations of heads.
    """
    finder = _Finder(probe, spread)
    executed = finder.executed()
    rescalable = finder.hidden(executed, finder.neuron_wise)
    found = [finder.layer_wise(units) for units in rescalable]
    found += [finder.neuron_wise(units) for units in rescalable]
    found += [finder.permutation(units) for units in finder.hidden(executed, finder.permutation)]
    found += [entry for pair in normalised(executed) if finder.keeps(entry := _norm_scale(pair))]
    pairs = find_pairs(probe).pairs  # verified there
    found += [_general_linear(probe, pair) for pair in pairs]
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
    return Transformed(other, difference(before, other.outputs_of(other.model_copy())))


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
    def __init__(self, probe: Probe, spread: float) -> None:
        self._verifier = Verifier(probe)
        self._spread = spread

    def executed(self) -> list[tuple[str, nn.Module]]:
        return self._verifier.executed()

    def kept(self, symmetries: list[Symmetry]) -> list[Symmetry]:
        """Those that hold."""
        return self._verifier.kept(symmetries, lambda entry: entry.sample, self._spread)

    def keeps(self, symmetry: Symmetry) -> bool:
        """Whether a random element leaves the outputs alone."""
        return self._verifier.holds(symmetry.sample, spread=self._spread)

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
            return units.scaled(log_uniform(count, source, spread).expand(units.count))

        entry = units.entry(self._verifier.model)  # a norm may stand behind several maps
        return Symmetry(kind, f"{' + '.join(entry)} → {' + '.join(units.consumers)}", sample)

    def permutation(self, units: HiddenUnits) -> Symmetry:
        """The units in another order."""

        def sample(source: torch.Generator, spread: float) -> Change:  # noqa: ARG001
            return units.permuted(_derangement(units.count, source))

        return Symmetry("permutation", units.name, sample)


def _derangement(count: int, source: torch.Generator) -> Tensor:
    """A random cyclic order, so that no unit stays in its place."""
    order = torch.randperm(count, generator=source)
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found


def _norm_scale(pair: Normalised) -> Symmetry:
    def sample(source: torch.Generator, spread: float) -> Change:
        # Upwards only: against small activations the epsilon of the norm would count.
        return pair.scaled(float(log_uniform(1, source, math.sqrt(spread))) * math.sqrt(spread))

    return Symmetry("norm", pair.name, sample)


def _general_linear(probe: Probe, pair: Pair) -> Symmetry:
    return Symmetry("attention", pair.name, general_linear(probe, pair))


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

            return on_flat(probe, change)

        return Symmetry("permutation", f"heads of {name}", sample)

    return [
        symmetry(name, list(heads.values())) for name, heads in modules.items() if len(heads) > 1
    ]
