"""Autograd graphs of one batch that give many curvature products each."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.probing.walls import refuse_walls


class Graph(ABC):
    """The graph of one batch at one point; ``products`` may be called any number of times."""

    def products(self, vectors: Tensor, *, batched: bool) -> Tensor:
        """Unnormalised products (sum over the batch's terms), (K, P) -> (K, P)."""
        if batched:
            with warnings.catch_warnings():
                # vmap warns where it falls back to a loop; the timing decides if that is worth it.
                warnings.filterwarnings("ignore", message=".*[Bb]atching rule.*")
                return self._product(vectors, batched=True)
        return torch.stack([self._product(vector, batched=False) for vector in vectors])

    @abstractmethod
    def refuse_walls(self) -> None:
        """Raises if a product would be silently wrong."""

    @abstractmethod
    def _product(self, vectors: Tensor, *, batched: bool) -> Tensor: ...


class HessianGraph(Graph):
    """Graph of the gradient: H v is the gradient's vector-Jacobian product."""

    def __init__(self, snapshot: Snapshot, space: ParamSpace, point: Tensor, batch: Any) -> None:
        self._point = point.detach().clone().requires_grad_()
        terms = snapshot.terms(space.split(self._point), batch)
        self._gradient = _derivative(terms.total, self._point, None, create_graph=True)
        self.terms = terms.count

    def refuse_walls(self) -> None:
        """Raises if the gradient cannot be differentiated."""
        refuse_walls(self._gradient)

    def _product(self, vectors: Tensor, *, batched: bool) -> Tensor:
        return _derivative(self._gradient, self._point, vectors, batched=batched)


class GaussNewtonGraph(Graph):
    """Graphs of the outputs and of the loss in them: G v = J^T (d2 loss / d outputs2) J v.

    J v is the derivative in u of J^T u, which is linear in u (the double-backward trick), so
    forward-mode rules are not needed.
    """

    def __init__(self, snapshot: Snapshot, space: ParamSpace, point: Tensor, batch: Any) -> None:
        self._point = point.detach().clone().requires_grad_()
        self._outputs = snapshot.outputs(space.split(self._point), batch)
        self._cotangent = torch.zeros_like(self._outputs, requires_grad=True)
        self._transposed = _derivative(
            self._outputs, self._point, self._cotangent, create_graph=True
        )
        self._leaf = self._outputs.detach().requires_grad_()
        terms = snapshot.objective.reduce(self._leaf, batch)
        self._slope = _derivative(terms.total, self._leaf, None, create_graph=True)
        self.terms = terms.count

    def refuse_walls(self) -> None:
        """Raises if the double-backward trick or the loss's curvature would be wrong."""
        refuse_walls(self._transposed)
        refuse_walls(self._slope)

    def _product(self, vectors: Tensor, *, batched: bool) -> Tensor:
        pushed = _derivative(self._transposed, self._cotangent, vectors, batched=batched)
        curved = _derivative(self._slope, self._leaf, pushed, batched=batched)
        return _derivative(self._outputs, self._point, curved, batched=batched)


def _derivative(
    value: Tensor,
    point: Tensor,
    cotangent: Tensor | None,
    *,
    create_graph: bool = False,
    batched: bool = False,
) -> Tensor:
    """Vector-Jacobian product; zero where the value does not depend on the point."""
    if not value.requires_grad:
        count = (cotangent.shape[0],) if batched and cotangent is not None else ()
        return torch.zeros(*count, *point.shape, dtype=point.dtype, device=point.device)
    (found,) = torch.autograd.grad(
        value,
        point,
        grad_outputs=cotangent,
        retain_graph=True,
        create_graph=create_graph,
        is_grads_batched=batched,
        allow_unused=True,
        materialize_grads=True,
    )
    return found


class _Allocations(TorchDispatchMode):
    """Notes every storage that operations make, to see how much of it stays alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return made

    def alive(self) -> int:
        """Bytes of the storages that something still refers to."""
        return sum(size for reference, size in self._made.values() if not reference.expired())


def build_measured(build: Callable[[], Graph]) -> tuple[Graph, int]:
    """Builds a graph and says how many bytes it keeps alive."""
    with _Allocations() as allocations:
        graph = build()
    return graph, allocations.alive()
