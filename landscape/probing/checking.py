"""The check at construction: the data and the model give the same numbers twice."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from landscape.probing.batches import Batches
from landscape.probing.graphs import Allocations
from landscape.probing.objective import Terms, checked_number
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.probing.walls import refuse_walls

OWN_SEED = "the loss draws random numbers from a seed of its own"


@dataclass(frozen=True, kw_only=True)
class BasePass:
    """The loss at the checkpoint, and what the graph of the loss shows.

    Args:
        loss: L(w).
        terms: Number of loss terms of the data, or the sum of their weights.
        unused: Trainable parameters on which no loss depends.
        strangers: Descriptions of further tensors that ask for a gradient and on which it does.
        data_hash: Hash of all batches in order.
        hardest: Number of the batch with the highest mean loss, and
        highest: that loss.
    """

    loss: float
    terms: float
    unused: tuple[str, ...]
    strangers: tuple[str, ...]
    data_hash: str
    hardest: int = 0
    highest: float = math.nan

    def restricted(self, part: ParamSpace) -> BasePass:
        """The same pass, for a sub-space."""
        return BasePass(
            loss=self.loss,
            terms=self.terms,
            unused=tuple(name for name in self.unused if name in part.names),
            strangers=self.strangers,
            data_hash=self.data_hash,
            hardest=self.hardest,
            highest=self.highest,
        )


@dataclass(frozen=True, kw_only=True)
class GradientPass:
    """The gradient at the checkpoint.

    Args:
        loss: L(w), of the same pass.
        gradient: Its gradient, (P,).
        unused: Trainable parameters that no gradient reaches.
        hardest: Mean gradient of the batch with the highest loss, (P,).
    """

    loss: float
    gradient: Tensor
    unused: tuple[str, ...]
    hardest: Tensor

    def restricted(self, space: ParamSpace, part: ParamSpace) -> GradientPass:
        """The same pass on a sub-space."""
        return GradientPass(
            loss=self.loss,
            gradient=part.flatten(space.split(self.gradient)),
            unused=tuple(name for name in self.unused if name in part.names),
            hardest=part.flatten(space.split(self.hardest)),
        )


def checked_pass(
    snapshot: Snapshot, space: ParamSpace, batches: Batches, owners: Mapping[int, str]
) -> BasePass:
    """Walks the source twice and evaluates the loss once; twice where it draws random numbers.

    Args:
        snapshot: Model and objective.
        space: The parameters that are probed.
        batches: The data; kept on the device if they are small.
        owners: Names of the parameters of the user's model, by identity.

    Returns:
        The loss at the checkpoint.

    Raises:
        ValueError: If the data or the loss change from pass to pass, the loss is not finite, it
            depends on no parameter, or there is no loss term.
    """
    # One guard around all: with the random state put back in between, dropout would draw the same
    # masks twice and go unnoticed.
    with snapshot.evaluating(gradient=False):
        hashes, size = batches.walk()
        if hashes != batches.walk()[0]:
            raise ValueError(
                "two walks over the batches gave different data: shuffling or augmentation is on; "
                "give a DataLoader with shuffle=False and deterministic transforms, or a list"
            )
        batches.keep(size)
        if snapshot.recalibrates:
            snapshot.recalibrate({}, batches)
        for batch in batches:
            snapshot.objective.check(batch)
        walk = _Walk(snapshot, space)
        total, count = 0.0, 0.0
        hardest, highest = 0, -math.inf
        for index, batch in enumerate(batches):
            terms = walk.losses(batch)
            own = float(terms.total.detach())
            total, count = total + own, count + terms.count
            if terms.count and own / terms.count > highest:
                hardest, highest = index, own / terms.count
    if count == 0:
        raise ValueError("the objective gave no loss term on any batch; check targets and masks")
    if not math.isfinite(total):
        raise ValueError(
            f"the loss at the checkpoint is {total / count}; check the weights and the data"
        )
    if not walk.reached:
        raise ValueError(
            "no gradient reaches any parameter; an objective given as a callable must evaluate the "
            "model it is handed, loss(model, batch), not one of its own"
        )
    return BasePass(
        loss=total / count,
        terms=checked_number(count),
        unused=tuple(name for name in space.names if name not in walk.reached),
        strangers=walk.strangers(owners),
        data_hash=hashlib.blake2b("".join(hashes).encode(), digest_size=16).hexdigest(),
        hardest=hardest,
        highest=highest,
    )


class _Walk:
    """Losses of one batch after the other, and the leaves of their graphs.

    Graphs are recorded until every parameter was met.
    """

    def __init__(self, snapshot: Snapshot, space: ParamSpace) -> None:
        self._snapshot = snapshot
        parameters = snapshot.trainable()
        self._leaves = {name: parameters[name].detach().requires_grad_() for name in space.names}
        self._names = {id(leaf): name for name, leaf in self._leaves.items()}
        # Whoever reaches the snapshot's own tensors passes by the ones that are substituted.
        self._own = {id(parameter): name for name, parameter in parameters.items()}
        self._parameters = list(parameters.values())
        self._strangers: dict[int, Tensor] = {}
        self._first = True
        self.reached: set[str] = set()

    def losses(self, batch: Any) -> Terms:
        """Terms of a batch; the first one is evaluated again where random numbers were drawn."""
        first, self._first = self._first, False
        recording = len(self.reached) < len(self._leaves)
        before = _random_states()
        try:
            terms = self._terms(batch, recording=recording)
        except IndexError as error:
            if "out of bounds" not in str(error):
                raise
            raise ValueError(
                f"{str(error).rstrip('.')}: a target is the number of a class for which the model "
                "has no output; compare the classes of the data with the size of the last layer"
            ) from error
        if first and terms.total.requires_grad:
            refuse_walls(terms.total)
        if first and _random_states() != before:
            self._compare(terms, self._terms(batch, recording=False))
        if recording:
            self._note_leaves(terms.total, batch)
        return terms

    def _terms(self, batch: Any, *, recording: bool) -> Terms:
        with torch.set_grad_enabled(recording), _asking(self._parameters if recording else []):
            return self._snapshot.terms(self._leaves if recording else {}, batch)

    def _compare(self, terms: Terms, again: Terms) -> None:
        first, second = float(terms.total.detach()), float(again.total)
        check_repeated(first, second, scale=abs(first), dtype=self._snapshot.dtype)
        self._snapshot.handled.add(OWN_SEED)

    def _note_leaves(self, total: Tensor, batch: Any) -> None:
        strangers = {}
        for leaf in _graph_leaves(total):
            if id(leaf) in self._names:
                self.reached.add(self._names[id(leaf)])
            else:
                strangers[id(leaf)] = leaf
        if any(not isinstance(leaf, nn.Parameter) for leaf in strangers.values()):
            # Inputs by which a loss takes derivatives are made anew by every evaluation.
            with Allocations() as made:
                again = _graph_leaves(self._terms(batch, recording=True).total)
            strangers = {
                id(leaf): leaf
                for leaf in again
                if id(leaf) not in self._names and not made.holds(leaf)
            }
        self._strangers |= strangers

    def strangers(self, owners: Mapping[int, str]) -> tuple[str, ...]:
        """Leaves that are no parameter of the probe, by name where they have one."""
        found = []
        for key, leaf in self._strangers.items():
            name = self._own.get(key) or owners.get(key)
            shape = "x".join(map(str, leaf.shape)) or "a single number"
            found.append(name or f"a tensor without a name ({shape})")
        return tuple(sorted(set(found)))


def _graph_leaves(value: Tensor) -> list[Tensor]:
    """The tensors that ask for a gradient and on which a value depends."""
    found: dict[int, Tensor] = {}
    seen: set[Node] = set()
    waiting: list[Node | None] = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found[id(variable)] = variable
        waiting.extend(following for following, _ in node.next_functions)
    return list(found.values())


@contextmanager
def _asking(parameters: list[Tensor]) -> Iterator[None]:
    """Frozen parameters ask for gradients inside the block."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)


