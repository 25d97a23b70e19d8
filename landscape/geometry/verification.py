"""Whether a change of the weights leaves the outputs of a model as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from landscape.probing import Probe, copy_module

Change = Callable[[nn.Module], None]
#: Gives a random change, a factor of which lies within a spread.
Sample = Callable[[torch.Generator, float], Change]
Item = TypeVar("Item")

# Largest change of an output as a share of the largest output; its share of what a part of the
# change does; rounding.
_DOUBLE = (1e-5, 1e-4, 1e-12)
_SINGLE = (1e-4, 1e-2, 1e-6)


class Verifier:
    """Tries random changes on a copy of a model, on the first batch, in double precision.

    Where a model holds single precision of its own (constants, casts), all is done in its own.

    Args:
        probe: The model and its data.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._model = probe.model_copy().double()
        self._most, self._share, self._rounding = _DOUBLE
        try:
            self._before = probe.outputs_of(self._model, first=True)
        except (RuntimeError, TypeError):
            self._model = probe.model_copy()
            self._before = probe.outputs_of(self._model, first=True)
            if probe.dtype != torch.float64:
                self._most, self._share, self._rounding = _SINGLE

    @property
    def model(self) -> nn.Module:
        """The copy that changes are tried on, to look at only."""
        return self._model

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

    def holds(self, *samples: Sample, spread: float = 10.0) -> bool:
        """Whether random changes leave the outputs, and parameters that are not probed, alone.

        Some of the changed entries alone must move the outputs far more than all of them together,
        so that maps which hardly matter at this checkpoint are not taken for symmetric.

        Args:
            samples: Give the changes, which are made one after the other.
            spread: How large factors are.

        Returns:
            True if all of them together hold.
        """
        source = torch.Generator().manual_seed(0)
        changed = copy_module(self._model)
        with torch.no_grad():
            try:
                for sample in samples:
                    sample(source, spread)(changed)
            except (AttributeError, RuntimeError, TypeError):
                return False  # a module of the user's own, with other shapes than its kind has
        old, new = dict(self._model.named_parameters()), dict(changed.named_parameters())
        moved = {name for name in old if not torch.equal(old[name], new[name])}
        if not moved or not moved <= set(self._probe.space.names):
            return False
        whole = self._moves(changed)
        if whole > self._most:
            return False
        with torch.no_grad():
            for name in sorted(moved):
                keep = torch.rand(old[name].shape, generator=source) < 0.5
                new[name].copy_(torch.where(keep.to(old[name].device), old[name], new[name]))
        return whole <= self._share * self._moves(changed) + self._rounding

    def kept(
        self, items: Sequence[Item], sample: Callable[[Item], Sample], spread: float = 10.0
    ) -> list[Item]:
        """Those whose changes hold, tried together first and in halves where they do not."""
        if not items or self.holds(*(sample(item) for item in items), spread=spread):
            return list(items)
        if len(items) == 1:
            return []
        half = len(items) // 2
        return self.kept(items[:half], sample, spread) + self.kept(items[half:], sample, spread)

    def _moves(self, model: nn.Module) -> float:
        return difference(self._before, self._probe.outputs_of(model, first=True))


def difference(before: Tensor, after: Tensor) -> float:
    """Largest change of an entry as a share of the largest entry; infinite where it is NaN."""
    before, after = before.double(), after.double()
    largest = float(before.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    found = float((after - before).abs().max()) / largest
    return found if math.isfinite(found) else math.inf


def log_uniform(count: int, source: torch.Generator, spread: float) -> Tensor:
    """Factors between 1/spread and spread, (count,) float64."""
    draws = torch.rand(count, generator=source, dtype=torch.float64)
    return torch.exp((2 * draws - 1) * math.log(spread))


def on_flat(probe: Probe, change: Callable[[Tensor], None]) -> Change:
    """A change of a model from one of the flat vector of its probed parameters, in place."""
    space = probe.space

    def applied(model: nn.Module) -> None:
        flat = space.flatten(dict(model.named_parameters())).detach().clone()
        change(flat)
        for name, value in space.split(flat).items():
            model.get_parameter(name).copy_(value)

    return applied
