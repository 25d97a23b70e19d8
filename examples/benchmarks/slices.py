"""Slices: time of a plane against the bare forward passes and other tools.

A plane of random directions through a network in evaluation mode, the loss alone, the same data in
one batch: the digits CNN on 500 images, and ResNet-20 on 128 random images of 32 x 32 (a small
grid, every point of which is evaluated).

- dense: ``evaluate_slice`` with every point evaluated, loss and standard error;
- refined: the same resolution with ``tolerance=0.005`` of the range, and of its logarithm;
- forwards: as many bare forward passes with the loss under ``torch.no_grad``;
- loop: the usual script, a new state_dict loaded for every point;
- loss-landscapes: ``random_plane`` of the package of that name.

The contenders take turns in every round; ratios are taken inside a round, medians are quoted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from _common import RECORDS, console, digits_batches, digits_model, table, write_record
from neighbourhood import against, in_turns
from products import resnet20
from torch import Tensor, nn
from torch.nn import functional

import landscape
from landscape.slices import evaluate_slice, random

DENSE_MOST, REFINED_LEAST = 1.05, 5.0
TOLERANCE = 0.005
REFINABLE = 25  # points an axis below which a tolerance saves nothing
PEERS = ("loop", "loss-landscapes")
Clock = Callable[[], float]


def timed(run: Callable[[], object]) -> Clock:
    """Seconds of a run."""

    def clock() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return clock


def contenders(
    model: nn.Module, inputs: Tensor, labels: Tensor, points: int
) -> tuple[dict[str, Clock], dict[str, int]]:
    """Clocks by name, and where the refined one notes its evaluations."""
    from loss_landscapes import metrics, random_plane

    probe = landscape.Probe(model, "cross_entropy", [(inputs, labels)])
    axes = [random(probe, 0), random(probe, 1)]
    evaluated: dict[str, int] = {}

    def ours(tolerance: float | None, scale: Literal["linear", "log"] = "linear") -> None:
        found = evaluate_slice(
            probe, axes, points=points, tolerance=tolerance, scale=scale, metrics={}
        )
        evaluated[scale if tolerance else "dense"] = int(found.attrs["evaluated_points"])

    @torch.no_grad()
    def forwards() -> None:
        for _ in range(points**2):
            functional.cross_entropy(model(inputs), labels).item()

    @torch.no_grad()
    def loop() -> None:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        moves = [probe.space.split(axis.vector) for axis in axes]
        grid = torch.linspace(-1, 1, points).tolist()
        for alpha in grid:
            for beta in grid:
                there = {
                    name: tensor + alpha * moves[0][name] + beta * moves[1][name]
                    if name in moves[0]
                    else tensor
                    for name, tensor in state.items()
                }
                model.load_state_dict(there)
                functional.cross_entropy(model(inputs), labels).item()
        model.load_state_dict(state)

    def peer() -> None:
        metric = metrics.Loss(functional.cross_entropy, inputs, labels)
        with torch.no_grad():
            random_plane(model, metric, 1, points, normalization="filter", deepcopy_model=True)

    clocks = {
        "forwards": timed(forwards),
        "dense": timed(lambda: ours(None)),
        "loop": timed(loop),
        "loss-landscapes": timed(peer),
    }
    if points >= REFINABLE:
        clocks["linear"] = timed(lambda: ours(TOLERANCE))
        clocks["log"] = timed(lambda: ours(TOLERANCE, "log"))
    return clocks, evaluated


def compared(
    model: nn.Module, inputs: Tensor, labels: Tensor, points: int, rounds: int
) -> dict[str, Any]:
    """All ratios on one network."""
    clocks, evaluated = contenders(model.eval(), inputs, labels, points)
    clocks["forwards"]()
    seconds = in_turns(clocks, rounds)
    fastest = min(PEERS, key=lambda name: sorted(seconds[name])[rounds // 2])
    found: dict[str, Any] = {
        "points": points,
        "images": len(inputs),
        "dense": against(seconds["dense"], seconds["forwards"], DENSE_MOST),
        "peers": {name: against(seconds[name], seconds["forwards"]) for name in PEERS},
        "fastest_peer": fastest,
        "evaluated_points": evaluated,
        "refined": {},
    }
    for scale in ("linear", "log"):
        if scale in seconds:
            gain = against(seconds[fastest], seconds[scale])
            found["refined"][scale] = {
                **gain, "target": REFINED_LEAST, "met": gain["ratio"] >= REFINED_LEAST
            }  # fmt: skip
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--resnet-points", type=int, default=9)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RECORDS / "slices.json")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    images, labels = (torch.cat(parts) for parts in zip(*digits_batches(), strict=True))
    random_images = torch.randn(128, 3, 32, 32)
    residual = resnet20()
    with torch.no_grad():  # loss-landscapes divides by the size of every bias
        for parameter in residual.parameters():
            parameter.add_(1e-3)
    cases = {
        "digits": (
            digits_model(), images[: chosen.images], labels[: chosen.images], chosen.points
        ),
        "resnet20": (
            residual, random_images, torch.randint(0, 10, (128,)), chosen.resnet_points
        ),
    }  # fmt: skip
    body = {name: compared(*case, chosen.rounds) for name, case in cases.items()}
    shown = table("Slices: ratios of time", "network", "dense / forwards", *PEERS, "linear", "log")
    for name, row in body.items():
        shown.add_row(
            name,
            f"{row['dense']['ratio']:.3f}",
            *(f"{row['peers'][peer]['ratio']:.3f}" for peer in PEERS),
            *(
                f"{row['refined'][scale]['ratio']:.1f} x" if scale in row["refined"] else ""
                for scale in ("linear", "log")
            ),
        )
    console.print(shown)
    write_record(chosen.out, {"tolerance": TOLERANCE, "networks": body})


if __name__ == "__main__":
    main()
