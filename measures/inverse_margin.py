"""Inverse squared margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.margins import MarginsRequest
from landscape.measures.base import Requests
from landscape.measures.norms import NormMeasure, margins_request, positive_margin
from landscape.probing import Probe


@dataclass(frozen=True, kw_only=True)
class InverseMargin(NormMeasure):
    """1 / gamma^2, gamma the 10th percentile of the margins over the data.

    The margin of a term is the logit of its class less the largest other one. A percentile that
    is not positive gives no value: the published code takes its absolute value, which would call
    a net the better the more it errs.

    ``diagnostics["margin_interval"]`` tells where the percentile of all data like these lies.

    Example:
        >>> import landscape
        >>> landscape.measures.get("inverse-margin").formula
        '1/γ²'
    """

    name: ClassVar[str] = "inverse-margin"
    meaning: ClassVar[str] = "Small where nine tenths of the data are classified by a wide margin."
    formula: ClassVar[str] = "1/γ²"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (inverse margin)"
    invariances: ClassVar[tuple[str, ...]] = (
        "layer",
        "neuron",
        "norm",
        "attention",
        "loss",
        "permutation",
    )

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """The margins."""
        return [(probe, margins_request(probe))]

    def value(self, probe: Probe) -> tuple[float, dict[str, Any]]:
        """The inverse square, with the margin and its sampling error in the diagnostics."""
        margin = positive_margin(probe)
        found = probe.evidence(MarginsRequest())
        return margin**-2, {
            "margin": margin,
            "margin_interval": list(found.interval()),
            "wrong": found.wrong,
        }
