"""A measured number with its doubt: status, interval, cost, settings and origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from landscape.results.cost import Cost


class Status(Enum):
    """How far a number can be trusted; ``advice`` says what to do about it."""

    OK = "ok"
    NOT_CONVERGED = "not converged"
    UNCERTAIN = "uncertain"
    UNDEFINED = "undefined"
    DECLINED = "declined"
    FAILED = "failed"

    @property
    def advice(self) -> str:
        """One sentence for the reader of a table."""
        return _ADVICE[self]

    @property
    def measured(self) -> bool:
        """True if the result carries a number."""
        return self in (Status.OK, Status.NOT_CONVERGED, Status.UNCERTAIN)


_ADVICE = {
    Status.OK: "",
    Status.NOT_CONVERGED: "The iteration stopped before its tolerance; raise its steps.",
    Status.UNCERTAIN: "The interval is wide for the value; raise the number of probes or steps.",
    Status.UNDEFINED: "The measure has no finite value at this point.",
    Status.DECLINED: "The measure cannot be computed for this model or objective.",
    Status.FAILED: "The measure stopped with an error; the message names it.",
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a measure finds: a value with its error, before seed, cost and origin are added.

    Args:
        value: The number, NaN where it is undefined.
        stderr: Standard error of the value as an estimate of the same quantity on the same data;
            0 for a number computed exactly, the residual norm for an eigenvalue.
        interval: 95 % interval (low, high), all sources of error combined.
        status: How far to trust it.
        message: What is special about this value, in a sentence.
        diagnostics: Further JSON-able values: per-layer numbers, curves, error components.
        warnings: What a reader should know of the model, whatever the status: sentences.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    status: Status = Status.OK
    message: str = ""
    diagnostics: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def exact(cls, value: float, **diagnostics: Any) -> Estimate:
        """A number without estimation error: exact on the given data, up to rounding."""
        if not math.isfinite(value):
            return cls.without_value(Status.UNDEFINED, f"the value is {value}", **diagnostics)
        return cls(value=value, stderr=0.0, interval=(value, value), diagnostics=diagnostics)

    @classmethod
    def without_value(cls, status: Status, message: str, **diagnostics: Any) -> Estimate:
        """No number, and why."""
        nan = math.nan
        return cls(
            value=nan,
            stderr=nan,
            interval=(nan, nan),
            status=status,
            message=message,
            diagnostics=diagnostics,
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured number and everything needed to judge or repeat it.

    Args:
        measure: Name of the measure, unique in a table.
        estimate: Value, error, interval, status, diagnostics.
        cost: What this number costs alone, its evidence included.
        evidence: Cost of each piece of evidence it rests on, by key; results with the same key
            share it.
        config: The measure's fields.
        seed: The seed given to ``compute``.
        provenance: Model, data, software and machine.
    """

    measure: str
    estimate: Estimate
    cost: Cost
    evidence: dict[str, Cost] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The number."""
        return self.estimate.value

    @property
    def stderr(self) -> float:
        """Its standard error (for an eigenvalue its residual norm)."""
        return self.estimate.stderr

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.estimate.interval

    @property
    def status(self) -> Status:
        """How far to trust it."""
        return self.estimate.status

    @property
    def message(self) -> str:
        """What is special about it, or the advice of its status."""
        return self.estimate.message or self.status.advice

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know of the model, whatever the status."""
        return self.estimate.warnings

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Per-layer values, curves and error components."""
        return self.estimate.diagnostics

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; NaN and infinity become None, the status says so."""
        record = {
            "measure": self.measure,
            "value": self.value,
            "stderr": self.stderr,
            "interval": list(self.interval),
            "status": self.status.value,
            "message": self.message,
            "cost": self.cost.to_dict(),
            "evidence": {key: cost.to_dict() for key, cost in self.evidence.items()},
            "config": self.config,
            "seed": self.seed,
            "diagnostics": self.diagnostics,
            "warnings": list(self.warnings),
            "provenance": self.provenance,
        }
        cleaned: dict[str, Any] = finite(record)
        return cleaned

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Result:
        """Inverse of ``to_dict``; None becomes NaN."""
        low, high = record["interval"]
        status = Status(record["status"])
        message = record["message"]
        return cls(
            measure=record["measure"],
            estimate=Estimate(
                value=_number(record["value"]),
                stderr=_number(record["stderr"]),
                interval=(_number(low), _number(high)),
                status=status,
                message="" if message == status.advice else message,
                diagnostics=record["diagnostics"],
                warnings=tuple(record.get("warnings", ())),
            ),
            cost=Cost(**record["cost"]),
            evidence={key: Cost(**cost) for key, cost in record["evidence"].items()},
            config=record["config"],
            seed=record["seed"],
            provenance=record["provenance"],
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def finite(value: Any) -> Any:
    """The same nested value with NaN and infinity as None, as JSON needs it."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
