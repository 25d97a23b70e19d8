"""The path norm: the outputs of the net with squared weights on inputs of ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, Tensor, nn

from landscape.geometry.folding import Folding, find_folding, plain_copy
from landscape.probing import Probe

# A power of two: scaling by it rounds nothing.
_FACTOR = 1024.0


@dataclass(frozen=True, kw_only=True)
class PathNormRequest:
    """Sum over all paths of the product of their squared weights, batch norms folded."""

    def compute(self, probe: Probe) -> PathNorm:
        """Three evaluations of the first batch, besides those of the folding."""
        if not probe.objective.has_outputs:
            return PathNorm(reason="the objective gives losses only; use one with outputs()")
        folding = find_folding(probe)
        for norm, why in folding.left_out.items():
            return PathNorm(reason=f"the batch norm {norm!r} cannot be folded: {why}")
        model = plain_copy(probe)
        folding.apply(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.square_()
        found = _outputs(probe, model, torch.ones)
        if found is None:
            return PathNorm(reason="its inputs are no real numbers that could be set to one")
        outputs, examples = found
        value = float(outputs.sum()) / examples
        if math.isfinite(value) and not _is_homogeneous(probe, model):
            return PathNorm(
                reason="the net with squared weights and no biases is not positively homogeneous, "
                "so that its outputs are no sum over paths (layer norm, attention, GELU, tanh)"
            )
        return PathNorm(value=value, folding=folding)


@dataclass(frozen=True, kw_only=True)
class PathNorm:
    """The sum over paths, or why there is none.

    Args:
        value: The sum; NaN where there is none.
        reason: Why there is none.
        folding: Which batch norms were folded.
    """

    value: float = math.nan
    reason: str = ""
    folding: Folding = field(default_factory=Folding)


def _outputs(
    probe: Probe, model: nn.Module, entries: Callable[[Size], Tensor]
) -> tuple[Tensor, int] | None:
    """Outputs on the first batch with other entries in its inputs, float64, and its examples."""
    examples: list[int] = []

    def fill(_model: nn.Module, inputs: Any) -> Any:
        filled = tuple(
            entries(part.shape).to(part) if _is_real(part) and part.dim() else part
            for part in inputs
        )
        examples.extend(len(part) for part in inputs if _is_real(part) and part.dim())
        return filled

    handle = model.register_forward_pre_hook(fill)
    outputs = probe.outputs_of(model, first=True).double()
    handle.remove()
    return (outputs, examples[0]) if examples else None


def _is_homogeneous(probe: Probe, model: nn.Module) -> bool:
    """Whether f(c x) = c f(x) without biases, on some positive inputs of different sizes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()

    def outputs(scale: float) -> Tensor:
        source = torch.Generator().manual_seed(0)
        found = _outputs(
            probe, model, lambda shape: scale * (0.5 + torch.rand(shape, generator=source))
        )
        return torch.zeros(1) if found is None else found[0]

    # Downwards for curves at zero, upwards for clamps that small inputs do not reach.
    here = outputs(1.0)
    room = torch.finfo(probe.dtype).eps ** 0.5 * float(here.abs().amax())
    scaled = (_FACTOR * outputs(1 / _FACTOR), outputs(_FACTOR) / _FACTOR)
    return all(bool(((here - other).abs() <= room).all()) for other in scaled)


def _is_real(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point()
