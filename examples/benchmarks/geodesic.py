"""Geodesic against adaptive sharpness: time of the ascent on a ViT of the size of ViT-tiny.

Twelve layers of width 192 with three heads (5.4 M parameters, 72 pairs of matrices) on random
images of 32 x 32 in patches of 4. Both measures take the same number of steps on the same data, in
one part, on a fresh ``Probe`` that is made before the clock starts; the geodesic one then finds the
heads, factors their Gram matrices in double precision and bends its paths. The contenders take
turns within every round; ratios are taken inside a round and their median is quoted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _common import RECORDS, console, table, write_record
from neighbourhood import against, audited, in_turns
from torch import Tensor, nn

from landscape.measures import Measure, get
from landscape.results import Cost

MOST = 1.5
WIDTH, HEADS, LAYERS, PATCH = 192, 3, 12, 4
NAME = "adaptive"


class VisionTransformer(nn.Module):
    """ViT-tiny for images of 32 x 32."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn((32 // PATCH) ** 2, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores from the mean of the tokens."""
        tokens = self.patches(images).flatten(2).mT + self.positions
        return self.head(self.layers(tokens).mean(1))


def compared(rounds: int, steps: int, images: int, device: str) -> dict[str, Any]:
    """Both metrics against the adaptive ascent."""
    torch.manual_seed(0)
    model = VisionTransformer().to(device).eval()
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(images, 3, 32, 32, generator=source).to(device)
    batches = [(inputs, torch.randint(0, 10, (images,), generator=source).to(device))]
    settings: dict[str, Any] = {"steps": steps, "m": None}
    measures: dict[str, Measure] = {
        NAME: get("adaptive-sharpness", **settings),
        "inv": get("geodesic-sharpness", metric="inv", **settings),
        "mix": get("geodesic-sharpness", metric="mix", **settings),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in measures}
    clocks = {
        name: audited(model, batches, [measure], costs[name]) for name, measure in measures.items()
    }
    seconds = in_turns(clocks, rounds)
    found = {
        name: {
            **against(seconds[name], seconds[NAME], MOST),
            "gradients": costs[name][-1].gradients,
            "forwards": costs[name][-1].forwards,
        }
        for name in measures
        if name != NAME
    }
    size = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": size, "steps": steps, "images": images, "device": device, **found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RECORDS / "geodesic.json")
    chosen = parser.parse_args()
    body = compared(chosen.rounds, chosen.steps, chosen.images, chosen.device)
    shown = table("Geodesic / adaptive ascent", "metric", "ratio", "from", "to", "at most", "met")
    for name in ("inv", "mix"):
        row = body[name]
        ends = (f"{row[key]:.2f}" for key in ("ratio", "lowest_ratio", "highest_ratio"))
        shown.add_row(name, *ends, f"{MOST}", "yes" if row["met"] else "no")
    console.print(shown)
    write_record(chosen.out, body)


if __name__ == "__main__":
    main()
