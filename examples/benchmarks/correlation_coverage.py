"""Coverage of the 95 % intervals of the rank correlations, by simulation.

A population is a full grid of configurations, each trained with several seeds. Latent target and
measures of the configurations are jointly normal with a known Kendall's tau; every run adds normal
noise of a tenth of their standard deviation (seeds are clustered), and the target is then passed
through exp, the measures through sinh, so that only their order is normal. ``landscape.correlate``
runs as a user would run it. Its estimands are those of the means over the seeds of a configuration,
in an endless population of configurations of the same kind; their true values are taken from a
simulated population of 100,000 configurations (Psi: tau-a of two independent configurations, which
does not depend on the cells here). Seeds are five a configuration, or one to five at random.

Besides the intervals: the control "random", whose intervals must contain 0; and partial tau of
measures that are functions of the given column alone, monotone and not, which must be near 0.
Wanted are 90 to 97 %. Where tau is exactly 1 every sample shows 1, and every interval holds it.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import RECORDS, console, table, write_record

import landscape
from landscape.correlation import Options
from landscape.correlation.bootstrap import spearman
from landscape.correlation.kendall import tau_b
from landscape.correlation.partial import left_over

GRIDS = {12: (2, 2, 3), 30: (2, 3, 5), 100: (4, 5, 5), 300: (5, 6, 10)}
TAUS = (0.0, 0.3, 0.7, 0.9, 1.0)
NOISE = 0.1
SEEDS = 5
WITH_TARGET = 0.6  # correlation of the given column with the latent target
FUNCTIONS = {"cube of given": lambda z: z**3, "square of given": lambda z: (z - 0.3) ** 2}
STATISTICS = ("tau", "spearman", "psi", "partial[given]")


def population(grid: tuple[int, ...], unbalanced: bool, rng: np.random.Generator) -> pd.DataFrame:
    """One row a run."""
    cells = np.array(np.meshgrid(*map(np.arange, grid), indexing="ij")).reshape(len(grid), -1).T
    count = len(cells)
    seeds = rng.integers(1, SEEDS + 1, count) if unbalanced else np.full(count, SEEDS)
    latent = rng.normal(size=count)
    given = WITH_TARGET * latent + np.sqrt(1 - WITH_TARGET**2) * rng.normal(size=count)
    rows = np.repeat(np.arange(count), seeds)
    frame = pd.DataFrame({f"hp.{axis}": column[rows] for axis, column in enumerate(cells.T)})
    frame["hp.seed"] = np.arange(len(rows))

    def runs(values: np.ndarray) -> np.ndarray:
        return values[rows] + NOISE * rng.normal(size=len(rows))

    frame["gap"] = np.exp(0.3 * runs(latent))
    frame["given"] = given[rows]
    for tau in TAUS:
        rho = np.sin(np.pi * tau / 2)
        measure = rho * latent + np.sqrt(1 - rho**2) * rng.normal(size=count)
        frame[f"tau {tau}"] = np.sinh(0.5 * runs(measure))
    frame["no noise"] = 2 * frame["gap"] + 1
    for name, function in FUNCTIONS.items():
        frame[name] = function(frame["given"])
    return frame


def truths(unbalanced: bool, size: int) -> dict[str, dict[str, float]]:
    """Of every measure, the statistics of the means in a large population."""
    rng = np.random.default_rng(1_000_003)
    frame = population((size,), unbalanced, rng)
    means = frame.groupby("hp.0").mean()
    target, given = means["gap"].to_numpy(), means[["given"]].to_numpy()
    rest = left_over(target, given)
    found = {}
    for name in means.columns.drop(["hp.seed", "gap", "given"]):
        values = means[name].to_numpy()
        tau = tau_b(values, target)
        found[name] = {"tau": tau, "psi": tau, "spearman": spearman(values, target)}
        pure = name in FUNCTIONS
        found[name]["partial[given]"] = 0.0 if pure else tau_b(left_over(values, given), rest)
    found["no noise"] |= dict.fromkeys(("tau", "psi", "spearman"), 1.0)
    return found


def column(statistic: str, end: str) -> str:
    """'tau' -> 'tau_low'; 'partial[given]' -> 'partial_low[given]'."""
    name, _, rest = statistic.partition("[")
    return f"{name}_{end}" + (f"[{rest}" if rest else "")


Hits = dict[tuple[str, str], list[tuple[bool, float]]]


def count_intervals(rows: pd.DataFrame, truth: dict[str, dict[str, float]], hits: Hits) -> None:
    """Notes whether the intervals of a table hold the truth, and how wide they are."""
    for name in (*truth, "random"):
        for statistic in STATISTICS:
            low, high = (rows.loc[name, column(statistic, end)] for end in ("low", "high"))
            value = truth[name][statistic] if name in truth else 0.0
            if np.isfinite(low):
                hit = bool(low - 1e-12 <= value <= high + 1e-12)
                hits.setdefault((name, statistic), []).append((hit, high - low))


def count_differences(rows: pd.DataFrame, truth: dict[str, dict[str, float]], hits: Hits) -> None:
    """The same for the differences of tau between the measures of known tau."""
    for row in rows.itertuples():
        if row.first.startswith("tau") and row.second.startswith("tau"):
            value = truth[row.first]["tau"] - truth[row.second]["tau"]
            key = (f"{row.first} - {row.second}", "difference")
            hits.setdefault(key, []).append((row.low <= value <= row.high, row.high - row.low))


def simulate(
    count: int, unbalanced: bool, rounds: int, bootstraps: int, truth: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Coverage by measure and statistic."""
    hits: Hits = {}
    estimates: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        rng = np.random.default_rng([count, unbalanced, number])
        frame = population(GRIDS[count], unbalanced, rng)
        options = Options(bootstraps=bootstraps, seed=number)
        found = landscape.correlate(frame, "gap", given=("given",), options=options)
        rows = found.table.rename(index={"control: random": "random"})
        count_intervals(rows, truth, hits)
        count_differences(found.differences, truth, hits)
        for name in (*truth, "random", "control: oracle"):
            for statistic in STATISTICS:
                estimates.setdefault((name, statistic), []).append(rows.loc[name, statistic])
    result: dict[str, Any] = {}
    for (name, statistic), pairs in hits.items():
        share, width = np.mean(np.array(pairs, dtype=float), axis=0)
        entry = {"coverage": float(share), "width": float(width), "rounds": len(pairs)}
        if name in truth:
            entry["truth"] = truth[name][statistic]
        result.setdefault(name, {})[statistic] = entry
    for (name, statistic), values in estimates.items():
        entry = result.setdefault(name, {}).setdefault(statistic, {})
        entry["mean"], entry["sd"] = float(np.nanmean(values)), float(np.nanstd(values))
    return result


