"""Critical sharpness: the curvature at which a step of gradient descent stops paying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from landscape.measures.base import CostClass, DeclinedError, Measure, Requests
from landscape.probing import Probe
from landscape.results import Estimate, Status

StepDirection = Literal["gradient", "momentum"]


@dataclass(frozen=True, kw_only=True)
class CriticalSharpness(Measure):
    """lambda_c = 2 / eta_c, eta_c the smallest step with L(w - eta Delta) > L(w).

    Forward passes only: the step is doubled (or halved) until the loss has passed L(w), then
    bisected. On a quadratic with Delta = g it is g'Hg / g'g, at most lambda_max. The interval is
    the last bracket. The search starts at 1/64 of the step to which the tangent reaches zero loss;
    a crossing before that, or a dip of the loss between two doublings, can be missed.

    Args:
        direction: "gradient", or "momentum" where the checkpoint has an optimiser state.
        tolerance: Relative width of the bracket at the end.
        doublings: Steps that are tried before giving up.

    Example:
        >>> import landscape
        >>> landscape.measures.get("critical-sharpness").tolerance
        0.01
    """

    name: ClassVar[str] = "critical-sharpness"
    meaning: ClassVar[str] = "2/η for the step η at which going downhill stops lowering the loss."
    formula: ClassVar[str] = "λ_c = 2/η_c"
    source: ClassVar[str] = "Kalra et al. 2026, arXiv 2601.16979"
    group: ClassVar[str] = "One step"
    cost_class: ClassVar[CostClass] = "low"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    budget: ClassVar[frozenset[str]] = frozenset({"tolerance", "doublings"})

    direction: StepDirection = "gradient"
    tolerance: float = 0.01
    doublings: int = 60

    def __post_init__(self) -> None:
        if self.direction not in get_args(StepDirection):
            raise ValueError(
                f"direction must be one of {get_args(StepDirection)}, got {self.direction!r}"
            )
        if not 0 < self.tolerance < 1 or self.doublings < 1:
            raise ValueError(
                "tolerance must lie in (0, 1) and doublings be at least 1, got "
                f"{self.tolerance} and {self.doublings}"
            )

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """None; declines where no momentum is known and it is asked for."""
        if self.direction == "momentum" and probe.momentum is None:
            raise DeclinedError(
                "the checkpoint holds no optimiser state that fits the model; give "
                "Probe(..., momentum=...)"
            )
        return ()

    def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
        """The step by doubling and bisection."""
        downhill = probe.gradient() if self.direction == "gradient" else probe.momentum
        if downhill is None or not downhill.any():
            return Estimate.without_value(
                Status.UNDEFINED, f"the {self.direction} is zero: there is no step to take"
            )
        slope = float(torch.dot(probe.gradient().double(), downhill.double()))
        if slope <= 0:
            return Estimate.without_value(
                Status.UNDEFINED, f"going against the {self.direction} does not lead downhill"
            )
        base = probe.loss()

        def beyond(step: float) -> bool:
            loss = probe.loss(-step * downhill)
            return loss > base or math.isnan(loss)

        # Well below where the tangent would have brought the loss to zero.
        step = max(abs(base), 1e-12) / slope / 64
        low, high, tried = 0.0, math.inf, 0
        while tried < self.doublings and (low == 0 or high == math.inf):
            tried += 1
            if beyond(step):
                high, step = step, step / 2
            else:
                low, step = step, step * 2
        if high == math.inf:
            return Estimate.without_value(
                Status.UNDEFINED,
                f"no step up to {low:.3g} raises the loss: the direction never crosses L(w)",
            )
        if low == 0:
            return Estimate.without_value(
                Status.UNDEFINED,
                f"every step down to {high:.3g} raises the loss: its fall is below the precision",
            )
        while high / low - 1 > self.tolerance:
            middle = math.sqrt(low * high)
            tried += 1
            if beyond(middle):
                high = middle
            else:
                low = middle
        value = 2 / math.sqrt(low * high)
        return Estimate(
            value=value,
            stderr=(2 / low - 2 / high) / 2,
            interval=(2 / high, 2 / low),
            diagnostics={"critical_step": 2 / value, "losses_evaluated": tried},
        )
