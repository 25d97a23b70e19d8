"""Derivatives are checked against differences of values, and rounding is measured, on one batch.

The gradient by autograd is compared with differences of losses, a Hessian product with differences
of gradients, a product of the outputs' Jacobian with differences of outputs; each when it is first
used. They are taken in float64, on a copy where the probe works in float32, so that steps can be
small enough to meet hardly any kink: at a relative step of 1e-8 a network crosses none of its
ReLUs' kinks but once in some thousand checks. What disagrees is looked at again a little off the
checkpoint (which may lie on a kink), with other directions and two further steps, and only what
disagrees each time is reported.

The same evaluations in both precisions tell the rounding of losses, gradients and products.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from landscape.probing.batches import Batches
from landscape.probing.checking import BasePass, check_repeated
from landscape.probing.graphs import Downcasts, GaussNewtonGraph, HessianGraph, Operator
from landscape.probing.objective import Terms
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Meter

logger = logging.getLogger(__name__)

Derivative = Literal["gradient", "hessian", "ggn"]
Evaluations = Sequence["_Evaluation"]

#: A derivative that is farther from differences, as a share of itself, is wrong.
TOLERANCE = 1e-3
# A first look with a single direction must be stricter: it sees a random share of the
# error, less than a hundredth of it in one case of a hundred.
_FIRST_LOOK = 2e-5
_DIRECTIONS = 8
# How much farther a parameter moves whose gradient is small.
_MOST_BOOST = 100.0
# Batches beside the hardest on which rounding is measured.
_OTHERS = 7
# Steps of the second look, as multiples of the first: larger ones where rounding hides small ones.
_FACTORS = (1.0, 0.125, 32.0, 1e3, 3e4)
# The same where no float64 copy can be evaluated.
_COARSE = 0.05

# Machine precision of float64 over that of float32: rounding errors are proportional to it.
_RATIO = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A derivative by autograd beside differences.

    Args:
        derivative: "gradient", "hessian" or "ggn".
        disagreement: ||derivative - differences|| / ||derivative||, of the gradient or of products
            with random vectors, each entry in units of the size of its parameter's entries; NaN
            where the values are too noisy to tell.
        tolerance: Up to which they agree.
        precision: In which both were taken.
    """

    derivative: Derivative
    disagreement: float
    tolerance: float
    precision: str

    @property
    def agrees(self) -> bool:
        """Whether the disagreement lies within the tolerance, or cannot be told."""
        return not self.disagreement > self.tolerance

    def describe(self) -> str:
        """What disagrees, the likely cause, and what is measured then; "" where all agrees."""
        if self.agrees:
            return ""
        share = f"{self.disagreement:.1%}"
        if self.derivative == "gradient":
            return (
                f"The gradient by autograd differs by {share} from differences of losses. A "
                "detached part (stop-gradient, straight-through estimator, gradient reversal), a "
                "derivative taken with create_graph=False, or an autograd.Function or hook with "
                "its own backward pass is the likely cause. Gradients and curvature are then those "
                "of the surrogate that autograd differentiates, and not of the loss itself."
            )
        of, differences = {
            "hessian": ("Hessian products", "gradients"),
            "ggn": ("Products of the outputs' Jacobian", "outputs"),
        }[self.derivative]
        return (
            f"{of} by autograd differ by {share} from differences of {differences}. An "
            "autograd.Function that keeps intermediate results on ctx, a backward hook, or a "
            "derivative taken with create_graph=False is the likely cause. Where the gradient is "
            "right, products='finite_difference' (--products finite_difference) measures its "
            "derivative."
        )


@dataclass
class Rounding:
    """Measured errors of the working precision on one batch; None until they are measured.

    Args:
        loss: Absolute error of a mean loss.
        gradient: Euclidean norm of the error of a mean gradient.
        gradient_norm: Error of the norm of that gradient.
        product: ||error|| / ||A v|| of the products that a measure first asked about.
    """

    loss: float | None = None
    gradient: float | None = None
    gradient_norm: float | None = None
    product: float | None = None


