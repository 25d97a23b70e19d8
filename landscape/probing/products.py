"""Curvature products over all batches: graph reuse, batching, finite differences."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from landscape.probing.batches import Batches
from landscape.probing.graphs import GaussNewtonGraph, Graph, HessianGraph, Operator, measured
from landscape.probing.parts import Products
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace

# A smaller block says little about what batching is worth for larger ones.
_TELLING_BLOCK = 4

_GRAPHS: dict[
    Operator, Callable[[Snapshot, ParamSpace, Tensor, Any], HessianGraph | GaussNewtonGraph]
] = {
    "hessian": HessianGraph,
    "ggn": GaussNewtonGraph,
}


class CurvatureProducts:
    """Exact Hessian and Gauss-Newton products of the mean loss, for blocks of vectors.

    One graph per batch serves all vectors of a call; the graphs at the checkpoint are kept
    between calls while they fit the memory budget. Whether the vectors of a block go through
    the graph one by one or batched by vmap is timed once per operator, on the first block.

    Args:
        snapshot: Model and objective.
        space: The parameters of the vectors.
        batches: The data.
        terms: Number of loss terms of the data.
        products: "auto", or one of the ways forced.
        graph_memory: Bytes that kept graphs may take.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        space: ParamSpace,
        batches: Batches,
        *,
        terms: float,
        products: Products,
        graph_memory: int,
    ) -> None:
        if products not in get_args(Products):
            raise ValueError(f"products must be one of {get_args(Products)}, got {products!r}")
        self._snapshot = snapshot
        self._space = space
        self._batches = batches
        self._terms = terms
        self._budget = graph_memory
        self._kept: dict[tuple[Operator, int], Graph] = {}
        self._sizes: dict[tuple[Operator, int], int] = {}
        self._used = 0
        self._passable: set[Operator] = set()
        self.products: Products = products
        #: How blocks are evaluated, by operator, once known.
        self.batched: dict[Operator, bool] = (
            {} if products == "auto" else dict.fromkeys(get_args(Operator), products == "batched")
        )

    def apply(self, operator: Operator, vectors: Tensor, point: Tensor, *, at_base: bool) -> Tensor:
        """Products of the mean loss's curvature with K vectors, (K, P) -> (K, P).

        Call it under ``Snapshot.evaluating(gradient=True)``.

        Args:
            operator: "hessian" or "ggn".
            vectors: (K, P).
            point: Parameters at which the curvature is taken, (P,).
            at_base: Whether that is the checkpoint itself, so that graphs may be kept.

        Returns:
            The products.
        """
        total = torch.zeros_like(vectors)
        if not len(vectors):
            return total
        for index, batch in enumerate(self._batches):
            graph = self._graph(operator, index, batch, point, at_base=at_base)
            self._block(operator, graph, vectors, total)
            del graph
        return total.div_(self._terms)

    def _graph(
        self, operator: Operator, index: int, batch: Any, point: Tensor, *, at_base: bool
    ) -> Graph:
        key = (operator, index)
        if at_base and key in self._kept:
            return self._kept[key]

        def build() -> Graph:
            graph = _GRAPHS[operator](self._snapshot, self._space, point, batch)
            if operator not in self._passable:
                graph.refuse_walls()
                self._passable.add(operator)
            return graph

        if not at_base or self._budget <= 0:
            return build()
        if key in self._sizes:  # measured before, and it did not fit
            return build()
        graph, self._sizes[key] = measured(build)
        if self._used + self._sizes[key] <= self._budget:
            self._used += self._sizes[key]
            self._kept[key] = graph
        return graph

    def _block(self, operator: Operator, graph: Graph, vectors: Tensor, total: Tensor) -> None:
        if operator not in self.batched and len(vectors) >= _TELLING_BLOCK:
            self.batched[operator] = self._batching_pays(graph, vectors)
        batched = len(vectors) > 1 and self.batched.get(operator, False)
        graph.add_products(total, vectors, batched=batched)

    def _batching_pays(self, graph: Graph, vectors: Tensor) -> bool:
        scratch = torch.zeros_like(vectors)

        def seconds(*, batched: bool) -> float:
            times = []
            for _ in range(2):
                self._synchronise()
                start = time.perf_counter()
                graph.add_products(scratch, vectors, batched=batched)
                self._synchronise()
                times.append(time.perf_counter() - start)
            return min(times)

        looped = seconds(batched=False)
        try:
            return seconds(batched=True) < looped
        except (RuntimeError, NotImplementedError):  # an operation without a batching rule
            return False

    def _synchronise(self) -> None:
        if self._snapshot.device.type == "cuda":
            torch.cuda.synchronize(self._snapshot.device)

    def release(self) -> None:
        """Drops all kept graphs."""
        self._kept.clear()
        self._used = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without graphs: in another process, or a copy, they would lead nowhere."""
        return {**vars(self), "_kept": {}, "_used": 0}


class GradientDifferences:
    """Hessian products by central differences of gradients, for models without double backward.

    H v = ||v|| (g(w + h v / ||v||) - g(w - h v / ||v||)) / (2 h). The gradients are taken in
    float64 where that is possible, so that h can be so small that neither third derivatives nor
    kinks matter. h is the smallest step at which the noise of the gradient is 1e-4 of a product,
    but between (10 eps)^(1/2) sqrt(P) times the size of the smallest parameter's entries, and
    (10 eps)^(1/3) ||w||.

    Args:
        gradient: Gradients at offsets from the checkpoint, (P,) -> (P,), in the dtype of offsets.
        weights: The checkpoint, in the precision of the gradients.
        noise: Norm of the rounding error of a gradient.
        scale: The size of the smallest parameter's entries.
    """

    def __init__(
        self,
        gradient: Callable[[Tensor], Tensor],
        weights: Tensor,
        *,
        noise: float,
        scale: float,
    ) -> None:
        self._gradient = gradient
        self._dtype = weights.dtype
        eps = 10 * torch.finfo(weights.dtype).eps
        least = eps ** (1 / 2) * scale * len(weights) ** 0.5
        most = eps ** (1 / 3) * max(float(weights.norm()), scale * len(weights) ** 0.5)
        generator = torch.Generator().manual_seed(0)
        trial = torch.randn(len(weights), generator=generator, dtype=torch.float64)
        trial = (trial / trial.norm()).to(weights)
        size = float(self._product(trial, None, most).norm())
        #: Length of the displacement.
        self.step = min(max(1e4 * noise / size if size else most, least), most)

    def _product(self, vector: Tensor, delta: Tensor | None, step: float) -> Tensor:
        norm = float(vector.norm())
        if norm == 0:
            return torch.zeros_like(vector)
        offset = vector * (step / norm)
        there = torch.zeros_like(offset) if delta is None else delta.to(self._dtype)
        change = self._gradient(there + offset) - self._gradient(there - offset)
        return change * (norm / (2 * step))

    def products(self, vectors: Tensor, delta: Tensor | None) -> Tensor:
        """Products with (K, P) vectors at an offset from the checkpoint, (K, P)."""
        own = vectors.to(self._dtype)
        return torch.stack([self._product(v, delta, self.step) for v in own]).to(vectors.dtype)

    def errors(self, vectors: Tensor) -> Tensor:
        """How far the products are from those of twice the step, (K, P)."""
        own = vectors.to(self._dtype)
        pairs = [
            self._product(v, None, self.step) - self._product(v, None, 2 * self.step) for v in own
        ]
        return torch.stack(pairs).double()