def _random_states() -> tuple[Any, ...]:
    """The global random states of torch, NumPy and Python, to be compared."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    legacy: Any = np.random.get_state()  # noqa: NPY002
    return (
        *(state.numpy().tobytes() for state in [torch.get_rng_state(), *gpus]),
        legacy[1].tobytes(),
        legacy[2],
        random.getstate(),
    )


def check_repeated(first: float, second: float, *, scale: float, dtype: torch.dtype) -> None:
    """Raises ValueError where two evaluations of the same loss differ by more than rounding."""
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    if not abs(first - second) <= tolerance * scale:
        raise ValueError(
            "two passes over the same batches gave different losses "
            f"({first:.8g} and {second:.8g}): the forward pass is random; the likely cause is "
            "dropout or noise that ignores eval mode"
        )


def loss_pass(snapshot: Snapshot, batches: Batches) -> tuple[float, float]:
    """Mean loss at the checkpoint and number of terms, unchecked; one forward pass."""
    total, count = 0.0, 0.0
    with snapshot.evaluating(gradient=False):
        for batch in batches:
            terms = snapshot.terms({}, batch)
            total, count = total + float(terms.total), count + terms.count
    if count == 0:
        raise ValueError("the objective gave no loss term on any batch; check targets and masks")
    return total / count, count


def gradient_pass(
    snapshot: Snapshot, space: ParamSpace, batches: Batches, hardest: int
) -> GradientPass:
    """Loss and gradient at the checkpoint; one gradient pass.

    Args:
        snapshot: Model and objective.
        space: The parameters of the gradient.
        batches: The data.
        hardest: Number of the batch with the highest loss.

    Returns:
        The gradient.

    Raises:
        ValueError: If it is not finite.
    """
    parameters = snapshot.trainable()
    of_hardest: Tensor | None = None
    reached: set[str] = set()
    total, count = 0.0, 0.0
    with snapshot.evaluating(gradient=True):
        leaves = {name: parameters[name].detach().requires_grad_() for name in space.names}
        gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        for index, batch in enumerate(batches):
            terms = snapshot.terms(leaves, batch)
            total, count = total + float(terms.total.detach()), count + terms.count
            found = snapshot.derivatives(terms.total, leaves)
            for name, part in found.items():
                if part is not None:
                    reached.add(name)
                    gradient[name] += part
            if index == hardest and terms.count:
                own = {n: torch.zeros_like(leaves[n]) if p is None else p for n, p in found.items()}
                of_hardest = space.flatten(own) / terms.count
        flat = space.flatten(gradient) / count
    if not bool(flat.isfinite().all()):
        raise ValueError(
            f"the gradient at the checkpoint has norm {float(flat.norm())}, the loss is "
            f"{total / count}; check the weights and the data"
        )
    return GradientPass(
        loss=total / count,
        gradient=flat,
        unused=tuple(name for name in space.names if name not in reached),
        hardest=flat if of_hardest is None else of_hardest,
    )
