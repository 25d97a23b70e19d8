"""Audit: many measures on one checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from landscape.evidence import planned
from landscape.measures import Asked, Measure, evidence_key, resolve
from landscape.probing import Probe
from landscape.results import Cost, Estimate, Result, Status, Store, Table

_WORTH_A_SECOND_LOOK = 10  # seconds

logger = logging.getLogger(__name__)


def audit(
    probe: Probe,
    measures: str | Sequence[Asked] | Mapping[str, Mapping[str, Any] | None] = "standard",
    seed: int = 0,
    *,
    store: Store | None = None,
    progress: bool = False,
) -> Table:
    """Measures one checkpoint; evidence that several measures need is computed once.

    Args:
        probe: Model, objective and data.
        measures: "quick", "standard" or "full", a name, a list of names and Measures, or a mapping
            from names to fields of theirs, such as ``{"max-sharpness": {"rho": 0.5}}``.
        seed: Seed of every measure.
        store: Where results are written as they come, and found again; None keeps none.
        progress: Show a progress bar on a terminal.

    Returns:
        One result a measure. A measure that stops with an error has status FAILED and the error as
        its message; the others go on.

    Raises:
        UnknownMeasureError: If a measure is unknown.
        ValueError: If nothing is asked for.

    Example:
        >>> import torch, landscape
        >>> model = torch.nn.Linear(4, 3)
        >>> batches = [(torch.randn(8, 4), torch.randint(0, 3, (8,)))]
        >>> probe = landscape.Probe(model, "cross_entropy", batches)
        >>> table = landscape.audit(probe, ["parameter-norm", "hessian-trace"])
        >>> table["hessian-trace"].value > 0
        True
    """
    wanted = resolve(measures, probe.size)
    return table_of(
        probe, list(each_result(probe, wanted, seed, store=store, progress=progress)), seed
    )


def each_result(
    probe: Probe,
    measures: Sequence[Measure],
    seed: int = 0,
    *,
    store: Store | None = None,
    progress: bool = False,
) -> Iterator[Result]:
    """The results of an audit one by one, so that an interrupted one keeps what it has.

    Args:
        probe: Model, objective and data.
        measures: Configured measures.
        seed: Seed of every measure.
        store: Where results are written as they come, and found again; None keeps none.
        progress: Show a progress bar on a terminal.

    Yields:
        A result per measure, in order.
    """
    total = _planned(probe, measures, seed).passes
    bar = tqdm(
        total=total, unit="pass", desc="audit", disable=None if progress else True, leave=False
    )

    def advance(passes: float) -> None:
        bar.update(passes)

    with bar, probe.listen(advance):
        for measure in measures:
            bar.set_description(measure.name)
            yield _one(probe, measure, seed, store)


def _one(probe: Probe, measure: Measure, seed: int, store: Store | None) -> Result:
    key = Store.key(probe.identity(), measure.label, measure.config, seed)
    if store is not None and (found := store.load(measure.name, key)) is not None:
        return found
    try:
        result = measure.compute(probe, seed)
    except Exception as error:
        logger.debug("%s failed", measure.label, exc_info=True)
        return Result(
            measure=measure.label,
            estimate=Estimate.without_value(Status.FAILED, f"{type(error).__name__}: {error}"),
            cost=Cost(),
            config=measure.config,
            seed=seed,
            provenance=probe.provenance(),
        )
    if store is not None:
        store.save(measure.name, key, result)
    return result


def _planned(probe: Probe, measures: Sequence[Measure], seed: int) -> Cost:
    """What measures will cost, evidence that several need counted once."""
    found: dict[str, Cost] = {}
    for measure in measures:
        try:
            for part, request in measure.requests(probe, seed):
                found[evidence_key(part, request)] = planned(request, part)
        except Exception:  # noqa: BLE001 - said by the measure itself when its turn comes
            continue
    return sum(found.values(), Cost())


def pace(probe: Probe, seed: int = 0) -> Cost:
    """Seconds of one forward pass, one gradient and one Hessian product, in these fields.

    Args:
        probe: Model, objective and data.
        seed: Of the vector of the product.

    Returns:
        Seconds of each, and the peak of memory so far.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(probe.size, generator=generator).to(probe.device, probe.dtype)
    vector /= vector.norm()
    still = torch.zeros_like(vector)
    calls = (lambda: probe.loss(still), lambda: probe.gradient(still), lambda: probe.hvp(vector))
    seconds, peak = [], None
    for call in calls:
        with probe.meter() as first:
            call()
        cost = first
        if first.seconds < _WORTH_A_SECOND_LOOK:  # the first call also warms up
            with probe.meter() as cost:
                call()
        seconds.append(cost.seconds)
        peak = cost.peak_memory
    return Cost(forwards=seconds[0], gradients=seconds[1], products=seconds[2], peak_memory=peak)


def expected_cost(
    probe: Probe,
    measures: Sequence[Measure],
    seed: int,
    paces: Cost,
    *,
    store: Store | None = None,
) -> Cost:
    """What an audit will cost about: passes, seconds and memory.

    Passes of measures that do not know theirs beforehand are left out, so that it is a lower
    bound for presets that hold such; the whole figure is good to a factor of two.

    Args:
        probe: Model, objective and data.
        measures: Configured measures.
        seed: Of all measures.
        paces: Of ``pace``.
        store: Measures that it holds already cost nothing.

    Returns:
        The cost.
    """
    if store is not None:
        keys = [(m, Store.key(probe.identity(), m.label, m.config, seed)) for m in measures]
        measures = [measure for measure, key in keys if store.load(measure.name, key) is None]
    found = _planned(probe, measures, seed)
    found.seconds = (
        found.forwards * paces.forwards
        + found.gradients * paces.gradients
        + found.products * paces.products
    )
    found.peak_memory = (paces.peak_memory or 0) + (found.peak_memory or 0)
    return found


def table_of(probe: Probe, results: Sequence[Result], seed: int = 0) -> Table:
    """The table of an audit's results, its shared costs counted once."""
    warnings = probe.warnings
    known = probe.checks.warnings()
    warnings += [
        f"{result.measure}: {result.message}"
        for result in results
        if result.status is not Status.OK and not any(text in result.message for text in known)
    ]
    # Measures of one family have the same to say; it is said once.
    warnings += dict.fromkeys(text for result in results for text in result.warnings)
    return Table(
        list(results),
        provenance={**probe.provenance(), "seed": seed},
        warnings=warnings,
    )
