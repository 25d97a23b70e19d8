"""A probe's curvature as the algorithms of ``linalg`` want it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from landscape.probing.graphs import Operator

if TYPE_CHECKING:
    from landscape.probing.probe import Probe


@dataclass(frozen=True)
class CurvatureOperator:
    """A probe's Hessian or Gauss-Newton matrix as a symmetric operator.

    Args:
        probe: Model, objective and data.
        name: "hessian" or "ggn".

    Raises:
        ValueError: If the name is unknown.
    """

    probe: Probe
    name: Operator = "hessian"

    def __post_init__(self) -> None:
        if self.name not in get_args(Operator):
            raise ValueError(
                f"operator must be one of {', '.join(map(repr, get_args(Operator)))}; got "
                f"{self.name!r}"
            )

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
        """Measured errors of products, (K, P) -> (K, P) float64; None where they are unknown."""
        return self.probe.product_errors(vectors, self.name)
