"""What do methods for flat minima change on a small net? Equal gradient budgets, several seeds.

Trains the digits net by every method from the same starts, measures train and test loss and six
kinds of sharpness, and compares each with SGD seed by seed. What comes out, and what it does not
show: docs/flat_minima.md.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from landscape import Probe, audit, measures
from landscape.probing import as_objective
from landscape.results import environment, to_json, write_atomically
from landscape.tasks import Settings, digits_task
from landscape.tasks.data import batches_of
from landscape.training import METHODS, TERMS, Recipe, Trained, train
from landscape.viz.style import CURVE, EXTREME, FAINT, style

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, BATCH, MOMENTUM = 500, 50, 0.9
#: Without it the loss, and with it all curvature, goes to 0 for as long as training goes on.
SMOOTHING = 0.1
RATES = (0.1, 0.3, 0.9)
#: Other settings than the classes' own, which are made for larger nets or longer training.
SETTINGS: dict[str, dict[str, float]] = {
    "ema": {"decay": 0.98},
    "mesa": {"decay": 0.98},
    "momentum-sam": {"rho": 0.3},
}
SPECTRUM = {"steps": 20, "probes": 3, "probe_steps": 16}
SHARPNESS = {
    "λ_max": measures.get("hessian-top-eigenvalue", **SPECTRUM),
    "trace": measures.get("hessian-trace", **SPECTRUM),
    "max": measures.get("max-sharpness"),
    "adaptive": measures.get("adaptive-sharpness"),
    "tilted": measures.get("tilted-sharpness", t=20.0),
    "Rényi": measures.get("renyi-sharpness", **SPECTRUM),
}
METRICS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
#: Compared as a difference with SGD; all others as a ratio.
DIFFERENCES = ("train_accuracy", "test_accuracy", "Rényi")
#: Mean train accuracy of the methods in the plot; a net that was not trained is flat too.
TRAINED = 0.9
COMMAND = " ".join(["python", "examples/flat_minima.py", *sys.argv[1:]])
console = Console(width=None if sys.stdout.isatty() else 150)


def trained_by(method: str, lr: float, seed: int, budget: float) -> Trained:
    """One training."""
    recipe = Recipe(
        method=method,
        settings=SETTINGS.get(method, {}),
        lr=lr,
        momentum=MOMENTUM,
        schedule="cosine",
        batch_size=BATCH,
        gradients=budget,
        seed=seed,
    )
    return train(
        digits_task(), recipe, settings=Settings(samples=EXAMPLES, label_smoothing=SMOOTHING)
    )


def measured(trained: Trained) -> dict[str, Any]:
    """Metrics and sharpness of a trained net, on its training data."""
    data = batches_of(digits_task().train, samples=EXAMPLES)
    objective = as_objective("cross_entropy", label_smoothing=SMOOTHING)
    probe = Probe(trained.model, objective, data.batches)
    table = audit(probe, list(SHARPNESS.values()))
    results = {name: table[measure.label] for name, measure in SHARPNESS.items()}
    last = trained.history[-1]
    return {
        "values": {name: last[name] for name in METRICS}
        | {name: result.value for name, result in results.items()},
        "statuses": {name: result.status.value for name, result in results.items()},
        "steps": last["step"],
        "gradients": last["gradients"],
        "seconds": last["seconds"],
    }


def study(method: str, seeds: int, budget: float) -> dict[str, Any]:
    """A method: its learning rate by seed 0, then all seeds."""
    start = time.perf_counter()
    tried = {lr: trained_by(method, lr, 0, budget) for lr in RATES}
    losses = {lr: found.history[-1]["train_loss"] for lr, found in tried.items()}
    lr = min(RATES, key=lambda rate: losses[rate] if math.isfinite(losses[rate]) else math.inf)
    nets = [tried[lr], *(trained_by(method, lr, seed, budget) for seed in range(1, seeds))]
    return {
        "lr": lr,
        "grid": {str(rate): loss if math.isfinite(loss) else None for rate, loss in losses.items()},
        "settings": SETTINGS.get(method, {}),
        "runs": [measured(net) for net in nets],
        "seconds": time.perf_counter() - start,
    }


def interval(values: Any) -> tuple[float, float]:
    """Mean, and half the width of its 95 % t-interval."""
    values = np.asarray(values, dtype=float)
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def summary(methods: dict[str, Any]) -> dict[str, Any]:
    """For every method and quantity its mean, and how it compares with SGD seed by seed."""
    found: dict[str, Any] = {}
    plain = methods["sgd"]["runs"]
    for method, entry in methods.items():
        found[method] = {}
        for name in (*METRICS, *SHARPNESS):
            values, base = (
                np.array([run["values"][name] for run in runs]) for runs in (entry["runs"], plain)
            )
            mean, half = interval(values)
            row = {"mean": mean, "half": half}
            if method != "sgd":
                if name in DIFFERENCES:
                    middle, width = interval(values - base)
                    row["change"] = [middle - width, middle, middle + width]
                else:
                    middle, width = interval(np.log(values / base))
                    row["change"] = np.exp([middle - width, middle, middle + width]).tolist()
            found[method][name] = row
    return found


def cell(name: str, row: dict[str, Any]) -> str:
    """A mean with its interval, as the page has it."""
    mean, half = row["mean"], row["half"]
    if name.endswith("accuracy"):
        return f"{100 * mean:.1f} ± {100 * half:.1f}"
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 3
    return f"{mean:.{digits}f} ± {half:.{digits}f}".replace("-", "−")


def markdown(record: dict[str, Any]) -> str:
    """The table of the page; bold where the interval of the change excludes none."""
    names = (*METRICS, *SHARPNESS)
    heads = [name.replace("_", " ") + (" %" if "accuracy" in name else "") for name in names]
    lines = [
        "| method | lr | " + " | ".join(heads) + " |",
        "|---|---:|" + "---:|" * len(names),
    ]
    for method, entry in record["methods"].items():
        cells = []
        for name in names:
            row = record["summary"][method][name]
            text = cell(name, row)
            cells.append(f"**{text}**" if differs(name, row) else text)
        lines.append(f"| {method} | {entry['lr']:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differs(name: str, row: dict[str, Any]) -> bool:
    """Whether the interval of the change excludes that there is none."""
    if "change" not in row:
        return False
    low, _, high = row["change"]
    none = 0.0 if name in DIFFERENCES else 1.0
    return not low <= none <= high


def picture(record: dict[str, Any], path: Path) -> None:
    """Changes against SGD with their intervals, a panel each."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = ("train_loss", "test_loss", "test_accuracy", *SHARPNESS)
    rows = record["summary"]
    methods = [
        method
        for method in record["methods"]
        if method != "sgd" and rows[method]["train_accuracy"]["mean"] > TRAINED
    ]
    places = np.arange(len(methods))[::-1]
    with style():
        figure = Figure(figsize=(7.2, 7.2), layout="constrained")
        panels = figure.subplots(3, 3, sharey=True)
        for panel, name in zip(panels.flat, shown, strict=True):
            factor = 100 if name.endswith("accuracy") else 1
            plain = name in DIFFERENCES
            panel.axvline(0 if plain else 1, color=FAINT, linewidth=0.8, zorder=0)
            for place, method in zip(places, methods, strict=True):
                row = rows[method][name]
                low, middle, high = (factor * end for end in row["change"])
                better = (middle > 0) if name.endswith("accuracy") else middle < (not plain)
                color = FAINT if not differs(name, row) else CURVE if better else EXTREME
                panel.plot([low, high], [place, place], color=color, linewidth=1.2)
                panel.plot([middle], [place], "o", color=color, markersize=3)
            panel.set_yticks(places, methods)
            panel.tick_params(axis="y", length=0)
            title = name.replace("_", " ").replace("λ_max", "$\\lambda_{max}$")
            panel.set_title(title if name in (*METRICS, "λ_max", "trace") else f"{title} sharpness")
            if plain:
                unit = "percentage points" if name.endswith("accuracy") else "nats"
                panel.set_xlabel(f"difference, {unit}")
            else:
                panel.set_xscale("log")
                panel.set_xlabel("ratio")
                low, high = panel.get_xlim()
                steps = (1, 1.2, 1.5, 2, 3, 5, 7) if high / low < 4 else (1, 2, 5)
                panel.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
                panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                panel.xaxis.set_minor_formatter(NullFormatter())
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)


