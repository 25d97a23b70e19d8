"""Folding batch normalisation into the layer before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from landscape.probing import Probe


@dataclass(frozen=True)
class Folding:
    """Which batch norms become part of the layer before them.

    Args:
        pairs: Name of a batch norm to name of the layer that takes it in.
        left_out: Name of a batch norm to why it stays what it is.
    """

    pairs: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def apply(self, model: nn.Module, *, untrained: bool = False) -> None:
        """Scales the layers and makes the batch norms the identity, in place.

        W -> W gamma / sqrt(var + eps) by output channel, b -> (b - mean) gamma / sqrt(var + eps)
        + beta, with the running statistics. A layer without a bias gets one.

        Args:
            model: A model of the structure in which the pairs were found.
            untrained: Take the statistics of a new batch norm, mean 0 and variance 1.
        """
        for norm, layer in self.pairs.items():
            _fold(model.get_submodule(layer), model.get_submodule(norm), untrained=untrained)


def find_folding(probe: Probe) -> Folding:
    """The batch norms that can be folded, checked by the outputs on the first batch.

    A batch norm that takes its statistics from the batch, or that does not directly follow a
    linear or convolutional layer (as in pre-activation nets), stays. Two evaluations of that
    batch, and one for each batch norm where the check fails.

    Args:
        probe: The model and its data.

    Returns:
        What to fold, and why the others stay.
    """
    model = plain_copy(probe)
    norms = {name: part for name, part in model.named_modules() if isinstance(part, _BatchNorm)}
    if not norms:
        return Folding()
    if probe.identity()["batch_norm"] == "batch":
        return Folding(left_out=dict.fromkeys(norms, "it takes the statistics of each batch"))
    expected, pairs, left_out = _traced(probe, model, norms)

    def agrees(pairs: dict[str, str]) -> bool:
        folded = plain_copy(probe)
        Folding(pairs).apply(folded)
        found = probe.outputs_of(folded, first=True)
        room = torch.finfo(probe.dtype).eps ** 0.5 * float(expected.abs().amax())
        return bool(((found - expected).abs() <= room).all())

    if not pairs or agrees(pairs):
        return Folding(pairs, left_out)
    kept: dict[str, str] = {}
    for norm, layer in pairs.items():  # which of them is it?
        if agrees({**kept, norm: layer}):
            kept[norm] = layer
        else:
            left_out[norm] = f"folded into {layer!r} it changes the outputs"
    return Folding(kept, left_out)


def plain_copy(probe: Probe, weights: Tensor | None = None) -> nn.Module:
    """A copy of the model in which parametrised weights, as weight norm's, are plain parameters.

    Args:
        probe: The model.
        weights: Its trainable parameters, (P,); None takes the checkpoint's.

    Returns:
        The copy, in evaluation mode and frozen.
    """
    model = probe.model_copy()
    if weights is not None:
        with torch.no_grad():
            for name, value in probe.space.split(weights).items():
                model.get_parameter(name).copy_(value)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            names = list(cast(nn.ModuleDict, module.parametrizations))
            values = {name: getattr(module, name).detach().clone() for name in names}
            # Not torch's remove_parametrizations: it changes the class, which copies share.
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return model.requires_grad_(False)


def _traced(
    probe: Probe, model: nn.Module, norms: dict[str, _BatchNorm]
) -> tuple[Tensor, dict[str, str], dict[str, str]]:
    """Outputs, the batch norms that see just what a layer gave, and why the others do not."""
    made: list[tuple[str, Tensor, int]] = []  # layer, its output and the version of that
    seen: Counter[str] = Counter()
    pairs, left_out = {}, dict.fromkeys(norms, "the model does not use it")

    def after_layer(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[name] += 1
        made.append((name, output, output._version))

    def before_norm(name: str, norm: nn.Module, inputs: Any) -> None:
        seen[name] += 1
        source = [
            layer
            for layer, output, version in made
            if inputs[0] is output and output._version == version
        ]
        if cast(_BatchNorm, norm).running_mean is None:
            left_out[name] = "it has no running statistics"
        elif not source:
            left_out[name] = "it does not follow a linear or convolutional layer"
        else:
            pairs[name] = source[-1]

    layers = {name: part for name, part in model.named_modules() if _takes_norms(part)}
    for name, part in layers.items():
        part.register_forward_hook(partial(after_layer, name))
    for name, norm in norms.items():
        norm.register_forward_pre_hook(partial(before_norm, name))
    outputs = probe.outputs_of(model, first=True)

    owners = Counter(id(held) for part in model.modules() for held in part._parameters.values())
    for name, layer in list(pairs.items()):
        if seen[name] > 1 or seen[layer] > 1 or owners[id(layers[layer].weight)] > 1:
            left_out[name] = f"it or {layer!r} is used more than once"
            del pairs[name]
    return outputs, pairs, {name: why for name, why in left_out.items() if name not in pairs}


def _takes_norms(layer: nn.Module) -> bool:
    if isinstance(layer, _ConvTransposeNd) and layer.groups > 1:
        return False  # its output channels are spread over two dimensions
    weight = layer._parameters.get("weight")
    return isinstance(layer, nn.Linear | _ConvNd) and weight is not None


def _fold(layer: Any, norm: Any, *, untrained: bool) -> None:
    with torch.no_grad():
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        if untrained:
            mean, variance = torch.zeros_like(mean), torch.ones_like(variance)
        scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        shift = ((0 if layer.bias is None else layer.bias) - mean) * scale
        shift = shift + (0 if norm.bias is None else norm.bias)
        channels = [1] * layer.weight.dim()
        channels[int(isinstance(layer, _ConvTransposeNd))] = -1
        weight = layer.weight * scale.view(channels)
        layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
        layer.bias = nn.Parameter(shift.to(layer.weight.dtype), requires_grad=False)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        for held, value in ((norm.weight, 1.0), (norm.bias, 0.0)):
            if held is not None:
                held.fill_(value)
