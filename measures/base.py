"""The base of every measure: one method to write, everything else is done here."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, final

from landscape.probing import Evidence, NotApplicableError, NoTermsError, Probe
from landscape.results import Cost, Estimate, Result, Status

Requests = Sequence[tuple[Probe, Evidence[Any]]]
CostClass = Literal["free", "low", "medium", "high"]


class DeclinedError(Exception):
    """Raised by a measure that cannot be computed for this model or objective, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Measure(ABC):
    """A number about a checkpoint. Subclasses are frozen dataclasses; their fields configure them.

    A subclass sets the class attributes, names the evidence it reads in ``requests`` and turns it
    into an ``Estimate`` in ``estimate``. ``compute`` validates, meters and adds the origin.
    """

    #: Public name, such as "hessian-trace".
    name: ClassVar[str]
    #: What the number says, in one sentence.
    meaning: ClassVar[str]
    #: The formula, in plain text.
    formula: ClassVar[str]
    #: Paper and equation.
    source: ClassVar[str]
    #: Heading under which reports show it.
    group: ClassVar[str] = "Other"
    #: Order of the passes it takes.
    cost_class: ClassVar[CostClass]
    #: Keys of geometry.TRANSFORMATIONS that leave it unchanged, with its default fields.
    invariances: ClassVar[tuple[str, ...]] = ()
    #: Whether its values are logarithms, so that differences say what ratios do elsewhere.
    logarithmic: ClassVar[bool] = False

    #: Fields that buy accuracy and do not change what is measured; they are no part of the label.
    budget: ClassVar[frozenset[str]] = frozenset()
    #: Settings of the instances that a bare name stands for in an audit.
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """The shared evidence it reads, each with the probe it is about; none by default.

        Returns:
            Pairs of probe and request.

        Raises:
            DeclinedError: If the measure does not apply to this model or objective.
        """
        return ()

    @abstractmethod
    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The value with its error; evaluates nothing that the evidence holds already."""

    @property
    def config(self) -> dict[str, Any]:
        """Its fields, JSON-able."""
        config: dict[str, Any] = json_able(asdict(self))
        return config

    @property
    def label(self) -> str:
        """Name and what distinguishes it: "renyi-sharpness[alpha=2]"."""
        shown = {key for variant in self.variants for key in variant}
        told = [
            f"{entry.name}={_text(getattr(self, entry.name))}"
            for entry in fields(self)
            if entry.name not in self.budget
            and (entry.name in shown or getattr(self, entry.name) != self.default_of(entry.name))
            and (getattr(self, entry.name) is not False or entry.default is not False)
        ]
        return self.name + (f"[{','.join(told)}]" if told else "")

    def default_of(self, name: str) -> Any:
        """What a field is where nothing is said; a default may depend on other fields."""
        return type(self).__dataclass_fields__[name].default

    @final
    def compute(self, probe: Probe, seed: int = 0) -> Result:
        """Measures a probe.

        Args:
            probe: Model, objective and data.
            seed: Seed of everything random; the same seed gives the same number whatever other
                measures run.

        Returns:
            The result. A measure that does not apply to the model gives status DECLINED and the
            reason; errors in the model or the measure are raised.

        Raises:
            TypeError: If ``probe`` is not a Probe.
            ValueError: If the seed is negative.
        """
        if not isinstance(probe, Probe):
            raise TypeError(
                f"{self.name} measures a landscape.Probe, got {type(probe).__name__}; make one "
                "with landscape.Probe(model, objective, batches)"
            )
        if seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {seed}")
        shared: dict[str, Cost] = {}
        own, spent = Cost(), Cost()
        try:
            with probe.meter() as spent, probe.checks.noting() as used:
                for part, request in self.requests(probe, seed):
                    part.evidence(request)
                    shared[evidence_key(part, request)] = part.evidence_cost(request)
                with probe.meter() as own:
                    estimate = _numbered(self.estimate(probe, seed))
            estimate = _doubted(estimate, probe.checks.doubt(used))
        except (DeclinedError, NotApplicableError) as declined:
            estimate = Estimate.without_value(Status.DECLINED, str(declined))
        except NoTermsError as empty:
            estimate = Estimate.without_value(Status.UNDEFINED, str(empty))
        if estimate.status.measured or estimate.status is Status.UNDEFINED:
            cost = sum(shared.values(), own)
        else:  # what it took to see that it does not apply
            cost, shared = spent, {}
        return Result(
            measure=self.label,
            estimate=estimate,
            cost=cost,
            evidence=shared,
            config=self.config,
            seed=seed,
            provenance=probe.provenance(),
        )


def checked_count(**counts: Any) -> None:
    """Raises ValueError where one of the named numbers is no positive integer or None."""
    for name, value in counts.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 1):
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def _numbered(estimate: Estimate) -> Estimate:
    """The estimate, undefined where it claims a number that it does not have."""
    if estimate.status.measured and math.isfinite(estimate.value):
        if estimate.status is Status.OK and any(math.isnan(end) for end in estimate.interval):
            message = "The error of the value cannot be told."
            return replace(estimate, status=Status.UNCERTAIN, message=message)
        return estimate
    if not estimate.status.measured:
        return estimate
    message = estimate.message or f"the value is {estimate.value}"
    return Estimate.without_value(Status.UNDEFINED, message, **estimate.diagnostics)


def _doubted(estimate: Estimate, doubt: str) -> Estimate:
    """The estimate, uncertain where derivatives that it rests on are wrong."""
    if not doubt or not estimate.status.measured:
        return estimate
    message = f"{estimate.message} {doubt}" if estimate.message else doubt
    return replace(estimate, status=Status.UNCERTAIN, message=message)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


#: What to do where rounding leaves less than two digits.
MEASURE_IN_DOUBLE = (
    "rounding of the working precision leaves less than two digits; measure in float64 "
    "(dtype=torch.float64, --dtype float64)"
)
# A share of the value above which an error leaves less than two digits.
TWO_DIGITS = 0.005


def up_to_rounding(value: float, error: float, **diagnostics: Any) -> Estimate:
    """A number that is exact on the data up to a measured rounding error; none is negative.

    Args:
        value: The number.
        error: Bound of its rounding error.
        **diagnostics: Of the estimate.

    Returns:
        The estimate, uncertain where the error leaves less than two digits.
    """
    if not math.isfinite(value):
        return Estimate.exact(value, **diagnostics)
    unsure = error > TWO_DIGITS * abs(value)
    low = value - error
    return Estimate(
        value=value,
        stderr=error,
        interval=(max(low, 0.0) if value >= 0 else low, value + error),
        status=Status.UNCERTAIN if unsure else Status.OK,
        message=MEASURE_IN_DOUBLE if unsure else "",
        diagnostics=diagnostics,
    )


def evidence_key(probe: Probe, request: Evidence[Any]) -> str:
    """Short name of a piece of evidence on a probe, the same for every measure that reads it."""
    text = json.dumps([repr(request), list(probe.space.names), probe.variant])
    kind = type(request).__name__.removesuffix("Request").lower()
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def json_able(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON; NaN and infinity as text, which JSON lacks."""
    if isinstance(value, dict):
        return {key: json_able(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_able(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
