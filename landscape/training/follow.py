"""Settings that follow the learning rate."""

from __future__ import annotations

from landscape.training.base import FlatOptimizer
from landscape.training.settings import check


class FollowLearningRate:
    """Moves a setting of the groups in proportion to the learning rate.

        value = low + (high − low)(lr − lr_low)/(lr_high − lr_low)

    Call ``step`` after the step of the learning-rate scheduler. It holds no state of its own.

    Args:
        optimizer: Whose groups are set.
        name: Of the setting, e.g. "rho" of GSAM or "rho_min" of BilateralSAM.
        high: Value at ``lr_high``.
        low: Value at ``lr_low``.
        lr_high: Largest learning rate.
        lr_low: Smallest learning rate.

    Raises:
        ValueError: If there is no such setting, or the learning rates are not in order.
    """

    def __init__(
        self,
        optimizer: FlatOptimizer,
        name: str = "rho",
        *,
        high: float,
        lr_high: float,
        low: float = 0.0,
        lr_low: float = 0.0,
    ) -> None:
        if any(name not in group for group in optimizer.param_groups):
            raise ValueError(f"{type(optimizer).__name__} has no setting {name!r} in its groups")
        check("low", low)
        check("high", high)
        if not 0 <= lr_low < lr_high:
            raise ValueError(f"lr_low must be below lr_high, got {lr_low} and {lr_high}")
        self._optimizer, self._name = optimizer, name
        self._low, self._high, self._lr_low, self._lr_high = low, high, lr_low, lr_high
        self.step()

    def step(self) -> None:
        """Sets the values that belong to the present learning rates."""
        for group in self._optimizer.param_groups:
            share = (float(group["lr"]) - self._lr_low) / (self._lr_high - self._lr_low)
            group[self._name] = self._low + (self._high - self._low) * min(max(share, 0), 1)
