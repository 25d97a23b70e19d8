"""The least trace of the curvature under rescalings of the layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from landscape.evidence.ggn_diagonal import GgnDiagonalRequest
from landscape.geometry import Change, Verifier, log_uniform, on_flat
from landscape.measures.base import CostClass, DeclinedError, Measure, Requests, checked_count
from landscape.measures.neighbourhood import of_values
from landscape.probing import Probe
from landscape.probing.weighted_layers import weighted_layers
from landscape.results import Estimate, Status

Array = NDArray[np.float64]

# Newton's method on a smooth convex function of few variables.
_STEPS, _FLAT = 500, 1e-9


@dataclass(frozen=True, kw_only=True)
class MinimumSharpness(Measure):
    """MS = min over alpha > 0, prod alpha = 1, of tr G(alpha . w), G the Gauss-Newton matrix.

    alpha . w multiplies the weights of layer l by alpha_l and its bias by alpha_1 ... alpha_l,
    which leaves a chain of Linear and convolution layers between positively homogeneous
    activations (ReLU, leaky ReLU, pooling) the same function. With the traces omega_l and beta_l
    of the weights and the bias of layer l at the checkpoint,

        MS = min sum_l omega_l / alpha_l^2 + beta_l / (alpha_1 ... alpha_l)^2,

    which is D (omega_1 ... omega_D)^(1/D) without biases, and convex in log alpha with them. The
    traces are exact for the examples used. Where the activations are piecewise linear, outputs are
    linear in every single parameter, so that G and the Hessian have the same diagonal.

    Other models are declined: with normalisation, skip connections or attention the rescalings that
    leave the function the same are others. The group is verified on the model's outputs.

    Args:
        points: Use only the first so many examples; None uses all. The error is that of the mean
            over examples.

    Example:
        >>> import landscape
        >>> from landscape.measures.minimum_sharpness import MinimumSharpness
        >>> MinimumSharpness(points=256).points
        256
    """

    name: ClassVar[str] = "minimum-sharpness"
    meaning: ClassVar[str] = "Least total curvature among all layer rescalings of the network."
    formula: ClassVar[str] = "min_α Σₗ ωₗ/αₗ² + βₗ/(α₁⋯αₗ)²"
    source: ClassVar[str] = "Ibayashi, Hamaguchi and Imaizumi 2021"
    group: ClassVar[str] = "Rescaled curvature"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "permutation")
    budget: ClassVar[frozenset[str]] = frozenset({"points"})

    points: int | None = 1024

    def __post_init__(self) -> None:
        checked_count(points=self.points)

    def _request(self) -> GgnDiagonalRequest:
        return GgnDiagonalRequest(points=self.points)

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """None: the diagonal of the Gauss-Newton matrix is had once rescaling is seen to hold."""
        if not probe.objective.has_outputs:
            raise DeclinedError(
                "the Gauss-Newton matrix needs the network's outputs, and the objective gives "
                "losses only; use an Objective with outputs()"
            )
        if probe.uses_batch_statistics:
            raise DeclinedError(
                "a single example has no curvature of its own where batch normalisation uses the "
                "statistics of the batch"
            )
        chain_of(probe)
        return ()

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The minimum, its error by the delta method."""
        chain, names = chain_of(probe), probe.space.names
        decline_unless_invariant(probe, chain)
        found = probe.evidence(self._request())
        if found is None:
            raise DeclinedError(
                "the batches cannot be cut into single examples: their tensors have no common "
                "first dimension, or it does not count examples"
            )
        place = {name: index for index, name in enumerate(names)}
        # Traces of every example, those of the weights first.
        traces = np.zeros((len(found.counts), 2 * len(chain)))
        for index, layer in enumerate(chain):
            traces[:, index] = found.traces[:, place[_named(layer, "weight")]]
            if (bias := _named(layer, "bias")) in place:
                traces[:, len(chain) + index] = found.traces[:, place[bias]]
        means = traces.sum(0) / found.counts.sum()
        best = least_trace(means[: len(chain)], means[len(chain) :])
        # The minimum is linear in the traces to first order, with the optimal factors as slopes;
        # the mean over terms is a ratio of sums over examples.
        excess = traces @ best.factors - best.value * found.counts
        estimate = of_values(
            best.value + excess / found.counts.mean(),
            least=0.0,
            what="examples",
            trace=float(means.sum()),
            share=best.value / float(means.sum()) if means.sum() > 0 else None,
            attained=best.attained,
            diagonal="Gauss-Newton; of the Hessian too where activations are piecewise linear",
            layers={
                layer: {
                    "weight_trace": float(means[index]),
                    "bias_trace": float(means[len(chain) + index]),
                    "alpha": float(best.alphas[index]) if best.attained else None,
                }
                for index, layer in enumerate(chain)
            },
        )
        if best.converged:
            return estimate
        return replace(
            estimate,
            status=Status.NOT_CONVERGED,
            message="The minimum over the rescalings was not reached; the value is an upper bound.",
        )


def chain_of(probe: Probe) -> list[str]:
    """The layers with weights, in the order of the model; unused ones are left out.

    Returns:
        Their names.

    Raises:
        DeclinedError: If a parameter belongs to no such layer, or is shared or frozen.
    """
    layers = []
    named, left = set(probe.space.names), set(probe.space.names) - set(probe.unused)
    for layer in weighted_layers(probe.modules()):
        if layer.parameters and set(layer.parameters) <= set(probe.unused):
            continue
        if layer.shared:
            raise DeclinedError(f"layer {layer.name!r} shares its weights with another layer")
        if not set(layer.parameters) <= named:
            raise DeclinedError(
                f"layer {layer.name!r} has parameters that are frozen, shared or not probed, so "
                "that it cannot be rescaled"
            )
        left -= set(layer.parameters)
        layers.append(layer.name)
    if left or not layers:
        raise DeclinedError(
            "the rescalings that leave the function the same are known for chains of Linear and "
            "convolution layers only; this model has other parameters: "
            f"{', '.join(sorted(left)[:5])}"
        )
    return layers


