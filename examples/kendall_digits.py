"""Which sharpness measures rank small nets on digits as their generalisation gap does?

Trains the embedded population, sweeps every measure of the toolkit over it, correlates them with
the gap, and keeps the raw records, the table and the figures. What came out: docs/results.

    python examples/kendall_digits.py --preset digits --keep docs/results/digits
"""

from __future__ import annotations

import json
import lzma
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from landscape.commands.tables import left_out, read_results
from landscape.correlation import Correlations, Options, correlate
from landscape.measures import Measure, available, get
from landscape.populations import Workers, read_design, sweep, train_population
from landscape.results import to_json, write_atomically
from landscape.viz import write_correlation_report

#: 90 Hessian products for the network and for each layer's block.
SPECTRUM = {"steps": 30, "probes": 5, "probe_steps": 12}
#: Fixed before any gap was looked at; 0.5 and 1.5 are those that the source proposes.
ORDERS = (0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0)
LAYERED = ("hessian-top-eigenvalue", "hessian-trace", "relative-flatness")
#: Measured at five radii around their own.
SCANNED = ("max-sharpness", "adaptive-sharpness", "average-sharpness", "adaptive-average-sharpness")
BUDGETS = {
    "hessian-spectral-density": {"points": 200},
    "local-learning-coefficient": {"draws": 100},
    "pac-bayes-flatness": {"draws": 10},
    "pac-bayes-origin": {"draws": 10},
    "pac-bayes-initial": {"draws": 10},
}
#: Measured again if asked for, since Rényi sharpness is uncertain with 90 products.
CAREFUL = {"steps": 60, "probes": 12, "probe_steps": 60}
AGAIN: tuple[tuple[str, dict[str, float]], ...] = (
    ("renyi-sharpness", {"alpha": 0.5}),
    ("renyi-sharpness", {"alpha": 1.5}),
    ("renyi-sharpness", {"alpha": 2.0}),
    ("hessian-trace", {}),
    ("hessian-top-eigenvalue", {}),
)
AGAIN_LABELS = [get(name, **settings).label for name, settings in AGAIN]
#: The few comparisons that were planned, so that adjusting for many does not hide them.
COMPARED = (
    "renyi-sharpness[alpha=0.5]",
    "renyi-sharpness[alpha=1.5]",
    "renyi-sharpness[alpha=0.5]:mean-of-layers",
    "renyi-sharpness[alpha=1.5]:mean-of-layers",
    "hessian-trace",
    "hessian-top-eigenvalue",
    "adaptive-sharpness[norm=l2]",
    "parameter-norm",
)


def every_measure() -> list[Measure]:
    """All measures of the toolkit, with budgets for nets of a few thousand parameters."""
    found: list[Measure] = []
    for name, kind in available().items():
        budget = {key: value for key, value in SPECTRUM.items() if key in kind.budget}
        budget |= BUDGETS.get(name, {})
        if name in LAYERED:
            budget["layers"] = True
        if name in SCANNED:
            budget["scan"] = "around"
        if name == "renyi-sharpness":
            for alpha in ORDERS:
                layers = alpha in {0.5, 1.5}
                found.append(get(name, alpha=alpha, **budget, layers=layers))
                found.append(get(name, alpha=alpha, **budget, layers=layers, normalized=True))
        else:
            found += [get(name, **variant, **budget) for variant in kind.variants]
    return found


def main(
    *,
    preset: Annotated[str, typer.Option(help="A population or its YAML file.")] = "digits",
    out: Annotated[Path, typer.Option(help="Folder of models, sweep and report.")] = Path(
        "kendall-digits"
    ),
    target: Annotated[list[str] | None, typer.Option(help="Targets (repeatable).")] = None,
    measures: Annotated[str | None, typer.Option(help="Others than all, as for sweep.")] = None,
    careful: Annotated[
        bool, typer.Option(help="Measure the spectrum again with 780 products a net.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores if left out.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for records, table, figures.")] = None,
) -> None:
    """Trains, sweeps and correlates; called again it goes on where it stopped."""
    train_population(read_design(preset), out / "models", workers=workers, progress=True)
    swept = sweep(
        out / "models",
        measures or every_measure(),
        out / "sweep",
        workers=Workers(count=workers),
        progress=True,
    )
    print(f"swept: {json.dumps(swept.report['counts'])}")
    targets = target or ["gap_accuracy", "gap_loss"]
    for name in targets:
        print(report(out / "sweep", name, out / f"report-{name}"))
        if keep is not None:
            keep_report(out / f"report-{name}", keep / name)
    if keep is not None:
        keep_records(out, keep, swept.seconds)
        write_ranking(keep, targets)
    if careful:
        spectrum = sweep(
            out / "models",
            [get(name, **settings, **CAREFUL) for name, settings in AGAIN],
            out / "careful",
            workers=Workers(count=workers),
            progress=True,
        )
        for name in targets:
            ranking = correlate(read_results(spectrum.folder).frame, name, measures=AGAIN_LABELS)
            print(ranking.table[["tau", "tau_low", "tau_high", "psi"]])
            if keep is not None:
                ranking.table.to_csv(keep / name / "careful.csv")
                shutil.copy(spectrum.folder / "results.csv", keep / "careful-results.csv")


