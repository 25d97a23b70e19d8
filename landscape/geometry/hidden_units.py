"""Hidden units: what stands between two maps of a model and belongs to single units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from landscape.geometry.verification import Change


def out_axis(module: nn.Module) -> int | None:
    """Dimension of a map's weight that counts its output units; None for other modules."""
    if not isinstance(getattr(module, "weight", None), nn.Parameter):
        return None  # a parametrised weight is a result, which cannot be changed
    if isinstance(module, nn.Embedding | _ConvTransposeNd) or type(module).__name__ == "Conv1D":
        return 1  # Conv1D is what GPT-2 calls a linear layer with a transposed weight
    return 0 if isinstance(module, nn.Linear | _ConvNd) else None


def in_axis(module: nn.Module) -> int | None:
    """Dimension of a map's weight that counts its input units; None for other modules."""
    if isinstance(module, nn.Embedding) or out_axis(module) is None or is_depthwise(module):
        return None
    return 1 - int(out_axis(module) or 0)


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution treats every channel by itself."""
    channels = getattr(module, "in_channels", 0)
    one = isinstance(module, _ConvNd) and module.groups == channels == module.out_channels
    return one and channels > 1


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises its inputs (batch, layer, group, instance or RMS norm)."""
    known = isinstance(module, _BatchNorm | _InstanceNorm | nn.LayerNorm | nn.GroupNorm)
    return known or type(module).__name__.endswith(("RMSNorm", "LayerNorm"))


