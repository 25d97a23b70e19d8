"""SWA, EMA and WASAM: averages of the weights beside the training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from landscape.training.base import BatchOptimizer, FlatOptimizer
from landscape.training.passes import Passes, bare
from landscape.training.sam import SAM
from landscape.training.settings import Common, check, check_count
from landscape.training.vectors import Vector


class Averaging(FlatOptimizer):
    """A method that keeps an average of the weights; it is evaluated, the iterates are trained.

    Attributes:
        average: torch's ``AveragedModel``; its ``module`` is a model of the user's class.
    """

    average: AveragedModel

    def _begin(self, average: AveragedModel, start: int, every: int) -> None:
        check("start", start)
        check_count("every", every)
        self.average, self._start, self._every = average, start, every

    def after_step(self) -> None:
        """Takes the weights into the average when it is time."""
        step = self.memory.get("step", 0) + 1
        self.memory["step"] = step
        if step > self._start and (step - self._start) % self._every == 0:
            self.average.update_parameters(bare(self.model))

    def needs_statistics(self) -> bool:
        """Whether the average has running statistics of batch norm that are not averaged too."""
        norms = [module for module in self.average.modules() if isinstance(module, _BatchNorm)]
        tracked = any(norm.track_running_stats for norm in norms)
        return tracked and not self.average.use_buffers

    def refresh_statistics(self, inputs: Iterable[Any]) -> None:
        """Recomputes the running statistics of batch norm of the average; needed before its use.

        Args:
            inputs: Inputs of the model for one pass over the training data, or tuples whose first
                entry they are. Batches count equally, as in torch's ``update_bn``.
        """
        update_bn(inputs, self.average)

    def extra_state(self) -> dict[str, Any]:
        """The average."""
        return {"average": self.average.state_dict()}

    def load_extra_state(self, method: dict[str, Any]) -> None:
        """Takes up an average."""
        self.average.load_state_dict(method["average"])


class SWA(Averaging, BatchOptimizer):
    """Stochastic weight averaging: the equal mean of the weights after chosen steps.

        w̄ ← w̄ + (w − w̄)/(n + 1)  every ``every`` steps after step ``start``

    Source: Izmailov et al. 2018, arXiv 1803.05407. Cost: 1 gradient a step and a model copy.

    Differences: none in the mean, which is torch's. Times are in steps; ``start`` at 75 % of
    training and ``every`` one epoch are usual. The learning rate is left to a scheduler (torch's
    ``SWALR``).

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates and what is averaged.
        start: Steps before the first average.
        every: Steps between averages.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        start: int,
        every: int = 1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(base_optimizer, model, {}, common)
        self._begin(AveragedModel(bare(model)), start, every)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w)."""
        return passes.gradient()


class EMA(Averaging, BatchOptimizer):
    """Exponential moving average of the weights.

        w̄ ← δ w̄ + (1 − δ) w  after every step; w̄ = w at the first

    Source: Polyak & Juditsky 1992 for averaging; torch's ``get_ema_multi_avg_fn``. Cost: 1 gradient
    a step and a model copy.

    Differences: buffers, so running statistics too, are averaged with the weights, as by timm; the
    average can be used without ``refresh_statistics``.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates and what is averaged.
        decay: δ.
        start: Steps before the first average.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        decay: float = 0.999,
        start: int = 0,
        **common: Unpack[Common],
    ) -> None:
        check("decay", decay, high=1)
        super().__init__(base_optimizer, model, {}, common)
        rule = get_ema_multi_avg_fn(decay)
        average = AveragedModel(bare(model), multi_avg_fn=rule, use_buffers=True)
        self._begin(average, start, 1)

    def direction(self, passes: Passes) -> Vector:
        """∇L(w)."""
        return passes.gradient()


class WASAM(Averaging, SAM):
    """Weight-averaged SAM: the equal mean of the iterates of SAM.

    Source: Kaddour et al. 2022, arXiv 2202.00661; JeanKaddour/WASAM. Cost: 2 gradients a step and
    a model copy.

    Differences: times are in steps; the published start is 75 % of training, every epoch.

    Args:
        base_optimizer: Takes the step.
        model: What the closure evaluates and what is averaged.
        start: Steps before the first average.
        every: Steps between averages.
        rho: ρ of SAM.
        **common: See ``Common``.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        *,
        start: int,
        every: int = 1,
        rho: float = 0.05,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(base_optimizer, model, rho=rho, **common)
        self._begin(AveragedModel(bare(model)), start, every)