def report(swept: Path, target: str, folder: Path) -> Path:
    """The correlations of a sweep with one target, as a page."""
    found = read_results(swept)
    correlations = correlate(
        found.frame,
        target,
        measures=found.measures,
        compare=[name for name in COMPARED if name in found.frame] or None,
        options=Options(test_examples=found.facts.get("test_examples")),
    )
    return write_correlation_report(
        correlations,
        folder,
        source={"name": swept.name, "table": "table.csv", **found.facts},
        coverage=found.coverage,
        left_out=left_out(found.frame, correlations.frame.index, target),
        descriptions={
            name: {"meaning": kind.meaning, "formula": kind.formula, "source": kind.source}
            for name, kind in available().items()
        },
    )


def keep_report(page: Path, folder: Path) -> None:
    """The ranking, the planned comparisons and the figures of a report."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(page / "table.csv", folder / "ranking.csv")
    report = json.loads((page / "report.json").read_text(encoding="utf-8"))
    found = Correlations.from_dict(report["correlations"])
    found.differences.to_csv(folder / "differences.csv", index=False)
    for name in ("*.pdf", "forest.png", "scans.png"):
        for picture in sorted((page / "figures").glob(name)):
            shutil.copy(picture, folder / picture.name)


def write_ranking(folder: Path, targets: Sequence[str]) -> None:
    """The rankings of all targets in one table, sorted by the first."""
    tables = {name: pd.read_csv(folder / name / "ranking.csv", index_col=0) for name in targets}
    first = tables[targets[0]]
    names = first[~first["control"]].sort_values("tau", ascending=False).index
    columns = [f"τ, {name} | Ψ | partial τ" for name in targets]
    lines = [
        f"| measure | {' | '.join(columns)} | models |",
        "|---|" + "---:|" * (3 * len(targets) + 1),
    ]
    for name in [*names, *first.index[first["control"]]]:
        if "@" in name:
            continue  # radii: scans.png
        cells = [_cells(table.loc[name]) for table in tables.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {first.loc[name, 'models']} |")
    write_atomically(folder / "ranking.md", "\n".join(lines) + "\n")


def _cells(row: pd.Series[Any]) -> str:
    if not np.isfinite(row["tau"]):
        return "– | – | –"
    interval = f"{row['tau']:.2f} [{row['tau_low']:.2f}, {row['tau_high']:.2f}]"
    return f"{interval} | {row['psi']:.2f} | {row['partial[train_loss]']:.2f}".replace("-", "−")


def keep_records(out: Path, folder: Path, seconds: float) -> None:
    """Manifest, table, settings and all raw records of a sweep, a line each, compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(out / "models" / "manifest.csv", folder / "manifest.csv")
    table = pd.read_csv(out / "sweep" / "table.csv")
    table.to_csv(folder / "table.csv.xz", index=False)
    facts = json.loads((out / "sweep" / "sweep.json").read_text(encoding="utf-8"))
    kept = {name: facts[name] for name in ("settings", "versions", "seed", "counts")}
    write_atomically(folder / "sweep.json", to_json({**kept, "seconds": seconds}))
    plan = json.loads((out / "sweep" / "plan.json").read_text(encoding="utf-8"))
    with lzma.open(folder / "records.jsonl.xz", "wt", encoding="utf-8") as stream:
        for row in plan["rows"]:
            for path in sorted((out / "sweep" / "records" / row["key"]).glob("*-*.json")):
                record = json.loads(path.read_text(encoding="utf-8"))
                stream.write(json.dumps({"name": row["name"], **record}) + "\n")


if __name__ == "__main__":
    typer.run(main)
