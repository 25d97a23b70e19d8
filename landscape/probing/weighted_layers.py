"""The Linear and convolution layers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules import conv


@dataclass(frozen=True)
class WeightedLayer:
    """A Linear or convolution layer.

    Args:
        name: Of the module.
        weight: Name of its weight.
        parameters: Names of all its parameters, the weight among them.
        plain: Whether the weight, unrolled to (outputs, inputs times kernel), is the matrix that
            acts on the inputs or their patches; not so for transposed and grouped convolutions.
        shared: Whether an earlier layer has the same weight.
    """

    name: str
    weight: str
    parameters: tuple[str, ...]
    plain: bool
    shared: bool


def weighted_layers(modules: Mapping[str, nn.Module]) -> list[WeightedLayer]:
    """All Linear and convolution layers.

    Args:
        modules: By name, such as ``probe.modules()``.

    Returns:
        The layers in the order of the modules.
    """
    found: list[WeightedLayer] = []
    seen: set[int] = set()
    for name, module in modules.items():
        if not isinstance(module, nn.Linear | conv._ConvNd):
            continue
        prefix = f"{name}." if name else ""
        found.append(
            WeightedLayer(
                name=name,
                weight=f"{prefix}weight",
                parameters=tuple(prefix + own for own, _ in module.named_parameters()),
                plain=isinstance(module, nn.Linear) or not (module.transposed or module.groups > 1),
                shared=id(module.weight) in seen,
            )
        )
        seen.add(id(module.weight))
    return found
