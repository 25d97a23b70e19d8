"""Jacobians of single examples' outputs, multiplied by a root of the loss's curvature in them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from landscape.probing.batches import place
from landscape.probing.cutting import cut, cut_pass
from landscape.probing.graphs import _derivative
from landscape.probing.objective import NotApplicableError, Objective
from landscape.probing.parts import NoTermsError

if TYPE_CHECKING:
    from landscape.probing.probe import Probe

#: Most outputs an example (classes times positions): each costs a backward pass of the example.
MOST_OUTPUTS = 256
# Eigenvalues of this share of the largest are rounding.
_RANK = 1e-12
# A negative one beyond this share is none.
_CONVEX = 1e-6


@dataclass(frozen=True)
class OutputColumns:
    """The vectors J' s of single examples, s the columns of S with S S' = d2 loss / d outputs2.

    The loss is the sum of an example's terms.

    Args:
        probe: Model and objective.
        examples: A batch of one example each, with S, (..., r).
        counts: Loss terms of each example, or the sums of their weights.
    """

    probe: Probe
    examples: Sequence[tuple[Any, Tensor]]
    counts: Sequence[float]

    @property
    def most(self) -> int:
        """Most columns of an example."""
        return max(roots.shape[-1] for _, roots in self.examples)

    def of(self, rows: Sequence[int]) -> list[Tensor]:
        """J' S of some examples, (r, P) each: a forward pass, and for every column a backward one.

        The columns go through the graph together, or one by one with ``products="loop"`` and where
        an operation cannot be batched.

        Args:
            rows: Which examples.

        Returns:
            One tensor an example.
        """
        probe, found = self.probe, []
        snapshot, space = probe._snapshot, probe.space
        with snapshot.evaluating(gradient=True):
            leaves = {
                name: part.detach().requires_grad_()
                for name, part in space.split(probe.weights()).items()
            }
            for row in rows:
                batch, roots = self.examples[row]
                outputs = snapshot.outputs(leaves, batch)
                pulled = self._pulled(outputs, tuple(leaves.values()), roots.movedim(-1, 0))
                found.append(torch.cat([part.flatten(1) for part in pulled], 1))
        passes = (self.counts[row] * self.examples[row][1].shape[-1] for row in rows)
        probe._meter.count(gradients=sum(passes) / probe.terms)
        return found

    def _pulled(
        self, outputs: Tensor, leaves: tuple[Tensor, ...], columns: Tensor
    ) -> tuple[Tensor, ...]:
        if self.probe._way != "loop":
            try:
                with warnings.catch_warnings():
                    # vmap warns where it falls back to a loop.
                    warnings.filterwarnings("ignore", message=".*[Bb]atching rule.*")
                    return _derivative((outputs,), leaves, (columns,), batched=True)
            except (RuntimeError, NotImplementedError):
                pass  # an operation without a batching rule
        single = [_derivative((outputs,), leaves, (column,)) for column in columns]
        return tuple(torch.stack(parts) for parts in zip(*single, strict=True))


def output_columns(probe: Probe, points: int | None) -> OutputColumns | None:
    """The Gauss-Newton matrix of every example as a sum of dyads, G_i = sum_c (J' s_c)(J' s_c)'.

    The curvature of an example's loss in its outputs is found densely in float64 and factored by
    its eigenvectors; zero eigenvalues make no column. One forward pass.

    Args:
        probe: Model, objective and data.
        points: Use only the first so many examples; None uses all.

    Returns:
        The columns, not yet evaluated, or None where the batches cannot be cut into examples.

    Raises:
        NotApplicableError: If an example has too many outputs, or the loss is not convex in them.
        NoTermsError: If no example has a loss term.
    """
    if probe.objective.curvature:
        raise NotApplicableError(
            "the Gauss-Newton diagonal is taken by examples, and the objective adds weight decay"
        )
    pieces, as_asked = cut_pass(
        probe._batches,
        size=None,
        points=points,
        by_example=probe._by_example,
        example_dim=probe.example_dim,
    )
    if not as_asked:
        return None
    probe.require_separate_examples()
    snapshot, point = probe._snapshot, probe.space.split(probe.weights())
    examples: list[tuple[Any, Tensor]] = []
    counts: list[float] = []
    for batch in pieces[0]:
        with snapshot.evaluating(gradient=False):
            outputs = snapshot.outputs(point, batch)
        with snapshot.evaluating(gradient=True):
            roots = _roots(probe.objective, outputs, batch).to(probe.dtype)
        for row in range(len(outputs)):
            single = cut(batch, row, row + 1, probe.example_dim)
            count = probe.objective.reduce(outputs[row : row + 1], single).count
            if count:  # an example of which all targets are ignored has no loss
                examples.append((single, roots[row : row + 1]))
                counts.append(count)
    if not counts:
        raise NoTermsError(
            "no example that is used has a loss term (all targets are ignored); use more points"
        )
    probe._meter.count(forwards=sum(counts) / probe.terms)
    return OutputColumns(probe, examples, counts)


def _roots(objective: Objective, outputs: Tensor, batch: Any) -> Tensor:  # (N, ..., r), float64
    """S of every example's loss in its outputs."""
    size = outputs[0].numel()
    if size > MOST_OUTPUTS:
        raise NotApplicableError(
            f"an example has {size} outputs, and the exact Gauss-Newton diagonal takes a gradient "
            f"of the example for each; at most {MOST_OUTPUTS} are taken"
        )
    try:
        curvature = _curvature(objective, outputs.double(), batch)
    except RuntimeError:  # an objective that holds tensors of the probe's precision
        curvature = _curvature(objective, outputs, batch)
    values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
    largest = values.abs().amax(-1, keepdim=True)
    if bool((values < -_CONVEX * largest.max()).any()):
        raise NotApplicableError(
            "the loss is not convex in the outputs, so that the Gauss-Newton diagonal may be "
            "negative"
        )
    rank = max(1, int((values > _RANK * largest).sum(-1).max()))
    roots = vectors[..., -rank:] * values[:, None, -rank:].clamp_min(0).sqrt()
    shaped: Tensor = roots.reshape(*outputs.shape, rank)
    return shaped


def _curvature(objective: Objective, outputs: Tensor, batch: Any) -> Tensor:  # (N, M, M), float64
    """Hessians of the losses of single examples in their outputs, M the outputs of an example."""
    leaf = outputs.detach().requires_grad_()
    total = objective.reduce(leaf, place(batch, leaf.device, leaf.dtype, copy=False)).total
    count = len(leaf)
    found = torch.zeros(
        count, leaf[0].numel(), leaf[0].numel(), dtype=torch.float64, device=leaf.device
    )
    if not total.requires_grad:
        return found
    (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
    if not slope.requires_grad:  # a loss that is linear in the outputs
        return found
    for place_of, entry in enumerate(slope.reshape(count, -1).unbind(1)):
        # Examples do not meet in a loss: the sum over them keeps them apart.
        (row,) = torch.autograd.grad(entry.sum(), leaf, retain_graph=True)
        found[:, place_of] = row.reshape(count, -1).double()
    return found
