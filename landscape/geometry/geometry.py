"""Geometries: how far each parameter may go, by the weights of the checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from landscape.geometry.attention import Attention, find_pairs
from landscape.geometry.ball import Ball, L2Ball, LinfBall
from landscape.geometry.quotient import Metric, QuotientBall, checked_metric
from landscape.probing import ParamSpace, Probe

Norm = Literal["l2", "linf"]
_BALLS: dict[str, type[Ball]] = {"l2": L2Ball, "linf": LinfBall}


@dataclass(frozen=True, kw_only=True)
class Geometry(ABC):
    """A rule that gives every parameter its scale c; the ball is {||delta / c||_p <= rho}."""

    name: ClassVar[str]

    @abstractmethod
    def scale(
        self,
        weights: Tensor,  # (P,)
        space: ParamSpace,
    ) -> Tensor:  # (P,)
        """c, zero for parameters that are left out of the ball."""

    def around(self, probe: Probe, norm: Norm = "l2") -> Ball:
        """The balls of this geometry around the checkpoint of a probe."""
        return self.ball(probe.weights(), probe.space, norm)

    def ball(self, weights: Tensor, space: ParamSpace, norm: Norm = "l2") -> Ball:
        """The balls of this geometry around given weights.

        Args:
            weights: The checkpoint, (P,).
            space: Where each parameter lies in it.
            norm: "l2" or "linf".

        Returns:
            The balls of all radii.

        Raises:
            ValueError: If the norm is unknown.
        """
        return _BALLS[checked_norm(norm)](self.scale(weights, space))


@dataclass(frozen=True, kw_only=True)
class Euclidean(Geometry):
    """c = 1: every parameter alike.

    Example:
        >>> import torch
        >>> from landscape.geometry import Euclidean
        >>> from landscape.probing import ParamSpace
        >>> space = ParamSpace.of(torch.nn.Linear(2, 1))
        >>> ball = Euclidean().ball(torch.zeros(3), space)
        >>> ball.steepest(torch.tensor([[3.0, 0.0, 4.0]]))
        tensor([[0.6000, 0.0000, 0.8000]])
    """

    name: ClassVar[str] = "euclidean"

    def scale(self, weights: Tensor, space: ParamSpace) -> Tensor:  # noqa: ARG002
        """Ones."""
        return torch.ones_like(weights)


@dataclass(frozen=True, kw_only=True)
class Elementwise(Geometry):
    """c = |w| + eta: relative changes (ASAM, Kwon et al. 2021, eq. 3; eta as in its code).

    With eta = 0 the ball is the same set of functions under every rescaling of the parameters
    that leaves the function unchanged; parameters that are exactly zero are left out.

    Args:
        eta: Added to |w|, in units of the weights.

    Raises:
        ValueError: If ``eta`` is negative or infinite.
    """

    name: ClassVar[str] = "elementwise"

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be finite and not negative, got {self.eta}")

    def scale(self, weights: Tensor, space: ParamSpace) -> Tensor:  # noqa: ARG002
        """|w| + eta."""
        return weights.abs() + self.eta


@dataclass(frozen=True, kw_only=True)
class Quotient(Geometry):
    """Pairs of attention matrices up to GL(h), c = |w| for all other parameters.

    Args:
        metric: "inv" or "mix".
        second_order: Whether geodesics bend; False goes straight.

    Raises:
        ValueError: If the metric is unknown.
    """

    name: ClassVar[str] = "geodesic"

    metric: Metric = "mix"
    second_order: bool = True

    def __post_init__(self) -> None:
        checked_metric(self.metric)

    def scale(self, weights: Tensor, space: ParamSpace) -> Tensor:  # noqa: ARG002
        """|w|, of the parameters that belong to no pair."""
        return weights.abs()

    def found(self, probe: Probe) -> Attention:
        """The pairs of a probe's model, declared ones and those that are found."""
        return find_pairs(probe)

    def around(self, probe: Probe, norm: Norm = "l2") -> Ball:
        """The balls around the checkpoint of a probe, in the metric's own norm.

        Args:
            probe: With the model whose attention is looked for.
            norm: "l2".

        Returns:
            The balls of all radii.

        Raises:
            ValueError: If another norm is asked for.
        """
        if norm != "l2":
            raise ValueError(f"a quotient metric has no norm but its own: norm='l2', got {norm!r}")
        pairs = self.found(probe).pairs
        return QuotientBall(probe.weights(), pairs, self.metric, second_order=self.second_order)


OneDimensional = Literal["exclude", "elementwise", "tensor"]


@dataclass(frozen=True, kw_only=True)
class Filterwise(Geometry):
    """c = ||w_f||_2, the norm of the filter f that an entry belongs to (Li et al. 2018).

    A filter is an index of the first dimension of a tensor with two dimensions or more: the
    incoming weights of an output unit. Entries of one filter share one scale. Filters that are
    zero throughout are left out.

    Args:
        one_dimensional: Rule for biases and normalisation parameters: "exclude" leaves them out
            (the habit of landscape plots), "elementwise" scales each by its |w|, "tensor" takes
            the norm of the whole tensor (the habit of LPF-SGD).

    Raises:
        ValueError: If the rule is unknown.
    """

    name: ClassVar[str] = "filterwise"

    one_dimensional: OneDimensional = "exclude"

    def __post_init__(self) -> None:
        if self.one_dimensional not in get_args(OneDimensional):
            raise ValueError(
                f"one_dimensional must be one of {get_args(OneDimensional)}, got "
                f"{self.one_dimensional!r}"
            )

    def scale(self, weights: Tensor, space: ParamSpace) -> Tensor:
        """Norms of the filters, each repeated over its entries."""
        scales = {}
        for name, tensor in space.split(weights).items():
            if tensor.dim() >= 2:
                norms = tensor.flatten(1).norm(dim=1)
                scales[name] = norms.repeat_interleave(tensor[0].numel())
            elif self.one_dimensional == "exclude":
                scales[name] = torch.zeros_like(tensor)
            elif self.one_dimensional == "elementwise":
                scales[name] = tensor.abs()
            else:
                scales[name] = tensor.norm().expand(tensor.shape)
        return space.flatten(scales)


GEOMETRIES: dict[str, type[Geometry]] = {
    geometry.name: geometry for geometry in (Euclidean, Elementwise, Filterwise)
}


def checked_norm(norm: Norm) -> Norm:
    """The norm itself.

    Returns:
        ``norm``.

    Raises:
        ValueError: If it is unknown.
    """
    if norm not in _BALLS:
        raise ValueError(f"norm must be one of {tuple(_BALLS)}, got {norm!r}")
    return norm


def as_geometry(name: str, *, eta: float = 0.0, one_dimensional: str = "exclude") -> Geometry:
    """A geometry by name.

    Args:
        name: "euclidean", "elementwise" or "filterwise".
        eta: Of the element-wise geometry.
        one_dimensional: Of the filter-wise geometry.

    Returns:
        The geometry.

    Raises:
        ValueError: If the name is unknown or an option is wrong.
    """
    if name not in GEOMETRIES:
        raise ValueError(f"geometry must be one of {tuple(GEOMETRIES)}, got {name!r}")
    if name == Elementwise.name:
        return Elementwise(eta=eta)
    if name == Filterwise.name:
        return Filterwise(one_dimensional=one_dimensional)  # type: ignore[arg-type]
    return Euclidean()
