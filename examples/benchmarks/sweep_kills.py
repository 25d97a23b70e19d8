"""A sweep that is killed again and again gives what an undisturbed one gives.

    python examples/benchmarks/sweep_kills.py --models 6 --kills 10

The sweep itself (kill -9 of the command) or one of its workers is killed at random moments, until
there were so many kills; then it is let go on to the end. Every value must be identical.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from _common import RECORDS, write_record

from landscape.tasks import digits_checkpoint

WORKER = {"local": "spawn_main", "ray": "ray::_Actor"}
TIMINGS = ["seconds", "peak_memory"]


def command(files: list[Path], out: Path, engine: str, measures: str) -> list[str]:
    sweep = [sys.executable, "-m", "landscape", "sweep", *map(str, files)]
    return [*sweep, "--measures", measures, "--out", str(out), "--engine", engine, "--workers", "2"]


def records(out: Path) -> int:
    return sum(1 for _ in out.glob("records/*/*-*.json"))


def descendants(parent: int) -> list[tuple[int, str]]:
    """Processes below one, with their command lines."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            above = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(above, []).append(int(status.parent.name))
    found, waiting = [], [parent]
    while waiting:
        for process in parents.get(waiting.pop(), []):
            waiting.append(process)
            try:
                found.append((process, Path(f"/proc/{process}/cmdline").read_text()))
            except OSError:
                continue
    return found


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def left(processes: list[int]) -> int:
    """How many processes are still there after ten seconds."""
    for _ in range(100):
        alive = [one for one in processes if _lives(one)]
        if not alive:
            return 0
        time.sleep(0.1)
    return len(alive)


def disturbed(
    line: list[str], out: Path, engine: str, chance: random.Random, kills: int
) -> list[dict[str, Any]]:
    """Kills a command and goes on, then lets it end."""
    told: list[dict[str, Any]] = []
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(told) < kills:
        goal, whole = records(out) + chance.randint(1, 4), chance.random() < 0.5
        while running.poll() is None and records(out) < goal:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if running.poll() is not None:
            break
        below = descendants(running.pid)
        workers = [one for one, name in below if WORKER[engine] in name]
        kill = {"records": records(out), "killed": "sweep" if whole or not workers else "worker"}
        if kill["killed"] == "sweep":
            running.kill()
            running.communicate()
            kill["left_over_processes"] = left([one for one, _ in below])
            running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        else:
            os.kill(chance.choice(workers), signal.SIGKILL)
        told.append(kill)
        print(engine, kill, flush=True)
    _, errors = running.communicate()
    if running.returncode:
        raise RuntimeError(errors.decode())
    return told


def values(out: Path) -> tuple[bytes, str]:
    frame = pd.read_csv(out / "results.csv").drop(columns=TIMINGS)
    return (out / "table.csv").read_bytes(), frame.to_csv(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--measures", default="quick")
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS / "sweep_kills.json")
    options = parser.parse_args()
    files = [digits_checkpoint(seed) for seed in range(options.models)]
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="sweep-kills-"))
    try:
        whole = folder / "whole"
        subprocess.run(command(files, whole, "local", options.measures), check=True)
        found = {}
        for engine in options.engines:
            told: list[dict[str, Any]] = []
            identical, rounds = True, 0
            while len(told) < options.kills:
                out = folder / f"{engine}-{rounds}"
                more = options.kills - len(told)
                line = command(files, out, engine, options.measures)
                told += disturbed(line, out, engine, chance, more)
                identical &= values(out) == values(whole)
                rounds += 1
            found[engine] = {"identical": identical, "sweeps": rounds, "kills": told}
        body = {
            "models": options.models,
            "measures": options.measures,
            "records": records(whole),
            "engines": found,
        }
        write_record(options.out, body)
    finally:
        shutil.rmtree(folder)
    if not all(engine["identical"] for engine in found.values()):
        raise SystemExit("values differ from those of the undisturbed sweep")


if __name__ == "__main__":
    main()
