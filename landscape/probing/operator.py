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

    def rounding_errors(self, vectors: Tensor) -> Tensor | None:
        """(A in the working precision - A in float64) v on the first batch, (K, P), float64.

        Returns:
            The errors; for a float64 probe those of float32 in the ratio of the two precisions.
        """
        names = list(self.probe.space.names)
        images = {}
        for dtype in (torch.float32, torch.float64):
            try:
                twin = self.probe.on_first_batch(dtype).restrict(names)
            except ValueError:
                return None
            product = twin.hvp if self.name == "hessian" else twin.ggnvp
            images[dtype] = product(vectors.to(dtype)).double()
        errors = images[torch.float32] - images[torch.float64]
        ratio = torch.finfo(self.dtype).eps / torch.finfo(torch.float32).eps
        return errors * ratio
