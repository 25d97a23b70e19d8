"""Draws the gallery: every kind of picture, from digits nets trained here, in a minute or two.

Writes docs/gallery.md and its figures (PNG at twice the resolution of print) under docs/gallery/.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

import landscape
from landscape import Probe, viz
from landscape.slices import (
    align,
    bezier,
    eigenvectors,
    evaluate_slice,
    interpolate,
    orthogonalised,
    persistence,
    plane,
    principal_directions,
    random,
)
from landscape.tasks import DigitsNet, digits_data, train_digits

DOCS = Path(__file__).resolve().parents[1] / "docs"
console = Console()
State = dict[str, Tensor]


def run_of_checkpoints(epochs: int = 12) -> tuple[nn.Module, list[State]]:
    """A digits net and its weights after every epoch, the first before training."""
    (images, labels), _ = digits_data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = DigitsNet()
    order = torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def copied() -> State:
        return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    states = [copied()]
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=order).split(50):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        states.append(copied())
    return model.eval(), states


def main() -> None:  # noqa: PLR0915 - one picture after the other
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=51)
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    folder = chosen.out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[tuple[str, str, str]] = []

    def picture(name: str, title: str, text: str, draw: Callable[[], Any]) -> None:
        with console.status(name):
            draw().save(folder / f"{name}.png")
        entries.append((name, title, text))

    train, test = ([part] for part in digits_data())
    one, other = train_digits(0), train_digits(1)
    probe = Probe(one, "cross_entropy", train)
    axes = orthogonalised([random(probe, 0), random(probe, 1)])
    settings: dict[str, Any] = {
        "points": chosen.points,
        "tolerance": 0.005,
        "scale": "log",
        "test": test,
    }

    line = evaluate_slice(probe, axes[0], points=chosen.points, test=test)
    picture(
        "line",
        "A line",
        "Loss and accuracy along a filter-normalised random direction; bands are 95 % intervals "
        "over the examples. `landscape slice --dimensions 1`",
        lambda: viz.plot_slice(line),
    )
    flat = evaluate_slice(probe, axes, **settings)
    picture(
        "plane",
        "A plane",
        "Two filter-normalised random directions at a right angle, most points interpolated "
        "within a measured error. `landscape slice --tolerance 0.005 --scale log`",
        lambda: viz.plot_slice(flat),
    )
    picture(
        "surface",
        "The same as a surface",
        "`landscape.viz.plot_slice_surface`; `write_slice_html` makes one that can be turned.",
        lambda: viz.plot_slice_surface(flat),
    )
    directions = eigenvectors(probe, 2)
    reach = (0.5 / directions[1].info["curvature"]) ** 0.5
    curved = evaluate_slice(probe, directions, span=(-reach, reach), **settings)
    picture(
        "eigen",
        "Top eigenvectors of the Hessian",
        "Dashed: the parabola of the two largest eigenvalues. `landscape slice --directions eigen`",
        lambda: viz.plot_slice(curved, quadratic=True),
    )
    model, states = run_of_checkpoints()
    trained = Probe(model, "cross_entropy", train)
    names = [str(number) for number in range(len(states))]
    principal, seen = principal_directions(trained, states, names)
    span = [
        (float(c.min() - 0.15 * (c.max() - c.min())), float(c.max() + 0.15 * (c.max() - c.min())))
        for c in seen.coordinates.T
    ]
    path = evaluate_slice(trained, principal, span=span, trajectory=seen, **settings)
    picture(
        "trajectory",
        "A training run",
        "In the plane of its two principal directions through the end, with their shares of the "
        "squared distances; colour tells how far off the plane a checkpoint is. "
        "`landscape slice --directions pca:run/epoch*.pt`",
        lambda: viz.plot_slice(path),
    )
    two = train_digits(2).state_dict()
    triple, lie = plane(probe, dict(other.state_dict()), two, ["seed 1", "seed 2"])
    width = float(lie.coordinates.max())
    basins = evaluate_slice(
        probe, triple, span=(-0.2 * width, 1.2 * width), trajectory=lie, **settings
    )
    picture(
        "three",
        "Three checkpoints",
        "The plane through three nets trained from different seeds. "
        "`landscape slice --directions plane:one.pt,two.pt`",
        lambda: viz.plot_slice(basins),
    )
    matched = align(probe, other).state
    straight = interpolate(probe, other, points=41)
    aligned = interpolate(probe, matched, points=41)
    bent = bezier(probe, other, steps=300)
    picture(
        "paths",
        "Between two nets",
        "From seed 0 to seed 1: on the straight line, after hidden units are permuted to match, "
        "and on a trained Bézier curve. `landscape.slices.interpolate`, `align`, `bezier`",
        lambda: viz.plot_slice_comparison(
            {"straight": straight, "aligned": aligned, "curve": bent.path}, variable="train_loss"
        ),
    )
    models = {"seed 0": probe, "seed 1": Probe(other, "cross_entropy", train)}
    several = {}
    for name, own in models.items():
        both = orthogonalised([random(own, 0), random(own, 1)])
        several[name] = evaluate_slice(
            own, both, points=chosen.points, tolerance=0.005, scale="log"
        )
    picture(
        "comparison",
        "Several models, one scale",
        "`landscape.viz.plot_slice_comparison`",
        lambda: viz.plot_slice_comparison(several),
    )
    bars = persistence(basins.train_loss.values).barcode
    picture(
        "barcode",
        "Basins as a barcode",
        "Sublevel persistence of the plane through three checkpoints: a bar begins at a minimum "
        "and ends at the saddle where it joins a deeper one. `landscape.slices.persistence`",
        lambda: viz.plot_barcode(bars),
    )
    spectrum = landscape.measures.get("hessian-spectral-density").compute(probe)

    def density() -> Any:
        display = viz.plot_spectral_density(spectrum)

        class Saved:
            def save(self, file: Path) -> None:
                figure = display.ax_.get_figure(root=True)
                if figure is not None:
                    figure.savefig(file, dpi=200, metadata={"Software": None})

        return Saved()

    picture(
        "spectrum",
        "The spectrum of the Hessian",
        "`landscape audit`, `landscape.viz.plot_spectral_density`",
        density,
    )
    write_page(chosen.out / "gallery.md", entries)
    console.print(f"written: {chosen.out / 'gallery.md'}")


def write_page(page: Path, entries: list[tuple[str, str, str]]) -> None:
    """The gallery as Markdown."""
    lines = [
        "# Gallery",
        "",
        "Made by `python examples/gallery.py`; all nets are digits nets of 3,658 parameters.",
    ]
    for name, title, text in entries:
        lines += ["", f"## {title}", "", text, "", f"![{title}](gallery/{name}.png)"]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