@dataclass(frozen=True)
class RoundingErrors:
    """Errors of the working precision, each measured when it is asked for; 0.0 where unknown."""

    checks: DerivativeChecks

    @property
    def loss(self) -> float:
        """Absolute error of a mean loss."""
        return self.checks.loss_rounding()

    @property
    def gradient(self) -> float:
        """Euclidean norm of the error of the gradient."""
        return self.checks.gradient_rounding()[0]

    @property
    def gradient_norm(self) -> float:
        """Absolute error of the norm of the gradient."""
        return self.checks.gradient_rounding()[1]


class DerivativeChecks:
    """The checks of one model on one batch, each made when it is first needed.

    Args:
        snapshot: Model and objective.
        space: The parameters that are probed.
        weights: The checkpoint, (P,).
        batches: The data. Derivatives are compared on the batch with the highest loss, which is
            never one without a term; rounding is measured there and on up to seven others.
        base: Number of loss terms of all data, and which batch has the highest loss.
        meter: Takes the passes as preparations.
        enabled: False makes no checks and measures no rounding.
        memory: Bytes that a float64 copy of the weights may take.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        space: ParamSpace,
        weights: Tensor,
        batches: Batches,
        *,
        base: BasePass,
        meter: Meter,
        enabled: bool,
        memory: int,
    ) -> None:
        self._snapshot, self._space, self._weights = snapshot, space, weights
        self._batches, self._meter, self._memory = batches, meter, memory
        others = [place for place in range(batches.count) if place != base.hardest]
        #: Numbers of the batches that are used.
        self._used_batches = [base.hardest, *others[:: max(1, -(-len(others) // _OTHERS))]]
        self._terms = base.terms
        self._highest: float | None = base.highest
        self.enabled = enabled
        self._found: dict[Derivative, Comparison] = {}
        self._used: list[set[Derivative]] = []
        self._twins: dict[torch.dtype, list[_Evaluation] | None] = {}
        self._rounding = Rounding()
        #: Why nothing can be evaluated in float64, where that is so.
        self.obstacle = ""

    # -- what was used ---------------------------------------------------------------------------

    @contextmanager
    def noting(self) -> Iterator[set[Derivative]]:
        """Collects the derivatives that are used inside the block."""
        used: set[Derivative] = set()
        self._used.append(used)
        try:
            yield used
        finally:
            self._used.remove(used)

    def note(self, *derivatives: Derivative) -> None:
        """Says that derivatives are used, and checks those that were not checked yet."""
        for used in self._used:
            used.update(derivatives)
        for derivative in derivatives:
            self.compare(derivative)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Work that no measure pays for, whatever mode of autograd the caller is in."""
        with self._meter.preparing(), torch.inference_mode(False), torch.no_grad():
            yield

    def repeat_loss(self) -> None:
        """Evaluates the loss of one batch once more, the first time that losses are asked for.

        Raises:
            ValueError: If it is another one: the model is random or keeps a state.
        """
        if not self.enabled or self._highest is None:
            return
        first, self._highest = self._highest, None
        with self._apart():
            twin = self._twin(self._snapshot.dtype)
            if twin is None:
                return
            again = float(twin.term_losses(twin.checkpoint).mean())
        check_repeated(first, again, scale=abs(first), dtype=self._snapshot.dtype)

    # -- agreement -------------------------------------------------------------------------------

    @property
    def comparisons(self) -> dict[Derivative, Comparison]:
        """What was compared so far."""
        return dict(self._found)

    def compare(self, derivative: Derivative) -> Comparison | None:
        """Compares a derivative with differences, once; None where checks are off.

        Args:
            derivative: "gradient", "hessian" or "ggn"; the last two compare the gradient as well.

        Returns:
            The comparison.
        """
        if not self.enabled:
            return None
        if derivative not in self._found:
            if derivative != "gradient":
                self.compare("gradient")
            with self._apart():
                self._found[derivative] = self._attempt(derivative)
            if text := self._found[derivative].describe():
                logger.warning(text)
        return self._found[derivative]

    def _attempt(self, derivative: Derivative) -> Comparison:
        method = {
            "gradient": self._compare_gradient,
            "hessian": self._compare_hessian,
            "ggn": self._compare_ggn,
        }[derivative]
        double = self._twin(torch.float64)
        for evaluation in (double, self._twin(self._snapshot.dtype)):
            if evaluation is None:
                continue
            try:
                return method(evaluation)
            except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
                if evaluation.dtype == torch.float64:
                    self._forget_double(error)
        return self._comparison(derivative, math.nan, "none")

    def keep_gradient(self, gradient: Tensor) -> None:
        """Takes the mean gradient of the hardest batch from a pass that was made anyway, (P,)."""
        if not self.enabled:
            return
        with self._apart():
            if (twin := self._twin(self._snapshot.dtype)) is not None:
                twin.keep(gradient)

    def release(self) -> None:
        """Drops the copies in another precision."""
        self._twins.clear()

    def _forget_double(self, error: Exception) -> None:
        self.obstacle = self.obstacle or f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if self._snapshot.dtype != torch.float64:
            self._twins[torch.float64] = None

    def _comparison(
        self, derivative: Derivative, disagreement: float, precision: str
    ) -> Comparison:
        return Comparison(
            derivative=derivative,
            disagreement=disagreement,
            tolerance=TOLERANCE if precision == "float64" else _COARSE,
            precision=precision,
        )

    def _compare_gradient(self, at: _Evaluation) -> Comparison:
        point = at.checkpoint
        gradient = at.gradient_there()
        directions = at.directions(1) * at.boost(gradient)
        found = _slope_error(at, point, gradient, directions, at.small_step)
        if found <= (_FIRST_LOOK if at.exact else _COARSE / 3):
            return self._comparison("gradient", found, at.name)
        # On a kink, at a minimum where rounding hides the gradient, or wrong.
        point = at.nearby()
        gradient = at.gradient(point)
        boost = at.boost(gradient)
        found = _slope_error(at, point, gradient, boost * at.directions(2), at.small_step)
        if not found <= _FIRST_LOOK:
            directions = boost * at.directions(_DIRECTIONS)
            found = _smallest(
                _slope_error(at, point, gradient, directions, factor * at.small_step)
                for factor in (_FACTORS if at.exact else _FACTORS[:2])
            )
        return self._comparison("gradient", found, at.name)

    def _compare_hessian(self, at: _Evaluation) -> Comparison:
        vector, step = at.directions(1)[0], at.tiny_step
        gradient, product = at.product(at.checkpoint, vector)
        slope = (at.gradient(at.checkpoint + step * vector) - gradient) / step
        noise = at.noise(gradient, step)
        found = at.largest_error(product, slope, noise)
        if not found <= (_FIRST_LOOK if at.exact else _COARSE / 3):
            found = self._look_again(at)
        return self._comparison("hessian", found, at.name)

    def _look_again(self, at: _Evaluation) -> float:
        """The error of a product a little off the checkpoint; NaN where steps tell it apart."""
        point, vector = at.nearby(), at.directions(1)[0]
        gradient, product = at.product(point, vector)
        slopes, errors = [], []
        for factor in _FACTORS[
            : 3 if at.exact else 2
        ]:  # beyond, kinks are part of every difference
            step = factor * at.tiny_step
            ahead, behind = at.gradient(point + step * vector), at.gradient(point - step * vector)
            slopes.append((ahead - behind) / (2 * step))
            # Bends, kinks and rounding show in the second difference.
            bend = (ahead - 2 * gradient + behind) / step
            errors.append(at.largest_error(product, slopes[-1], at.noise(gradient, step), bend))
        told = [place for place, error in enumerate(errors) if not math.isnan(error)]
        least = _smallest(errors)
        if len(told) < 2 or least <= TOLERANCE:
            return least
        # What depends on the step is none of the derivative's.
        spread = at.largest_error(slopes[told[0]], slopes[told[1]], 0.0)
        return least if spread <= least / 4 else math.nan

    def _compare_ggn(self, at: _Evaluation) -> Comparison:
        found = math.inf
        for point, step in ((at.checkpoint, at.small_step), (at.nearby(), at.small_step / 8)):
            vector = at.directions(1)[0]
            pushed = at.pushed(point, vector)
            ahead, behind = (at.outputs(point + sign * step * vector) for sign in (1, -1))
            change = (ahead - behind) / (2 * step)
            noise = 16 * at.eps * float(ahead.norm()) / step
            found = min(found, _relative_error(pushed, change, noise=noise))
            if not found > (TOLERANCE if at.exact else _COARSE):
                break
        return self._comparison("ggn", found, at.name)

    # -- rounding --------------------------------------------------------------------------------

    @property
    def measured_rounding(self) -> Rounding:
        """What is known of the rounding so far."""
        return self._rounding

    def loss_rounding(self) -> float:
        """Absolute error of a mean loss of the working precision; 0.0 where it is unknown."""
        if self._rounding.loss is None:
            self._rounding.loss = self._measured(self._loss_error)
        return self._rounding.loss

    def difference_rounding(self, space: ParamSpace, weights: Tensor, delta: Tensor) -> float:
        """Error of L(w + delta) - L(w) in the working precision; 0.0 where it is unknown.

        Args:
            space: The parameters of the offset.
            weights: Their values at the checkpoint, (P,).
            delta: Offset, (P,).

        Returns:
            The error of the mean over that batch, and what it may be by chance on others.
        """

        def measure(single: Evaluations, double: Evaluations) -> float:
            changes = []
            for evaluations in (single, double):
                dtype = evaluations[0].dtype
                point = space.split(weights.to(dtype) + delta.to(dtype))
                there = torch.cat([e.term_losses_at(point) for e in evaluations])
                here = torch.cat([e.losses_there() for e in evaluations])
                changes.append((there - here) if there.shape == here.shape else there[:0])
            if not changes[0].shape == changes[1].shape != (0,):
                return 0.0
            return self._mean_error(*changes)

        return self._measured(measure)

    def gradient_rounding(self) -> tuple[float, float]:
        """Norm of the error of the gradient, and the error of its norm; 0.0 where unknown."""
        if self._rounding.gradient is None or self._rounding.gradient_norm is None:
            self._measured(self._gradient_errors)
            self._rounding.gradient = self._rounding.gradient or 0.0
            self._rounding.gradient_norm = self._rounding.gradient_norm or 0.0
        return self._rounding.gradient, self._rounding.gradient_norm

    def product_errors(
        self, operator: Operator, space: ParamSpace, point: Tensor, vectors: Tensor
    ) -> Tensor | None:
        """Errors of products of the working precision on that batch, (K, P).

        Args:
            operator: "hessian" or "ggn".
            space: The parameters of the vectors.
            point: Their values at the checkpoint, (P,).
            vectors: (K, P).

        Returns:
            (A_working - A_float64) v for each; of float64 probes the error of float32, scaled by
            the ratio of the precisions. None where that cannot be evaluated.
        """
        if not self.enabled:
            return None
        with self._apart():
            both = []
            for dtype in (torch.float32, torch.float64):
                twins = self._all_twins(dtype)
                if twins is None:
                    return None
                try:
                    both.append(_mean_products(twins, operator, space, point, vectors))
                except (RuntimeError, TypeError, ValueError) as error:
                    self._forget_double(error)
                    return None
        errors = (both[0] - both[1]) * self._scale
        if not bool(errors.isfinite().all()):
            return None
        if self._rounding.product is None and float(both[1].norm()):
            self._rounding.product = float(errors.norm() / both[1].norm())
        return errors

    @property
    def _scale(self) -> float:
        return 1.0 if self._snapshot.dtype == torch.float32 else _RATIO

    def _measured(self, measure: Callable[[Evaluations, Evaluations], float]) -> float:
        """What a measurement with both precisions says, scaled to that of the probe."""
        if not self.enabled:
            return 0.0
        with self._apart():
            single, double = self._all_twins(torch.float32), self._all_twins(torch.float64)
            if single is None or double is None:
                return 0.0
            try:
                found = measure(single, double)
            except (RuntimeError, TypeError, ValueError) as error:
                self._forget_double(error)
                return 0.0
        return found if math.isfinite(found) else 0.0

    def _loss_error(self, single: Evaluations, double: Evaluations) -> float:
        low, high = (torch.cat([e.losses_there() for e in each]) for each in (single, double))
        return self._mean_error(low, high)

    def _mean_error(self, low: Tensor, high: Tensor) -> float:
        """Error of a mean loss from the losses in both precisions."""
        if low.shape != high.shape:
            return abs(float(low.mean() - high.mean())) * self._scale
        error = low - high
        # The mean error of this batch, and what it may be by chance on others.
        chance = float(error.square().mean().sqrt()) / math.sqrt(max(len(error), 1))
        return (abs(float(error.mean())) + chance) * self._scale

    def _gradient_errors(self, single: Evaluations, double: Evaluations) -> float:
        low, high = _mean_gradient(single), _mean_gradient(double)
        error = low - high
        size, norm = float(error.norm()), float(high.norm())
        along = abs(float(error @ high)) / norm if norm else size
        chance = size / math.sqrt(len(error)) + (size**2 / (2 * norm) if norm else 0.0)
        self._rounding.gradient = size * self._scale
        self._rounding.gradient_norm = min(along + chance, size) * self._scale
        return size * self._scale

    # -- copies ----------------------------------------------------------------------------------

    def double(self) -> Snapshot | None:
        """The model in float64; None where it has no room or cannot be evaluated."""
        with self._apart():
            twin = self._twin(torch.float64)
        if twin is None:
            return None
        try:
            with self._apart():
                twin.gradient_there()
        except (RuntimeError, TypeError, ValueError) as error:
            self._forget_double(error)
            return None
        return twin.snapshot

    def _twin(self, dtype: torch.dtype) -> _Evaluation | None:
        """The hardest batch in a precision; None where it cannot be evaluated or has no room."""
        twins = self._all_twins(dtype)
        return None if twins is None else twins[0]

    def _all_twins(self, dtype: torch.dtype) -> list[_Evaluation] | None:
        """The same and the other batches on which rounding is measured."""
        if dtype not in self._twins:
            self._twins[dtype] = self._new_twins(dtype)
        return self._twins[dtype]

    def _new_twins(self, dtype: torch.dtype) -> list[_Evaluation] | None:
        snapshot = self._snapshot
        if dtype != snapshot.dtype:
            if self._space.size * dtype.itemsize > self._memory:
                self.obstacle = "a copy in another precision takes too much memory"
                return None
            try:
                snapshot = snapshot.converted(dtype)
            except (RuntimeError, TypeError) as error:  # a device without float64, say
                self._forget_double(error)
                return None
        weights = self._weights.to(dtype)
        return [
            _Evaluation(
                snapshot,
                self._space,
                weights,
                self._batches.source(number),
                meter=self._meter,
                terms=self._terms,
            )
            for number in self._used_batches
        ]

    def record(self) -> dict[str, Any]:
        """What was found, JSON-able."""
        if not self.enabled:
            return {"checks": "off"}
        return {
            **{
                name: {
                    "disagreement": one.disagreement,
                    "tolerance": one.tolerance,
                    "precision": one.precision,
                    "agrees": one.agrees,
                    "warning": one.describe(),
                }
                for name, one in self._found.items()
            },
            "rounding": {key: v for key, v in asdict(self._rounding).items() if v is not None},
            **({"obstacle": self.obstacle} if self.obstacle else {}),
        }

    def warnings(self) -> list[str]:
        """What a reader must know: a sentence for every derivative that disagrees."""
        return [text for one in self._found.values() if (text := one.describe())]

    def doubt(self, used: set[Derivative]) -> str:
        """Why numbers that rest on these derivatives are uncertain; "" where they are not."""
        if "hessian" in used or "ggn" in used:
            used = {*used, "gradient"}
        wrong = [one.describe() for name, one in self._found.items() if name in used]
        return " ".join(filter(None, wrong))


