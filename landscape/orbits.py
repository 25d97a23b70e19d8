"""Is a number about the function, or about how it is parametrised? Measures along the orbit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from landscape.auditing import each_result
from landscape.geometry import (
    TRANSFORMATIONS,
    Transformed,
    find_pairs,
    find_symmetries,
    scaled_loss,
    transform,
)
from landscape.measures import Measure, resolve
from landscape.probing import Probe
from landscape.results import Result, Store
from landscape.results.result import finite

if TYPE_CHECKING:
    import pandas as pd

# From this factor on a measure says more of the parametrisation than of the function.
_ORDER_OF_MAGNITUDE = 10.0
# Rounding in single precision, amplified by an iteration.
_ROUNDING = 1e-3
# Half-widths of an interval that chance alone does not reach: 3.9 standard errors of the surer of
# two estimates. The surer one, since a change that makes a number unsure is a change as well.
_ERRORS = 2.0
# Roots of the precision by which outputs may change.
_HELD = 3.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measure's value at one transformed checkpoint.

    Args:
        value: The number, NaN where there is none.
        low: Lower end of its 95 % interval.
        high: Upper end.
        status: How far to trust it.
    """

    value: float
    low: float
    high: float
    status: str

    @classmethod
    def of(cls, result: Result) -> Point:
        """The point of a result."""
        low, high = result.interval
        return cls(value=result.value, low=low, high=high, status=result.status.value)


@dataclass(frozen=True, kw_only=True)
class Orbit:
    """A measure at the checkpoint and at transformed ones with the same function.

    Args:
        measure: Its label.
        base: At the checkpoint.
        points: By kind of transformation, one a random element.
        invariances: Kinds that it declares to be unchanged by.
        logarithmic: Whether it is a logarithm, so that factors are differences.
    """

    measure: str
    base: Point
    points: dict[str, list[Point]]
    invariances: tuple[str, ...] = ()
    logarithmic: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value over all checkpoints with the same function and loss."""
        own = [self.base, *(p for kind in self._kinds for p in self.points[kind])]
        values = [point.value for point in own if math.isfinite(point.value)]
        return (min(values), max(values)) if values else (math.nan, math.nan)

    @property
    def _kinds(self) -> list[str]:
        return [kind for kind in self.points if kind != "loss"]

    def factor(self, kind: str) -> float:
        """Largest factor by which an element of a kind moves the value: 1 for none.

        Returns:
            Infinite where the sign changes, or a number is there at one point only; NaN where there
            is none at all.
        """
        factors = [self._factor(point) for point in self.points[kind]]
        return max(factors) if factors else math.nan

    def _factor(self, point: Point) -> float:
        here, there = self.base.value, point.value
        if not (math.isfinite(here) or math.isfinite(there)):
            return math.nan
        if not (math.isfinite(here) and math.isfinite(there)):
            return math.inf
        if self.logarithmic:
            return math.exp(min(abs(there - here), 700.0))
        if here == there:
            return 1.0
        if math.copysign(1, here) != math.copysign(1, there) or not (here and there):
            return math.inf
        return max(abs(there / here), abs(here / there))

    def moves(self, kind: str) -> bool:
        """Whether an element of a kind moves the value by more than chance does.

        Returns:
            True if by more than twice the smaller half-width of the two 95 % intervals, and 0.1 %.
        """
        return any(not self._agrees(point) for point in self.points[kind])

    def _agrees(self, point: Point) -> bool:
        if not (math.isfinite(self.base.value) or math.isfinite(point.value)):
            return True
        if not (math.isfinite(self.base.value) and math.isfinite(point.value)):
            return False
        slack = _ROUNDING * (1.0 if self.logarithmic else abs(self.base.value))
        error = min(_half_width(self.base), _half_width(point))
        return abs(point.value - self.base.value) <= slack + _ERRORS * error

    @property
    def moved_by(self) -> list[str]:
        """Kinds that move the value, that of the loss aside."""
        return [kind for kind in self._kinds if self.moves(kind)]

    @property
    def worst(self) -> float:
        """Largest factor of the kinds that move it, 1 if none does."""
        return max((self.factor(kind) for kind in self.moved_by), default=1.0)

    @property
    def depends(self) -> bool:
        """Whether it moves by an order of magnitude or more while the function stays."""
        return self.worst >= _ORDER_OF_MAGNITUDE

    @property
    def broken(self) -> list[str]:
        """Kinds that it declares to be unchanged by, and moves with."""
        return [kind for kind in self.invariances if kind in self.points and self.moves(kind)]

    @property
    def verdict(self) -> str:
        """In words."""
        if not math.isfinite(self.base.value) and not self.moved_by:
            return "no number"
        if self.depends:
            return "depends on the parametrisation"
        return "moves" if self.moved_by else "unchanged"


def _half_width(point: Point) -> float:
    return max(point.high - point.value, point.value - point.low)


@dataclass(frozen=True, kw_only=True)
class SymmetryCheck:
    """What ``symmetry_check`` found.

    Args:
        found: Places in the model by kind of symmetry.
        changes: Largest change of an output over the random elements, by kind.
        orbits: One a measure.
        settings: Seed, number of elements of each kind, spread.
        warnings: Sentences for the reader.
    """

    found: dict[str, list[str]]
    changes: dict[str, float]
    orbits: list[Orbit]
    settings: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Orbit]:
        return iter(self.orbits)

    def __getitem__(self, measure: str) -> Orbit:
        """The orbit of a measure by its label."""
        return {orbit.measure: orbit for orbit in self.orbits}[measure]

    def to_frame(self) -> pd.DataFrame:
        """One row a measure: value, lowest, highest, verdict, and the factor of every kind."""
        import pandas as pd  # noqa: PLC0415 - half a second that a bare import need not pay

        rows = [
            {
                "measure": orbit.measure,
                "value": orbit.base.value,
                "lowest": orbit.range[0],
                "highest": orbit.range[1],
                "verdict": orbit.verdict,
                **{kind: orbit.factor(kind) for kind in orbit.points},
            }
            for orbit in self
        ]
        return pd.DataFrame(rows).set_index("measure")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the section "symmetry_check" of a report."""
        orbits = [
            {
                **asdict(orbit),
                "factors": {kind: orbit.factor(kind) for kind in orbit.points},
                "moved_by": orbit.moved_by,
                "broken": orbit.broken,
                "range": orbit.range,
                "verdict": orbit.verdict,
            }
            for orbit in self
        ]
        found: dict[str, Any] = finite(
            {
                "found": self.found,
                "changes": self.changes,
                "orbits": orbits,
                "settings": self.settings,
                "warnings": self.warnings,
            }
        )
        return found


