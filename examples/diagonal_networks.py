"""Does sharpness tell which diagonal linear networks generalise? (da Silva, Dangel and Oore 2025)

Trains populations of x -> x.(u*v) with more entries than examples and a sparse truth, measures
adaptive and geodesic sharpness, and prints Kendall's tau-b with the generalisation gap. Each pair
(u_i, v_i) is declared as a block of its own. What comes out, and every choice that the paper leaves
open: docs/diagonal_networks.md.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.stats import kendalltau
from torch import Tensor, nn

from landscape import Block, Factor, Probe, measures
from landscape.results import environment, to_json, write_atomically
from landscape.viz.style import style

ROOT = Path(__file__).resolve().parents[1]
SIZE, EXAMPLES, NONZERO = 100, 50, 10
STOP, MOST_STEPS, LOOK = 1e-5, 400_000, 50
RADII = (0.1, 1.0)
SEARCH = {"m": None, "steps": 20, "restarts": 8}
PUBLISHED = {"adaptive": -0.68, "geodesic inv": -0.83, "geodesic mix": -0.86}
MEASURES = {
    "adaptive": measures.get("adaptive-sharpness", rho=RADII, **SEARCH),
    "geodesic inv": measures.get("geodesic-sharpness", metric="inv", rho=RADII, **SEARCH),
    "geodesic mix": measures.get("geodesic-sharpness", metric="mix", rho=RADII, **SEARCH),
}
COMMAND = " ".join(["python", "examples/diagonal_networks.py", *sys.argv[1:]])
console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a population comes about.

    Args:
        what: What differs between its models.
        one_sided: Start at u = alpha, v = 0 instead of Gaussian u and v of scale alpha.
        scales: Range of alpha; evenly spaced in its logarithm.
        rates: Range of the learning rate, log-uniform.
        batch: Examples a step, drawn with replacement; None takes all.
        fresh: Every model has data and a truth of its own.
        noise: Standard deviation of the labels' noise.
    """

    what: str
    one_sided: bool = False
    scales: tuple[float, float] = (0.01, 1.0)
    rates: tuple[float, float] = (0.002, 0.008)
    batch: int | None = 5
    fresh: bool = False
    noise: float = 0.0


SETTINGS = {
    "scale": Setting(what="initial scale only", one_sided=True, batch=None, rates=(0.01, 0.01)),
    "sgd": Setting(what="initial scale, learning rate and seed, SGD"),
    "fixed scale": Setting(what="learning rate and seed only, SGD", scales=(0.1, 0.1)),
    "draws": Setting(what="as sgd, new data and truth for every model", fresh=True),
    "noise": Setting(what="as sgd, labels with noise of 0.3", noise=0.3),
}


class Diagonal(nn.Module):
    """x -> x.(u*v)."""

    def __init__(self, u: Tensor, v: Tensor) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(u.clone()), nn.Parameter(v.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.u * self.v)


@dataclass(frozen=True)
class Population:
    """Trained models, first dimension."""

    u: Tensor  # (M, d)
    v: Tensor
    x: Tensor  # (M, n, d)
    y: Tensor  # (M, n)
    truth: Tensor  # (M, d)
    scales: Tensor  # (M,)
    rates: Tensor
    steps: Tensor
    reached: Tensor

    @property
    def beta(self) -> Tensor:
        """The linear map."""
        return self.u * self.v

    @property
    def train_loss(self) -> Tensor:
        """Mean squared error."""
        return (_outputs(self.x, self.beta) - self.y).square().mean(1)

    @property
    def gap(self) -> Tensor:
        """Expected squared error of noiseless labels on fresh Gaussian inputs, less that."""
        return (self.beta - self.truth).square().sum(1) - self.train_loss


def _outputs(x: Tensor, beta: Tensor) -> Tensor:
    return torch.bmm(x, beta[:, :, None])[:, :, 0]


