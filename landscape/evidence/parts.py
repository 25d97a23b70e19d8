"""The parts of the data with their losses and gradients at the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape.probing import Parts, Probe

# Gradients of all parts are kept up to this size in bytes.
_KEPT = 1 << 30


@dataclass(frozen=True, kw_only=True)
class PartsRequest:
    """The data in parts of m examples, evaluated at the checkpoint.

    Args:
        size: Examples a part, m; None makes one part of all.
        points: Use only the first so many examples; None uses all.
    """

    size: int | None = 128
    points: int | None = 1024

    def __post_init__(self) -> None:
        if any(number is not None and number < 1 for number in (self.size, self.points)):
            raise ValueError(
                "m (examples a part) and points must be positive or None, got "
                f"{self.size} and {self.points}"
            )

    def compute(self, probe: Probe) -> BaseParts:
        """One forward pass over the parts, and one gradient where they fit in memory."""
        parts = probe.parts(self.size, self.points)
        losses = parts.base_losses()
        fits = len(parts) * probe.size * 8 <= _KEPT
        gradients = parts.losses_and_gradients(None, range(len(parts)))[1] if fits else None
        return BaseParts(parts=parts, losses=losses.numpy(), kept=gradients)


@dataclass(frozen=True, kw_only=True)
class BaseParts:
    """Parts, and what is known of them at the checkpoint.

    Args:
        parts: To evaluate further points.
        losses: L_B(w) of each part.
        kept: Its gradients, (number of parts, P), or None where they do not fit.
    """

    parts: Parts
    losses: NDArray[np.float64]
    kept: Tensor | None

    def gradients(self, which: Sequence[int]) -> Tensor:
        """Gradients of some parts at the checkpoint, (K, P)."""
        if self.kept is not None:
            return self.kept[list(which)]
        return self.parts.losses_and_gradients(None, which)[1]
