"""What the measures of norms and margins have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from landscape.evidence.layer_norms import LayerNorms, LayerNormsRequest
from landscape.evidence.margins import MarginsRequest
from landscape.measures.base import CostClass, DeclinedError, Measure, Requests
from landscape.probing import Probe
from landscape.results import Estimate, Status


class UndefinedError(Exception):
    """Raised where a formula has no finite value, with the reason."""


@dataclass(frozen=True, kw_only=True)
class NormMeasure(Measure):
    """Fields of the measures of norms, margins and paths; all are exact on the given data.

    Args:
        adjusted: Give sqrt(value / m), for a logarithm (value - log m) / 2, with m the number of
            terms of the data: the form of a generalisation bound, in which checkpoints trained on
            different amounts of data are compared. By default the value itself; with equal m
            both rank checkpoints alike.
    """

    group: ClassVar[str] = "Norms and margins"
    cost_class: ClassVar[CostClass] = "low"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")

    adjusted: bool = False

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The number, adjusted if asked for."""
        try:
            value, diagnostics = self.value(probe)
        except UndefinedError as reason:
            return Estimate.without_value(Status.UNDEFINED, str(reason))
        if self.adjusted:
            value = self.adjust(value, probe.terms)
        return Estimate.exact(value, **diagnostics)

    def adjust(self, value: float, terms: float) -> float:
        """The form of a generalisation bound."""
        if self.logarithmic:
            return (value - math.log(terms)) / 2
        return math.sqrt(value / terms)

    @abstractmethod
    def value(self, probe: Probe) -> tuple[float, dict[str, Any]]:
        """The number before the adjustment, and diagnostics; raises UndefinedError."""


@dataclass(frozen=True, kw_only=True)
class LayerNormMeasure(NormMeasure):
    """Fields of the measures of the weight matrices' norms.

    Matrices are all probed parameters of two or more dimensions, embeddings included; a
    convolution is the matrix (out, in * kernel entries) of its kernel.

    Args:
        fold: Fold every batch norm that directly follows a linear or convolutional layer into
            that layer first; ``diagnostics["unfolded"]`` names those that stay, and why. With
            ``batch_norm="batch"`` all stay.
    """

    #: Whether the formula has the margin in it.
    with_margin: ClassVar[bool] = False
    #: Whether it has the initial weights in it.
    with_initial: ClassVar[bool] = False
    #: Whether it has a value only where no matrix is zero.
    without_zeros: ClassVar[bool] = True

    fold: bool = True

    @property
    def margins(self) -> bool:
        """Whether margins are asked for."""
        return self.with_margin

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """The norms of the layers, and margins where they are in the formula."""
        if self.with_initial:
            initial_weights(probe)
        found: list[Any] = [(probe, LayerNormsRequest(fold=self.fold))]
        if self.margins:
            found.append((probe, margins_request(probe)))
        return found

    def value(self, probe: Probe) -> tuple[float, dict[str, Any]]:
        """The formula, with each layer's share in the diagnostics."""
        norms = probe.evidence(LayerNormsRequest(fold=self.fold))
        if not norms.names:
            raise UndefinedError("no probed parameter has two dimensions: there is no matrix")
        if self.without_zeros and (norms.frobenius == 0).any():
            zero = norms.names[int((norms.frobenius == 0).argmax())]
            raise UndefinedError(f"all entries of {zero!r} are zero")
        log_margin = math.log(positive_margin(probe)) if self.margins else 0.0
        value = self.of_norms(norms, log_margin)
        diagnostics: dict[str, Any] = {
            "layers": self.by_layer(probe, norms),
            "folded": norms.folding.pairs,
            "unfolded": norms.folding.left_out,
        }
        if self.margins:
            diagnostics["margin"] = math.exp(log_margin)
        return value, diagnostics

    @abstractmethod
    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:
        """The measure as a pure function of the norms; ``log_margin`` is 0 where unused."""

    @abstractmethod
    def shares(self, norms: LayerNorms) -> Any:
        """What each layer contributes, (d,)."""

    def by_layer(self, probe: Probe, norms: LayerNorms) -> dict[str, Any]:
        """Contributions by name of the parameter."""
        sizes = dict(zip(probe.space.names, probe.space.sizes, strict=True))
        return {
            name: {"value": float(share), **({"size": sizes[name]} if name in sizes else {})}
            for name, share in zip(norms.names, self.shares(norms), strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class OverMarginMeasure(LayerNormMeasure):
    """Fields of the measures that are there with and without the margin.

    Args:
        over_margin: Divide by the squared margin.
    """

    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"over_margin": False},
        {"over_margin": True},
    )

    over_margin: bool = False

    @property
    def margins(self) -> bool:
        """Whether margins are asked for."""
        return self.over_margin


def margins_request(probe: Probe) -> MarginsRequest:
    """The request for the margins.

    Args:
        probe: What is measured.

    Returns:
        The request.

    Raises:
        DeclinedError: If the objective knows no margins.
    """
    if not probe.objective.has_margins:
        raise DeclinedError(
            f"the objective {probe.objective.name!r} knows no margins; use 'cross_entropy' or "
            "'bce', or an Objective with margins()"
        )
    return MarginsRequest()


def positive_margin(probe: Probe) -> float:
    """The 10th percentile of the margins.

    Args:
        probe: What is measured.

    Returns:
        The margin.

    Raises:
        UndefinedError: If it is not positive.
    """
    found = probe.evidence(MarginsRequest())
    if not found.margin > 0:
        raise UndefinedError(
            f"the 10th percentile of the margins is {found.margin:.3g}: {found.wrong:.0%} of the "
            "terms are not classified right, and only a positive margin says anything"
        )
    return found.margin


def initial_weights(probe: Probe) -> Tensor:
    """The weights before training.

    Args:
        probe: What is measured.

    Returns:
        The weights, (P,).

    Raises:
        DeclinedError: If they are unknown.
    """
    if probe.initial is None:
        raise DeclinedError(
            "the weights before training are not known; give them as Probe(..., initial=...)"
        )
    return probe.initial