def _data(seed: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    draw: dict[str, Any] = {"generator": source, "dtype": torch.float64}
    x, truth = torch.randn(EXAMPLES, SIZE, **draw), torch.zeros(SIZE, dtype=torch.float64)
    places = torch.randperm(SIZE, generator=source)[:NONZERO]
    truth[places] = torch.randn(NONZERO, **draw).sign()
    return x, x @ truth + noise * torch.randn(EXAMPLES, **draw), truth


def trained(setting: Setting, count: int, seed: int) -> Population:
    """All models at once, each until its loss on all examples is 1e-5."""
    source = torch.Generator().manual_seed(seed)
    draw: dict[str, Any] = {"generator": source, "dtype": torch.float64}
    drawn = [_data(1000 * seed + (k if setting.fresh else 0), setting.noise) for k in range(count)]
    x, y, truth = (torch.stack([one[part] for one in drawn]) for part in range(3))
    low, high = setting.scales
    scales = torch.logspace(np.log10(low), np.log10(high), count, dtype=torch.float64)
    if setting.one_sided:
        u, v = scales[:, None].repeat(1, SIZE), torch.zeros(count, SIZE, dtype=torch.float64)
    else:
        u, v = (scales[:, None] * torch.randn(count, SIZE, **draw) for _ in range(2))
    low, high = setting.rates
    rates = low * (high / low) ** torch.rand(count, **draw)
    steps = torch.full((count,), MOST_STEPS)
    left = torch.arange(count)
    for step in range(0, MOST_STEPS, LOOK):
        losses = (_outputs(x[left], u[left] * v[left]) - y[left]).square().mean(1)
        steps[left[losses <= STOP]] = step
        left = left[losses > STOP]
        if not len(left):
            break
        u[left], v[left] = _descended(
            u[left], v[left], (x[left], y[left]), rates[left, None], setting.batch, source
        )
    return Population(u, v, x, y, truth, scales, rates, steps, steps < MOST_STEPS)


def _descended(  # noqa: PLR0917 - a pure function of all of them
    u: Tensor,
    v: Tensor,
    data: tuple[Tensor, Tensor],
    rates: Tensor,
    batch: int | None,
    source: torch.Generator,
) -> tuple[Tensor, Tensor]:
    x, y = data
    rows = torch.arange(len(x))[:, None]
    for _ in range(LOOK):
        if batch is not None:
            chosen = torch.randint(EXAMPLES, (len(rows), batch), generator=source)
            x, y = data[0][rows, chosen], data[1][rows, chosen]
        residuals = _outputs(x, u * v) - y
        slope = torch.bmm(residuals[:, None], x)[:, 0] * (2 / y.shape[1])
        u, v = u - rates * slope * v, v - rates * slope * u
    return u, v


def measured(population: Population) -> dict[str, dict[str, Any]]:
    """Values and statuses by measure and radius."""
    found: dict[str, dict[str, Any]] = {}
    block = Block(Factor("u"), Factor("v"), heads=SIZE)
    for u, v, x, y in zip(population.u, population.v, population.x, population.y, strict=True):
        probe = Probe(Diagonal(u, v), "mse", [(x, y)], blocks=[block], products="batched")
        for name, measure in MEASURES.items():
            for point in measure.compute(probe).diagnostics["scan"]["points"]:
                kept = found.setdefault(
                    f"{name}, rho = {point['at']:g}", {"values": [], "statuses": []}
                )
                kept["values"].append(point["value"])
                kept["statuses"].append(point["status"])
    return found


def _highest(slope: np.ndarray, matrix: np.ndarray, radius: float) -> float:
    """Max of slope.z + z'Mz over ||z|| <= radius, M positive semi-definite."""
    values, vectors = np.linalg.eigh(matrix)
    turned = vectors.T @ slope / 2
    top = values[-1]

    def excess(shift: float) -> float:
        return float(np.linalg.norm(turned / (shift - values))) - radius

    room = np.linalg.norm(turned) / radius
    shift = brentq(excess, top + 1e-12 * max(top, 1), top + room + 1e-9)
    z = turned / (shift - values)
    return float(2 * turned @ z + (values * z**2).sum())


def closed_forms(population: Population, rho: float = RADII[0]) -> dict[str, dict[str, Any]]:
    """The printed approximations, those for these data, and what may stand behind them.

    The printed ones hold for X'X = I and a radius of b, rho / sqrt(2). For other data, without
    label noise beside the model, the loss is quadratic in the change D of beta: D = 2 b beta for
    small inv balls; geodesics of mix make D of all lengths up to sqrt(2) rho.
    """
    found: dict[str, list[float]] = {}
    radius = rho / 2**0.5
    for beta, truth, x, y in zip(
        *(part.numpy() for part in (population.beta, population.truth, population.x, population.y)),
        strict=True,
    ):
        away = beta - truth
        gram, slope = x.T @ x / len(x), 2 * x.T @ (x @ beta - y) / len(x)
        inv = 4 * radius * np.linalg.norm(beta * away) + 4 * radius**2 * (beta**2).max()
        for name, value in {
            "S_inv as printed": inv,
            "S_mix as printed": radius * np.linalg.norm(away),
            "S_inv, these data": _highest(
                2 * beta * slope, 4 * beta[:, None] * gram * beta, radius
            ),
            "S_mix, these data": _highest(slope, gram, 2 * radius),
            "largest |beta|": abs(beta).max(),
            "1 / smallest |beta|": 1 / abs(beta).min(),
        }.items():
            found.setdefault(name, []).append(float(value))
    return {name: {"values": values} for name, values in found.items()}


def tau(values: list[Any], gap: np.ndarray, draws: int = 5000) -> dict[str, Any]:
    """Kendall's tau-b, and its 95 % percentile interval from resampled models."""
    known = np.array([value is not None and np.isfinite(value) for value in values])
    mine, other = np.array(values, dtype=float)[known], gap[known]
    signs, others = (np.sign(part[:, None] - part) for part in (mine, other))
    source = np.random.default_rng(0)
    times = source.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=draws)

    def total(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("ki,ij,kj->k", times, matrix, times, optimize=True))

    with np.errstate(invalid="ignore"):  # one model drawn again and again has no tau
        drawn = total(signs * others) / np.sqrt(total(signs**2) * total(others**2))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = float(kendalltau(mine, other).statistic)
    return {"tau": value, "interval": [float(low), float(high)], "models": int(known.sum())}


