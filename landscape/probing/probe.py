"""The probe: the only place that evaluates a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.probing.batches import Batches
from landscape.probing.blocks import Block, checked_blocks
from landscape.probing.checking import BasePass, checked_pass, gradient_pass
from landscape.probing.cutting import cut_pass, examples
from landscape.probing.evaluations import Evaluations
from landscape.probing.named_objectives import as_objective
from landscape.probing.normalised_logits import NormalisedLogits
from landscape.probing.objective import Objective
from landscape.probing.operator import CurvatureOperator
from landscape.probing.parts import Parts, Products
from landscape.probing.products import CurvatureProducts, Operator
from landscape.probing.requests import Evidence, Value_co
from landscape.probing.snapshot import BatchNormMode, Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Cost, Meter, content_hash, environment

GIB = 1 << 30


class Probe(Evaluations):
    """Losses, gradients and curvature products of a model at and near a checkpoint.

    The probe is a snapshot: it holds its own copy of the model, so the model given is never
    modified, and training it further does not change what the probe says. L(w) is the mean loss
    over all terms of all batches, in evaluation mode.

    On construction the data are walked twice and loss and gradient compared, so that shuffling,
    augmentation or dropout is found before a number is wrong because of it.

    Args:
        model: The model; its trainable parameters span the space.
        objective: "cross_entropy", "mse", "bce", an ``Objective``, or a callable
            ``loss(model, batch)`` that returns one loss per term or (sum, number of terms).
        batches: Re-iterable of batches, in a fixed order.
        device: "cpu", "cuda", ...; None takes the model's.
        dtype: torch.float32 or torch.float64; None takes the model's (float32 for half types).
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
        blocks: Pairs of matrices that the model sees only through their product, beside the
            attention that is found by itself.

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
        dtype: torch.dtype | None = None,
        batch_norm: BatchNormMode = "eval",
        products: Products = "auto",
        graph_memory: int = GIB,
        momentum: Tensor | Mapping[str, Tensor] | None = None,
        initial: Tensor | Mapping[str, Tensor] | None = None,
        blocks: Sequence[Block] = (),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        first = next(
            (p for p in model.parameters() if p.requires_grad and p.numel()), torch.empty(0)
        )
        self.device = torch.device(device) if device is not None else first.device
        self.dtype = dtype or (torch.float64 if first.dtype == torch.float64 else torch.float32)
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self._snapshot = Snapshot(
            model,
            as_objective(objective),
            device=self.device,
            dtype=self.dtype,
            batch_norm=batch_norm,
        )
        space = self._snapshot.space or ParamSpace.of(model)  # which says what is missing
        self._batches = Batches(batches, self.device, self.dtype)
        self._meter = Meter(self.device)
        self._way: Products = products
        self._graph_memory = graph_memory
        self.model_hash = self._snapshot.content()
        base = checked_pass(self._snapshot, space, self._batches)
        self._meter.count(gradients=2, forwards=float(self._snapshot.recalibrates))
        self.terms, self.unused = base.terms, base.unused
        #: What sets a derived probe apart from the one it was derived of.
        self.variant = ""
        self._span(space, base)
        self.momentum = None if momentum is None else self._direction(momentum, "momentum")
        self.initial = None if initial is None else self._direction(initial, "initial")
        self.blocks = checked_blocks(blocks, space)

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
        self._weights = space.flatten(dict(self._snapshot.model.named_parameters())).clone()
        self._curvature = CurvatureProducts(
            self._snapshot,
            space,
            self._batches,
            terms=self.terms,
            products=self._way,
            graph_memory=self._graph_memory,
        )
        self._evidence: dict[Hashable, tuple[Any, Cost]] = {}
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
        """
        if any(number is not None and number < 1 for number in (size, points)):
            raise ValueError(f"size and points must be positive, got {size} and {points}")
        if size is None and points is None:
            return self._whole

        parts, as_asked = cut_pass(
            self._batches, size=size, points=points, by_example=self._by_example
        )
        return self._parts_of(parts, as_asked=as_asked)

    @property
    def objective(self) -> Objective:
        """The objective."""
        return self._snapshot.objective

    @property
    def _base(self) -> BasePass:
        if self._known_base is None:  # of a derived probe, when it is first asked for
            with self._snapshot.evaluating(gradient=True):
                self._known_base = gradient_pass(
                    self._snapshot, self.space, self._batches, self.variant
                )
            self._meter.count(gradients=1)
        return self._known_base

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
        )

    def _by_example(self, batch: Any) -> bool:
        """Whether the first dimension that the tensors of a batch share is that of the examples."""
        point = self.space.split(self._weights)
        with self._snapshot.evaluating(gradient=False):
            if self.objective.has_outputs:
                outputs = self._snapshot.outputs(point, batch)
                return outputs.dim() > 0 and len(outputs) == examples(batch)
            # Only the number of losses can tell: as many as examples, or some for each.
            return self._snapshot.terms(point, batch).count % (examples(batch) or 1) == 0

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
            probe._span(part, self._base.restricted(self.space, part))
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
        probe.variant = variant
        probe._snapshot = snapshot
        probe._batches = batches or self._batches
        probe._span(self.space, None)
        return probe

    def on_first_batch(self, dtype: torch.dtype) -> Probe:
        """A probe on a copy of the model in another precision, on the first batch alone."""
        key = ("first batch", dtype)
        if key not in self._derived:
            self._derived[key] = Probe(
                self._snapshot.changed(self.space.split(self._weights), lambda _: None),
                self.objective,
                [next(iter(self._batches))],
                device=self.device,
                dtype=dtype,
                batch_norm=self._snapshot.batch_norm,
                products=self._way,
                graph_memory=self._graph_memory,
            )
        return self._derived[key]

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
            with self.meter() as cost:
                value = request.compute(self)
            self._evidence[request] = (value, cost)
        found: Value_co = self._evidence[request][0]
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
        """Drops the autograd graphs kept between products."""
        self._curvature.release()
        for part in self._derived.values():
            part.release()

    def identity(self) -> dict[str, Any]:
        """What a number depends on besides the measure: weights, data, objective, modes."""
        given = [("momentum", self.momentum), ("initial", self.initial)]
        return {
            "weights": self.model_hash,
            "data": self._base.data_hash,
            "objective": self.objective.name,
            # Weights and names do not tell a ReLU from a Tanh, nor two lambdas: the loss does.
            "loss": f"{self._base.loss:.5e}",
            "parameters": list(self.space.names),
            "batch_norm": self._snapshot.batch_norm,
            "dtype": str(self.dtype).removeprefix("torch."),
            "products": self._way,
            **{name: content_hash([(name, known)]) for name, known in given if known is not None},
            **({"blocks": [str(block) for block in self.blocks]} if self.blocks else {}),
        }

    def provenance(self) -> dict[str, Any]:
        """Identity, size, settings, software and machine."""
        batched = {k: "batched" if on else "loop" for k, on in self._curvature.batched.items()}
        return {
            **self.identity(),
            "size": self.size,
            "terms": self.terms,
            "unused": list(self.unused),
            "products_used": batched if self._way != "finite_difference" else self._way,
            "attention": "math kernel",
            "handled": sorted(self._snapshot.handled),
            "device": str(self.device),
            **environment(),
        }
