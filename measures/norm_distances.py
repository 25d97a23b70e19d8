"""Distances from the initial weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.layer_norms import LayerNorms
from landscape.measures.base import CostClass, Measure, Requests
from landscape.measures.norms import LayerNormMeasure, initial_weights
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class FrobeniusDistance(LayerNormMeasure):
    """sum_i ||W_i - W0_i||_F^2 over the weight matrices.

    Batch norms are folded into the initial weights with mean 0 and variance 1, as they are in a
    new model; after a start from trained weights use ``fold=False``.

    Example:
        >>> import landscape
        >>> landscape.measures.get("frobenius-distance").formula
        'Σ ‖Wᵢ−W⁰ᵢ‖_F²'
    """

    name: ClassVar[str] = "frobenius-distance"
    meaning: ClassVar[str] = "Squared distance of the weight matrices from their initial values."
    formula: ClassVar[str] = "Σ ‖Wᵢ−W⁰ᵢ‖_F²"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (fro-dist)"
    with_initial: ClassVar[bool] = True
    without_zeros: ClassVar[bool] = False

    def shares(self, norms: LayerNorms) -> Any:
        """The squared distance of each matrix."""
        return norms.frobenius_distance

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:  # noqa: ARG002
        """Their sum."""
        return float(self.shares(norms).sum())


@dataclass(frozen=True, kw_only=True)
class SpectralDistance(FrobeniusDistance):
    """sum_i ||W_i - W0_i||_2^2 over the weight matrices, in the spectral norm.

    Batch norms are folded into the initial weights with mean 0 and variance 1, as they are in a
    new model; after a start from trained weights use ``fold=False``.

    Example:
        >>> import landscape
        >>> landscape.measures.get("spectral-distance").with_initial
        True
    """

    name: ClassVar[str] = "spectral-distance"
    meaning: ClassVar[str] = "Squared spectral distance of the matrices from their initial values."
    formula: ClassVar[str] = "Σ ‖Wᵢ−W⁰ᵢ‖₂²"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (dist-spec-init)"

    def shares(self, norms: LayerNorms) -> Any:
        """The squared spectral distance of each matrix."""
        return norms.spectral_distance


@dataclass(frozen=True, kw_only=True)
class ParameterDistance(Measure):
    """||w - w0||_2 of all trainable parameters as they are, from the initial ones.

    Example:
        >>> import landscape
        >>> landscape.measures.get("parameter-distance").cost_class
        'free'
    """

    name: ClassVar[str] = "parameter-distance"
    meaning: ClassVar[str] = "How far training has moved the weights."
    formula: ClassVar[str] = "‖w−w⁰‖₂"
    source: ClassVar[str] = "Nagarajan and Kolter 2019; Jiang et al. 2020, appendix (l2-dist)"
    group: ClassVar[str] = "Norms and margins"
    cost_class: ClassVar[CostClass] = "free"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """None; declines where the initial weights are unknown."""
        initial_weights(probe)
        return ()

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The distance."""
        moved = probe.weights().double() - initial_weights(probe).double()
        return Estimate.exact(float(moved.norm()))