class _Evaluation:
    """Mean losses, gradients and products of one batch in one precision, around a checkpoint."""

    def __init__(
        self,
        snapshot: Snapshot,
        space: ParamSpace,
        weights: Tensor,
        batch: Any,
        *,
        meter: Meter,
        terms: float,
    ) -> None:
        self.snapshot, self._space, self._batch = snapshot, space, batch
        self._meter, self._terms = meter, terms
        self.checkpoint = weights
        self.dtype = snapshot.dtype
        #: Number of the batch's terms, once they were evaluated.
        self.count = 0.0
        self._generator = torch.Generator().manual_seed(0)
        self._outputs_size: float | None = None
        self._there: Tensor | None = None
        self._losses_there: Tensor | None = None

    @cached_property
    def eps(self) -> float:
        """Machine precision of the numbers; a model may cast to less than float64 inside."""
        if self.dtype != torch.float64:
            return torch.finfo(self.dtype).eps
        with self.snapshot.evaluating(gradient=False), Downcasts() as casts:
            terms = self.snapshot.terms(self._split(self.checkpoint), self._batch)
        self._losses_there = self._each(terms, forwards=1)
        return float(casts.eps)

    @property
    def exact(self) -> bool:
        """Whether numbers are as precise as float64."""
        return self.eps == torch.finfo(torch.float64).eps

    @property
    def name(self) -> str:
        """The precision in words."""
        casts = self.dtype == torch.float64 and not self.exact
        plain = str(self.dtype).removeprefix("torch.")
        return f"{plain}, with casts to less inside" if casts else plain

    @cached_property
    def scales(self) -> Tensor:
        """By how much entries move in a step of length one: the size of their parameter's."""
        return entry_scales(self._space, self.checkpoint)

    @property
    def small_step(self) -> float:
        """Of differences of values: large against rounding, small against bends and kinks."""
        return 1e-6 if self.exact else 5e-3

    @property
    def tiny_step(self) -> float:
        """Of differences of gradients, in which a single kink weighs much."""
        return 1e-8 if self.exact else 1e-3

    def directions(self, count: int) -> Tensor:  # (count, P)
        """Random directions in which every entry moves by about its scale."""
        size = (count, self._space.size)
        drawn = torch.randn(size, generator=self._generator, dtype=torch.float64)
        return drawn.to(self.checkpoint) * self.scales

    def nearby(self) -> Tensor:
        """A point a little off the checkpoint, which lies on no kink."""
        return self.checkpoint + 100 * self.small_step * self.directions(1)[0]

    def _split(self, point: Tensor) -> dict[str, Tensor]:
        return self._space.split(point)

    def noise(self, gradient: Tensor, step: float) -> float:
        """Least rounding of a difference of gradients, divided by the step."""
        size = float((self.scales * gradient).norm()) + self.outputs_size()
        return 16 * self.eps * size / step

    def boost(self, gradient: Tensor) -> Tensor:  # (P,)
        """How much farther parameters move whose gradient is small, so that all are seen alike."""
        sizes = [
            float((scale * slope).double().norm())
            for scale, slope in zip(
                self._split(self.scales).values(), self._split(gradient).values(), strict=True
            )
        ]
        largest = max(sizes)
        return torch.cat(
            [
                self.scales.new_full((count,), min(largest / size, _MOST_BOOST) if size else 1.0)
                for count, size in zip(self._space.sizes, sizes, strict=True)
            ]
        )

    def largest_error(
        self, found: Tensor, slope: Tensor, noise: float, bend: Tensor | None = None
    ) -> float:
        """The largest relative error of a parameter's part of two vectors, and of the whole.

        Args:
            found: By autograd, (P,).
            slope: By differences, (P,).
            noise: Of the whole difference, scaled.
            bend: What the second difference tells of its noise, (P,).

        Returns:
            The error; NaN where none could be told.
        """
        vectors = [found, slope, torch.zeros_like(slope) if bend is None else bend]
        scaled = [(self.scales * vector).double() for vector in vectors]
        parts = zip(*(self._split(vector).values() for vector in scaled), strict=True)
        errors = [
            _relative_error(one, other, noise=max(noise, float(third.norm())))
            for one, other, third in (scaled, *parts)
        ]
        return max((error for error in errors if not math.isnan(error)), default=math.nan)

    def outputs_size(self) -> float:
        """Size of the outputs, to which losses that cancel are rounded; 0.0 where unknown."""
        if self._outputs_size is None:
            self._outputs_size = 0.0
            if self.snapshot.objective.has_outputs:
                outputs = self.outputs(self.checkpoint)
                self._outputs_size = float(outputs.abs().mean()) if outputs.numel() else 0.0
        return self._outputs_size

    def loss_and_scale(self, point: Tensor) -> tuple[float, float]:
        """Mean loss, and the size of what is summed, which sets its rounding."""
        losses = self.term_losses(point)
        return float(losses.mean()), float(losses.abs().mean())

    def term_losses(self, point: Tensor) -> Tensor:
        """Losses of the terms as far as the objective tells them, float64: their mean is the loss.

        Returns:
            (T,), or the mean loss alone where the objective gives sums or weights.
        """
        return self.term_losses_at(self._split(point))

    def term_losses_at(self, parameters: dict[str, Tensor]) -> Tensor:
        """The same with some parameters by name."""
        with self.snapshot.evaluating(gradient=False):
            terms = self.snapshot.terms(parameters, self._batch)
        return self._each(terms, forwards=1)

    def _each(self, terms: Terms, *, forwards: int = 0) -> Tensor:
        self.count = terms.count
        self._meter.count(forwards=forwards * terms.count / self._terms)
        if terms.losses is not None and terms.losses.numel() == terms.count:
            return terms.losses.detach().double().cpu()
        return (terms.total.detach().double() / (terms.count or 1)).reshape(1).cpu()

    def losses_there(self) -> Tensor:
        """Losses at the checkpoint, kept."""
        if self._losses_there is None:
            self._losses_there = self.term_losses(self.checkpoint)
        return self._losses_there

    def outputs(self, point: Tensor) -> Tensor:
        with self.snapshot.evaluating(gradient=False):
            found = self.snapshot.outputs(self._split(point), self._batch)
        return found.double()

    def gradient(self, point: Tensor) -> Tensor:
        """Gradient of the mean loss, (P,)."""
        leaves = {n: p.detach().requires_grad_() for n, p in self._split(point).items()}
        with self.snapshot.evaluating(gradient=True):
            terms = self.snapshot.terms(leaves, self._batch)
            found = self.snapshot.derivatives(terms.total, leaves)
        self.count = terms.count
        self._meter.count(gradients=terms.count / self._terms)
        if point is self.checkpoint:
            self._losses_there = self._each(terms)
        flat = {n: torch.zeros_like(leaves[n]) if p is None else p for n, p in found.items()}
        return self._space.flatten(flat).detach() / (terms.count or 1)

    def gradient_there(self) -> Tensor:
        """The gradient at the checkpoint, kept."""
        if self._there is None:
            self._there = self.gradient(self.checkpoint)
        return self._there

    def keep(self, gradient: Tensor) -> None:
        """Takes the gradient at the checkpoint from a pass that was made anyway."""
        self._there = gradient
        self.losses_there()  # which tells the number of terms

    def product(self, point: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the mean loss, and the product of its Hessian with a vector, (P,) each."""
        with self.snapshot.evaluating(gradient=True):
            graph = HessianGraph(self.snapshot, self._space, point, self._batch)
            total = torch.zeros_like(vector)[None]
            graph.add_products(total, vector[None], batched=False)
        share = graph.terms / self._terms
        self._meter.count(gradients=share, products=share)
        return graph.gradient() / graph.terms, total[0] / graph.terms

    def products(
        self, operator: Operator, space: ParamSpace, point: Tensor, vectors: Tensor
    ) -> Tensor:
        """Products of the mean loss's curvature with (K, P) vectors."""
        kind = HessianGraph if operator == "hessian" else GaussNewtonGraph
        own = vectors.to(self.dtype)
        total = torch.zeros_like(own)
        with self.snapshot.evaluating(gradient=True):
            graph = kind(self.snapshot, space, point.to(self.dtype), self._batch)
            graph.add_products(total, own, batched=False)
        self.count = graph.terms
        share = graph.terms / self._terms
        self._meter.count(gradients=share, products=share * len(vectors))
        return total / (graph.terms or 1)

    def pushed(self, point: Tensor, vector: Tensor) -> Tensor:
        """The Jacobian of the outputs times a vector, by the double-backward trick."""
        with self.snapshot.evaluating(gradient=True):
            graph = GaussNewtonGraph(self.snapshot, self._space, point, self._batch)
            found = graph.push(vector)
        self._meter.count(gradients=graph.terms / self._terms)
        return found.double()


def _mean_gradient(evaluations: Evaluations) -> Tensor:  # (P,), float64
    """Gradient at the checkpoint of the mean loss over the terms of several batches."""
    gradients = [evaluation.gradient_there().double() for evaluation in evaluations]
    return _mean_over_terms(evaluations, gradients)


def _mean_products(
    evaluations: Evaluations,
    operator: Operator,
    space: ParamSpace,
    point: Tensor,
    vectors: Tensor,
) -> Tensor:  # (K, P), float64
    """Products with the curvature of the mean loss over the terms of several batches."""
    found = [e.products(operator, space, point, vectors).double() for e in evaluations]
    return _mean_over_terms(evaluations, found)


def _mean_over_terms(evaluations: Evaluations, values: Sequence[Tensor]) -> Tensor:
    used = [(e.count, v) for e, v in zip(evaluations, values, strict=True) if e.count]
    total = sum(count for count, _ in used)
    return torch.stack([value * (count / total) for count, value in used]).sum(0)


def entry_scales(space: ParamSpace, weights: Tensor) -> Tensor:  # (P,)
    """Root mean square of the entries of its parameter, for every entry.

    Layers may differ in size by orders of magnitude, and a step must be small for each of them.

    Args:
        space: The parameters.
        weights: Their values, (P,).

    Returns:
        The sizes; parameters that are zero get the smallest of the others, 0.01 where all are zero.
    """
    sizes = {
        name: float(part.double().square().mean().sqrt())
        for name, part in space.split(weights).items()
    }
    least = min((size for size in sizes.values() if size > 0), default=1e-2)
    return torch.cat(
        [
            weights.new_full((part.numel(),), sizes[name] or least)
            for name, part in space.split(weights).items()
        ]
    )


def _slope_error(
    at: _Evaluation, point: Tensor, gradient: Tensor, directions: Tensor, step: float
) -> float:
    """Estimated ||s (gradient - true gradient)|| / ||s gradient||, s the scales of the entries.

    E <e, d>^2 = ||s e||^2 for random directions d = s z. Parameters with small gradients move
    farther, by ``boost``.

    Returns:
        The estimate; NaN where rounding hides a tenth of the gradient.
    """
    squares, slopes, noise = [], [], 4 * at.eps * at.outputs_size() / step
    here = at.loss_and_scale(point)[0] if len(directions) > 1 else None
    for direction in directions:
        ahead, behind = (at.loss_and_scale(point + sign * step * direction) for sign in (1.0, -1.0))
        slopes.append((ahead[0] - behind[0]) / (2 * step))
        error = slopes[-1] - float(gradient.double() @ direction.double())
        squares.append(error**2)
        noise = max(noise, 4 * at.eps * max(ahead[1], behind[1]) / step)
        if here is not None:  # bends, kinks and rounding show in the second difference
            noise = max(noise, abs(ahead[0] - 2 * here + behind[0]) / step)
    found = math.sqrt(sum(squares) / len(squares))
    # What a random direction sees of the gradient, by autograd or by differences.
    size = max(
        float((at.scales * at.boost(gradient) * gradient).norm()),
        math.sqrt(sum(slope**2 for slope in slopes) / len(slopes)),
    )
    return _share(found, size, noise)


def _smallest(errors: Iterable[float]) -> float:
    """The smaller of the first two errors that could be told; NaN where none could."""
    return min([error for error in errors if not math.isnan(error)][:2], default=math.nan)


def _relative_error(found: Tensor, slope: Tensor, *, noise: float) -> float:
    """||found - slope|| / their size; NaN where rounding hides a tenth of it."""
    size = max(float(found.double().norm()), float(slope.double().norm()))
    return _share(float((slope.double() - found.double()).norm()), size, noise)


def _share(error: float, size: float, noise: float) -> float:
    """Error over size, less what is noise; NaN where noise hides a tenth of the size."""
    if size == 0 and error == 0:
        return 0.0
    if not math.isfinite(error + size) or noise > 0.1 * size:
        return math.nan
    return error / size if noise <= 1e-4 * size else max(error - noise, 0.0) / size
