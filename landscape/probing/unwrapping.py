"""Models as they are inside what training wraps around them."""

from __future__ import annotations

import copy

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
    try:
        with torch.inference_mode(False):
            # Hook-based weight and spectral norm keep the weight they compute, which is no leaf.
            memo = {
                id(value): value.detach().clone()
                for module in inner.modules()
                for value in module.__dict__.values()
                if isinstance(value, Tensor) and not value.is_leaf
            }
            copied: nn.Module = copy.deepcopy(inner, memo)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise TypeError(
            f"the model cannot be copied ({error}); a tensor with a graph, or a handle to a file "
            "or process among its attributes is a likely cause"
        ) from error
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if _inside(child) is not None:
                setattr(parent, name, unwrapped(child, notes))
    return copied, list(dict.fromkeys(notes))


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
    plain = vars(model).get("_original_forward")
    if "forward" in vars(model) and getattr(plain, "__func__", None) is type(model).forward:
        notes.append("taken out of autocast")
        model = copy.copy(model)
        del model.__dict__["forward"], model.__dict__["_original_forward"]
    return model