def symmetry_check(
    probe: Probe,
    measures: str | Sequence[str | Measure] = "quick",
    seed: int = 0,
    *,
    elements: int = 3,
    spread: float = 10.0,
    kinds: Sequence[str] = tuple(TRANSFORMATIONS),
    store: Store | None = None,
    progress: bool = False,
) -> SymmetryCheck:
    """Measures random copies of a checkpoint that compute the same function.

    Every kind of symmetry that is found on the model (see ``landscape.geometry.find_symmetries``)
    is applied at all its places at once; and the loss is multiplied. All measures are computed on
    each copy with the same seed and data.

    Args:
        probe: Model, objective and data.
        measures: "quick", "standard" or "full", a name, or a list of names and Measures.
        seed: Of the measures and of the random elements.
        elements: Random elements of each kind.
        spread: Factors lie between 1/spread and spread.
        kinds: Which of ``landscape.measures.TRANSFORMATIONS`` to apply where they are found.
        store: Where results are written as they come, and found again; None keeps none.
        progress: Show progress bars on a terminal.

    Returns:
        Values over the orbit by measure, with the change of the outputs.

    Raises:
        ValueError: If a setting is wrong or a measure unknown.

    Example:
        >>> import torch, landscape
        >>> layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(torch.nn.Sequential(*layers), "cross_entropy", batches)
        >>> check = landscape.symmetry_check(probe, ["hessian-trace", "train-loss"])
        >>> check["train-loss"].verdict
        'unchanged'
    """
    _check(elements, spread, kinds)
    wanted = resolve(measures, probe.size)

    def measured(other: Probe) -> list[Point]:
        results = each_result(other, wanted, seed, store=store, progress=progress)
        return [Point.of(result) for result in results]

    planned = list(_copies(probe, seed, elements, spread, kinds))
    base = measured(probe)
    points: list[dict[str, list[Point]]] = [{} for _ in wanted]
    found: dict[str, list[str]] = {}
    changes: dict[str, float] = {}
    warnings: list[str] = []
    for kind, places, copies in planned:
        for copy in copies:
            try:
                other = copy()
            except ValueError as error:  # a probe that cannot be made there
                warnings.append(f"an element of {kind} was left out: {error}")
                continue
            refused, told = _judged(kind, other, probe)
            warnings += [told] if told else []
            if refused:
                continue
            found[kind] = places  # a kind none of whose elements holds is not there
            changes[kind] = max(changes.get(kind, 0.0), other.change)
            for own, point in zip(points, measured(other.probe), strict=True):
                own.setdefault(kind, []).append(point)
            other.probe.release()
    warnings += [f"{name}: {reason}" for name, reason in find_pairs(probe).left_out.items()]
    orbits = [
        Orbit(
            measure=measure.label,
            base=here,
            points=own,
            invariances=measure.invariances,
            logarithmic=measure.logarithmic,
        )
        for measure, here, own in zip(wanted, base, points, strict=True)
    ]
    settings = {"seed": seed, "elements": elements, "spread": spread}
    return SymmetryCheck(
        found=found, changes=changes, orbits=orbits, settings=settings, warnings=warnings
    )


