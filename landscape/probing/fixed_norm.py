"""Batch normalisation with fixed statistics: an affine map whose derivatives are fused kernels.

torch differentiates eval-mode batch norm twice by a formula of some ten elementwise passes, a
third of a ResNet's Hessian product on a CPU. With fixed statistics y = x * scale + shift is linear
in each argument, and every derivative is again a batch norm or its backward, which are one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Tensors = tuple[Tensor, Tensor, Tensor]

_PLAIN: ContextVar[bool] = ContextVar("plain_norms", default=False)


@contextmanager
def plain_norms() -> Iterator[None]:
    """Torch's own batch norm inside the block: vmap knows its rules, and not those of ours."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def use_fixed_statistics(norm: _BatchNorm) -> None:
    """Makes a batch norm do this whenever it uses its running statistics; else it is unchanged."""
    plain_types = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if type(norm) not in plain_types or "forward" in vars(norm):
        return  # someone's own forward
    norm.forward = partial(_forward_fixed, norm)  # type: ignore[method-assign]


def use_own_forward(norm: _BatchNorm) -> None:
    """Undoes ``use_fixed_statistics`` on a copy."""
    if getattr(vars(norm).get("forward"), "func", None) is _forward_fixed:
        del norm.forward


def _forward_fixed(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if _PLAIN.get() or norm.training or mean is None or variance is None:
        plain: Tensor = type(norm).forward(norm, inputs)
        return plain
    norm._check_input_dim(inputs)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.affine:
        shift = shift + norm.bias
    found: Tensor = _Affine.apply(inputs, scale, shift)  # type: ignore[no-untyped-call]
    return found


def _forward(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.batch_norm(inputs, scale, shift, zero, one, False, 0.0, 0.0, False)


def _backward(slopes: Tensor, inputs: Tensor, scale: Tensor) -> Tensors:
    """Derivatives by inputs, scale and shift."""
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    found: Tensors = torch.ops.aten.native_batch_norm_backward(
        slopes, inputs, scale, zero, one, None, None, False, 0.0, [True, True, True]
    )
    return found


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return _forward(inputs, scale, shift)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> Tensors:
        if torch.is_grad_enabled():  # a graph of the gradient is being made
            found: Tensors = _AffineBackward.apply(  # type: ignore[no-untyped-call]
                slopes, *ctx.saved_tensors
            )
            return found
        return _backward(slopes, *ctx.saved_tensors)


class _AffineBackward(torch.autograd.Function):
    @staticmethod
    def forward(slopes: Tensor, inputs: Tensor, scale: Tensor) -> Tensors:
        return _backward(slopes, inputs, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, by_inputs: Tensor, by_scale: Tensor, by_shift: Tensor) -> Tensors:
        slopes, inputs, scale = ctx.saved_tensors
        channels = scale.view(-1, *[1] * (inputs.dim() - 2))
        to_slopes = _forward(inputs, by_scale, by_shift) + by_inputs * channels
        to_inputs, to_scale, _ = _backward(slopes, by_inputs, by_scale)
        return to_slopes, to_inputs, to_scale