def study(setting: Setting, count: int, seed: int) -> dict[str, Any]:
    """One population, its measures and their correlations."""
    start = time.perf_counter()
    population = trained(setting, count, seed)
    training = time.perf_counter() - start
    kept = population.reached
    population = Population(*(part[kept] for part in vars(population).values()))
    rows = measured(population) | closed_forms(population)
    gap = population.gap.numpy()
    for row in rows.values():
        row.update(tau(row["values"], gap))
        if "statuses" in row:
            row["statuses"] = {
                status: row["statuses"].count(status) for status in sorted(set(row["statuses"]))
            }
    return {
        "setting": asdict(setting),
        "trained": len(gap),
        "not_trained": int((~kept).sum()),
        "gap": gap.tolist(),
        "train_loss": population.train_loss.tolist(),
        "scale": population.scales.tolist(),
        "rate": population.rates.tolist(),
        "steps": population.steps.tolist(),
        "tau_of_scale": None
        if setting.scales[0] == setting.scales[1]
        else tau(population.scales.tolist(), gap),
        "rows": rows,
        "training_seconds": training,
        "seconds": time.perf_counter() - start,
    }


def show(record: dict[str, Any]) -> None:
    """The correlations of all populations side by side."""
    table = Table(title="Kendall's tau-b with the generalisation gap, 95 % intervals")
    table.add_column("measure", no_wrap=True)
    table.add_column("published", justify="right")
    for name in record["settings"]:
        table.add_column(name, justify="right")
    for label in next(iter(record["settings"].values()))["rows"]:
        cells = []
        for found in record["settings"].values():
            row = found["rows"][label]
            low, high = row["interval"]
            cells.append(f"{row['tau']:+.2f}\n({low:+.2f}, {high:+.2f})")
        published = PUBLISHED.get(label.partition(",")[0], "")
        table.add_row(label, str(published), *cells)
    console.print(table)