def show(record: dict[str, Any]) -> None:
    """Prints the coverages."""
    for case in record["cases"]:
        rows = table(
            f"{case['configurations']} configurations, "
            f"{'1 to 5' if case['unbalanced'] else '5'} seeds, {case['rounds']} rounds",
            *("measure", "statistic", "truth", "mean", "covered", "width"),
        )
        for name, statistics in case["found"].items():
            for statistic, entry in statistics.items():
                rows.add_row(
                    name,
                    statistic,
                    f"{entry['truth']:.3f}" if "truth" in entry else "-",
                    f"{entry['mean']:.3f}" if "mean" in entry else "-",
                    f"{100 * entry['coverage']:.1f} %" if "coverage" in entry else "-",
                    f"{entry['width']:.3f}" if "width" in entry else "-",
                )
        console.print(rows)


def main() -> None:
    """Parses the command line, simulates, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=240)
    parser.add_argument("--bootstraps", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(GRIDS))
    parser.add_argument("--truth", type=int, default=100_000, help="configurations of the truth")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, default=RECORDS / "correlation_coverage.json")
    options = parser.parse_args()
    start = time.perf_counter()
    plans = [
        (count, unbalanced, options.rounds if count < 300 else options.rounds // 3)
        for unbalanced in (False, True)
        for count in sorted(options.sizes, reverse=True)
    ]
    truth = {unbalanced: truths(unbalanced, options.truth) for unbalanced in (False, True)}
    with ProcessPoolExecutor(options.workers) as pool:
        waiting = [
            pool.submit(simulate, *plan, options.bootstraps, truth[plan[1]]) for plan in plans
        ]
        cases = [
            {"configurations": count, "unbalanced": odd, "rounds": rounds, "found": case.result()}
            for (count, odd, rounds), case in zip(plans, waiting, strict=True)
        ]
    record = {
        "what": "coverage of the 95 % intervals of rank correlations, by simulation",
        "bootstraps": options.bootstraps,
        "noise": NOISE,
        "truth_configurations": options.truth,
        "cases": cases,
        "total_seconds": time.perf_counter() - start,
    }
    show(record)
    write_record(options.out, record)


if __name__ == "__main__":
    main()
