"""Settings that all methods share, and how settings are checked."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict

import torch


class Common(TypedDict, total=False):
    """Settings of every method.

    Attributes:
        max_norm: Clips the combined gradient to this norm before the base optimiser sees it.
        scaler: A ``torch.amp.GradScaler``. The closure calls ``scaler.scale(loss).backward()`` and
            returns the unscaled loss; call ``scaler.update()`` after the step. A step in which any
            pass overflows is skipped.
        perturbation: "synchronised" averages the gradient of every pass over processes, so that all
            take the same perturbation; "local" lets each process perturb by the gradient of its own
            batch and averages the combined gradient once (the usual m-SAM on several devices). What
            rules remember then differs between processes: save the state of each.
        seed: Of the noise; with local perturbations the rank is added.
    """

    max_norm: float | None
    scaler: torch.amp.GradScaler | None
    perturbation: Literal["synchronised", "local"]
    seed: int


def check(name: str, value: Any, *, low: float = 0.0, high: float = math.inf) -> None:
    """Raises ValueError unless a setting is a number from low to high."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high and math.isfinite(value)):
        bounds = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless a setting is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
