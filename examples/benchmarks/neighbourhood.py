"""Neighbourhood measures: time against plain passes, sharing, and how high the ascent climbs.

Speed: a measure on a fresh ``Probe`` (made before the clock starts) against a loop written by hand:
model in evaluation mode, ``loss.backward()`` into ``.grad`` for a gradient, ``torch.no_grad`` for a
forward pass, the same random data, batches of 128.

- max-sharpness with 20 steps against 20 gradients and 21 forward passes: all of the data as one
  part (``m=None``), and in parts of 128 (``m=128``);
- average-sharpness with its 100 samples against 100 forward passes; also with ``products="loop"``,
  which does without the trial of whether batching the points pays.

Sharing: average-sharpness, low-pass-sharpness, noise-stability and tilted-sharpness of the same
noise in one audit, against each of them alone, every time on a fresh probe.

The contenders take turns within every round, in an order that changes; ratios are taken inside a
round, and their median over rounds is quoted.

Quality: on the digits checkpoint, the mean rise over parts of 128 that 20 gradients of our ascent
find, that of the published algorithm (``compat="andriushchenko2023"``, 20 gradients and 20 forward
passes), and that of a long search (200 gradients from each of 4 starts).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from _common import (
    RECORDS,
    console,
    digits_batches,
    digits_model,
    digits_probe,
    table,
    write_record,
)
from products import BATCH, MODELS, Batches, synchronise
from torch import nn
from torch.nn import functional

import landscape
from landscape.measures import Measure, get
from landscape.results import Cost

STEPS = 20
MOST = {"max-sharpness": 1.15, "average-sharpness": 1.1, "together": 1.05}
#: Only the ResNet has targets: where a pass is short, vectors of P entries take as long.
TARGETED = "resnet20"
SHARED = ("average-sharpness", "low-pass-sharpness", "noise-stability", "tilted-sharpness")
RADII: dict[tuple[str, str], tuple[float, ...]] = {
    ("euclidean", "l2"): (0.02, 0.05, 0.2),
    ("euclidean", "linf"): (0.0005, 0.002, 0.01),
    ("elementwise", "l2"): (0.1, 0.5, 1.0),
    ("elementwise", "linf"): (0.002, 0.01, 0.05),
}
SEARCHES: dict[str, dict[str, Any]] = {
    "ours": {},
    "published": {"compat": "andriushchenko2023"},
    "long": {"steps": 200, "restarts": 4},
}

Clock = Callable[[], float]  # runs once and gives the seconds


def plain(model: nn.Module, batches: Batches, *, gradients: int, forwards: int) -> Clock:
    """Passes over the data by hand."""
    device = str(batches[0][0].device.type)

    def run() -> float:
        synchronise(device)
        start = time.perf_counter()
        for _ in range(gradients):
            model.zero_grad()
            for images, labels in batches:
                (functional.cross_entropy(model(images), labels) / len(batches)).backward()
        with torch.no_grad():
            for _ in range(forwards):
                for images, labels in batches:
                    functional.cross_entropy(model(images), labels)
        synchronise(device)
        return time.perf_counter() - start

    return run


def audited(
    model: nn.Module, batches: Batches, measures: list[Measure], costs: list[Cost], **settings: Any
) -> Clock:
    """An audit on a fresh probe; its cost joins ``costs``."""

    def run() -> float:
        probe = landscape.Probe(model, "cross_entropy", batches, **settings)
        synchronise(probe.device.type)
        start = time.perf_counter()
        found = landscape.audit(probe, measures)
        synchronise(probe.device.type)
        seconds = time.perf_counter() - start
        if failed := [result.message for result in found if result.status == "failed"]:
            raise RuntimeError(failed[0])
        costs.append(found.cost)
        return seconds

    return run


def in_turns(clocks: Mapping[str, Clock], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round; each round begins with another one."""
    names = list(clocks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            seconds[name].append(clocks[name]())
    return seconds


def against(seconds: list[float], base: list[float], most: float | None = None) -> dict[str, Any]:
    """Ratios inside the rounds, and whether their median is at most what is asked."""
    ratios = [mine / other for mine, other in zip(seconds, base, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "ratio": ratio,
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        **({} if most is None else {"target": most, "met": ratio <= most}),
        "seconds_by_round": seconds,
        "base_seconds_by_round": base,
    }


def speed(name: str, rounds: int, device: str) -> dict[str, Any]:
    """The measures on one model against the loops by hand."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(device)
    batches = [
        (
            torch.randn(BATCH, 3, 32, 32, device=device),
            torch.randint(0, 10, (BATCH,), device=device),
        )
        for _ in range(2)
    ]
    maximum, average = MOST["max-sharpness"], MOST["average-sharpness"]
    whole = get("max-sharpness", m=None, steps=STEPS)
    cut = get("max-sharpness", m=BATCH, steps=STEPS)
    mean = get("average-sharpness")
    passes = {"gradients": STEPS, "forwards": STEPS + 1}
    samples = {"gradients": 0, "forwards": 100}
    loop = {"products": "loop"}
    cases: tuple[tuple[str, int, dict[str, int], Measure, dict[str, Any], float], ...] = (
        ("max-sharpness, one batch, m=None", 1, passes, whole, {}, maximum),
        ("max-sharpness, two batches, m=128", 2, passes, cut, {}, maximum),
        ("average-sharpness, one batch", 1, samples, mean, {}, average),
        ("average-sharpness, one batch, products=loop", 1, samples, mean, loop, average),
    )
    plain(model, batches, gradients=2, forwards=2)()  # warm up
    found = {}
    for title, count, by_hand, measure, settings, most in cases:
        data, costs = batches[:count], list[Cost]()
        clocks = {
            "by hand": plain(model, data, **by_hand),
            "landscape": audited(model, data, [measure], costs, **settings),
        }
        seconds = in_turns(clocks, rounds)
        target = most if name == TARGETED else None
        found[title] = {
            "by_hand": by_hand,
            "gradients": costs[-1].gradients,
            "forwards": costs[-1].forwards,
            **against(seconds["landscape"], seconds["by hand"], target),
        }
        console.print(f"{name}, {title}: {found[title]['ratio']:.2f} × by hand")
    return found


def sharing(rounds: int) -> dict[str, Any]:
    """Four measures of the same noise together, against each alone, on the digits checkpoint."""
    model, batches = digits_model(), digits_batches()
    measures = {name: get(name) for name in SHARED}
    costs: dict[str, list[Cost]] = {name: [] for name in (*SHARED, "together")}
    clocks = {
        name: audited(model, batches, [measure], costs[name]) for name, measure in measures.items()
    }
    clocks["together"] = audited(model, batches, list(measures.values()), costs["together"])
    clocks["together"]()  # warm up
    seconds = in_turns(clocks, rounds)
    alone = {name: statistics.median(seconds[name]) for name in SHARED}
    dearest = max(alone, key=alone.__getitem__)
    found = against(seconds["together"], seconds[dearest], MOST["together"])
    console.print(f"together: {found['ratio']:.3f} × {dearest}")
    return {
        "rounds": rounds,
        "median_seconds": {**alone, "together": statistics.median(seconds["together"])},
        "forwards": {name: cost[-1].forwards for name, cost in costs.items()},
        "passes": {name: cost[-1].passes for name, cost in costs.items()},
        "dearest": dearest,
        **found,
    }


def quality() -> list[dict[str, Any]]:
    """Rises found by our ascent, the published one and a long search."""
    probe = digits_probe()
    rows = []
    for (geometry, norm), radii in RADII.items():
        for rho in radii:
            row: dict[str, Any] = {"geometry": geometry, "norm": norm, "rho": rho}
            for name, settings in SEARCHES.items():
                # Every radius by itself: a scan would hand on the best point of the one before.
                measure = get("max-sharpness", geometry=geometry, norm=norm, rho=rho, **settings)
                result = measure.compute(probe, 0)
                row[name] = result.value
                row[f"{name}_gradients"] = result.cost.gradients
                row[f"{name}_forwards"] = result.cost.forwards
                row[f"{name}_seconds"] = result.cost.seconds
            row["of_published"] = row["ours"] / row["published"]
            row["of_long"] = row["ours"] / row["long"]
            row["published_of_long"] = row["published"] / row["long"]
            rows.append(row)
            console.print(
                f"{geometry}, {norm}, {rho:g}: {row['of_published']:.4f} × published, "
                f"{row['of_long']:.4f} × long"
            )
    return rows


def verdict(row: dict[str, Any]) -> str:
    """What was asked, and whether it was met."""
    return f"≤ {row['target']} {'met' if row['met'] else 'MISSED'}" if "met" in row else ""


def show(record: dict[str, Any]) -> None:
    """Prints the tables."""
    for name, found in record.get("speed", {}).items():
        rows = table(f"{name}: time against the same passes by hand", "measure", "×", "range", "")
        for title, row in found.items():
            spread = f"{row['lowest_ratio']:.2f} - {row['highest_ratio']:.2f}"
            rows.add_row(title, f"{row['ratio']:.2f}", spread, verdict(row))
        console.print(rows)
    if "sharing" in record:
        found = record["sharing"]
        console.print(
            f"together {found['ratio']:.3f} × the dearest alone ({verdict(found)}); "
            f"forward passes: {found['forwards']}"
        )
    if "quality" in record:
        rows = table("rise that 20 gradients find", "ball", "× published", "× long search")
        for row in record["quality"]:
            ball = f"{row['geometry']}, {row['norm']}, {row['rho']:g}"
            rows.add_row(ball, f"{row['of_published']:.4f}", f"{row['of_long']:.4f}")
        console.print(rows)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mlp", "resnet20"])
    parser.add_argument("--parts", nargs="+", default=["quality", "sharing", "speed"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the speed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RECORDS / "neighbourhood.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record: dict[str, Any] = {
        "what": "time and quality of the neighbourhood measures",
        "batch": BATCH,
        "rounds": options.rounds,
        "device": options.device,
    }
    if "quality" in options.parts:
        record["quality"] = quality()
    if "sharing" in options.parts:
        record["sharing"] = sharing(3 * options.rounds)
    if "speed" in options.parts:
        record["speed"] = {}
        for name in options.models:
            record["speed"][name] = speed(name, options.rounds, options.device)
            write_record(options.out, record)  # after every model, so that an interrupt keeps it
    show(record)
    write_record(options.out, record)


if __name__ == "__main__":
    main()
