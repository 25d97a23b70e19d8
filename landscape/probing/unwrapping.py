"""Models as they are inside what training wraps around them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

# By name: importing the compiler takes seconds.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
}


def unwrapped_copy(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy of the module that was compiled or distributed, at any depth.

    Args:
        model: Never modified.

    Returns:
        The copy, and what was taken off.

    Raises:
        TypeError: If the model is sharded over processes, or cannot be copied.
    """
    notes: list[str] = []
    inner = unwrapped(model, notes)
    for name, module in inner.named_modules():
        if type(module).__name__ in {"FullyShardedDataParallel", "FSDPModule"}:
            raise TypeError(
                f"{name or 'the model'} is sharded over processes (FSDP), so that no process has "
                "its weights; save a full state_dict and load it into a model without FSDP"
            )
    copied = copy_module(inner)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if _inside(child) is not None:
                setattr(parent, name, unwrapped(child, notes))
    return copied, list(dict.fromkeys(notes))


def copy_module(module: nn.Module) -> nn.Module:
    """A deep copy of a module, also of one that keeps tensors with an autograd graph.

    Modules keep such tensors as attributes or in containers: attention maps, features, losses, and
    the weights that hook-based weight norm, spectral norm and pruning compute. They are copied
    without their graph.

    Args:
        module: Never modified.

    Returns:
        The copy.

    Raises:
        TypeError: If the module cannot be copied.
    """
    try:
        with torch.inference_mode(False), _graphs_left_behind():
            copied: nn.Module = copy.deepcopy(module)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise TypeError(
            f"the model cannot be copied ({error}); a handle to a file or a process among its "
            "attributes is a likely cause"
        ) from error
    for part in copied.modules():
        if isinstance(part, torch.jit.ScriptModule):  # whose copied parameters are no leaves
            parameters: Any = part._parameters
            for key, tensor in parameters.items():
                if not tensor.is_leaf:
                    parameters[key] = tensor.detach().requires_grad_()
    return copied


@contextmanager
def _graphs_left_behind() -> Iterator[None]:
    """Tensors that are no leaves of a graph, which torch refuses to copy, are copied detached."""
    plain = Tensor.__deepcopy__

    def copy_tensor(tensor: Tensor, memo: dict[int, Any]) -> Any:
        if tensor.is_leaf:
            return plain(tensor, memo)  # type: ignore[no-untyped-call]
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
        return memo[id(tensor)]

    with patch.object(Tensor, "__deepcopy__", copy_tensor):
        yield


def _inside(model: nn.Module) -> nn.Module | None:
    kind = type(model)
    if kind.__name__ not in _WRAPPERS or not kind.__module__.startswith("torch."):
        return None
    inner: nn.Module = getattr(model, _WRAPPERS[kind.__name__])
    return inner


def unwrapped(model: nn.Module, notes: list[str]) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel, torch.compile and accelerate.

    Args:
        model: Such a wrapper, or a bare model; never modified.
        notes: Collects what was taken off.

    Returns:
        The bare model. It shares its weights with the one given.
    """
    while (inner := _inside(model)) is not None:
        notes.append(f"taken out of {type(model).__name__}")
        model = inner
    # For mixed precision accelerate replaces `forward` on the object by one under autocast, in
    # which curvature would be measured in half precision.
    plain = getattr(vars(model).get("_original_forward"), "__func__", None)
    if "forward" in vars(model) and plain is not None and plain is type(model).forward:
        notes.append("taken out of autocast")
        model = copy.copy(model)
        del model.__dict__["forward"], model.__dict__["_original_forward"]
    return model
