"""Trains a population, in processes, and goes on where an earlier call stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from landscape.populations.design import Design, Run
from landscape.populations.engines import Lost, Work, outcomes
from landscape.populations.manifest import FACTS, STATUSES, TABLE, read_manifest, write_manifest
from landscape.populations.one_model import FILES, METRICS, Model, Trainer, failed, kept
from landscape.populations.workers import Workers
from landscape.results import environment, to_json, write_atomically

_LOG = "workers.log"


def train_population(
    design: Design, out: Path | str, *, workers: int | Workers | None = None, progress: bool = False
) -> pd.DataFrame:
    """Trains all models of a design, or those that an earlier call left.

    Weights do not depend on the number of workers, each of which computes with one thread unless
    ``Workers`` says otherwise. A model that fails or diverges is a row.

    Args:
        design: Which models.
        out: Folder: ``models/NAME/`` with ``initial.pt``, ``last.pt`` and ``row.json``; at the end
            ``manifest.csv`` and ``manifest.json``.
        workers: Where to train, or how many processes; None takes one a core, 0 trains here.
        progress: Show a progress bar on a terminal.

    Returns:
        The rows of the manifest.

    Raises:
        EngineError: If workers cannot be had.
        ValueError: If the folder holds another population, or the number is none.
    """
    where = workers if isinstance(workers, Workers) else Workers(count=workers)
    where.check()
    folder = Path(out)
    _begin(folder, design)
    rows = {run.name: kept(folder / "models" / run.name) for run in design.runs}
    left = [run for run in design.runs if rows[run.name] is None]
    with tqdm(
        total=len(design.runs),
        initial=len(design.runs) - len(left),
        desc=design.name,
        unit="model",
        disable=None if progress else True,
    ) as bar:
        for name, row in _trained([_model(run, design, folder) for run in left], folder, where):
            rows[name] = row
            bar.update()
    found = {name: row for name, row in rows.items() if row is not None}
    table = pd.DataFrame([_row(run, found[run.name], design, folder) for run in design.runs])
    write_manifest(folder, table, _facts(design, found))
    return read_manifest(folder)[0]


def _trained(
    models: Sequence[Model], folder: Path, where: Workers
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and rows of models as they are trained."""
    if not models:
        return
    log = (folder / _LOG).resolve()
    work = Work(bench=Trainer, threads=where.threads, directory=Path.cwd(), log=log)
    with where.pool(work, len(models)) as pool:
        for model, row in outcomes(pool, models):
            # No file is written for a model whose workers died: the next call tries again.
            told = f"{row.message}; see {_LOG}" if isinstance(row, Lost) and log.exists() else ""
            yield model.key, failed(told or row.message) if isinstance(row, Lost) else row
    if log.exists() and not log.stat().st_size:
        log.unlink()


def _begin(folder: Path, design: Design) -> None:
    """Refuses the folder of another design, and marks this one's."""
    facts = folder / FACTS
    advice = "give another folder, or move this one away"
    if facts.exists():
        try:
            known = json.loads(facts.read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{facts} is of no population that was trained; {advice}") from error
        if known != design.key:
            raise ValueError(f"{folder} holds the population of another design; {advice}")
        return
    if folder.exists() and any((folder / name).exists() for name in (TABLE, "models")):
        raise ValueError(f"{folder} holds models of unknown origin; {advice}")
    write_atomically(facts, to_json(_facts(design, None)))


def _model(run: Run, design: Design, folder: Path) -> Model:
    return Model(
        key=run.name,
        folder=(folder / "models" / run.name).resolve(),
        task=design.task,
        arguments=dict(run.arguments),
        recipe=run.recipe,
    )


def _row(run: Run, found: Mapping[str, Any], design: Design, folder: Path) -> dict[str, Any]:
    paths = {
        name: f"models/{run.name}/{file}" if found[name] else "" for name, file in FILES.items()
    }
    return {
        "name": run.name,
        **paths,
        "task": _task(design, folder),
        "arguments": json.dumps(dict(run.arguments)),
        "status": found["status"],
        "message": found["message"],
        **run.columns,
        **{name: found[name] for name in METRICS},
        "gap_loss": _difference(found["test_loss"], found["train_loss"]),
        "gap_accuracy": _difference(found["train_accuracy"], found["test_accuracy"]),
        **{name: found[name] for name in ("epochs", "gradients", "seconds")},
    }


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _task(design: Design, folder: Path) -> str:
    """The reference; a file by its path from the folder, so that both can be moved together."""
    module, _, attribute = design.task.rpartition(":")
    if not design.code:
        return design.task
    try:
        return f"{os.path.relpath(module, folder.resolve())}:{attribute}"
    except ValueError:  # on another drive
        return design.task


def _facts(design: Design, rows: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    facts = {
        "key": design.key,
        "name": design.name,
        "task": design.task,
        "design": dict(design.document),
        "axes": list(design.axes),
        "models": len(design.runs),
        "versions": environment(),
        "command": sys.argv,
        "finished": rows is not None,
    }
    if rows is not None:
        statuses = [row["status"] for row in rows.values()]
        sizes = [row["test_examples"] for row in rows.values() if row["test_examples"]]
        facts["counts"] = {status: statuses.count(status) for status in STATUSES}
        facts["test_examples"] = sizes[0] if sizes else None
    return facts
