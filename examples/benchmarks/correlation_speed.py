"""Time of a whole ``landscape.correlate``: 5,000 models, 30 measures, 1,000 bootstraps.

Two tables, both with every statistic of the call: 5,000 configurations of one model
(10 x 10 x 10 x 5 values), and 1,000 configurations of five seeds. Values are continuous, so that
nothing is saved by ties. Of several rounds the median is reported, as time on the wall and of the
processor: the latter is what matters where other programs run at the same time. Wanted is less
than 60 s on two cores.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import RECORDS, console, table, write_record

import landscape
from landscape.correlation import Options

CASES = {"5,000 configurations": ((10, 10, 10, 5), 1), "1,000 x 5 seeds": ((5, 10, 10, 2), 5)}
TARGET = 60.0


def population(grid: tuple[int, ...], seeds: int, measures: int) -> pd.DataFrame:
    """A full grid with measures of different strength."""
    rng = np.random.default_rng(0)
    cells = np.array(np.meshgrid(*map(np.arange, grid), indexing="ij")).reshape(len(grid), -1).T
    rows = np.repeat(np.arange(len(cells)), seeds)
    latent = rng.normal(size=len(cells)) + 0.1 * cells.sum(1)
    frame = pd.DataFrame({f"hp.{axis}": column[rows] for axis, column in enumerate(cells.T)})
    frame["hp.seed"] = np.tile(np.arange(seeds), len(cells))
    noise = rng.normal(size=(measures + 2, len(rows)))
    frame["gap_accuracy"] = (latent[rows] + 0.2 * noise[0]) / 50
    frame["train_loss"] = np.exp(latent[rows] + noise[1])
    for index in range(measures):
        strength = np.linspace(-2, 2, measures)[index]
        frame[f"measure {index}"] = strength * latent[rows] + noise[index + 2]
    return frame


def main() -> None:
    """Parses the command line, times, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measures", type=int, default=30)
    parser.add_argument("--bootstraps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RECORDS / "correlation_speed.json")
    options = parser.parse_args()
    cases: dict[str, Any] = {}
    rows = table("landscape.correlate", "table", "models", "wall", "processor", "under 60 s")
    for name, (grid, seeds) in CASES.items():
        frame = population(grid, seeds, options.measures)
        wall, cpu = [], []
        for _ in range(options.rounds):
            start, begun = time.perf_counter(), time.process_time()
            landscape.correlate(frame, options=Options(bootstraps=options.bootstraps))
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - begun)
        median = statistics.median(wall)
        cases[name] = {
            "models": len(frame),
            "wall_seconds": wall,
            "processor_seconds": cpu,
            "median_wall_seconds": median,
            "median_processor_seconds": statistics.median(cpu),
            "target_seconds": TARGET,
            "met": median < TARGET,
        }
        rows.add_row(
            name,
            str(len(frame)),
            f"{median:.1f} s",
            f"{statistics.median(cpu):.1f} s",
            "yes" if median < TARGET else "NO",
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    console.print(rows)
    record = {
        "what": "time of one call of landscape.correlate with all statistics",
        "measures": options.measures,
        "bootstraps": options.bootstraps,
        "rounds": options.rounds,
        "peak_memory_gib": peak,
        "cases": cases,
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
