"""What a sweep costs beyond its measures: wall-clock time against a bare loop over checkpoints.

    python examples/benchmarks/sweep_throughput.py --population FOLDER --models 300

Without a population the embedded digits nets of so many seeds are taken. The bare loop is
``open_task`` and ``audit`` in as many processes, nothing written. The last part times a sweep of
--rows finished checkpoints that has nothing left to do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _common import RECORDS, write_record

import landscape
from landscape.populations import Rows, Sweep, Workers, rows_of
from landscape.tasks import digits_checkpoint


def taken(population: Path | None, models: int) -> Rows:
    if population is None:
        return rows_of([digits_checkpoint(seed) for seed in range(models)], "digits")
    rows = rows_of(population)
    return replace(rows, rows=tuple(row for row in rows.rows if not row.skipped)[:models])


def bare(rows: Rows, measures: str) -> None:
    """One process's share of the bare loop."""
    torch.set_num_threads(1)
    for row in rows.rows:
        settings = landscape.Settings(products="loop", initial=row.initial)
        opened = landscape.open_task(row.kind.task(), row.checkpoint, settings)
        opened.metrics()
        landscape.audit(opened.probe, measures)


def bare_processes(options: argparse.Namespace) -> dict[str, float]:
    """Wall-clock time of all shares together."""
    command = [sys.executable, __file__, "--models", str(options.models)]
    command += ["--measures", options.measures]
    if options.population is not None:
        command += ["--population", str(options.population)]
    start = time.perf_counter()
    running = [
        subprocess.Popen([*command, "--share", str(share), str(options.workers)])
        for share in range(options.workers)
    ]
    if any(process.wait() for process in running):
        raise RuntimeError("the bare loop failed")
    return {"seconds": time.perf_counter() - start}


def swept(rows: Rows, options: argparse.Namespace, engine: str, out: Path) -> dict[str, float]:
    workers = Workers(engine=engine, count=options.workers)
    start = time.perf_counter()
    found = Sweep(rows, options.measures, out, workers=workers).run(progress=True)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "busy": found.busy,
        "measuring": found.measuring,
        "over_measuring": seconds / (found.measuring / options.workers) - 1,
        "failed": found.failed,
    }


def resumed(folder: Path, rows: int, source: Path) -> dict[str, Any]:
    """A sweep of many rows, all finished: records of one checkpoint under the keys of many."""
    weights = folder / "weights"
    weights.mkdir()
    for number in range(rows):
        (weights / f"{number}.pt").write_bytes(b"weights %d" % number)
    over = rows_of(weights, "digits")
    ready = Sweep(over, "quick", folder / "out", workers=Workers(count=1))
    (source_folder,) = [path.parent for path in source.glob("records/*/checkpoint.json")][:1]
    for job in ready.todo:
        shutil.copytree(source_folder, ready.setup.folder / job.key)
    start = time.perf_counter()
    again = Sweep(over, "quick", folder / "out", workers=Workers(count=1))
    looked = time.perf_counter() - start
    found = again.run()
    seconds = time.perf_counter() - start
    return {
        "rows": rows,
        "records": rows * len(again.measures),
        "left": len(again.todo),
        "measured": found.measured,
        "seconds_until_known": looked,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--population", type=Path)
    parser.add_argument("--measures", default="quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=5000, help="of the sweep with nothing to do")
    parser.add_argument("--without", nargs="*", default=[], help="bare, local, ray, resume")
    parser.add_argument("--share", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RECORDS / "sweep_throughput.json")
    options = parser.parse_args()
    rows = taken(options.population, options.models)
    if options.share:
        part, of = options.share
        bare(replace(rows, rows=rows.rows[part::of]), options.measures)
        return
    body: dict[str, Any] = {"models": len(rows.rows), "workers": options.workers}
    body |= {"measures": options.measures}
    folder = Path(tempfile.mkdtemp(prefix="sweep-throughput-"))
    try:
        if "local" not in options.without:
            body["local"] = swept(rows, options, "local", folder / "local")
        if "bare" not in options.without:
            body["bare"] = bare_processes(options)
        if "ray" not in options.without:
            body["ray"] = swept(rows, options, "ray", folder / "ray")
            if "local" in body:
                tables = [(folder / name / "table.csv").read_bytes() for name in ("local", "ray")]
                body["tables_equal"] = tables[0] == tables[1]
        if "resume" not in options.without:
            one = rows_of(digits_checkpoint(0), "digits")
            Sweep(one, "quick", folder / "one", workers=Workers(count=0)).run()
            body["resume"] = resumed(folder, options.rows, folder / "one")
    finally:
        shutil.rmtree(folder)
    local = body.get("local", {}).get("seconds")
    if local and "bare" in body:
        body["local_over_bare"] = local / body["bare"]["seconds"] - 1
    if local and "ray" in body:
        body["ray_over_local"] = body["ray"]["seconds"] / local - 1
    print(json.dumps(body, indent=1))
    write_record(options.out, body)


if __name__ == "__main__":
    main()
