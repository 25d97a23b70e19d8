"""How far refined slices of the loss are from dense ones, and how many evaluations they need.

Three nets trained on the digits: an MLP, the embedded CNN and a plain deep ReLU net. For each,
random planes with Gaussian directions normalised filter by filter (biases untouched; Li et al.
2018), span -1 to 1, are evaluated at all 51 x 51 points on 500 training images once (kept in
``--cache``). ``refine`` then asks that table for the points it wants, and its picture is compared
with the table. The same is done for surfaces no spline can follow: noise, and narrow spikes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RECORDS, console, digits_model, table, write_record
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from landscape.slices.refinement import Refined, refine
from landscape.tasks.digits import digits_data

Array = NDArray[np.float64]
IMAGES, POINTS, FEWER, SHARE = 500, 51, 5.0, 0.95
VARIABLES = ("loss", "accuracy")
AXES = (np.linspace(-1.0, 1.0, POINTS), np.linspace(-1.0, 1.0, POINTS))


def trained(widths: Sequence[int], rate: float) -> nn.Module:
    """A ReLU net on the digits, trained with Adam to a train loss below 0.01."""
    (images, labels), _ = digits_data()
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(400):
        for rows in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        if functional.cross_entropy(model(images), labels).item() < 0.01:
            return model.eval()
    raise RuntimeError("the net did not train")


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: trained([64, 64, 64, 10], 1e-3),
    "cnn": digits_model,
    "deep": lambda: trained([64] + [32] * 12 + [10], 5e-4),
}


def direction(weights: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Gaussian, each filter (row) as long as the weights' one; zero for biases."""
    made = {}
    for name, weight in weights.items():
        drawn = torch.randn(weight.shape, generator=generator)
        lengths = weight.flatten(min(1, weight.ndim - 1)).norm(dim=-1, keepdim=True)
        rows = drawn.flatten(min(1, weight.ndim - 1))
        scaled = rows * (lengths / rows.norm(dim=-1, keepdim=True))
        made[name] = scaled.view_as(weight) if weight.ndim > 1 else torch.zeros_like(weight)
    return made


def dense(model: nn.Module, seed: int) -> Array:  # (2, 51, 51)
    """Loss and accuracy at every point of the plane of a seed."""
    images, labels = (part[:IMAGES] for part in digits_data()[0])
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    first, second = direction(weights, generator), direction(weights, generator)

    def at(point: Tensor) -> Tensor:
        moved = {
            name: weight + point[0] * first[name] + point[1] * second[name]
            for name, weight in weights.items()
        }
        outputs = functional_call(model, moved, (images,))
        loss = functional.cross_entropy(outputs, labels)
        return torch.stack([loss, (outputs.argmax(1) == labels).to(loss.dtype).mean()])

    points = torch.tensor(np.stack(np.meshgrid(*AXES, indexing="ij"), -1), dtype=torch.float32)
    with torch.no_grad():
        found = vmap(at, chunk_size=16)(points.reshape(-1, 2))
    return found.double().T.reshape(2, POINTS, POINTS).numpy()


