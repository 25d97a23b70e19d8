"""What an optimiser's state tells: running means of gradients, and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from landscape.tasks.checkpoints.naming import cleaned, translations

# Running means of gradients: SGD with momentum, then the Adam family.
_BUFFERS = ("momentum_buffer", "exp_avg")


def running_means(optimizer: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor] | None:
    """The running mean of the gradients of every parameter.

    Where names were saved, they decide. Otherwise torch saves by position: one group is in the
    order of the parameters; several are told apart by shape, each in the order of the parameters,
    where that leaves no choice (as for weights with decay, and biases without).

    Args:
        optimizer: Its state_dict.
        model: With the parameters that were optimised.

    Returns:
        By the name of every parameter that requires a gradient; None where they cannot be told.
    """
    trained = {name: entry for name, entry in model.named_parameters() if entry.requires_grad}
    entries = optimizer["state"]  # torch.distributed.checkpoint turns positions into text
    groups = [
        [_buffer(entries.get(place, entries.get(str(place)))) for place in group["params"]]
        for group in optimizer["param_groups"]
    ]
    buffers = [buffer for group in groups for buffer in group if buffer is not None]
    if len(buffers) != len(trained) or sum(map(len, groups)) != len(trained):
        return None
    if names := _names(optimizer["param_groups"]):
        found = _by_name(names, buffers, trained)
    else:
        found = _by_shape([[one for one in group if one is not None] for group in groups], trained)
    if found is None or any(found[name].shape != trained[name].shape for name in trained):
        return None
    return found


def has_running_means(optimizer: Mapping[str, Any]) -> bool:
    """Whether the optimiser keeps any."""
    return any(_buffer(entry) is not None for entry in optimizer["state"].values())


def _buffer(entry: Any) -> Tensor | None:
    if not isinstance(entry, Mapping):
        return None
    return next((entry[key] for key in _BUFFERS if isinstance(entry.get(key), Tensor)), None)


def _names(groups: list[Mapping[str, Any]]) -> list[str]:
    places = [place for group in groups for place in group["params"]]
    if places and all(isinstance(place, str) for place in places):
        return places  # of torch.distributed.checkpoint
    names = [str(name) for group in groups for name in group.get("param_names", ())]
    return names if len(names) == len(places) else []


def _by_name(
    names: list[str], buffers: list[Tensor], trained: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    names = [cleaned(name) for name in names]
    for translation in translations(names, trained, partly=False):
        if translation.hits(names) == trained.keys():
            return {
                target: buffer
                for name, buffer in zip(names, buffers, strict=True)
                if (target := translation(name)) is not None
            }
    return None


def _by_shape(
    groups: list[list[Tensor]], trained: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    waiting = [group[::-1] for group in groups if group]
    found = {}
    for name, parameter in trained.items():
        fitting = [group for group in waiting if group and group[-1].shape == parameter.shape]
        if len(fitting) != 1:
            return None
        found[name] = fitting[0].pop()
    return found