def _check(elements: int, spread: float, kinds: Sequence[str]) -> None:
    if int(elements) != elements or elements < 1:
        raise ValueError(f"elements must be a positive integer, got {elements!r}")
    if not 1 < spread < math.inf:
        raise ValueError(f"spread must be a finite number above 1, got {spread}")
    if unknown := set(kinds) - TRANSFORMATIONS.keys():
        raise ValueError(
            f"kinds must be among {', '.join(TRANSFORMATIONS)}, got {', '.join(sorted(unknown))}"
        )


def _judged(kind: str, other: Transformed, probe: Probe) -> tuple[bool, str]:
    """Whether a copy is left out, and what is to be said of it."""
    if other.change > _HELD * torch.finfo(probe.dtype).eps ** 0.5:
        text = (
            f"an element of {kind} was left out: it changes the outputs by {other.change:.0e} of "
            "the largest, so it is no symmetry on all of the data"
        )
        return True, text
    here, there = probe.loss(), other.probe.loss()
    if kind == "loss" or abs(there - here) <= _ROUNDING * abs(here):
        return False, ""
    text = (
        f"an element of {kind} moves the loss from {here:.3g} to {there:.3g} by rounding alone: "
        f"values of this size say nothing in {str(probe.dtype).removeprefix('torch.')}; use double "
        "precision"
    )
    return False, text


Copy = Callable[[], Transformed]


def _copies(
    probe: Probe, seed: int, elements: int, spread: float, kinds: Sequence[str]
) -> Iterator[tuple[str, list[str], list[Copy]]]:
    symmetries = find_symmetries(probe, spread)
    for number, kind in enumerate(TRANSFORMATIONS):
        if kind not in kinds:
            continue
        if kind == "loss":
            # Up, down, up by less, ...
            factors = [spread ** ((-1) ** each / (1 + each // 2)) for each in range(elements)]
            yield kind, ["the loss"], [partial(_rescaled, probe, factor) for factor in factors]
            continue
        own = [symmetry for symmetry in symmetries if symmetry.kind == kind]
        if own:
            seeds = np.random.SeedSequence((seed, number)).generate_state(elements)
            names = [symmetry.name for symmetry in own]
            yield kind, names, [partial(transform, probe, own, int(s), spread) for s in seeds]


def _rescaled(probe: Probe, factor: float) -> Transformed:
    return Transformed(scaled_loss(probe, factor), 0.0)