def kept(net: str, planes: int, cache: Path) -> list[Array]:
    """The dense planes of a net, computed where the cache has none."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = [cache / f"{net}-{seed}.npy" for seed in range(planes)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.exists()]
    model = NETS[net]() if missing else nn.Identity()
    for seed, path in missing:
        with console.status(f"{net}: plane {seed + 1} of {planes}"):
            np.save(path, dense(model, seed))
    return [np.load(path) for path in paths]


def against(surface: Array, tolerance: Sequence[float], scale: Any) -> tuple[Refined, Array]:
    """A refined surface, and the true largest error of each variable as a share of its range."""

    def looked_up(points: Array) -> Array:
        rows, columns = np.round((points.T + 1) / 2 * (POINTS - 1)).astype(int)
        return surface[:, rows, columns].T

    found = refine(looked_up, AXES, tolerance, scale=scale)
    logs = [one == "log" for one in np.broadcast_to(scale, len(surface))]
    true, ours = (
        np.stack([np.log(one) if log else one for one, log in zip(values, logs, strict=True)])
        for values in (surface, found.values)
    )
    axes = (1, 2)
    return found, np.abs(ours - true).max(axis=axes) / np.ptp(true, axis=axes)


def studied(
    surfaces: Sequence[Array], tolerance: Sequence[float], scale: Any = "linear"
) -> dict[str, Any]:
    """Errors and evaluations over many surfaces."""
    start = time.perf_counter()
    pairs = [against(surface, tolerance, scale) for surface in surfaces]
    seconds = (time.perf_counter() - start) / len(surfaces)
    evaluations = np.array([found.evaluations for found, _ in pairs])
    errors = np.stack([errors for _, errors in pairs])  # (planes, V)
    reported = np.stack([found.error for found, _ in pairs])
    within = (errors <= np.array(tolerance)).all(1)
    wrong = ~within & (reported <= np.array(tolerance)).all(1)
    return {
        "surfaces": len(surfaces),
        "within": float(within.mean()),
        "outside_and_not_said": float(wrong.mean()),
        "dense": float(np.mean([found.dense for found, _ in pairs])),
        "mean_evaluations": float(evaluations.mean()),
        "largest_evaluations": int(evaluations.max()),
        "times_fewer": float(POINTS**2 / evaluations.mean()),
        "seconds_of_refinement": seconds,
        "variables": {
            name: {
                "median_error": float(np.median(errors[:, index])),
                "error_of_95_percent": float(np.quantile(errors[:, index], SHARE)),
                "largest_error": float(errors[:, index].max()),
                "estimate_above_error": float((reported >= errors)[:, index].mean()),
                "errors": errors[:, index].tolist(),
                "reported": reported[:, index].tolist(),
            }
            for index, name in enumerate(VARIABLES[: errors.shape[1]])
        },
        "evaluations": evaluations.tolist(),
    }


def spiked(count: int, width: float, seed: int) -> Array:  # (1, 51, 51)
    """A bowl of range 1 with Gaussian spikes of height 1; widths in steps of the grid."""
    source = np.random.default_rng(seed)
    x, y = np.meshgrid(*AXES, indexing="ij")
    surface = (x**2 + y**2) / 2
    for centre in source.uniform(-1, 1, (count, 2)):
        squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        surface = surface + np.exp(-squared / 2 / (width * 2 / (POINTS - 1)) ** 2)
    return surface[None]


def adversarial(tolerance: float, seeds: int) -> dict[str, Any]:
    """Surfaces that no grid can foresee: noise at every point, and spikes."""
    noise = [np.random.default_rng(seed).uniform(size=(1, POINTS, POINTS)) for seed in range(seeds)]
    body = {"noise": studied(noise, [tolerance])}
    for width in (0.5, 1.0, 2.0):
        for count in (1, 3, 10, 30, 100):
            surfaces = [spiked(count, width, seed) for seed in range(seeds)]
            body[f"{count} spikes of width {width:g}"] = studied(surfaces, [tolerance])
    return body


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--planes", type=int, default=40)
    parser.add_argument("--tolerance", type=float, default=0.005)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "landscape-planes"
    )
    parser.add_argument("--out", type=Path, default=RECORDS / "refinement.json")
    chosen = parser.parse_args()
    tolerance = chosen.tolerance
    body: dict[str, Any] = {"tolerance": tolerance, "points": POINTS**2, "nets": {}}
    shown = table(
        f"{chosen.planes} planes, tolerance {tolerance}",
        "net", "within", "median error", "largest", "estimate ≥ error", "evaluations", "fewer",
        "met",
    )  # fmt: skip
    for net in NETS:
        surfaces = kept(net, chosen.planes, chosen.cache)
        found = body["nets"][net] = {
            "loss": studied(surfaces, [tolerance, np.inf]),
            "loss, logarithm": studied(surfaces, [tolerance, np.inf], ["log", "linear"]),
            "loss and accuracy": studied(surfaces, [tolerance, tolerance]),
        }
        one = found["loss"]
        one["met"] = bool(one["within"] >= SHARE and one["times_fewer"] >= FEWER)
        for case, row in found.items():
            loss = row["variables"]["loss"]
            shown.add_row(
                f"{net}: {case}", f"{row['within']:.3f}", f"{loss['median_error']:.4f}",
                f"{loss['largest_error']:.4f}", f"{loss['estimate_above_error']:.3f}",
                f"{row['mean_evaluations']:.0f}", f"{row['times_fewer']:.1f}",
                ("yes" if row["met"] else "no") if "met" in row else "",
            )  # fmt: skip
    console.print(shown)
    body["adversarial"] = adversarial(tolerance, chosen.planes)
    shown = table(
        "No grid can foresee them", "surface", "dense", "within", "wrong, not said", "evaluations"
    )
    for name, row in body["adversarial"].items():
        numbers = (f"{row[key]:.3f}" for key in ("dense", "within", "outside_and_not_said"))
        shown.add_row(name, *numbers, f"{row['mean_evaluations']:.0f}")
    console.print(shown)
    write_record(chosen.out, body)


if __name__ == "__main__":
    main()
