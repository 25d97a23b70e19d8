"""Baselines: numbers that need no curvature and against which every measure is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.measures.base import CostClass, Measure, up_to_rounding
from landscape.probing import Probe
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class GradientNorm(Measure):
    """Euclidean norm of the gradient of the mean loss, ||grad L||_2.

    Exact on the data up to rounding.
    """

    name: ClassVar[str] = "gradient-norm"
    meaning: ClassVar[str] = "Distance from stationarity: zero at a critical point."
    formula: ClassVar[str] = "‖∇L(w)‖₂"
    source: ClassVar[str] = "definition"
    group: ClassVar[str] = "Baselines"
    cost_class: ClassVar[CostClass] = "free"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The norm, with each layer's in the diagnostics."""
        gradient = probe.gradient()
        return up_to_rounding(
            float(gradient.double().norm()),
            probe.rounding.gradient_norm,
            layers=_layer_norms(probe, gradient),
        )


@dataclass(frozen=True, kw_only=True)
class ParameterNorm(Measure):
    """Euclidean norm of the trainable parameters, ||w||_2, tied ones counted once."""

    name: ClassVar[str] = "parameter-norm"
    meaning: ClassVar[str] = "Size of the weights."
    formula: ClassVar[str] = "‖w‖₂"
    source: ClassVar[str] = "definition"
    group: ClassVar[str] = "Baselines"
    cost_class: ClassVar[CostClass] = "free"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The norm, with each layer's in the diagnostics."""
        weights = probe.weights()
        return Estimate.exact(float(weights.double().norm()), layers=_layer_norms(probe, weights))


@dataclass(frozen=True, kw_only=True)
class TrainLoss(Measure):
    """Mean loss over all terms of the data, L(w); exact on the data up to rounding.

    ``diagnostics["example_stderr"]`` is the standard error of that mean as an estimate of the
    expected loss, where the objective gives one loss per term.
    """

    name: ClassVar[str] = "train-loss"
    meaning: ClassVar[str] = "Loss at the checkpoint on the data of the probe."
    formula: ClassVar[str] = "L(w)"
    source: ClassVar[str] = "definition"
    group: ClassVar[str] = "Baselines"
    cost_class: ClassVar[CostClass] = "free"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "attention", "permutation")

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The loss, known since the probe was made; one forward pass for its spread."""
        stderr = probe.loss_stderr()
        spread: dict[str, Any] = {} if stderr is None else {"example_stderr": stderr}
        return up_to_rounding(probe.loss(), probe.rounding.loss, terms=probe.terms, **spread)


def _layer_norms(probe: Probe, vector: Any) -> dict[str, Any]:
    places = probe.space.slices
    return {
        layer: {
            "value": float(sum(float(vector[places[name]].double().norm()) ** 2 for name in names))
            ** 0.5,
            "size": probe.space.select(names).size,
        }
        for layer, names in probe.space.by_layer().items()
    }
