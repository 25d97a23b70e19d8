"""What the measures of single examples' gradients have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from landscape.evidence import ExampleGradients, ExampleGradientsRequest
from landscape.evidence.example_gradients import Targets
from landscape.measures.base import (
    CostClass,
    DeclinedError,
    Measure,
    Requests,
    checked_count,
)
from landscape.probing import Probe
from landscape.results import Estimate

FisherKind = Literal["empirical", "model"]


@dataclass(frozen=True, kw_only=True)
class ExampleMeasure(Measure):
    """Fields of the measures of single examples' gradients; equal fields mean shared gradients.

    Args:
        points: Use only the first so many examples; None uses all.
    """

    group: ClassVar[str] = "Gradients of examples"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    budget: ClassVar[frozenset[str]] = frozenset({"points"})

    points: int | None = 1024

    def __post_init__(self) -> None:
        checked_count(points=self.points)
        self._request(0)  # validates the rest

    @property
    def _targets(self) -> Targets:
        return "data"

    def _request(self, seed: int) -> ExampleGradientsRequest:
        drawn = seed if self._targets == "model" else 0
        return ExampleGradientsRequest(targets=self._targets, points=self.points, seed=drawn)

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The gradients of the examples."""
        request = self._request(seed)
        if (reason := declined_examples(probe, request)) is not None:
            raise DeclinedError(reason)
        return [(probe, request)]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The functional of the gradients."""
        found = probe.evidence(self._request(seed))
        if found is None:
            raise DeclinedError(NOT_CUT)
        return self.of_gradients(found)

    @abstractmethod
    def of_gradients(self, gradients: ExampleGradients) -> Estimate:
        """The measure as a pure function of the gradients' moments."""


@dataclass(frozen=True, kw_only=True)
class FisherMeasure(ExampleMeasure):
    """Fields of the measures of the Fisher information.

    Args:
        kind: "empirical" takes the targets of the data, "model" the model's own distribution.
    """

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"kind": "empirical"}, {"kind": "model"})

    kind: FisherKind = "empirical"

    def __post_init__(self) -> None:
        if self.kind not in get_args(FisherKind):
            raise ValueError(f"kind must be one of {get_args(FisherKind)}, got {self.kind!r}")
        super().__post_init__()

    @property
    def _targets(self) -> Targets:
        return "data" if self.kind == "empirical" else "model"


NOT_CUT = (
    "the batches cannot be cut into single examples: their tensors have no common first dimension, "
    "or it does not count examples"
)


def declined_examples(probe: Probe, request: ExampleGradientsRequest) -> str | None:
    """Why there can be no gradients of single examples, or None; evaluates nothing."""
    if probe.uses_batch_statistics:
        return (
            "a single example has no gradient of its own where batch normalisation uses the "
            "statistics of the batch; use batch_norm='eval'"
        )
    if request.targets == "model" and not probe.objective.samples_targets:
        return (
            f"the objective {probe.objective.name!r} gives no distribution to draw targets from; "
            "use kind='empirical', or an Objective with sampled()"
        )
    return None
