"""What a sweep goes over: the rows of a manifest, or checkpoint files."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.populations.kinds import Kind, kind_of
from landscape.populations.manifest import TABLE, read_manifest

#: Endings of files that are taken for checkpoints where a folder is given.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# Endings that no weights have; any other file may hold some.
_NO_WEIGHTS = (".yaml", ".yml", ".csv", ".json", ".py", ".md")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table of a sweep.

    Args:
        name: Unique.
        checkpoint: The weights.
        initial: The weights before training.
        kind: Of what task.
        skipped: Why it is not measured; empty where it is.
        columns: Of the manifest, as they go to the table.
    """

    name: str
    checkpoint: Path | None
    initial: Path | None = None
    kind: Kind
    skipped: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows, and what is common to them.

    Args:
        rows: In order.
        facts: Of the manifest; empty where there is none.
    """

    rows: tuple[Row, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def is_manifest(sources: Sequence[str | Path]) -> bool:
    """Whether a manifest is given rather than checkpoints."""
    if len(sources) != 1:
        return False
    path = Path(sources[0])
    return path.suffix == ".csv" or (path / TABLE).is_file()


def rows_of(
    source: str | Path | Sequence[str | Path],
    task: str | Kind | None = None,
    arguments: Mapping[str, Any] | None = None,
    *,
    initial: Path | str | None = None,
    everything: bool = False,
) -> Rows:
    """What a sweep goes over.

    Args:
        source: A manifest or checkpoints.
        task: Of checkpoints.
        arguments: Of the task's function.
        initial: Weights before training, of checkpoints.
        everything: Also models that did not converge.

    Returns:
        The rows.

    Raises:
        ValueError: If there is nothing to measure, or a task is given beside a manifest.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not is_manifest(sources):
        kind = task if isinstance(task, Kind) else kind_of(task, arguments)
        return rows_of_files(sources, kind, initial)
    if task is not None or arguments or initial is not None:
        raise ValueError(
            "a manifest says for every model of what task it is and where it started; leave out "
            "task, arguments and initial"
        )
    return rows_of_manifest(Path(sources[0]), everything=everything)


def rows_of_manifest(path: Path, *, everything: bool = False) -> Rows:
    """The models of a population.

    Args:
        path: Its folder, or the ``manifest.csv`` in it.
        everything: Also those that did not converge.

    Returns:
        A row a model; those that are not measured say why.

    Raises:
        ValueError: If the manifest is wrong.
    """
    frame, facts = read_manifest(path)
    folder = path if path.is_dir() else path.parent
    kinds: dict[tuple[str, str], Kind] = {}
    rows = []
    for columns in frame.to_dict(orient="records"):
        reference, text = _task_in(folder, columns["task"]), columns["arguments"] or "{}"
        if (reference, text) not in kinds:
            kinds[reference, text] = kind_of(reference, json.loads(text))
        skipped = ""
        if not columns["checkpoint"]:
            skipped = columns["message"] or f"{columns['status']}, without a checkpoint"
        elif columns["status"] != "converged" and not everything:
            skipped = columns["message"] or str(columns["status"])
        rows.append(
            Row(
                name=columns["name"],
                checkpoint=_in(folder, columns["checkpoint"]),
                initial=_in(folder, columns["initial"]),
                kind=kinds[reference, text],
                skipped=skipped,
                columns={str(name): value for name, value in columns.items()},
            )
        )
    return Rows(rows=tuple(rows), facts=facts)


def rows_of_files(
    sources: Sequence[str | Path], kind: Kind, initial: Path | str | None = None
) -> Rows:
    """Checkpoints of one task.

    Args:
        sources: Files, patterns such as "runs/*/last.pt", or folders of checkpoints.
        kind: Of all of them.
        initial: The weights before training, of all of them.

    Returns:
        A row a checkpoint, named by its path, each once.

    Raises:
        ValueError: If there is no checkpoint, or something is none.
    """
    for source in sources:
        _refuse_manifest(source)
    found = list(dict.fromkeys(path for source in sources for path in _paths(source)))
    for path in found:
        _refuse_no_weights(path)
    if not found:
        raise ValueError("no checkpoint to measure; give files, a pattern, a folder or a manifest")
    start = None if initial is None else Path(initial).resolve()
    return Rows(
        rows=tuple(
            Row(
                name=path.as_posix(),
                checkpoint=path.resolve(),
                initial=start,
                kind=kind,
                columns={"checkpoint": path.as_posix()},
            )
            for path in found
        )
    )


def _paths(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        inside = sorted(path.iterdir())
        found = [file for file in inside if file.is_file() and file.suffix in SUFFIXES]
        found += [file for file in inside if (file / "config.json").is_file()]
        if not found:
            raise ValueError(
                f"there is no checkpoint in {path}: no manifest.csv, no file that ends in "
                f"{', '.join(SUFFIXES)}, and no folder with a config.json"
            )
        return found
    if path.exists():
        return [path]
    found = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]  # noqa: PTH207 - absolute ones too
    if not found:
        raise ValueError(f"{source} matches no file")
    return found


def _refuse_manifest(source: str | Path) -> None:
    if is_manifest([source]):
        raise ValueError(
            f"{source} is a manifest, and a manifest stands alone; sweep it without other sources"
        )


def _refuse_no_weights(path: Path) -> None:
    """Refuses files whose ending says what they are, before each becomes a failed row."""
    _refuse_manifest(path)
    if path.suffix.lower() in _NO_WEIGHTS and not path.name.endswith(".index.json"):
        raise ValueError(
            f"{path} is no checkpoint; give weights, a pattern such as 'runs/*.pt', a folder of "
            "checkpoints, or the population that landscape train --population makes of a design"
        )


def _task_in(folder: Path, reference: str) -> str:
    """A reference whose file, if it names one, is taken from a folder."""
    module, _, name = reference.rpartition(":")
    return f"{(folder / module).resolve()}:{name}" if module.endswith(".py") else reference


def _in(folder: Path, path: str) -> Path | None:
    return (folder / path).resolve() if path else None
