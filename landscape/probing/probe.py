"""The probe: the only place that evaluates a model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.probing.batches import Batches
from landscape.probing.blocks import Block, checked_blocks
from landscape.probing.checking import (
    OWN_SEED,
    BasePass,
    GradientPass,
    check_repeated,
    checked_pass,
    gradient_pass,
    loss_pass,
)
from landscape.probing.cutting import ExampleDim, checked_example_dim, cut, cut_pass, examples
from landscape.probing.derivative_checks import (
    Derivative,
    DerivativeChecks,
    RoundingErrors,
    entry_scales,
)
from landscape.probing.entries import Entries, Entry
from landscape.probing.evaluations import Evaluations
from landscape.probing.graphs import Operator
from landscape.probing.named_objectives import as_objective
from landscape.probing.normalised_logits import NormalisedLogits
from landscape.probing.objective import NotApplicableError, Objective
from landscape.probing.operator import CurvatureOperator
from landscape.probing.parts import Parts, Products
from landscape.probing.products import CurvatureProducts, GradientDifferences
from landscape.probing.requests import Evidence, Value_co
from landscape.probing.snapshot import BatchNormMode, Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Cost, Meter, content_hash, environment

GIB = 1 << 30
# Parameters up to which float64 costs little.
_CHEAP_IN_DOUBLE = 100_000

logger = logging.getLogger(__name__)


class Probe(Evaluations):
    """Losses, gradients and curvature products of a model at and near a checkpoint.

    The probe is a snapshot: it holds its own copy of the model, so the model given is never
    modified, and training it further does not change what the probe says. L(w) is the mean loss
    over all terms of all batches, in evaluation mode.

    On construction the data are walked twice and the loss is evaluated, twice where it draws
    random numbers, so that shuffling, augmentation or dropout is found before a number is wrong
    because of it. Gradient and curvature are compared with differences of losses and gradients
    when they are first used, and the rounding of the working precision is measured, on the first
    batch (see ``DerivativeChecks``).

    Args:
        model: The model; its trainable parameters span the space.
        objective: "cross_entropy", "mse", "bce", an ``Objective``, or a callable
            ``loss(model, batch)`` that returns one loss per term or (sum, number of terms).
        batches: Re-iterable of batches, in a fixed order.
        device: "cpu", "cuda", ...; None takes the model's.
        dtype: torch.float32 or torch.float64; None takes the model's (float32 for half types);
            "auto" takes float64 for models of up to 100,000 parameters on a CPU.
        batch_norm: "eval" (running statistics), "batch" (statistics of each batch, nothing
            stored) or "recalibrate" (running statistics re-estimated at every perturbed point).
        products: "auto", "loop", "batched", or "finite_difference" for models without a double
            backward.
        graph_memory: Bytes that autograd graphs kept between products, or of points evaluated
            at once, may take.
        momentum: The optimiser's last direction (its momentum buffer), (P,) or by parameter name,
            for measures that ask for it.
        initial: The weights before training, (P,) or by parameter name, for measures of the
            distance from them.
        example_dim: The dimension of the batches' tensors that counts the examples, 1 for (time,
            batch, features); or one for each entry of a batch, by position or key.
        inputs: Which entries of a batch are the model's inputs, by position, key or a function of
            the batch; None finds them where that is beyond doubt.
        targets: Which entry holds the targets, given alike.
        weights: Which entry holds weights of the examples; the mean loss is then
            sum w l / sum w.
        blocks: Pairs of matrices that the model sees only through their product, beside the
            attention that is found by itself.
        checks: "on" checks derivatives and measures rounding when they are first used; "off"
            does neither.

    Raises:
        TypeError: If the batches cannot be walked many times, or the model cannot be copied.
        ValueError: If nothing is trainable, the loss is not finite, or two passes disagree.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(4, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(model, "cross_entropy", batches)
        >>> probe.size, probe.hvp(torch.ones(probe.size)).shape
        (15, torch.Size([15]))
    """

    def __init__(  # noqa: PLR0913 - settings, each with a default
        self,
        model: nn.Module,
        objective: str | Objective | Callable[[nn.Module, Any], Any],
        batches: Iterable[Any],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] | None = None,
        batch_norm: BatchNormMode = "eval",
        products: Products = "auto",
        graph_memory: int = GIB,
        momentum: Tensor | Mapping[str, Tensor] | None = None,
        initial: Tensor | Mapping[str, Tensor] | None = None,
        blocks: Sequence[Block] = (),
        checks: Literal["on", "off"] = "on",
        example_dim: ExampleDim = 0,
        inputs: Entry | Sequence[Entry] | None = None,
        targets: Entry | None = None,
        weights: Entry | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        first = next(
            (p for p in model.parameters() if p.requires_grad and p.numel()), torch.empty(0)
        )
        if checks not in ("on", "off"):
            raise ValueError(f"checks must be 'on' or 'off', got {checks!r}")
        self.device = torch.device(device) if device is not None else first.device
        self.dtype = _working_dtype(model, first.dtype, self.device, dtype)
        self._snapshot = Snapshot(
            model,
            as_objective(
                objective, entries=Entries(inputs=inputs, targets=targets, weights=weights)
            ),
            device=self.device,
            dtype=self.dtype,
            batch_norm=batch_norm,
        )
        space = self._snapshot.space or ParamSpace.of(model)  # which says what is missing
        self._batches = Batches(batches, self.device, self.dtype)
        self._example_dim = checked_example_dim(example_dim)
        self._meter = Meter(self.device)
        self._way: Products = products
        self._graph_memory = graph_memory
        self.model_hash = self._snapshot.content()
        owners = {id(parameter): name for name, parameter in model.named_parameters()}
        with self._meter.preparing():
            base = checked_pass(self._snapshot, space, self._batches, owners)
            self._meter.count(forwards=1 + float(self._snapshot.recalibrates))
        self.terms = base.terms
        #: What sets a derived probe apart from the one it was derived of.
        self.variant = ""
        self._parent: Probe | None = None
        self.checks = DerivativeChecks(
            self._snapshot,
            space,
            space.flatten(dict(self._snapshot.model.named_parameters())).clone(),
            self._batches,
            base=base,
            meter=self._meter,
            enabled=checks == "on",
            memory=graph_memory // 4,
        )
        self._loss_nearby: str | None = None
        self._parts_add_up: dict[str, str] = {}
        self._span(space, base)
        self.momentum = None if momentum is None else self._direction(momentum, "momentum")
        self.initial = None if initial is None else self._direction(initial, "initial")
        self.blocks = checked_blocks(blocks, space)
        for text in self.warnings:
            logger.warning(text)

    def _direction(self, direction: Tensor | Mapping[str, Tensor], what: str) -> Tensor:
        if not isinstance(direction, Tensor):
            direction = self.space.gathered(direction, what)
        found = self._vector(direction, what)
        if not found.isfinite().all():
            raise ValueError(f"{what} holds NaN or infinite entries")
        return found

    def _span(self, space: ParamSpace, base: BasePass | None) -> None:
        """Sets everything that depends on which parameters are probed."""
        self.space = space
        self._known_base = base
        self._known_slope: GradientPass | None = None
        self._known_differences: GradientDifferences | None = None
        self._weights = space.flatten(dict(self._snapshot.model.named_parameters())).clone()
        self._curvature = CurvatureProducts(
            self._snapshot,
            space,
            self._batches,
            terms=self.terms,
            products=self._way,
            graph_memory=self._graph_memory,
        )
        self._evidence: dict[Hashable, tuple[Any, Cost, set[Derivative]]] = {}
        self._derived: dict[Hashable, Probe] = {}
        self._whole = self._parts_of([self._batches], counts=[self.terms])

    def _parts_of(self, parts: Sequence[Iterable[Any]], **settings: Any) -> Parts:
        return Parts(
            self._snapshot,
            self.space,
            self._weights,
            parts,
            terms=self.terms,
            meter=self._meter,
            way=self._way,
            memory=self._graph_memory,
            checks=self.checks,
            **settings,
        )

    def parts(self, size: int | None = None, points: int | None = None) -> Parts:
        """The data in disjoint parts, each with a mean loss of its own.

        Args:
            size: Examples a part; None makes one part of all.
            points: Use only the first so many examples; None uses all.

        Returns:
            The parts. Examples left over at the end make none, unless they are all there are.

        Raises:
            ValueError: If a number is not positive.
            NotApplicableError: If the loss of a batch is not the sum of those of its examples.
        """
        if any(number is not None and number < 1 for number in (size, points)):
            raise ValueError(f"size and points must be positive, got {size} and {points}")
        if size is None and points is None:
            return self._whole

        parts, as_asked = cut_pass(
            self._batches,
            size=size,
            points=points,
            by_example=self._by_example,
            example_dim=self._example_dim,
        )
        if as_asked:
            self.require_sums_of_examples(parts)
        return self._parts_of(parts, as_asked=as_asked)

    def require_sums_of_examples(self, parts: Sequence[Sequence[Any]]) -> None:
        """Refuses parts that cut a batch whose loss is not the sum of its examples' losses.

        The first batch is evaluated in three pieces; their losses must add up to its own.

        Args:
            parts: Lists of batches, as ``cut_pass`` gives them.

        Raises:
            NotApplicableError: If they do not.
        """
        whole = {id(batch) for batch in self._batches}
        # With batch norm on batch statistics every part has statistics, and a loss, of its own.
        if not self.uses_batch_statistics and any(
            id(batch) not in whole for part in parts for batch in part
        ):
            self.require_separate_examples()

    def require_separate_examples(self) -> None:
        """Refuses what cuts batches whose loss is not the sum of their examples' losses.

        Raises:
            NotApplicableError: If the pieces of the first batch do not add up to it.
        """
        key = self.variant
        if key not in self._parts_add_up:
            with self._meter.preparing():
                self._parts_add_up[key] = self._cutting_error()
        if text := self._parts_add_up[key]:
            raise NotApplicableError(text)

    def _cutting_error(self) -> str:
        if self.objective.couples_examples:
            return (
                "the objective couples the examples of a batch (couples_examples=True), so that it "
                "has no loss of single examples or parts of a batch"
            )
        batch = next(iter(self._batches))
        length = examples(batch, self._example_dim) or 1
        ends = sorted({0, 1, (length + 1) // 2, length})
        pieces = [cut(batch, start, stop, self._example_dim) for start, stop in pairwise(ends)]
        point = self.space.split(self._weights)
        try:
            with self._snapshot.evaluating(gradient=False):
                terms = [self._snapshot.terms(point, piece) for piece in (batch, *pieces)]
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return (
                "a batch cannot be evaluated in pieces of its examples: "
                f"{type(error).__name__}: {str(error).splitlines()[0]}"
            )
        whole, cuts = terms[0], terms[1:]
        size = abs(float(whole.total))
        if whole.losses is not None:
            size = max(size, float(whole.losses.abs().sum(dtype=torch.float64)))
        gap = abs(float(whole.total) - sum(float(piece.total) for piece in cuts))
        count = sum(piece.count for piece in cuts)
        tolerance = 1e-8 if self.dtype == torch.float64 else 1e-4
        if gap <= tolerance * size and abs(count - whole.count) <= tolerance * whole.count:
            return ""
        cause = (
            f"{OWN_SEED}, which give every piece the same ones; put the noise into the batch"
            if OWN_SEED in self._snapshot.handled
            else "a loss that couples the examples of a batch (contrastive losses; declare "
            "couples_examples=True), data whose examples are not on the first axis (declare "
            "example_dim), or a norm over the batch is the likely cause"
        )
        return (
            f"the loss of a batch is no sum over its examples: {float(whole.total):.6g} for "
            f"{whole.count:g} terms of the first batch, and "
            f"{sum(float(piece.total) for piece in cuts):.6g} for {count:g} terms when it is cut "
            f"into {len(cuts)} pieces; {cause}"
        )

    @property
    def example_dim(self) -> ExampleDim:
        """The dimension of the batches' tensors that counts the examples."""
        return self._example_dim

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self._snapshot.objective

    @property
    def _base(self) -> BasePass:
        if self._known_base is None:  # of a derived probe, when it is first asked for
            with self._meter.preparing():
                loss, terms = loss_pass(self._snapshot, self._batches)
                self._meter.count(forwards=1)
            self._known_base = BasePass(
                loss=loss, terms=terms, unused=(), strangers=(), data_hash=self.variant
            )
        return self._known_base

    @property
    def _slope(self) -> GradientPass:
        if self._known_slope is None:
            if self._parent is not None:
                whole = self._parent._slope
                self._known_slope = whole.restricted(self._parent.space, self.space)
                return self._known_slope
            with self._meter.preparing():
                found = gradient_pass(self._snapshot, self.space, self._batches, self._base.hardest)
                self._meter.count(gradients=1)
            loss = self._base.loss
            check_repeated(
                loss, found.loss, scale=abs(loss) + float(found.gradient.norm()), dtype=self.dtype
            )
            self._known_slope = found
            if not self.variant:
                self.checks.keep_gradient(found.hardest)
        return self._known_slope

    @property
    def unused(self) -> tuple[str, ...]:
        """Trainable parameters that no gradient reaches."""
        return self._base.unused if self._known_slope is None else self._known_slope.unused

    @property
    def warnings(self) -> list[str]:
        """What a reader of any number about this probe should know."""
        found = []
        if self.unused:
            found.append(
                f"No gradient reaches {len(self.unused)} parameters: {', '.join(self.unused[:5])}."
            )
        if strangers := self._base.strangers:
            found.append(
                f"The loss depends on {', '.join(strangers[:5])}"
                f"{' and others' * (len(strangers) > 5)} by reference (a list, a closure, another "
                "model), outside the parameters that the probe moves: in every number they count "
                "as constants. Let the loss read them from the model that it is handed."
            )
        return found + self.checks.warnings()

    @property
    def rounding(self) -> RoundingErrors:
        """Errors of the working precision, measured on a few batches when they are asked for."""
        return RoundingErrors(self.checks)

    def difference_rounding(self, delta: Tensor) -> float:
        """Measured error of L(w + delta) - L(w) in the working precision, on a few batches.

        Args:
            delta: Offset, (P,).

        Returns:
            The error; 0.0 where it is unknown.
        """
        return self.checks.difference_rounding(
            self.space, self._weights, self._vector(delta, "delta")
        )

    def product_errors(self, vectors: Tensor, operator: Operator = "hessian") -> Tensor | None:
        """Measured errors of curvature products of the working precision, on a few batches.

        Args:
            vectors: (K, P).
            operator: "hessian" or "ggn".

        Returns:
            (A_working - A_float64) v for each, (K, P) float64; with
            ``products="finite_difference"`` what another step changes. None where unknown.
        """
        if self._way == "finite_difference" and operator == "hessian":
            with self._meter.preparing():
                return self._differences.errors(self._rows(vectors, "vectors"))
        return self.checks.product_errors(
            operator, self.space, self._weights, self._rows(vectors, "vectors")
        )

    @property
    def _differences(self) -> GradientDifferences:
        if self._known_differences is None:
            double = None if self._snapshot.recalibrates else self.checks.double()
            noise, scale = (
                self.rounding.gradient,
                float(entry_scales(self.space, self._weights).min()),
            )
            whole, weights = self._whole, self._weights
            if self.dtype != torch.float64 and double is not None:
                weights = self._weights.double()
                whole = Parts(
                    double,
                    self.space,
                    weights,
                    [self._batches],
                    counts=[self.terms],
                    terms=self.terms,
                    meter=self._meter,
                    way="loop",
                    memory=self._graph_memory,
                )
                noise *= torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
            self._known_differences = GradientDifferences(
                lambda delta: whole.losses_and_gradients(delta[None], [0])[1][0],
                weights,
                noise=noise,
                scale=scale,
            )
        return self._known_differences

    def changed(
        self, change: Callable[[nn.Module], None], objective: Objective | None = None
    ) -> Probe:
        """A new probe on a copy of the model that was changed in place.

        Args:
            change: Modifies the model it is given; initial weights and momentum go along.
            objective: Another objective; None keeps this one.

        Returns:
            The probe, on the same data.
        """

        def moved(weights: Tensor) -> nn.Module:
            return self._snapshot.changed(self.space.split(weights), change)

        def flat(model: nn.Module) -> Tensor:
            return self.space.flatten(dict(model.named_parameters())).detach()

        model = moved(self._weights)
        end = None if self.momentum is None else flat(moved(self._weights + self.momentum))
        return Probe(
            model,
            objective or self.objective,
            self._batches,
            device=self.device,
            dtype=self.dtype,
            batch_norm=self._snapshot.batch_norm,
            products=self._way,
            graph_memory=self._graph_memory,
            momentum=None if end is None else end - flat(model),
            initial=None if self.initial is None else flat(moved(self.initial)),
            blocks=self.blocks,
            example_dim=self._example_dim,
            checks="off",  # the same model and loss; checked where it came from
        )

    def _by_example(self, batch: Any) -> bool:
        """Whether the dimension that the tensors of a batch share is that of the examples."""
        length = examples(batch, self._example_dim)
        point = self.space.split(self._weights)
        with self._snapshot.evaluating(gradient=False):
            if self.objective.has_outputs:
                outputs = self._snapshot.outputs(point, batch)
                return (
                    outputs.dim() > 0 and length in outputs.shape[: 2 if self._example_dim else 1]
                )
            # Only the number of losses can tell: as many as examples, or some for each. Where terms
            # have weights, their sum does not tell.
            terms = self._snapshot.terms(point, batch)
            number = terms.count if terms.losses is None else terms.losses.numel()
            return isinstance(number, float) or number % (length or 1) == 0

    def restrict(self, patterns: str | Sequence[str]) -> Probe:
        """A probe on the subspace of parameters matching shell-style patterns.

        It shares model, data and meter with this probe; the other parameters stay at the
        checkpoint, so its Hessian is the diagonal block of this one's.

        Args:
            patterns: Such as "layer4.*" or ["*.weight"].

        Returns:
            The restricted probe; the same object for the same parameters.

        Raises:
            ValueError: If nothing matches.
        """
        part = self.space.select(patterns)
        if part.names == self.space.names:
            return self
        if part.names not in self._derived:
            probe = copy.copy(self)
            probe._parent = self
            probe._span(part, self._base.restricted(part))
            for what in ("momentum", "initial"):
                if (vector := getattr(self, what)) is not None:
                    setattr(probe, what, part.flatten(self.space.split(vector)))
            self._derived[part.names] = probe
        return self._derived[part.names]

    def normalised_logits(self) -> Probe:
        """A probe on the same model and data whose logits are centred and of length one.

        It shares model, data and meter with this probe.

        Returns:
            The probe; the same object at every call.

        Raises:
            TypeError: If the objective gives no outputs.
        """
        if "normalised logits" not in self._derived:
            snapshot = self._snapshot.with_objective(NormalisedLogits(self.objective))
            self._derived["normalised logits"] = self._other("normalised logits", snapshot)
        return self._derived["normalised logits"]

    def sampled_targets(self, seed: int) -> Probe:
        """A probe on the same model with random targets of its own distribution's second moments.

        It shares the model and the meter with this probe. One forward pass.

        Args:
            seed: Of the draws.

        Returns:
            The probe; the same object for the same seed.

        Raises:
            TypeError: If the objective is no likelihood on batches (inputs, targets).
        """
        variant = f"targets drawn with seed {seed}"
        if variant not in self._derived:
            generator = torch.Generator().manual_seed(seed)
            point, drawn = self.space.split(self._weights), []
            with self._snapshot.evaluating(gradient=False):
                for batch in self._batches:
                    outputs = self._snapshot.outputs(point, batch)
                    drawn.append(self.objective.sampled(outputs, batch, generator))
            self._meter.count(forwards=1)
            batches = Batches(drawn, self.device, self.dtype)
            self._derived[variant] = self._other(variant, self._snapshot, batches)
        return self._derived[variant]

    def _other(self, variant: str, snapshot: Snapshot, batches: Batches | None = None) -> Probe:
        probe = copy.copy(self)
        probe.variant, probe._parent = variant, None
        probe._snapshot = snapshot
        probe._batches = batches or self._batches
        probe._span(self.space, None)
        return probe

    def operator(self, name: Operator = "hessian") -> CurvatureOperator:
        """The Hessian ("hessian") or Gauss-Newton matrix ("ggn") as a symmetric operator."""
        return CurvatureOperator(self, name)

    def evidence(self, request: Evidence[Value_co]) -> Value_co:
        """The value of a request, computed once and kept.

        Args:
            request: A hashable description with ``compute(probe)``.

        Returns:
            Its value.
        """
        if request not in self._evidence:
            with self.meter() as cost, self.checks.noting() as used:
                value = request.compute(self)
            self._evidence[request] = (value, cost, used)
        found: Value_co
        found, _, used = self._evidence[request]
        self.checks.note(*used)
        return found

    def evidence_cost(self, request: Evidence[Any]) -> Cost:
        """What a piece of evidence cost when it was computed (zero if it was not yet)."""
        return self._evidence[request][1] if request in self._evidence else Cost()

    def meter(self) -> AbstractContextManager[Cost]:
        """Counts passes over the data, seconds and memory of a block: ``with ... as cost``."""
        return self._meter.block()

    def listen(self, listener: Callable[[float], None]) -> AbstractContextManager[None]:
        """Calls ``listener(passes)`` after every evaluation inside the block."""
        return self._meter.listen(listener)

    def release(self) -> None:
        """Drops the autograd graphs kept between products, and copies in another precision."""
        self._curvature.release()
        self.checks.release()
        for part in self._derived.values():
            part.release()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of functions, and anew where it is needed."""
        return {**vars(self), "_known_differences": None}

    def identity(self) -> dict[str, Any]:
        """What a number depends on besides the measure: weights, data, objective, modes."""
        given = [("momentum", self.momentum), ("initial", self.initial)]
        return {
            "weights": self.model_hash,
            "data": self._base.data_hash,
            "objective": self.objective.name,
            # Weights and names do not tell a ReLU from a Tanh, nor two lambdas; the loss does, but
            # not that of a network whose last layer is zero: a little off the checkpoint too.
            "loss": f"{self._base.loss:.5e}",
            "loss_nearby": self._describe_loss_nearby(),
            "parameters": list(self.space.names),
            "batch_norm": self._snapshot.batch_norm_used,
            "dtype": str(self.dtype).removeprefix("torch."),
            "products": self._way,
            **({} if self.checks.enabled else {"checks": "off"}),
            **{name: content_hash([(name, known)]) for name, known in given if known is not None},
            **({"example_dim": str(self._example_dim)} if self._example_dim else {}),
            **({"blocks": [str(block) for block in self.blocks]} if self.blocks else {}),
        }

    def _describe_loss_nearby(self) -> str:
        """Loss of the first batch at a random point off the checkpoint, which tells models apart.

        Every parameter moves by a tenth of its size, and by a hundredth where it is zero.

        Returns:
            The loss to five digits.
        """
        if self._loss_nearby is None:
            generator = torch.Generator().manual_seed(0)
            point = {}
            for name, parameter in self._snapshot.trainable().items():
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                size = 0.1 * parameter.abs().mean() + 0.01
                point[name] = parameter + size * drawn.to(parameter)
            with self._meter.preparing(), self._snapshot.evaluating(gradient=False):
                terms = self._snapshot.terms(point, next(iter(self._batches)))
                self._meter.count(forwards=terms.count / self.terms)
            self._loss_nearby = f"{float(terms.total) / (terms.count or 1):.4e}"
        return self._loss_nearby

    def provenance(self) -> dict[str, Any]:
        """Identity, size, settings, checks, software and machine."""
        batched = {k: "batched" if on else "loop" for k, on in self._curvature.batched.items()}
        return {
            **self.identity(),
            "size": self.size,
            "terms": self.terms,
            "unused": list(self.unused),
            "products_used": batched if self._way != "finite_difference" else self._way,
            "attention": "math kernel",
            "handled": sorted(self._snapshot.handled | self.objective.notes),
            "checks": self.checks.record(),
            "preparation": self._meter.preparation.to_dict(),
            "device": str(self.device),
            **environment(),
        }


def _working_dtype(
    model: nn.Module,
    own: torch.dtype,
    device: torch.device,
    asked: torch.dtype | Literal["auto"] | None,
) -> torch.dtype:
    """The precision that is asked for, or that of the model."""
    if asked == "auto":
        size = sum(parameter.numel() for parameter in model.parameters())
        cheap = device.type == "cpu" and size <= _CHEAP_IN_DOUBLE
        return torch.float64 if cheap or own == torch.float64 else torch.float32
    if asked not in (None, torch.float32, torch.float64):
        raise ValueError(
            f"dtype must be torch.float32 or torch.float64, 'auto' or None, got {asked}"
        )
    return asked or (torch.float64 if own == torch.float64 else torch.float32)
