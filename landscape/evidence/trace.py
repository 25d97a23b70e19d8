"""A dedicated trace estimate, where the whole Spectrum is not wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from landscape.evidence.rounding import trace_rounding
from landscape.linalg import (
    Rescaled,
    SampleMean,
    hutch_plus_plus,
    hutchinson,
    rademacher,
    xtrace,
)
from landscape.probing import Operator, Probe
from landscape.results import Cost

TraceMethod = Literal["xtrace", "hutch++", "hutchinson"]
_ESTIMATORS = {"xtrace": xtrace, "hutch++": hutch_plus_plus, "hutchinson": hutchinson}

# Vectors whose rounding is measured.
_TOLD = 2


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """Trace of an operator by a stated method and number of products.

    Args:
        operator: "hessian" or "ggn".
        method: "xtrace", "hutch++" or "hutchinson".
        matvecs: Products to spend, at least 6.
        seed: Seed of the probes.
    """

    operator: Operator = "hessian"
    method: TraceMethod = "xtrace"
    matvecs: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(TraceMethod):
            raise ValueError(f"method must be one of {get_args(TraceMethod)}, got {self.method!r}")
        if self.matvecs < 6:
            raise ValueError(f"matvecs must be at least 6, got {self.matvecs}")

    @property
    def passes(self) -> int:
        """Products it will cost at most."""
        return self.matvecs

    def planned(self, probe: Probe) -> Cost:
        """What it will cost."""
        vectors = 3 * self.matvecs * probe.size
        return Cost(products=self.passes, peak_memory=vectors * probe.dtype.itemsize)

    def compute(self, probe: Probe) -> SampleMean:
        """Runs the estimator, and measures the rounding of two products."""
        generator = torch.Generator().manual_seed(self.seed)
        operator = probe.operator(self.operator)
        found = _ESTIMATORS[self.method](operator, self.matvecs, generator=generator)
        vectors = rademacher(_TOLD, operator, generator)
        errors = Rescaled(operator).rounding_errors(vectors)
        if errors is None:
            return found
        return replace(found, rounding=trace_rounding(vectors, errors))