def picture(found: dict[str, Any], path: Path) -> None:
    """Measures against the gap, a panel each."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    with style():
        figure, panels = plt.subplots(1, 3, figsize=(7.2, 2.5), sharey=True, layout="constrained")
        for panel, name in zip(panels, MEASURES, strict=True):
            row = found["rows"][f"{name}, rho = {RADII[0]:g}"]
            dots = panel.scatter(
                row["values"], found["gap"], c=found["scale"], s=15, cmap="viridis",
                norm=LogNorm(), linewidths=0.3, edgecolors="white",
            )  # fmt: skip
            wide = max(row["values"]) > 100 * min(row["values"])
            panel.set(xscale="log" if wide else "linear", yscale="log")
            panel.set_xlabel(f"{name}, $\\rho$ = {RADII[0]:g}")
            low, high = row["interval"]
            title = f"$\\tau$ = {row['tau']:+.2f}  ({low:+.2f}, {high:+.2f})"
            panel.set_title(title.replace("-", "−"), loc="left")
        panels[0].set_ylabel("generalisation gap")
        figure.colorbar(dots, ax=panels, label="initial scale $\\alpha$", aspect=25, pad=0.02)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)
        plt.close(figure)


def main(  # noqa: PLR0917 - a command has as many arguments as it has options
    models: Annotated[int, typer.Option(min=5, help="Models of each population.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data, starts and batches.")] = 0,
    settings: Annotated[str, typer.Option(help="Names, separated by commas.")] = ",".join(SETTINGS),
    record: Annotated[
        Path, typer.Option(help="JSON of all numbers; what it holds of other settings is kept.")
    ] = (ROOT / "docs" / "benchmarks" / "diagonal_networks.json"),
    figure: Annotated[Path, typer.Option(help="Scatter plot.")] = (
        ROOT / "docs" / "diagonal_networks.png"
    ),
    drawn: Annotated[str, typer.Option(help="The population in the plot.")] = "sgd",
    workers: Annotated[int, typer.Option(min=1, help="Processes, a population each.")] = 2,
) -> None:
    """Trains, measures, prints, writes."""
    names = settings.split(",")
    found = json.loads(record.read_text())["settings"] if record.exists() else {}
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        asked = [SETTINGS[name] for name in names]
        studies = pool.map(study, asked, [models] * len(names), [seed] * len(names))
        for name, new in zip(names, studies, strict=True):
            found[name] = {**new, "command": COMMAND}
            console.print(
                f"{name}: {new['trained']} of {models} reach {STOP:g}, {new['seconds']:.0f} s"
            )
    found = {name: found[name] for name in SETTINGS if name in found}
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    body = {
        "command": COMMAND,
        "machine": {
            **environment(), "cpu": platform.processor() or platform.machine(),
            "load_average_at_end": load,
        },
        "what": "Kendall's tau-b of sharpness with the generalisation gap, diagonal networks",
        "size": SIZE, "examples": EXAMPLES, "nonzero": NONZERO, "train_loss_at_most": STOP,
        "seed": seed, "search": SEARCH, "radii": RADII, "published": PUBLISHED, "settings": found,
    }  # fmt: skip
    show(body)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, to_json(body))
    if drawn in found:
        picture(found[drawn], figure)
    console.print(f"written: {record}")


if __name__ == "__main__":
    typer.run(main)
