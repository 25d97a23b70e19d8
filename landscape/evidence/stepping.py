"""One step inside a ball, part by part of the data: what a method of the SAM family sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.ascent import checked_radii
from landscape.evidence.example_gradients import ExampleGradientsRequest
from landscape.evidence.parts import PartsRequest
from landscape.evidence.planning import share
from landscape.geometry import Euclidean, Geometry, Norm, checked_norm
from landscape.probing import NotApplicableError, Probe
from landscape.results import Cost

Array = NDArray[np.float64]
_VECTORS = 4
# Relative rounding of gradients that were summed in another order, in units of the precision.
_ROUNDING = 100


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Where a method steps to: a direction from the gradients of the parts."""

    @abstractmethod
    def directions(
        self,
        gradients: Tensor,  # (K, P)
        probe: Probe,
    ) -> Tensor:  # (K, P)
        """The directions whose steepest point in the ball is the perturbation."""


@dataclass(frozen=True, kw_only=True)
class AlongGradient(Rule):
    """g_B, as SAM does."""

    def directions(self, gradients: Tensor, probe: Probe) -> Tensor:  # noqa: ARG002
        """The gradients."""
        return gradients


@dataclass(frozen=True, kw_only=True)
class AgainstFullGradient(Rule):
    """g_B - sigma g: the part's gradient without the full one (Friendly SAM)."""

    sigma: float = 1.0

    def directions(self, gradients: Tensor, probe: Probe) -> Tensor:
        """What is left of the gradients; nothing where that is only rounding."""
        left = gradients - self.sigma * probe.gradient()
        noise = _ROUNDING * torch.finfo(left.dtype).eps * gradients.norm(dim=1, keepdim=True)
        return torch.where(left.norm(dim=1, keepdim=True) > noise, left, 0)


@dataclass(frozen=True, kw_only=True)
class AgainstMomentum(Rule):
    """-v for the optimiser's momentum buffer v, the same for every part (Momentum-SAM)."""

    def directions(self, gradients: Tensor, probe: Probe) -> Tensor:
        """The look-ahead direction.

        Returns:
            -v in every row.

        Raises:
            ValueError: If the probe has no momentum.
        """
        if probe.momentum is None:
            raise ValueError("the probe has no momentum; give Probe(..., momentum=...)")
        return -probe.momentum.expand(len(gradients), -1)


@dataclass(frozen=True, kw_only=True)
class OnFisherMask(Rule):
    """g_B on the entries with the largest empirical Fisher information (Sparse SAM).

    Args:
        fraction: Share of the entries that are kept.
        examples: Gradients of which the Fisher information is the mean square.
    """

    fraction: float = 0.5
    examples: ExampleGradientsRequest = field(default_factory=ExampleGradientsRequest)

    def directions(self, gradients: Tensor, probe: Probe) -> Tensor:
        """The gradients, zero outside the mask.

        Returns:
            Masked gradients.

        Raises:
            NotApplicableError: If the data have no single examples.
        """
        examples = probe.evidence(self.examples)
        if examples is None:
            raise NotApplicableError(
                "the batches cannot be cut into single examples: their tensors have no common "
                "first dimension, or it does not count examples"
            )
        fisher = examples.diagonal
        kept = max(1, round(self.fraction * len(fisher)))
        mask = torch.zeros_like(fisher)
        mask[fisher.topk(kept).indices] = 1
        return gradients * mask


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """Losses one step away from the checkpoint, of every part of the data.

    Args:
        rule: Direction of the step.
        sign: 1 steps along it, -1 against it.
        radii: Lengths of the step in the norm of the ball.
        geometry: Scale of each parameter.
        norm: "l2" or "linf".
        parts: The parts of the data.
        memory: Bytes for vectors.
    """

    rule: Rule = field(default_factory=AlongGradient)
    sign: Literal[1, -1] = 1
    radii: tuple[float, ...] = (0.05,)
    geometry: Geometry = field(default_factory=Euclidean)
    norm: Norm = "l2"
    parts: PartsRequest = field(default_factory=PartsRequest)
    memory: int = field(default=2 << 30, repr=False)

    def __post_init__(self) -> None:
        checked_norm(self.norm)
        checked_radii(self.radii)

    def planned(self, probe: Probe) -> Cost:
        """What it will cost, the parts included."""
        part = share(probe, self.parts.points)
        return Cost(gradients=2 * part, forwards=(1 + len(self.radii)) * part)

    def compute(self, probe: Probe) -> Steps:
        """One forward pass over the parts for each radius."""
        base = probe.evidence(self.parts)
        ball = self.geometry.around(probe, self.norm)
        room = self.memory // (_VECTORS * probe.size * ball.scale.element_size())
        at_once = max(1, int(room))
        parts = range(len(base.parts))
        changes = np.zeros((len(self.radii), len(parts)))
        rounding = np.zeros(len(self.radii))
        still = np.zeros(len(parts), dtype=bool)
        for start in range(0, len(parts), at_once):
            rows = parts[start : start + at_once]
            directions = ball.steepest(self.rule.directions(base.gradients(rows), probe))
            still[rows] = ~directions.any(1).cpu().numpy()
            for place, rho in enumerate(self.radii):
                offsets = ball.retract(self.sign * rho * directions)
                if start == 0:
                    rounding[place] = probe.difference_rounding(offsets[0])
                losses = base.parts.losses(offsets, rows)
                changes[place, rows] = losses.numpy() - base.losses[rows]
        return Steps(
            radii=self.radii, changes=changes, still=still, free=ball.free, rounding=rounding
        )


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Change of the loss of each part by one step.

    Args:
        radii: Radii.
        changes: L_B(w + step) - L_B(w), (radii, parts).
        still: Parts without a direction to step in, (parts,).
        free: Number of parameters that the ball lets move.
        rounding: Measured rounding error of a change, (radii,).
    """

    radii: tuple[float, ...]
    changes: Array
    still: NDArray[np.bool_]
    free: int
    rounding: Array