def _named(layer: str, kind: str) -> str:
    return f"{layer}.{kind}" if layer else kind


def decline_unless_invariant(probe: Probe, chain: list[str]) -> None:
    """Evaluates random rescalings of the layers: the outputs must stay the same.

    Raises:
        DeclinedError: If they do not.
    """
    if len(chain) < 2:  # nothing to rescale
        return

    def sample(source: torch.Generator, spread: float) -> Change:
        logs = log_uniform(len(chain) - 1, source, spread).log().tolist()
        sums = [*logs, 0.0]

        def change(flat: Tensor) -> None:
            parts = probe.space.split(flat)
            for place, layer in enumerate(chain):
                before = sums[place - 1] if place else 0.0
                for kind, log in (("weight", sums[place] - before), ("bias", sums[place])):
                    if (name := _named(layer, kind)) in parts:
                        parts[name].mul_(math.exp(log))

        return on_flat(probe, change)

    if not Verifier(probe).holds(sample):
        raise DeclinedError(
            "rescaling the layers changes the function: the activations are not positively "
            "homogeneous (as ReLU is), or the layers are not one chain in the order of the model"
        )


@dataclass(frozen=True, kw_only=True)
class LeastTrace:
    """The minimum over the rescalings.

    Args:
        value: The minimum; the infimum where none is attained.
        alphas: Optimal factors of the layers, (D,).
        factors: What the traces are multiplied by, those of the weights first, (2 D,).
        attained: False where a layer without curvature lets the factors grow without limit.
        converged: Whether the slope in log alpha vanishes.
    """

    value: float
    alphas: Array
    factors: Array
    attained: bool
    converged: bool


def least_trace(weights: Array, biases: Array) -> LeastTrace:
    """Minimises sum_l omega_l exp(-2 (s_l - s_(l-1))) + beta_l exp(-2 s_l), s_0 = s_D = 0.

    s_l = log(alpha_1 ... alpha_l). Newton's method from the minimum without biases.

    Args:
        weights: omega_l >= 0, (D,).
        biases: beta_l >= 0, (D,).

    Returns:
        The minimum.
    """
    depth = len(weights)
    slopes = np.zeros((2 * depth, depth + 1))
    for layer in range(1, depth + 1):
        slopes[layer - 1, [layer, layer - 1]] = -2.0, 2.0
        slopes[depth + layer - 1, layer] = -2.0
    kept, first = _kept(weights, biases)
    slopes = slopes[:, first:depth] if depth > first else np.zeros((2 * depth, 0))
    with np.errstate(divide="ignore"):
        logs = np.where(kept, np.log(np.concatenate([weights, biases])), -np.inf)
    attained = bool((weights > 0).all())
    sums = np.zeros(slopes.shape[1])
    if attained:  # all terms of the weights equal
        sums = np.cumsum(logs[:depth] - logs[:depth].mean())[:-1] / 2
    if not np.isfinite(logs).any():
        zeros = np.zeros(2 * depth)
        return LeastTrace(
            value=0.0, alphas=np.ones(depth), factors=zeros, attained=attained, converged=True
        )
    sums, converged = _newton(logs, slopes, sums)
    factors = np.where(kept, np.exp(np.minimum(slopes @ sums, 700.0)), 0.0)
    path = np.concatenate([[0.0], sums, [0.0]]) if attained else np.zeros(depth + 1)
    return LeastTrace(
        value=float(np.exp(logsumexp(logs + slopes @ sums))),
        alphas=np.exp(np.diff(path)),
        factors=factors,
        attained=attained,
        converged=converged,
    )


def _kept(weights: Array, biases: Array) -> tuple[NDArray[np.bool_], int]:
    """Terms that cannot be made to vanish, and the first free variable.

    Behind the last layer l without weight curvature, s_l and what follows move freely of what is
    before: that all vanishes as s grows. So do layers until the first bias that has curvature.

    Returns:
        Which of the 2 D terms are kept, and the index of the first s_l.
    """
    depth = len(weights)
    kept = np.ones(2 * depth, dtype=bool)
    flat = np.flatnonzero(weights == 0)
    if not len(flat):
        return kept, 1
    after = range(int(flat[-1]) + 1, depth)
    first = next((layer for layer in after if biases[layer - 1] > 0), depth)
    kept[:first] = False
    kept[depth : depth + first - 1] = False
    return kept, first


def _newton(logs: Array, slopes: Array, start: Array) -> tuple[Array, bool]:
    """Minimum of log sum_i exp(logs_i + slopes_i . s) over s, and whether it was reached."""
    point = start
    for _ in range(_STEPS):
        level = logsumexp(logs + slopes @ point)
        shares = np.exp(logs + slopes @ point - level)
        gradient = shares @ slopes
        if not len(gradient) or np.abs(gradient).max() <= _FLAT:
            return point, True
        hessian = slopes.T @ (shares[:, None] * slopes)
        step = np.linalg.solve(hessian + 1e-14 * np.eye(len(gradient)), -gradient)
        length, slope = 1.0, float(gradient @ step)
        while logsumexp(logs + slopes @ (point + length * step)) > level + 1e-4 * length * slope:
            length /= 2
            if length < 1e-12:  # nothing but rounding left
                return point, bool(np.abs(gradient).max() <= _FLAT**0.5)
        point = point + length * step
    return point, False
