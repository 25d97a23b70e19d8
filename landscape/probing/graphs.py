"""Autograd graphs of one batch that give many curvature products each."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace, align
from landscape.probing.walls import refuse_walls

Operator = Literal["hessian", "ggn"]
Tensors = tuple[Tensor, ...]
Made = TypeVar("Made")


class Graph(ABC):
    """The graph of one batch at one point; it may be used any number of times.

    The parameters are separate leaves, so that their derivatives need not be joined: they are
    added where they belong in the flat result, without a further copy of it. They stand in the
    model whenever it is differentiated, since a backward pass may evaluate it again.
    """

    def __init__(self, snapshot: Snapshot, space: ParamSpace, point: Tensor) -> None:
        own = point.detach().clone()
        self._snapshot = snapshot
        self._space = space
        self._leaves = {
            name: part.detach().requires_grad_() for name, part in space.split(own).items()
        }
        self._points = tuple(self._leaves.values())

    def add_products(self, total: Tensor, vectors: Tensor, *, batched: bool) -> None:
        """Adds the unnormalised products (sum over the batch's terms) with (K, P) to (K, P)."""
        with self._snapshot.places.substituted(self._leaves, {}):
            self._add_products(total, vectors, batched=batched)

    def _add_products(self, total: Tensor, vectors: Tensor, *, batched: bool) -> None:
        if batched:
            with warnings.catch_warnings():
                # vmap warns where it falls back to a loop; the timing decides if that is worth it.
                warnings.filterwarnings("ignore", message=".*[Bb]atching rule.*")
                self._add(total, vectors, batched=True)
            return
        for row, vector in zip(total, vectors, strict=True):
            self._add(row, vector, batched=False)

    def _add(self, total: Tensor, vectors: Tensor, *, batched: bool) -> None:
        sizes, lead = list(self._space.sizes), vectors.shape[:-1]
        parts = tuple(
            align(part.view((*lead, *shape)))
            for part, shape in zip(vectors.split(sizes, -1), self._space.shapes, strict=True)
        )
        products = self._product(parts, batched=batched)
        for place, product in zip(total.split(sizes, -1), products, strict=True):
            place.add_(product.reshape(place.shape))

    @abstractmethod
    def refuse_walls(self) -> None:
        """Raises if a product would be silently wrong."""

    @abstractmethod
    def _product(self, parts: Tensors, *, batched: bool) -> Tensors: ...


class HessianGraph(Graph):
    """Graph of the gradient: H v is the gradient's vector-Jacobian product."""

    def __init__(self, snapshot: Snapshot, space: ParamSpace, point: Tensor, batch: Any) -> None:
        super().__init__(snapshot, space, point)
        terms = snapshot.terms(self._leaves, batch)
        with snapshot.places.substituted(self._leaves, {}):
            self._gradient = _derivative((terms.total,), self._points, None, create_graph=True)
        self.terms = terms.count

    def gradient(self) -> Tensor:
        """Gradient of the sum over the batch's terms, (P,)."""
        return torch.cat([part.detach().reshape(-1) for part in self._gradient])

    def refuse_walls(self) -> None:
        """Raises if the gradient cannot be differentiated."""
        refuse_walls(*self._gradient)

    def _product(self, parts: Tensors, *, batched: bool) -> Tensors:
        return _derivative(self._gradient, self._points, parts, batched=batched)


class GaussNewtonGraph(Graph):
    """Graphs of the outputs and of the loss in them: G v = J^T (d2 loss / d outputs2) J v.

    J v is the derivative in u of J^T u, which is linear in u (the double-backward trick), so
    forward-mode rules are not needed.
    """

    def __init__(self, snapshot: Snapshot, space: ParamSpace, point: Tensor, batch: Any) -> None:
        super().__init__(snapshot, space, point)
        self._outputs = (snapshot.outputs(self._leaves, batch),)
        self._cotangent = (torch.zeros_like(self._outputs[0], requires_grad=True),)
        with snapshot.places.substituted(self._leaves, {}):
            self._transposed = _derivative(
                self._outputs, self._points, self._cotangent, create_graph=True
            )
        self._leaf = (self._outputs[0].detach().requires_grad_(),)
        terms = snapshot.objective.reduce(self._leaf[0], batch)
        self._slope = _derivative((terms.total,), self._leaf, None, create_graph=True)
        self.terms = terms.count
        self._penalty = terms.count * snapshot.objective.curvature

    def refuse_walls(self) -> None:
        """Raises if the double-backward trick or the loss's curvature would be wrong."""
        refuse_walls(*self._transposed, *self._slope)

    def push(self, vector: Tensor) -> Tensor:
        """J v, the Jacobian of the outputs times a vector (P,), shaped like the outputs."""
        parts = tuple(self._space.split(vector).values())
        with self._snapshot.places.substituted(self._leaves, {}):
            (pushed,) = _derivative(self._transposed, self._cotangent, parts)
        return pushed

    def _product(self, parts: Tensors, *, batched: bool) -> Tensors:
        pushed = _derivative(self._transposed, self._cotangent, parts, batched=batched)
        curved = _derivative(self._slope, self._leaf, pushed, batched=batched)
        products = _derivative(self._outputs, self._points, curved, batched=batched)
        if not self._penalty:
            return products
        return tuple(
            product + self._penalty * part for product, part in zip(products, parts, strict=True)
        )


def _derivative(
    values: Tensors,
    points: Tensors,
    cotangents: Tensors | None,
    *,
    create_graph: bool = False,
    batched: bool = False,
) -> Tensors:
    """Vector-Jacobian product; zero where no value depends on a point."""
    lead = cotangents[0].shape[:1] if batched and cotangents is not None else ()
    used = [index for index, value in enumerate(values) if value.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(points)
    if used:
        found = torch.autograd.grad(
            [values[index] for index in used],
            points,
            grad_outputs=None if cotangents is None else [cotangents[index] for index in used],
            retain_graph=True,
            create_graph=create_graph,
            is_grads_batched=batched,
            allow_unused=True,
        )
    return tuple(
        point.new_zeros(*lead, *point.shape) if part is None else part
        for part, point in zip(found, points, strict=True)
    )


class Allocations(TorchDispatchMode):
    """Notes every storage that operations make inside its block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would import its compiler, two seconds, only to keep away from it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return made

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in one of the storages."""
        return tensor.untyped_storage()._cdata in self._made

    def alive(self) -> int:
        """Bytes of the storages that something still refers to."""
        return sum(size for reference, size in self._made.values() if not reference.expired())


class Downcasts(TorchDispatchMode):
    """Notes the precision of what operations inside its block make of float64 numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: The largest machine precision that was met.
        self.eps: float = torch.finfo(torch.float64).eps

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, as for ``Allocations``."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = any(isinstance(arg, Tensor) and arg.dtype == torch.float64 for arg in args)
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if given and isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.eps = max(self.eps, torch.finfo(tensor.dtype).eps)
        return made


def measured(build: Callable[[], Made]) -> tuple[Made, int]:
    """Builds something with a graph and says how many bytes it keeps alive."""
    with Allocations() as allocations:
        made = build()
    return made, allocations.alive()
