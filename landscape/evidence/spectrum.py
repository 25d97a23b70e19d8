"""The spectrum: one set of Lanczos runs that every spectral measure reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.planning import vector_bytes
from landscape.evidence.rounding import RoundingErrors
from landscape.linalg import (
    Chain,
    Density,
    SampleMean,
    SpectralSum,
    absolute_sum,
    density,
)
from landscape.linalg.quadrature import Function
from landscape.probing import Operator, Probe
from landscape.results import Cost

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SpectrumRequest:
    """What to compute: operator, budget and seed.

    The budget is ``steps + probes * probe_steps`` products. The first part builds a Krylov basis:
    both ends of the spectrum, and the part of trace and Frobenius norm that lies in it, exactly.
    The second part starts from random probes with the known eigenvectors projected out: what is
    left of trace and Frobenius norm, and the bulk of the spectrum.

    Args:
        operator: "hessian" or "ggn".
        steps: Lanczos steps for the extremes.
        probes: Random probes, at least 2.
        probe_steps: Lanczos steps of each probe.
        seed: Seed of start vector and probes.
        memory: Bytes for vectors; beyond it the basis is restarted and the probes are not
            re-orthogonalised.
    """

    operator: Operator = "hessian"
    steps: int = 60
    probes: int = 10
    probe_steps: int = 24
    seed: int = 0
    memory: int = field(default=4 << 30, repr=False)

    def __post_init__(self) -> None:
        if self.operator not in ("hessian", "ggn"):
            raise ValueError(f"operator must be 'hessian' or 'ggn', got {self.operator!r}")
        if self.steps < 2 or self.probes < 2 or self.probe_steps < 2:
            raise ValueError(
                "steps, probes and probe_steps must be at least 2, got "
                f"{self.steps}, {self.probes}, {self.probe_steps}"
            )

    @property
    def passes(self) -> int:
        """Products it will cost at most."""
        return self.steps + self.probes * self.probe_steps

    def planned(self, probe: Probe) -> Cost:
        """What it will cost at most: small matrices are known completely before that."""
        vectors = 2 * self.steps + self.probes * (10 + self.probe_steps)
        products = min(self.passes, probe.size)
        return Cost(products=products, peak_memory=vector_bytes(probe, vectors, self.memory))

    def compute(self, probe: Probe) -> Spectrum:
        """Runs Lanczos on the probe's curvature."""
        from landscape.evidence.lanczos_runs import compute_spectrum  # noqa: PLC0415 - a cycle

        return compute_spectrum(probe.operator(self.operator), self, layers=layer_slices(probe))


def layer_slices(probe: Probe) -> dict[str, list[slice]]:
    """Where each layer's parameters lie in a flat vector."""
    places = probe.space.slices
    return {
        layer: [places[name] for name in names] for layer, names in probe.space.by_layer().items()
    }


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Extremes with residuals, random probes with their first products, and quadrature chains.

    Args:
        size: P.
        values: Ritz values of the Krylov basis, ascending.
        error_bounds: Bounds of their errors.
        known: Which of them are known eigenvalues (their vectors are out of the chains).
        vectors: Eigenvectors of the largest eigenvalues, best first, (k, P).
        trace_exact: Part of the trace inside the basis.
        trace_samples: One sample a probe of the part outside.
        frobenius_exact: Part of ||A||_F^2 inside the basis, in squares of ``unit``.
        frobenius_samples: One sample a probe of the part outside, in squares of ``unit``.
        layer_exact: ``trace_exact`` by layer.
        layer_samples: ``trace_samples`` by layer, each (probes,).
        chains: Lanczos runs of the probes on the rest of the space.
        trace_deviations: What each probe says of the standard deviation of a trace sample.
        frobenius_deviations: The same of a Frobenius sample, in squares of ``unit``.
        layer_deviations: The same of the layers' samples.
        rounding: What the rounding of products may have moved.
        unit: A power of two of the size of A; squares are kept in it, so that none underflows.
    """

    size: int
    values: Array
    error_bounds: Array
    known: NDArray[np.bool_]
    vectors: Tensor
    trace_exact: float
    trace_samples: Array
    frobenius_exact: float
    frobenius_samples: Array
    layer_exact: dict[str, float]
    layer_samples: dict[str, Array]
    chains: Sequence[Chain]
    trace_deviations: Array
    frobenius_deviations: Array
    layer_deviations: dict[str, Array]
    rounding: RoundingErrors
    unit: float = 1.0

    def in_units(self, unit: float) -> Spectrum:
        """The spectrum of ``unit`` times the operator."""
        return replace(
            self,
            values=self.values * unit,
            error_bounds=self.error_bounds * unit,
            trace_exact=self.trace_exact * unit,
            trace_samples=self.trace_samples * unit,
            layer_exact={layer: part * unit for layer, part in self.layer_exact.items()},
            layer_samples={layer: part * unit for layer, part in self.layer_samples.items()},
            trace_deviations=self.trace_deviations * unit,
            layer_deviations={layer: part * unit for layer, part in self.layer_deviations.items()},
            chains=[chain.scaled(unit) for chain in self.chains],
            unit=self.unit * unit,
        )

    @property
    def complete(self) -> bool:
        """Whether the basis fills the space, so that every number is exact."""
        return len(self.values) == self.size

    @property
    def known_values(self) -> Array:
        """The eigenvalues known one by one, ascending."""
        return self.values[self.known]

    def trace(self) -> SampleMean:
        """Trace: exact inside the Krylov basis, Hutchinson outside it."""
        return self._mean(
            self.trace_exact, self.trace_samples, self.trace_deviations, self.rounding.trace
        )

    def frobenius_squared(self, unit: float = 1.0) -> SampleMean:
        """||A||_F^2 = sum of squared eigenvalues, as the mean of ||A v||^2.

        Args:
            unit: The result is in squares of it; ``self.unit`` neither under- nor overflows.

        Returns:
            The mean.
        """
        found = SampleMean.of_parts(
            self.frobenius_exact, self.frobenius_samples, self.frobenius_deviations, positive=True
        )
        factor = self.unit / unit
        return replace(found, rounding=self.rounding.squared).scaled(factor).scaled(factor)

    def layer_traces(self) -> dict[str, SampleMean]:
        """Trace of every layer's diagonal block, from the same probes."""
        return {
            layer: self._mean(
                exact,
                self.layer_samples[layer],
                self.layer_deviations[layer],
                self.rounding.layers[layer],
            )
            for layer, exact in self.layer_exact.items()
        }

    def _mean(self, exact: float, samples: Array, deviations: Array, rounding: float) -> SampleMean:
        found = SampleMean.of_parts(exact, samples, deviations)
        return replace(found, rounding=rounding * self.unit)

    def absolute_sum(self, function: Function) -> SpectralSum:
        """Tr f(|A|) with sampling, quadrature and rounding error."""
        return absolute_sum(
            self.chains,
            function,
            eigenvalues=self.known_values,
            rounding=self.rounding.eigenvalue * self.unit,
        )

    def density(self, grid: Array, width: float) -> Density:
        """Smoothed spectral density on a grid with its 95 % band."""
        return density(
            self.chains,
            grid,
            width,
            eigenvalues=self.known_values,
            size=self.size,
            rounding=self.rounding.eigenvalue * self.unit,
        )
