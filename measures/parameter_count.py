"""Number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.geometry import TRANSFORMATIONS
from landscape.measures.base import CostClass, Measure
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class ParameterCount(Measure):
    """P, the number of trainable parameters, tied ones counted once.

    The control of every comparison: it knows nothing of what training did.

    Example:
        >>> import landscape
        >>> landscape.measures.get("parameter-count").cost_class
        'free'
    """

    name: ClassVar[str] = "parameter-count"
    meaning: ClassVar[str] = "Number of trainable parameters; a control."
    formula: ClassVar[str] = "P"
    source: ClassVar[str] = "definition"
    group: ClassVar[str] = "Baselines"
    cost_class: ClassVar[CostClass] = "free"
    invariances: ClassVar[tuple[str, ...]] = tuple(TRANSFORMATIONS)

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The count."""
        return Estimate.exact(float(probe.size))
