"""Settings of the rank statistics."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal, get_args

EnvironmentKind = Literal["auto", "configurations", "values"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the rank statistics of ``landscape.correlate`` are computed.

    Args:
        bootstraps: Resamples of the configurations, from which standard errors come.
        permutations: Random permutations of the target, where no exact or asymptotic
            permutation distribution is used (strata, or ties among few configurations). For small
            p-values more are drawn, so that the adjustment for many measures leaves them small.
        confidence: Level of all intervals.
        seed: Seed of resamples, permutations and controls.
        oracle_noise: Standard deviation of the noise of the oracle control, in units of the
            standard deviation of the target.
        test_examples: Number of test examples behind an accuracy; weights the sign-error by how
            surely two targets differ. None gives every pair the weight 1.
        effective_size: Least effective number of pairs of an environment of the sign-error.
        environment: Of the sign-error. "configurations": pairs of configurations that differ in one
            hyper-parameter, for populations with many seeds; "values": all pairs that change one
            hyper-parameter between two values, at one value of another; "auto": the first where at
            least half of them are large enough for some measure, or the second.
        strata: Hyper-parameters within whose values alone the target is permuted.
        keep_unconverged: Keeps rows whose ``status`` says that training did not converge.
    """

    bootstraps: int = 1000
    permutations: int = 1000
    confidence: float = 0.95
    seed: int = 0
    oracle_noise: float = 0.05
    test_examples: int | None = None
    effective_size: float = 12.0
    environment: EnvironmentKind = "auto"
    strata: tuple[str, ...] = ()
    keep_unconverged: bool = False

    def __post_init__(self) -> None:
        for name, least in (("bootstraps", 100), ("permutations", 100), ("seed", 0)):
            _whole(name, getattr(self, name), least)
        if self.test_examples is not None:
            _whole("test_examples", self.test_examples, 1)
        if not 0.5 <= _real("confidence", self.confidence) < 1:
            raise ValueError(f"confidence must lie in [0.5, 1), got {self.confidence}")
        if not _real("oracle_noise", self.oracle_noise) >= 0:
            raise ValueError(f"oracle_noise must not be negative, got {self.oracle_noise}")
        if not _real("effective_size", self.effective_size) >= 1:
            raise ValueError(f"effective_size must be at least 1, got {self.effective_size}")
        known = get_args(EnvironmentKind)
        if self.environment not in known:
            raise ValueError(f"environment must be one of {known}, got {self.environment!r}")
        keep: object = self.keep_unconverged
        if not isinstance(keep, bool):
            raise ValueError(f"keep_unconverged must be True or False, got {keep!r}")
        strata: object = self.strata
        if not isinstance(strata, tuple | list) or not all(isinstance(s, str) for s in strata):
            raise TypeError(f"strata must be a tuple of columns, got {strata!r}")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)