def show(record: dict[str, Any]) -> None:
    """The means on the screen."""
    table = Table(title="mean and half of the 95 % interval")
    for column in ("method", "lr", *METRICS, *SHARPNESS):
        table.add_column(column)
    for method, entry in record["methods"].items():
        rows = record["summary"][method]
        table.add_row(method, f"{entry['lr']:g}", *(cell(name, row) for name, row in rows.items()))
    console.print(table)


def main(  # noqa: PLR0917 - a command has as many arguments as it has options
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each method.")] = 4,
    budget: Annotated[float, typer.Option(help="Gradients of the training data.")] = 30.0,
    methods: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(
        ["sgd", *METHODS, *TERMS]
    ),
    record: Annotated[Path, typer.Option(help="JSON of all numbers.")] = (
        ROOT / "docs" / "benchmarks" / "flat_minima.json"
    ),
    figure: Annotated[Path, typer.Option(help="The plot.")] = ROOT / "docs" / "flat_minima.png",
    workers: Annotated[int, typer.Option(min=1, help="Processes, a method each.")] = 2,
    redraw: Annotated[bool, typer.Option("--redraw", help="Only print and draw again.")] = False,
) -> None:
    """Trains, measures, prints, writes."""
    if redraw:
        body = json.loads(record.read_text())
    else:
        names = list(dict.fromkeys(["sgd", *methods.split(",")]))
        found: dict[str, Any] = {}
        with ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            count = len(names)
            studies = pool.map(study, names, [seeds] * count, [budget] * count)
            for name, new in zip(names, studies, strict=True):
                found[name] = new
                console.print(f"{name}: lr {new['lr']:g}, {new['seconds']:.0f} s")
        load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
        cpu = platform.processor() or platform.machine()
        body = {
            "command": COMMAND,
            "machine": {**environment(), "cpu": cpu, "load_average_at_end": load},
            "what": "Methods for flat minima on digits, equal gradient budgets",
            "examples": EXAMPLES, "batch_size": BATCH, "momentum": MOMENTUM, "budget": budget,
            "label_smoothing": SMOOTHING,
            "seeds": seeds, "rates": RATES, "schedule": "cosine", "methods": found,
            "summary": summary(found),
        }  # fmt: skip
        write_atomically(record, to_json(body))
        console.print(f"written: {record}")
    show(body)
    print(markdown(body))
    picture(body, figure)


if __name__ == "__main__":
    typer.run(main)