@dataclass(frozen=True)
class HiddenUnits:
    """Units that some maps produce and others consume, with what stands between.

    Args:
        producers: Names of the maps whose outputs are the units.
        between: Names of modules with entries for single units: norms, PReLU, depthwise maps.
        consumers: Names of the maps that take the units in; each unit may fill a run of inputs, as
            a channel does after flattening.
        count: Number of units.
    """

    producers: tuple[str, ...]
    between: tuple[str, ...]
    consumers: tuple[str, ...]
    count: int

    @property
    def name(self) -> str:
        """Where the units are."""
        return f"{' + '.join(self.producers)} → {' + '.join(self.consumers)}"

    def entry(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the modules by which a scale of the units enters: behind a norm it alone can."""
        norms = [name for name in self.between if is_norm(model.get_submodule(name))]
        return tuple(norms[-1:]) or self.producers

    def scaled(self, factors: Tensor) -> Change:
        """Every unit times a positive factor, (count,), and its consumers divided by it.

        Behind a norm, which would undo it, the factor enters through the norm's weight and bias.

        Args:
            factors: (count,).

        Returns:
            The change.
        """

        def change(model: nn.Module) -> None:
            entry = self.entry(model)
            behind = entry[0] in self.between
            later = self.between[self.between.index(entry[0]) + 1 if behind else 0 :]
            for name in entry:
                module = model.get_submodule(name)
                for tensor, axis in _outgoing(module):
                    _multiply(tensor, axis, factors)
            for name in later:
                module = model.get_submodule(name)
                if is_depthwise(module) and module.bias is not None:
                    _multiply(module.get_parameter("bias"), 0, factors)
            for name in self.consumers:
                weight, axis = _incoming(model.get_submodule(name))
                _multiply(weight, axis, 1 / factors)

        return change

    def permuted(self, order: Tensor) -> Change:
        """The units in another order, (count,) integers."""

        def change(model: nn.Module) -> None:
            for name in (*self.producers, *self.between):
                for tensor, axis in _outgoing(model.get_submodule(name), buffers=True):
                    if tensor.shape[axis] == self.count:
                        _reorder(tensor, axis, order)
            for name in self.consumers:
                weight, axis = _incoming(model.get_submodule(name))
                _reorder(weight, axis, order)

        return change


@dataclass(frozen=True)
class Normalised:
    """A map whose outputs are normalised at once, so that the scale of its weights is lost.

    Args:
        producer: Name of the map.
        norm: Name of the norm.
    """

    producer: str
    norm: str

    @property
    def name(self) -> str:
        """Where they are."""
        return f"{self.producer} → {self.norm}"

    def scaled(self, factor: float) -> Change:
        """Weight and bias times a factor; running statistics of a batch norm go along."""

        def change(model: nn.Module) -> None:
            norm = model.get_submodule(self.norm)
            for tensor, _ in _outgoing(model.get_submodule(self.producer)):
                tensor.mul_(factor)
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                norm.running_mean.mul_(factor)
                variance = norm.running_var
                if variance is not None:  # so that the epsilon inside the root makes no difference
                    variance.copy_((factor**2 * (variance + norm.eps) - norm.eps).clamp_min(0))

        return change


def candidates(executed: Sequence[tuple[str, nn.Module]]) -> Iterator[HiddenUnits]:
    """Units that may be hidden between maps that run soon after each other.

    Args:
        executed: Name and module of the leaves in the order in which they run, each once.

    Yields:
        Candidates; whether a change of them leaves the outputs alone is to be seen. Of those with
        the same last producer, simpler ones come first.
    """
    for place, (name, module) in enumerate(executed):
        axis = out_axis(module)
        if axis is None or is_depthwise(module):
            continue
        count = module.get_parameter("weight").shape[axis]
        rest = executed[place + 1 :]
        maps = [entry for entry in rest if in_axis(entry[1]) is not None][:2]
        if not maps or not _takes(maps[0][1], count):
            continue
        passed = rest[: rest.index(maps[0])]
        between = tuple(other for other, follower in passed if _has_units(follower, count))
        consumers = tuple(other for other, _ in maps)
        yield HiddenUnits((name,), between, consumers[:1], count)
        # Two maps may read the same units, as two heads do, or make them, as in a gated unit.
        if len(maps) > 1 and _takes(maps[1][1], count):
            yield HiddenUnits((name,), between, consumers, count)
        earlier = [entry for entry in executed[:place] if out_axis(entry[1]) is not None]
        if earlier and _makes(earlier[-1][1], count):
            yield HiddenUnits((earlier[-1][0], name), between, consumers[:1], count)


def normalised(executed: Sequence[tuple[str, nn.Module]]) -> Iterator[Normalised]:
    """Maps that run right before a norm."""
    for (name, module), (other, follower) in pairwise(executed):
        if out_axis(module) is not None and is_norm(follower):
            yield Normalised(name, other)


def _has_units(module: nn.Module, count: int) -> bool:
    weight = getattr(module, "weight", None)
    own = is_norm(module) or isinstance(module, nn.PReLU) or is_depthwise(module)
    return own and (weight is None or weight.shape[0] == count)


def _makes(module: nn.Module, count: int) -> bool:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[out_axis(module) or 0] == count


def _takes(module: nn.Module, count: int) -> bool:
    weight, axis = _incoming(module)
    return weight.shape[axis] % count == 0


def _incoming(module: nn.Module) -> tuple[Tensor, int]:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight, in_axis(module) or 0


def _outgoing(module: nn.Module, *, buffers: bool = False) -> list[tuple[Tensor, int]]:
    """Weight, bias and, if wanted, running statistics, with the dimension of the units."""
    found = [(getattr(module, "weight", None), out_axis(module) or 0)]
    found += [(getattr(module, "bias", None), 0)]
    if buffers:
        found += [(getattr(module, name, None), 0) for name in ("running_mean", "running_var")]
    return [(tensor, axis) for tensor, axis in found if isinstance(tensor, Tensor)]


def _multiply(tensor: Tensor, axis: int, factors: Tensor) -> None:
    run = tensor.shape[axis] // len(factors)
    spread = factors.to(tensor).repeat_interleave(run)
    tensor.mul_(spread.view([-1 if d == axis else 1 for d in range(tensor.dim())]))


def _reorder(tensor: Tensor, axis: int, order: Tensor) -> None:
    run = tensor.shape[axis] // len(order)
    rows = (order[:, None] * run + torch.arange(run)).reshape(-1).to(tensor.device)
    tensor.copy_(tensor.index_select(axis, rows))
