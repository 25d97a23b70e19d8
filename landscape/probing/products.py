"""Curvature products over all batches: graph reuse, batching, finite differences."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from landscape.probing.batches import Batches
from landscape.probing.graphs import GaussNewtonGraph, Graph, HessianGraph, measured
from landscape.probing.parts import Products
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace

Operator = Literal["hessian", "ggn"]

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


def finite_difference(
    gradient: Callable[[Tensor], Tensor],
    vectors: Tensor,  # (K, P)
    weights: Tensor,  # (P,)
) -> Tensor:
    """Hessian products by central differences of gradients, for models without double backward.

    H v = ||v|| (g(w + h v / ||v||) - g(w - h v / ||v||)) / (2 h) with
    h = eps^(1/3) max(1, ||w||): the displacement does not depend on the length of v nor on the
    number of parameters.

    Args:
        gradient: Gradient at an offset from the checkpoint.
        vectors: (K, P).
        weights: The checkpoint, sets the scale of the step.

    Returns:
        Products, (K, P), with an error of order h^2.
    """
    step = torch.finfo(weights.dtype).eps ** (1 / 3) * max(1.0, float(weights.norm()))
    rows = []
    for vector in vectors:
        norm = float(vector.norm())
        if norm == 0:
            rows.append(torch.zeros_like(vector))
            continue
        offset = vector * (step / norm)
        rows.append((gradient(offset) - gradient(-offset)) * (norm / (2 * step)))
    return torch.stack(rows)
