"""Coverage of spectral intervals, and of the band of the density, on spectra of many shapes.

Dense float32 matrices with given eigenvalues and random eigenvectors, those with tight clusters
above all, where a few probes see one bulk and their scatter is easily far too small by chance.

1. Intervals: the share of seeds whose 95 % interval holds the truth, for the budgets of the presets
   quick and standard, and the median half-width over the 95 % quantile of the errors, which is the
   narrowest half-width that would do.
2. Density: the share of the points of the default grid and smoothing at which the band holds the
   exact smoothed density, where that is above the peak of one eigenvalue, and where it is above
   30 % of its maximum; the median half-width as a share of the density there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RECORDS, REQUEST, console, table, write_record
from numpy.typing import NDArray

from landscape.evidence import SpectrumRequest
from landscape.evidence.lanczos_runs import compute_spectrum
from landscape.linalg import MatrixOperator
from landscape.measures import (
    EffectiveDimension,
    HessianFrobenius,
    HessianSpectralDensity,
    HessianTrace,
    RenyiSharpness,
)

Array = NDArray[np.float64]

SIZE = 400
BUDGETS = {"quick": {"steps": 30, "probes": 5, "probe_steps": 12}, "standard": REQUEST}
ALPHAS = (0.5, 1.5, 2.0)


def spectra() -> Iterator[tuple[str, Array]]:
    """Name and eigenvalues."""
    rng = np.random.default_rng(0)

    def clusters(*parts: tuple[float, int], width: float = 1e-3) -> Array:
        return np.concatenate([c * (1 + width * rng.normal(size=n)) for c, n in parts])

    outliers = np.array([100.0, 50.0, 20.0])
    for width in (0.0, 1e-5, 1e-3):
        bulk = clusters((1.0, SIZE - 3), width=width)
        yield f"outliers and one cluster of width {width:g}", np.concatenate([outliers, bulk])
    groups = ((100.0, 10), (50.0, 10), (-3.0, 10), (1.0, 270), (0.01, 100))
    yield "five clusters of very different size", clusters(*groups, width=1e-5)
    yield "eight clusters", clusters(*((float(c), 50) for c in range(1, 9)))
    yield (
        "large cluster and a bulk",
        np.concatenate([clusters((10.0, 80)), 0.01 * rng.normal(size=SIZE - 80)]),
    )
    yield (
        "three clusters and zeros",
        np.concatenate([clusters((10.0, 12), (1.0, 12), (0.1, 12)), np.zeros(SIZE - 36)]),
    )
    for power in (1, 2):
        yield f"power law 1/i^{power}", np.arange(1.0, SIZE + 1) ** -power
    yield "one outlier", np.append(0.1 * rng.normal(size=SIZE - 1), 50.0)
    yield "uniform", rng.uniform(-1, 1, SIZE)
    dense = rng.normal(size=(SIZE, SIZE)) / np.sqrt(2 * SIZE)
    yield "semicircle", np.linalg.eigvalsh(dense + dense.T)


def matrix_of(values: Array) -> torch.Tensor:
    """A dense matrix in float32 with these eigenvalues."""
    source = torch.Generator().manual_seed(1)
    square = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=source)
    vectors = torch.linalg.qr(square).Q
    return ((vectors * torch.as_tensor(values)) @ vectors.T).float()


def truths(values: Array) -> dict[str, float]:
    """Every quantity from the eigenvalues."""
    sizes = np.abs(values)
    found = {
        "trace": float(values.sum()),
        "Frobenius": float(np.sqrt((values**2).sum())),
        "N(z)": float((sizes / (sizes + 1)).sum()),
    }
    for alpha in ALPHAS:
        ratio = np.log((sizes**alpha).sum()) - alpha * np.log(sizes.sum())
        found[f"Rényi {alpha:g}"] = float(ratio / (alpha - 1))
    return found


def measured(matrix: torch.Tensor, budget: dict[str, int], seed: int) -> dict[str, Any]:
    """Value and interval of every quantity, and the density."""
    request = SpectrumRequest(seed=seed, **budget)
    spectrum = compute_spectrum(MatrixOperator(matrix), request, layers={})
    estimates = {
        "trace": HessianTrace().of_spectrum(spectrum),
        "Frobenius": HessianFrobenius().of_spectrum(spectrum),
        "N(z)": EffectiveDimension().of_spectrum(spectrum),
        **{f"Rényi {a:g}": RenyiSharpness(alpha=a).of_spectrum(spectrum) for a in ALPHAS},
    }
    return {
        **{name: (each.value, *each.interval) for name, each in estimates.items()},
        "density": HessianSpectralDensity().of_spectrum(spectrum).diagnostics,
    }


def band(values: Array, found: dict[str, Any]) -> tuple[float, float, float]:
    """Share held where the density is above one eigenvalue, where it is high, and the width."""
    grid, width = np.array(found["grid"]), found["width"]
    peak = 1 / (len(values) * width * np.sqrt(2 * np.pi))
    truth = peak * np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(1)
    low, high = np.array(found["density_low"]), np.array(found["density_high"])
    slack = 1e-6 * truth.max()
    held = (low - slack <= truth) & (truth <= high + slack)
    many, top = truth > peak, truth > 0.3 * truth.max()
    relative = (high - low)[top] / (2 * truth[top])
    return float(held[many].mean()), float(held[top].mean()), float(np.median(relative))


def study(seeds: int) -> list[dict[str, Any]]:
    """One row a spectrum and budget."""
    rows = []
    for name, values in spectra():
        matrix, truth = matrix_of(values), truths(values)
        for budget, numbers in BUDGETS.items():
            found = [measured(matrix, numbers, seed) for seed in range(seeds)]
            row: dict[str, Any] = {"spectrum": name, "budget": budget, "held": {}, "width": {}}
            for quantity, exact in truth.items():
                value, low, high = np.array([each[quantity] for each in found]).T
                needed = float(np.quantile(np.abs(value - exact), 0.95))
                row["held"][quantity] = float(np.mean((low <= exact) & (exact <= high)))
                row["width"][quantity] = float(np.median(high - low)) / 2 / (needed or np.nan)
            bands = np.mean([band(values, each["density"]) for each in found], axis=0)
            row["density"] = dict(zip(("held", "held_where_high", "width"), bands, strict=True))
            rows.append(row)
        console.print(f"done: {name}")
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the shares held, in percent, and the median of the half-widths over the needed."""
    for budget in BUDGETS:
        mine = [row for row in rows if row["budget"] == budget]
        quantities = list(mine[0]["held"])
        shown = table(f"held, %, {budget}", "spectrum", *quantities, "width", "density")
        for row in mine:
            cells = [f"{100 * row['held'][quantity]:.0f}" for quantity in quantities]
            width = np.nanmedian(list(row["width"].values()))
            density = row["density"]["held"]
            shown.add_row(row["spectrum"], *cells, f"{width:.1f}", f"{100 * density:.0f}")
        console.print(shown)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RECORDS / "spectral_coverage.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows = study(options.seeds)
    show(rows)
    write_record(
        options.out,
        {
            "what": "coverage of spectral intervals and of the band of the density",
            "seeds": options.seeds,
            "size": SIZE,
            "seconds": time.perf_counter() - start,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
