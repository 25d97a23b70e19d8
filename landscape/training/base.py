"""The base of all methods: a base optimiser whose gradient is replaced by that of a rule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from landscape.training.passes import Closure, Overflow, Passes, RowLosses, distributed
from landscape.training.settings import Common, check
from landscape.training.vectors import Vector


class FlatOptimizer(Optimizer, ABC):
    """A base optimiser that is given the gradient of a rule; a method writes ``direction`` alone.

    Groups and their settings are those of the base optimiser, so learning-rate schedulers work on
    either. Radii are entries of the groups, where one that is there already wins: a group with
    ``rho=0`` is not perturbed. Norms run over all groups. ``state_dict`` is that of the base
    optimiser with one entry more, "method".

    With dropout each pass draws its own mask, as in the published codes. Parameters that get no
    gradient in any pass are left alone. Fully sharded parameters are not supported: norms would be
    those of a shard.

    Args:
        base_optimizer: Takes the step, e.g. ``torch.optim.SGD(model.parameters(), lr=0.1)``.
        model: What the closure evaluates (the wrapped one with ``DistributedDataParallel``).
        defaults: Settings of the groups that belong to the method.
        common: See ``Common``.

    Raises:
        TypeError: If the first two are no optimiser and no module.
        ValueError: If a setting is out of range, or the base optimiser needs a closure itself.
    """

    base_optimizer: Optimizer

    def __init__(
        self,
        base_optimizer: Optimizer,
        model: nn.Module,
        defaults: dict[str, float],
        common: Common,
    ) -> None:
        if not isinstance(base_optimizer, Optimizer):
            raise TypeError(
                f"base_optimizer must be an optimiser, got {_kind(base_optimizer)}; use "
                "torch.optim.SGD(model.parameters(), lr=0.1) or another one"
            )
        if isinstance(base_optimizer, FlatOptimizer | torch.optim.LBFGS):
            raise ValueError(
                "base_optimizer must take a step from a given gradient, and "
                f"{_kind(base_optimizer)} evaluates its own; use one such as torch.optim.SGD"
            )
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"model must be the torch.nn.Module that is trained, got {_kind(model)}"
            )
        if unknown := sorted(common.keys() - Common.__annotations__.keys()):
            raise TypeError(f"unknown setting {unknown[0]!r} of {type(self).__name__}")
        self._max_norm = common.get("max_norm")
        if self._max_norm is not None:
            check("max_norm", self._max_norm)
        self._scaler = common.get("scaler")
        perturbation = common.get("perturbation", "synchronised")
        if perturbation not in {"synchronised", "local"}:
            raise ValueError(f"perturbation must be synchronised or local, got {perturbation!r}")
        self._local = perturbation == "local"
        # With a stand-in: torch would check the names in the base's groups as if they were new.
        super().__init__([torch.empty(0)], {**base_optimizer.defaults, **defaults})
        self.base_optimizer, self.model = base_optimizer, model
        # What is shared: the groups, which hold the settings, and the state of the base.
        self._settings = defaults
        self._complete_groups()
        #: What a rule remembers from step to step; kept in ``state_dict``.
        self.memory: dict[str, Any] = {}
        rank = torch.distributed.get_rank() if self._local and distributed() else 0
        self._generator = torch.Generator(self._parameters()[0].device)
        self._generator.manual_seed(common.get("seed", 0) + rank)

    def _complete_groups(self) -> None:
        """The base's groups with the settings of the method, also those added since."""
        base = self.base_optimizer
        self.param_groups, self.state = base.param_groups, base.state
        for name, value in self._settings.items():
            for group in self.param_groups:
                check(name, group.setdefault(name, value))

    def __getstate__(self) -> dict[str, Any]:
        # torch's own would leave out all that an optimiser does not have; the step that a
        # learning-rate scheduler puts here belongs to this object, not to its copy.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    @abstractmethod
    def direction(self, passes: Passes) -> Vector:
        """The gradient that the base optimiser is given; the rule of the method."""

    def after_step(self) -> None:
        """What the method does once the weights have moved."""

    def scaled(self, vector: Vector, name: str = "rho") -> Vector:
        """A vector times a setting of each parameter's group."""
        return vector.weighted([g[name] for g in self.param_groups for _ in g["params"]])

    def remembered(self, name: str) -> Vector | None:
        """A vector kept in ``memory``, with zeros for parameters added since."""
        vector: Vector | None = self.memory.get(name)
        if vector is None:
            return None
        added = self._parameters()[len(vector.tensors) :]
        return Vector(vector.tensors + [torch.zeros_like(param.detach()) for param in added])

    def noise(self, like: Vector) -> Vector:
        """Standard normal noise, drawn tensor by tensor from the optimiser's own generator."""
        return like.map(
            lambda tensor: torch.randn(
                tensor.shape, generator=self._generator, device=self._generator.device
            ).to(tensor)
        )

    def state_dict(self) -> dict[str, Any]:
        """State of the base optimiser and, under "method", of the rule and its noise."""
        memory = {
            name: value.tensors if isinstance(value, Vector) else value
            for name, value in self.memory.items()
        }
        method = {
            "name": type(self).__name__,
            "memory": memory,
            "generator": self._generator.get_state(),
            **self.extra_state(),
        }
        return {**self.base_optimizer.state_dict(), "method": method}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up a state; settings that are not in the groups stay those of the constructor.

        Args:
            state_dict: Of the same method on the same parameters.

        Raises:
            ValueError: If it is of another method or of other parameters.
        """
        method = state_dict.get("method")
        name = type(self).__name__
        if method is None or method["name"] != name:
            other = "a plain optimiser" if method is None else method["name"]
            raise ValueError(
                f"this is the state of {other}, not of {name}; to take up the state of a base "
                "optimiser, load it into that before it is wrapped"
            )
        params = self._parameters()
        memory = {key: _loaded(value, params) for key, value in method["memory"].items()}
        self.base_optimizer.load_state_dict(
            {key: value for key, value in state_dict.items() if key != "method"}
        )
        self._complete_groups()
        self.memory = memory
        self._generator.set_state(method["generator"].cpu())
        self.load_extra_state(method)

    def extra_state(self) -> dict[str, Any]:
        """What a method keeps beside ``memory``."""
        return {}

    def load_extra_state(self, method: dict[str, Any]) -> None:
        """Takes up what ``extra_state`` gave."""

    def _passes(self, closure: Closure | RowLosses, size: int | None = None) -> Passes:
        self._complete_groups()
        return Passes(
            self._parameters(),
            self.model,
            closure,
            size=size,
            scaler=self._scaler,
            local=self._local,
        )

    @torch.no_grad()
    def _advance(self, passes: Passes) -> Tensor:
        try:
            combined = self.direction(passes)
        except Overflow:
            # The scaler finds the infinity on every process, skips the step and lowers the scale.
            combined = passes.weights.map(lambda tensor: torch.full_like(tensor, math.inf))
            passes.touched = [True] * len(passes.touched)
        if self._local and distributed():
            _average(combined, passes)
        params = self._parameters()
        for param, grad, touched in zip(params, combined.tensors, passes.touched, strict=True):
            param.grad = grad if touched else None
        if self._max_norm is not None:
            clip_grad_norm_(params, self._max_norm)
        if self._scaler is None:
            self.base_optimizer.step()
        else:
            scale = self._scaler.get_scale()
            torch._foreach_mul_([p.grad for p in params if p.grad is not None], scale)
            self._scaler.step(self.base_optimizer)
        self.after_step()
        return passes.losses[0]

    def _parameters(self) -> list[nn.Parameter]:
        return [param for group in self.param_groups for param in group["params"]]


class BatchOptimizer(FlatOptimizer):
    """A method whose closure is the usual one of torch: forward and backward on one batch."""

    @final
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step.

        Args:
            closure: Computes the loss on the batch, calls ``backward`` and returns the loss. It is
                required, is called once for every pass and must evaluate the same batch each time;
                gradients are cleared before each call.

        Returns:
            The loss of the first pass.

        Raises:
            TypeError: If there is no closure.
        """
        if not callable(closure):
            raise TypeError(
                f"{type(self).__name__}.step needs a closure that computes the loss, calls "
                f"backward and returns the loss, got {_kind(closure)}"
            )
        return self._advance(self._passes(closure))


