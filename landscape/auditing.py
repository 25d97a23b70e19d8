"""Audit: many measures on one checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from landscape.measures import Measure, evidence_key, resolve
from landscape.probing import Probe
from landscape.results import Cost, Estimate, Result, Status, Store, Table

logger = logging.getLogger(__name__)


def audit(
    probe: Probe,
    measures: str | Sequence[str | Measure] = "standard",
    seed: int = 0,
    *,
    store: Store | None = None,
    progress: bool = False,
) -> Table:
    """Measures one checkpoint; evidence that several measures need is computed once.

    Args:
        probe: Model, objective and data.
        measures: "quick", "standard" or "full", a name, or a list of names and Measures.
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
    wanted = resolve(measures)
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
    planned = _planned_passes(probe, measures, seed)
    bar = tqdm(
        total=planned, unit="pass", desc="audit", disable=None if progress else True, leave=False
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


def _planned_passes(probe: Probe, measures: Sequence[Measure], seed: int) -> float:
    planned: dict[str, float] = {}
    for measure in measures:
        try:
            for part, request in measure.requests(probe, seed):
                planned[evidence_key(part, request)] = getattr(request, "passes", 0)
        except Exception:  # noqa: BLE001 - said by the measure itself when its turn comes
            continue
    return sum(planned.values())


def table_of(probe: Probe, results: Sequence[Result], seed: int = 0) -> Table:
    """The table of an audit's results, its shared costs counted once."""
    warnings = [
        f"No gradient reaches {len(probe.unused)} parameters: {', '.join(probe.unused[:5])}"
    ] * bool(probe.unused)
    warnings += [
        f"{result.measure}: {result.message}"
        for result in results
        if result.status is not Status.OK
    ]
    # Measures of one family have the same to say; it is said once.
    warnings += dict.fromkeys(text for result in results for text in result.warnings)
    return Table(
        list(results),
        provenance={**probe.provenance(), "seed": seed},
        warnings=warnings,
    )
