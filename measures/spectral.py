"""What the spectral measures have in common: the budget and the shared Spectrum."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from landscape.evidence import Spectrum, SpectrumRequest
from landscape.linalg import SampleMean
from landscape.measures.base import DeclinedError, Measure, Requests
from landscape.probing import Operator, Probe
from landscape.results import Estimate, Status

# Rounding above this share of a value leaves less than two digits of it.
_TWO_DIGITS = 0.01


@dataclass(frozen=True, kw_only=True)
class SpectralMeasure(Measure):
    """Fields of every measure that reads the Spectrum; equal fields mean shared Lanczos runs.

    Args:
        operator: "hessian", or "ggn" for the generalised Gauss-Newton matrix.
        steps: Lanczos steps for the extremes, one product each.
        probes: Random probes for the rest.
        probe_steps: Lanczos steps of each probe.
        layers: Also measure every layer's diagonal block, each with the same budget; the values
            are in ``diagnostics["layers"]``.
    """

    group: ClassVar[str] = "Spectrum"
    budget: ClassVar[frozenset[str]] = frozenset({"steps", "probes", "probe_steps", "layers"})

    operator: Operator = "hessian"
    steps: int = 60
    probes: int = 10
    probe_steps: int = 24
    layers: bool = False

    def __post_init__(self) -> None:
        self._request(0)  # validates operator and budget

    def _request(self, seed: int) -> SpectrumRequest:
        return SpectrumRequest(
            operator=self.operator,
            steps=self.steps,
            probes=self.probes,
            probe_steps=self.probe_steps,
            seed=seed,
        )

    def _parts(self, probe: Probe) -> dict[str, Probe]:
        if not self.layers:
            return {}
        return {layer: probe.restrict(names) for layer, names in probe.space.by_layer().items()}

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The Spectrum of the whole network, and of every layer's block if asked for."""
        decline_without_outputs(probe, self.operator)
        parts = [probe, *self._parts(probe).values()]
        return [(part, self._request(seed)) for part in parts]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """Of the whole network, with each layer's block in the diagnostics if asked for."""
        whole = self.of_spectrum(probe.evidence(self._request(seed)))
        if not self.layers:
            return whole
        layers = {
            layer: layer_entry(self.of_spectrum(part.evidence(self._request(seed))), part.size)
            for layer, part in self._parts(probe).items()
        }
        return replace(whole, diagnostics={**whole.diagnostics, "layers": layers})

    @abstractmethod
    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """The measure as a pure function of a spectrum."""


def decline_without_outputs(probe: Probe, operator: Operator) -> None:
    """Declines Gauss-Newton where the objective gives no outputs."""
    if operator == "ggn" and not probe.objective.has_outputs:
        raise DeclinedError(
            "the Gauss-Newton matrix needs the network's outputs, and the objective gives losses "
            "only; use operator='hessian' or an Objective with outputs()"
        )


def layer_entry(estimate: Estimate, size: int) -> dict[str, Any]:
    """A layer's estimate as a diagnostic."""
    return {
        "value": estimate.value,
        "stderr": estimate.stderr,
        "interval": list(estimate.interval),
        "status": estimate.status.value,
        "size": size,
    }


def of_mean(mean: SampleMean, **diagnostics: Any) -> Estimate:
    """An estimate from a sample mean; uncertain where the interval is as wide as the value."""
    low, high = mean.interval()
    unsure = high - low > abs(mean.value)
    estimate = Estimate(
        value=mean.value,
        stderr=mean.stderr,
        interval=(low, high),
        status=Status.UNCERTAIN if unsure else Status.OK,
        diagnostics=diagnostics,
    )
    return with_rounding(estimate, mean.rounding)


def with_rounding(estimate: Estimate, rounding: float, size: float | None = None) -> Estimate:
    """The estimate, uncertain where rounding of the products leaves less than two digits of it.

    Args:
        estimate: The estimate; its interval covers the rounding already.
        rounding: What the rounding may have moved the value by.
        size: What two digits are of; None takes the value.

    Returns:
        The estimate with its status and a message.
    """
    size = abs(estimate.value) if size is None else size
    if not estimate.status.measured or rounding <= _TWO_DIGITS * size:
        return estimate
    share = f"by up to {100 * rounding / size:.2g} % of it" if size else "away from zero"
    return replace(
        estimate,
        status=Status.UNCERTAIN,
        message=(
            f"Rounding of the products in the working precision may have moved the value {share}; "
            "measure in float64 (dtype=torch.float64, --dtype float64)."
        ),
    )
