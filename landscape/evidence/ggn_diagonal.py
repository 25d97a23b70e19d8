"""The exact diagonal of the generalised Gauss-Newton matrix, and its traces by example."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.probing import Probe
from landscape.probing.output_jacobians import output_columns


@dataclass(frozen=True, kw_only=True)
class GgnDiagonalRequest:
    """diag G, G = 1/T sum over terms of J' (d2 loss / d outputs2) J, without sampling.

    The labels of a softmax cross-entropy have no part in it.

    Args:
        points: Use only the first so many examples; None uses all.
        memory: Bytes for gradients held at a time.
    """

    points: int | None = 1024
    memory: int = field(default=256 << 20, repr=False)

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 1:
            raise ValueError(f"points must be positive or None, got {self.points}")

    def compute(self, probe: Probe) -> GgnDiagonal | None:
        """One forward pass over the points, and for each output of an example a backward pass.

        Args:
            probe: The model and its data.

        Returns:
            The diagonal, or None where the batches cannot be cut into single examples.

        Raises:
            NotApplicableError: If an example has more than 256 outputs, or the loss is not convex
                in them.
        """
        found = output_columns(probe, self.points)
        if found is None:
            return None
        item = found.most * probe.size * probe.weights().element_size()
        rows, sizes = range(len(found.counts)), list(probe.space.sizes)
        most = max(1, self.memory // (4 * item))
        total = torch.zeros(probe.size, dtype=torch.float64, device=probe.device)
        traces: list[Tensor] = []
        for group in (rows[start : start + most] for start in rows[::most]):
            for columns in found.of(group):
                squares = columns.double().square().sum(0)
                total += squares
                traces.append(torch.stack([part.sum() for part in squares.split(sizes)]))
        counts = np.array(found.counts, dtype=np.float64)
        return GgnDiagonal(
            diagonal=(total / counts.sum()).to(probe.dtype),
            traces=torch.stack(traces).cpu().numpy(),
            counts=counts,
        )


@dataclass(frozen=True, kw_only=True)
class GgnDiagonal:
    """The diagonal over n examples, and what every example adds to its traces.

    Args:
        diagonal: diag G, the mean over all terms, (P,).
        traces: Sum of the diagonal over the entries of every parameter (in the order of the
            space), summed over the terms of an example, (n, number of parameters).
        counts: Loss terms of each example, or the sums of their weights, (n,).
    """

    diagonal: Tensor
    traces: NDArray[np.float64]
    counts: NDArray[np.float64]