class RowOptimizer(FlatOptimizer):
    """A method that evaluates parts of a batch; its closure gives the losses of rows."""

    @final
    def step(self, losses: RowLosses | None = None, size: int = 0) -> Tensor:  # type: ignore[override]
        """One step.

        Args:
            losses: Given rows of the batch, (R,) integers, returns their losses, (R,), by a forward
                pass; means and ``backward`` are done here, with the scaler where there is one.
                For instance ``lambda rows: cross_entropy(model(x[rows]), y[rows],
                reduction="none")``.
            size: Number of rows of the batch.

        Returns:
            The mean loss of the rows of the first pass.

        Raises:
            TypeError: If there is no closure.
            ValueError: If the batch is empty.
        """
        if not callable(losses):
            raise TypeError(
                f"{type(self).__name__}.step needs a closure that gives the losses of rows of the "
                f"batch, got {_kind(losses)}"
            )
        if size < 1:
            raise ValueError(f"size must be the number of rows of the batch, got {size}")
        return self._advance(self._passes(losses, size))


def _average(combined: Vector, passes: Passes) -> None:
    """The mean over processes of combined gradients, in place."""
    world = torch.distributed.get_world_size()
    for tensor in combined.tensors:
        torch.distributed.all_reduce(tensor)
    torch._foreach_div_(combined.tensors, float(world))
    touched = torch.tensor(passes.touched, device=combined.tensors[0].device).int()
    torch.distributed.all_reduce(touched)
    passes.touched = (touched > 0).tolist()


def _loaded(value: Any, params: list[nn.Parameter]) -> Any:
    if not isinstance(value, list):
        return value
    shapes = [tuple(tensor.shape) for tensor in value]
    if shapes != [tuple(param.shape) for param in params[: len(shapes)]]:
        raise ValueError("the state belongs to parameters of other shapes; build the same model")
    return Vector([t.to(p.detach(), copy=True) for t, p in zip(value, params, strict=False)])


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
