"""Losses and gradients of disjoint parts of the data at many points near a checkpoint."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from landscape.probing.cutting import stacked
from landscape.probing.derivative_checks import DerivativeChecks
from landscape.probing.fixed_norm import plain_norms
from landscape.probing.graphs import measured
from landscape.probing.snapshot import Snapshot
from landscape.probing.space import ParamSpace
from landscape.results import Meter

# Fewer points say little about what batching is worth; more hardly add to it.
_TELLING, _MOST = 4, 32
# Seconds of a single evaluation up to which batching may pay; a call costs about a millisecond.
_WORTH_A_TRIAL = 0.02
# Batched and looped sums agree to rounding, or batching computes something else.
_AGREEMENT = 1e-3

Products = Literal["auto", "loop", "batched", "finite_difference"]


class NoTermsError(ValueError):
    """None of the examples that were asked for has a loss term."""


class Parts:
    """Disjoint parts of the data, each with its own mean loss L_B(w).

    K points are evaluated in one call, each on a part of its own choice: one by one, or several at
    once by vmap. Which is faster is timed on the first call with four points or more.

    Args:
        snapshot: Model and objective.
        space: The parameters of the points.
        weights: The checkpoint, (P,).
        parts: Each an iterable of batches.
        terms: Number of loss terms of a whole pass, to count passes by.
        meter: Counts passes.
        way: "auto", "loop" or "batched".
        memory: Bytes for the graphs of points that are evaluated at once.
        counts: Loss terms of each part, where they are known.
        as_asked: False where the batches could not be cut and are the parts themselves.
        checks: Hears of gradients that are used.
    """

    def __init__(  # noqa: PLR0913 - made in one place, by the probe
        self,
        snapshot: Snapshot,
        space: ParamSpace,
        weights: Tensor,
        parts: Sequence[Iterable[Any]],
        *,
        terms: float,
        meter: Meter,
        way: Products,
        memory: int,
        counts: Sequence[float] = (),
        as_asked: bool = True,
        checks: DerivativeChecks | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._space = space
        self._weights = weights
        self._parts = parts
        #: Loss terms of a pass over all the data.
        self.pass_terms = terms
        self._meter = meter
        self._memory = memory
        self._counts = list(counts)
        self._rows = _MOST
        self.as_asked = as_asked
        self._checks = checks
        #: Whether points are evaluated together, by kind of evaluation, once known.
        self.batched: dict[tuple[bool, bool], bool] = {}
        self._forced = None if way in ("auto", "finite_difference") else way == "batched"

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def size(self) -> int:
        """P."""
        return self._space.size

    @property
    def counts(self) -> list[float]:
        """Loss terms of each part, or the sums of their weights."""
        if not self._counts:
            self.base_losses()
        return self._counts

    def base_losses(self) -> Tensor:  # (number of parts,), float64, on the CPU
        """Mean loss of each part at the checkpoint; one forward pass over them.

        Returns:
            Losses; parts without a loss term are dropped.

        Raises:
            NoTermsError: If no part has one.
        """
        sums, counts = [], []
        point = self._space.split(self._weights)
        with self._snapshot.evaluating(gradient=False):
            for part in self._parts:
                with self._snapshot.calibrated(point, part):
                    terms = [self._snapshot.terms(point, batch) for batch in part]
                sums.append(sum(float(entry.total) for entry in terms))
                counts.append(sum(entry.count for entry in terms))
        # Parts without a term (all targets ignored) have no loss.
        told = [place for place, count in enumerate(counts) if count]
        self._parts = [self._parts[place] for place in told]
        self._counts = [counts[place] for place in told]
        # A point of its own has statistics of its own, in one pass more.
        passes = 1 + self._snapshot.recalibrates
        self._meter.count(forwards=passes * sum(counts) / self.pass_terms)
        if not told:
            raise NoTermsError(
                "no example that is used has a loss term (all targets are ignored); use more points"
            )
        losses = torch.tensor([sums[place] for place in told], dtype=torch.float64)
        return losses / torch.tensor(self._counts, dtype=torch.float64)

    def losses(
        self,
        deltas: Tensor,  # (K, P)
        which: Sequence[int],
    ) -> Tensor:  # (K,), float64, on the CPU
        """L_B(w + delta) for K offsets, each on the part that ``which`` names."""
        sums, _ = self._evaluate(deltas, which, gradient=False)
        self._meter.count(forwards=self._share(which))
        return self._mean(sums, which)

    def losses_and_gradients(
        self, deltas: Tensor | None, which: Sequence[int]
    ) -> tuple[Tensor, Tensor]:  # (K,) float64 on the CPU, (K, P)
        """L_B(w + delta) and its gradient for K offsets; None is the checkpoint for all."""
        sums, gradients = self._evaluate(deltas, which, gradient=True)
        self._meter.count(gradients=self._share(which))
        counts = self._counts_of(which)
        scaled = gradients / counts.to(gradients)[:, None]
        return self._mean(sums, which), scaled

    def means(self, metric: Callable[[Tensor, Any], Tensor], deltas: Tensor) -> Tensor:
        """Mean of ``metric(outputs, batch)`` over the first part at K offsets, (K,) float64."""
        sums, count = torch.zeros(len(deltas), dtype=torch.float64), 0
        part = self._parts[0]
        with self._snapshot.evaluating(gradient=False):
            for row, delta in enumerate(deltas):
                point, count = self._space.split(self._weights + delta), 0
                with self._snapshot.calibrated(point, part):
                    for batch in part:
                        values = metric(self._snapshot.outputs(point, batch), batch).double()
                        sums[row] += float(values.sum())
                        count += values.numel()
        passes = 1 + self._snapshot.recalibrates
        self._meter.count(forwards=passes * self._share([0] * len(deltas)))
        return sums / count

    def _share(self, which: Sequence[int]) -> float:
        return sum(self.counts[part] for part in which) / self.pass_terms

    def _mean(self, sums: Tensor, which: Sequence[int]) -> Tensor:
        return sums / self._counts_of(which)

    def _counts_of(self, which: Sequence[int]) -> Tensor:
        return torch.tensor([self.counts[part] for part in which], dtype=torch.float64)

    def _evaluate(
        self, deltas: Tensor | None, which: Sequence[int], *, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        if self._checks is not None:
            self._checks.repeat_loss()
            if gradient:
                self._checks.note("gradient")
        _ = self.counts  # found by an evaluation of its own, where they are not known yet
        with self._snapshot.evaluating(gradient=gradient):
            sums = torch.zeros(len(which), dtype=torch.float64)
            gradients = self._weights.new_zeros(len(which) if gradient else 0, self.size)
            if self._snapshot.recalibrates:
                self._recalibrated(deltas, which, sums, gradients)
                return sums, gradients
            for rows, batch in self._jobs(which):
                in_order = deltas is None or rows == list(range(len(which)))
                own = deltas if in_order else cast("Tensor", deltas)[rows]
                self._job(own, rows, batch, sums, gradients)
        return sums, gradients

    def _jobs(self, which: Sequence[int]) -> Iterable[tuple[list[int], Any]]:
        """Rows with the batch that they share, or with a list of one batch each."""
        rows: dict[int, list[int]] = {}
        for row, part in enumerate(which):
            rows.setdefault(part, []).append(row)
        single = all(isinstance(part, list) and len(part) == 1 for part in self._parts)
        if len(rows) > 1 and single:
            yield list(range(len(which))), [self._parts[part][0] for part in which]  # type: ignore[index]
            return
        for part, own in rows.items():  # the batches outside: each is fetched once for all points
            for batch in self._parts[part]:
                yield own, (batch,)

    def _job(
        self,
        deltas: Tensor | None,
        rows: list[int],
        batches: list[Any] | tuple[Any],
        sums: Tensor,
        gradients: Tensor,
    ) -> None:
        gradient, shared = len(gradients) > 0, isinstance(batches, tuple)
        together = self._together(deltas, batches, len(rows), gradient=gradient, shared=shared)
        step = self._rows if together else 1
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            own = None if deltas is None else deltas[start : start + step]
            batch = batches if shared else batches[start : start + step]
            found = self._at_once(own, batch, len(chunk), gradient=gradient, together=together)
            sums[chunk] += found[0].double().cpu()
            if gradient:
                gradients[chunk] += found[1]

    def _together(
        self,
        deltas: Tensor | None,
        batches: Sequence[Any],
        count: int,
        *,
        gradient: bool,
        shared: bool,
    ) -> bool:
        if count < 2 or (deltas is None and shared):  # once is enough for all
            return False
        if not shared and stacked(list(batches)) is None:
            return False
        if self._forced is not None:
            return self._forced
        kind = (gradient, shared)
        if kind not in self.batched and count >= _TELLING:
            own = None if deltas is None else deltas[:_TELLING]
            few = batches if shared else batches[:_TELLING]
            self.batched[kind] = self._pays(own, few, gradient=gradient)
        return self.batched.get(kind, False)

    def _pays(self, deltas: Tensor | None, batches: Sequence[Any], *, gradient: bool) -> bool:
        def timed(count: int, *, together: bool) -> tuple[float, Tensor]:
            few = None if deltas is None else deltas[:count]
            some = batches if isinstance(batches, tuple) else batches[:count]
            self._synchronise()
            start = time.perf_counter()
            found = self._at_once(few, some, count, gradient=gradient, together=together)
            self._synchronise()
            return (time.perf_counter() - start) / count, found[0].double()

        # Batching saves the overhead of calls; where one takes longer, there is nothing to save.
        if min(timed(1, together=False)[0] for _ in range(2)) > _WORTH_A_TRIAL:
            return False
        _, alive = measured(lambda: self._graph(deltas, batches))
        self._rows = max(1, min(_MOST, self._memory // max(alive, 1)))
        if self._rows < _TELLING:
            return False
        try:
            trials = [timed(_TELLING, together=True) for _ in range(2)]
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return False  # something that vmap cannot do
        plain = [timed(_TELLING, together=False) for _ in range(2)]
        sums, others = plain[0][1], trials[0][1]
        agree = (sums - others).abs().max() <= _AGREEMENT * (1 + sums.abs().max())
        return min(t for t, _ in trials) < min(t for t, _ in plain) and bool(agree)

    def _graph(self, deltas: Tensor | None, batches: Sequence[Any]) -> Tensor:
        with torch.enable_grad():
            point = self._leaves(None if deltas is None else deltas[0])
            return self._snapshot.total(point, batches[0])

    def _at_once(
        self,
        deltas: Tensor | None,
        batches: Sequence[Any],
        count: int,
        *,
        gradient: bool,
        together: bool,
    ) -> tuple[Tensor, Tensor]:
        """Sums of the terms and their gradients for rows that share a batch or have one each."""
        if together:
            return self._vmapped(deltas, batches, gradient=gradient)
        sums, gradients = [], []
        for row in range(count):
            batch = batches[row if len(batches) == count else 0]
            point = self._leaves(None if deltas is None else deltas[row])
            total = self._snapshot.total(point, batch)
            sums.append(total.detach())
            if gradient:
                gradients.append(self._gradient(total, point))
        return torch.stack(sums), torch.stack(gradients) if gradient else sums[0]

    def _leaves(self, delta: Tensor | None) -> dict[str, Tensor]:
        point = self._weights if delta is None else self._weights + delta
        named = self._space.split(point.detach())
        if torch.is_grad_enabled():  # separate leaves: their gradients need not be joined
            named = {name: part.detach().requires_grad_() for name, part in named.items()}
        return named

    def _gradient(self, total: Tensor, leaves: dict[str, Tensor]) -> Tensor:
        found = self._snapshot.derivatives(total, leaves)
        return self._space.flatten(
            {
                name: torch.zeros_like(leaves[name]) if part is None else part
                for name, part in found.items()
            }
        )

    def _vmapped(
        self, deltas: Tensor | None, batches: Sequence[Any], *, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        if isinstance(batches, tuple):
            batch, dims = batches[0], None
        else:
            batch, dims = cast("tuple[Any, Any]", stacked(list(batches)))  # asked before
        points = self._weights if deltas is None else self._weights + deltas

        def total(point: Tensor, batch: Any) -> Tensor:
            return self._snapshot.total(self._space.split(point), batch)

        function: Callable[..., Any] = torch.func.grad_and_value(total) if gradient else total
        with warnings.catch_warnings(), plain_norms():
            # vmap warns where it falls back to a loop; the timing decides if that is worth it.
            warnings.filterwarnings("ignore", message=".*[Bb]atching rule.*")
            found = torch.func.vmap(function, in_dims=(None if deltas is None else 0, dims))(
                points, batch
            )
        if gradient:
            return found[1].detach(), found[0].detach()
        return found.detach(), found

    def _recalibrated(
        self, deltas: Tensor | None, which: Sequence[int], sums: Tensor, gradients: Tensor
    ) -> None:
        """Every point with batch-norm statistics of its own, from its part of the data."""
        for row, part in enumerate(which):
            point = self._leaves(None if deltas is None else deltas[row])
            plain = {name: leaf.detach() for name, leaf in point.items()}
            with self._snapshot.calibrated(plain, self._parts[part]):
                for batch in self._parts[part]:
                    total = self._snapshot.total(point, batch)
                    sums[row] += float(total.detach())
                    if len(gradients):
                        gradients[row] += self._gradient(total, point)
        self._meter.count(forwards=self._share(which))

    def _synchronise(self) -> None:
        if self._snapshot.device.type == "cuda":
            torch.cuda.synchronize(self._snapshot.device)
