"""Trace of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from landscape.evidence import Spectrum, TraceRequest
from landscape.evidence.trace import TraceMethod
from landscape.measures.base import CostClass, Requests
from landscape.measures.spectral import (
    SpectralMeasure,
    decline_without_outputs,
    layer_entry,
    of_mean,
)
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class HessianTrace(SpectralMeasure):
    """Sum of all Hessian eigenvalues, tr H = sum_i lambda_i.

    Exact on the Krylov basis of the shared Spectrum, Hutchinson's estimator outside it; the
    traces of all layers' diagonal blocks come from the same probes. With ``matvecs`` a dedicated
    estimator runs instead.

    Args:
        matvecs: None reads the shared Spectrum; a number spends that many products on ``method``.
        method: "xtrace", "hutch++" or "hutchinson", used with ``matvecs``.

    Example:
        >>> import landscape
        >>> landscape.measures.get("hessian-trace", matvecs=60).matvecs
        60
    """

    name: ClassVar[str] = "hessian-trace"
    meaning: ClassVar[str] = "Total curvature: the mean rise of the loss under isotropic noise."
    formula: ClassVar[str] = "tr H = Σ λᵢ"
    source: ClassVar[str] = (
        "Hutchinson 1990; Meyer et al. 2021 (Hutch++); Epperly, Tropp and Webber 2024 (XTrace)"
    )
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    budget: ClassVar[frozenset[str]] = SpectralMeasure.budget | {"matvecs", "method"}

    matvecs: int | None = None
    method: TraceMethod = "xtrace"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matvecs is not None:
            self._trace_request(self.matvecs, 0)

    def _trace_request(self, matvecs: int, seed: int) -> TraceRequest:
        return TraceRequest(operator=self.operator, method=self.method, matvecs=matvecs, seed=seed)

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The shared Spectrum, or a dedicated trace estimate."""
        if self.matvecs is None:
            # The layers' traces need no Lanczos runs of their own.
            return super().requests(probe, seed)[:1]
        decline_without_outputs(probe, self.operator)
        return [(probe, self._trace_request(self.matvecs, seed))]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """Trace, with the layers' traces where the Spectrum is read."""
        if self.matvecs is not None:
            found = probe.evidence(self._trace_request(self.matvecs, seed))
            return of_mean(found, products=found.products, method=self.method)
        spectrum = probe.evidence(self._request(seed))
        sizes = {
            layer: probe.space.select(names).size for layer, names in probe.space.by_layer().items()
        }
        layers = {
            layer: layer_entry(of_mean(mean), sizes[layer])
            for layer, mean in spectrum.layer_traces().items()
        }
        return of_mean(spectrum.trace(), layers=layers)

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """Tr H."""
        return of_mean(spectrum.trace())
