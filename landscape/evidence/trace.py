"""A dedicated trace estimate, where the whole Spectrum is not wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from landscape.linalg import SampleMean, hutch_plus_plus, hutchinson, xtrace
from landscape.probing import Operator, Probe
from landscape.results import Cost

TraceMethod = Literal["xtrace", "hutch++", "hutchinson"]
_ESTIMATORS = {"xtrace": xtrace, "hutch++": hutch_plus_plus, "hutchinson": hutchinson}


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
        """Runs the estimator."""
        generator = torch.Generator().manual_seed(self.seed)
        return _ESTIMATORS[self.method](
            probe.operator(self.operator), self.matvecs, generator=generator
        )
