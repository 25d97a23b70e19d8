"""A probe's curvature as the algorithms of ``linalg`` want it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from landscape.probing.products import Operator

if TYPE_CHECKING:
    from landscape.probing.probe import Probe


@dataclass(frozen=True)
class CurvatureOperator:
    """A probe's Hessian or Gauss-Newton matrix as a symmetric operator."""

    probe: Probe
    name: Operator = "hessian"

    @property
    def size(self) -> int:
        """P."""
        return self.probe.size

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the vectors."""
        return self.probe.dtype

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""
        return self.probe.device

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products with K vectors, (K, P) -> (K, P)."""
        return (self.probe.hvp if self.name == "hessian" else self.probe.ggnvp)(vectors)
