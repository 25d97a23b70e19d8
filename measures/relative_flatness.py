"""Curvature of a layer relative to the size of its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.linalg import lanczos_chains, xtrace
from landscape.measures.base import CostClass, DeclinedError, Measure, checked_count
from landscape.measures.spectral import layer_entry, of_mean
from landscape.probing import Probe
from landscape.probing.weighted_layers import weighted_layers
from landscape.results import Estimate, Status

FlatnessKind = Literal["trace", "max"]

# Rows whose products are computed in one block.
_BLOCK = 64
# A bound of this share of the value is settled.
_SETTLED = 0.05


@dataclass(frozen=True, kw_only=True)
class RelativeFlatness(Measure):
    """kappa_Tr = sum_(s,s') <w_s, w_s'> tr H_(s,s'), H_(s,s') the Hessian by rows s and s' of W.

    It is the trace of the Hessian as a function of the relative change X of a layer, W + W X, and
    so exact where as many products as X has free entries (rank of W times inputs) are spent, and
    estimated by XTrace otherwise. kappa_max = sum_s ||w_s||^2 lambda_max(H_(s,s)) is the sum over
    the neurons of the layer, by one Lanczos run for each.

    On the last layer of a network with softmax cross-entropy and features phi, kappa_Tr is
    mean ||phi||^2 (sum_k p_k ||w_k||^2 - ||sum_k p_k w_k||^2). It does not change under W -> c W,
    phi -> phi / c; it does when single features are rescaled. Weights of convolutions are unrolled
    to (outputs, inputs times kernel). Biases are left out.

    Args:
        layer: Shell-style pattern of the name of one Linear or convolution layer; None takes the
            last one in the order of the model whose weights are trainable and used.
        kind: "trace" or "max".
        matvecs: Products spent on the trace of a layer, at least 6.
        steps: Lanczos steps of every neuron of a layer, one product each, for ``kind="max"``.
        layers: Also measure every other layer, each with the same budget; the values are in
            ``diagnostics["layers"]``.

    Raises:
        ValueError: If the kind is unknown or a number is no positive integer.

    Example:
        >>> from landscape.measures.relative_flatness import RelativeFlatness
        >>> RelativeFlatness(layer="fc*", kind="max").label
        'relative-flatness[layer=fc*,kind=max]'
    """

    name: ClassVar[str] = "relative-flatness"
    meaning: ClassVar[str] = "Curvature of the loss under relative changes of a layer's weights."
    formula: ClassVar[str] = "Σₛₜ ⟨wₛ, wₜ⟩ tr Hₛₜ"
    source: ClassVar[str] = "Petzka et al. 2021, def. 3; estimator XTrace, Epperly et al. 2024"
    group: ClassVar[str] = "Rescaled curvature"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "norm", "attention", "permutation")
    budget: ClassVar[frozenset[str]] = frozenset({"matvecs", "steps", "layers"})

    layer: str | None = None
    kind: FlatnessKind = "trace"
    matvecs: int = 100
    steps: int = 20
    layers: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(FlatnessKind):
            raise ValueError(f"kind must be one of {get_args(FlatnessKind)}, got {self.kind!r}")
        checked_count(matvecs=self.matvecs, steps=self.steps)
        if self.matvecs < 6:
            raise ValueError(f"matvecs must be at least 6, got {self.matvecs}")

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """Of the layer, with the others in the diagnostics if asked for."""
        names = weight_matrices(probe)
        chosen = self._chosen(names)
        value = self._of_layer(probe, chosen, seed)
        diagnostics = {**value.diagnostics, "layer": chosen.removesuffix("weight").rstrip(".")}
        if self.layers:
            sizes = dict(zip(probe.space.names, probe.space.sizes, strict=True))
            diagnostics["layers"] = {
                name.removesuffix("weight").rstrip(".") or "(root)": layer_entry(
                    value if name == chosen else self._of_layer(probe, name, seed), sizes[name]
                )
                for name in names
            }
        return replace(value, diagnostics=diagnostics)

    def _chosen(self, names: list[str]) -> str:
        if self.layer is None:
            return names[-1]
        found = [
            name
            for name in names
            if fnmatchcase(name, self.layer)
            or fnmatchcase(name.removesuffix("weight").rstrip("."), self.layer)
        ]
        if len(found) != 1:
            raise DeclinedError(
                f"layer={self.layer!r} must name one of the layers with a weight matrix, and "
                f"matches {len(found)} of {', '.join(names[:20])}"
            )
        return found[0]

    def _of_layer(self, probe: Probe, name: str, seed: int) -> Estimate:
        part, generator = probe.restrict(name), torch.Generator().manual_seed(seed)
        weights = part.weights().view(part.space.shapes[0][0], -1)
        if self.kind == "trace":
            operator = _Relative(part, weights)
            if not operator.size:  # W = 0
                return Estimate.exact(0.0, products=0)
            found = xtrace(operator, self.matvecs, generator=generator)
            return of_mean(found, products=found.products)
        return self._maxima(_Rows(part, weights), weights, generator)

    def _maxima(self, rows: _Rows, weights: Tensor, generator: torch.Generator) -> Estimate:
        draws = torch.randn(weights.shape, generator=generator, dtype=torch.float64).to(weights)
        steps = min(self.steps, rows.size)
        chains = lanczos_chains(rows, draws, steps)
        tops, bounds = np.zeros(len(chains)), np.zeros(len(chains))
        for place, chain in enumerate(chains):
            off = chain.off_diagonal[:-1]
            jacobi = np.diag(chain.diagonal) + np.diag(off, 1) + np.diag(off, -1)
            values, vectors = np.linalg.eigh(jacobi)
            tops[place] = values[-1]
            # A run that spans the whole row leaves nothing but rounding.
            whole = len(chain.diagonal) == rows.size
            bounds[place] = 0.0 if whole else abs(chain.off_diagonal[-1] * vectors[-1, -1])
        masses: NDArray[np.float64] = weights.double().square().sum(1).cpu().numpy()
        value, bound = float(masses @ tops), float(masses @ bounds)
        settled = bound <= _SETTLED * abs(value)
        return Estimate(
            value=value,
            stderr=bound,
            interval=(value, value + bound),  # Ritz values lie below the largest eigenvalue
            status=Status.OK if settled else Status.NOT_CONVERGED,
            diagnostics={"products": steps * len(chains)},
        )


def weight_matrices(probe: Probe) -> list[str]:
    """The weights of Linear and convolution layers that are probed and used.

    Returns:
        Their names, in the order of the model.

    Raises:
        DeclinedError: If there is none.
    """
    free = set(probe.space.names) - set(probe.unused)
    found = [
        layer.weight
        for layer in weighted_layers(probe.modules())
        if layer.plain and layer.weight in free
    ]
    if not found:
        raise DeclinedError(
            "relative flatness is that of a layer with a weight matrix of its own: no Linear or "
            "ungrouped convolution layer of this model has trainable weights that are used"
        )
    return found


class _Relative:
    """The Hessian in X of the loss at W + R X, W W' = R R', as an operator on X (rank, inputs).

    R = W Q with orthonormal columns of Q, so that its trace is the one over all changes W X.
    """

    def __init__(self, part: Probe, weights: Tensor) -> None:
        left, values, _ = torch.linalg.svd(weights.double(), full_matrices=False)
        kept = values > torch.finfo(weights.dtype).eps * values.max()
        self._part = part
        self._root = (left[:, kept] * values[kept]).to(weights)  # (out, rank)
        self._inputs = weights.shape[1]
        self.size = self._root.shape[1] * self._inputs
        self.dtype, self.device = weights.dtype, weights.device

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products with K changes, (K, rank * inputs) -> (K, rank * inputs)."""
        changes = vectors.view(len(vectors), -1, self._inputs)
        images = self._part.hvp((self._root @ changes).flatten(1))
        pulled: Tensor = self._root.T @ images.view(len(vectors), -1, self._inputs)
        return pulled.flatten(1)


class _Rows:
    """The diagonal blocks of all rows at once: vector s is multiplied by H_(s,s)."""

    def __init__(self, part: Probe, weights: Tensor) -> None:
        self._part = part
        self._shape = weights.shape
        self.size = weights.shape[1]
        self.dtype, self.device = weights.dtype, weights.device

    def matmat(self, vectors: Tensor) -> Tensor:
        """Products of all rows with a vector each, (out, inputs) -> (out, inputs)."""
        images = torch.empty_like(vectors)
        for rows in torch.arange(len(vectors), device=self.device).split(_BLOCK):
            own = torch.arange(len(rows), device=self.device)
            embedded = vectors.new_zeros(len(rows), *self._shape)
            embedded[own, rows] = vectors[rows]
            products = self._part.hvp(embedded.flatten(1)).view(embedded.shape)
            images[rows] = products[own, rows]
        return images
