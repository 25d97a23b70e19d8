"""The edge of stability: the curvature above which a step of descent overshoots ever more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

Groups = Sequence[Mapping[str, Any]]


def edge_of_stability(lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> float:
    """Largest eigenvalue of the loss at which gradient descent is stable on a quadratic.

        λ* = 2 (1 + β)/η − c

    Source: Cohen et al. 2021, arXiv 2103.00065. It holds for gradients of the whole data.

    Args:
        lr: η.
        momentum: β of heavy-ball momentum, as torch's SGD has it.
        weight_decay: c of c w added to the gradient.

    Returns:
        The edge.

    Raises:
        ValueError: If η is not positive or β not between 0 and 1.
    """
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a number above 0, got {lr!r}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be a number between 0 and 1, got {momentum!r}")
    return 2 * (1 + momentum) / lr - weight_decay


def shared_rate(groups: Groups) -> float | None:
    """The learning rate of an optimiser's groups; None where they differ or have none."""
    different: set[float | None] = {
        float(rate) if isinstance(rate, float | int | Tensor) else None
        for rate in (group.get("lr") for group in groups)
    }
    return different.pop() if len(different) == 1 else None


def edge_of_groups(groups: Groups) -> float | None:
    """The edge of stability of an optimiser with these groups.

    Args:
        groups: Its ``param_groups``.

    Returns:
        The edge; None where groups differ, for Nesterov's momentum, and for optimisers without
        "momentum", such as Adam's kin, whose edge is that of another matrix.
    """
    rate = shared_rate(groups)
    known = {(group.get("momentum"), group.get("weight_decay", 0.0)) for group in groups}
    if not rate or len(known) != 1 or any(group.get("nesterov") for group in groups):
        return None
    ((momentum, decay),) = known
    return None if momentum is None else edge_of_stability(rate, float(momentum), float(decay))
