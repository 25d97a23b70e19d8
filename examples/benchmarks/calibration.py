"""Accuracy and coverage of the spectral measures on the digits checkpoint, standard preset.

Three parts:

1. Accuracy: the real float32 probe, 20 seeds, against the dense float64 Hessian: relative error of
   the largest eigenvalue, rms relative error of trace and squared Frobenius norm, and the products
   spent, counted by the probe's meter.
2. Coverage: how often the 95 % intervals contain the truth, over 200 seeds. The same algorithm runs
   on the dense matrix, which gives the same products quicker. Also the traces of all layers.
3. Place: the quadrature of |x|^alpha lies between a Gauss and a Gauss-Radau rule, and the place of
   the truth between them is extrapolated (``landscape.linalg.quadrature``). The error of that
   place, as a share of the bracket, over synthetic spectra; it supports the half-width of the
   systematic error, ``_PLACE_ERROR`` there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import (
    RECORDS,
    REQUEST,
    console,
    covered,
    dense_hessian,
    digits_probe,
    rms,
    table,
    write_record,
)
from numpy.typing import NDArray

from landscape.evidence import Spectrum, SpectrumRequest
from landscape.evidence.lanczos_runs import compute_spectrum
from landscape.evidence.spectrum import layer_slices
from landscape.linalg import MatrixOperator, lanczos_chains, quadrature
from landscape.measures import HessianFrobenius, HessianTrace, RenyiSharpness
from landscape.measures.spectral import of_mean

Array = NDArray[np.float64]

ALPHAS = (0.5, 1.5, 2.0)
SIZE = 3000
STEPS = (20, 24, 30, 60)
POWERS = (0.5, 1.0, 1.5)


def truths(matrix: torch.Tensor, layers: dict[str, list[slice]]) -> dict[str, float]:
    """Every quantity from the dense Hessian."""
    eigenvalues = np.linalg.eigvalsh(matrix.numpy())
    magnitudes = np.abs(eigenvalues)
    found = {
        "largest eigenvalue": float(eigenvalues[-1]),
        "trace": float(eigenvalues.sum()),
        "squared Frobenius norm": float((eigenvalues**2).sum()),
    }
    for alpha in ALPHAS:
        ratio = np.log((magnitudes**alpha).sum()) - alpha * np.log(magnitudes.sum())
        found[f"Rényi sharpness {alpha:g}"] = float(ratio / (alpha - 1))
    diagonal = matrix.diagonal()
    for layer, places in layers.items():
        found[f"trace of {layer}"] = float(sum(diagonal[place].sum() for place in places))
    return found


def intervals(spectrum: Spectrum) -> dict[str, tuple[float, tuple[float, float]]]:
    """Value and 95 % interval of every quantity, as the measures give them."""
    squared = HessianFrobenius().of_spectrum(spectrum).diagnostics
    estimates = {"trace": HessianTrace().of_spectrum(spectrum)}
    for alpha in ALPHAS:
        name = f"Rényi sharpness {alpha:g}"
        estimates[name] = RenyiSharpness(alpha=alpha).of_spectrum(spectrum)
    for layer, mean in spectrum.layer_traces().items():
        estimates[f"trace of {layer}"] = of_mean(mean)
    found = {name: (estimate.value, estimate.interval) for name, estimate in estimates.items()}
    low, high = squared["squared_interval"]
    found["squared Frobenius norm"] = (squared["squared"], (low, high))
    return found


def accuracy(truth: dict[str, float], seeds: int) -> dict[str, Any]:
    """Errors and products of the real float32 probe."""
    probe = digits_probe()
    targets = {
        "largest eigenvalue": 1e-5,
        "trace": 0.02,
        "squared Frobenius norm": 0.02,
    }
    errors: dict[str, list[float]] = {name: [] for name in targets}
    products, seconds = [], []
    for seed in range(seeds):
        with probe.meter() as cost:
            spectrum = SpectrumRequest(seed=seed, **REQUEST).compute(probe)
        products.append(cost.products)
        seconds.append(cost.seconds)
        values = {
            "largest eigenvalue": float(spectrum.values[-1]),
            "trace": spectrum.trace().value,
            "squared Frobenius norm": spectrum.frobenius_squared().value,
        }
        for name, value in values.items():
            errors[name].append(value / truth[name] - 1)
    rows = {
        name: {
            "rms_relative_error": rms(found),
            "largest_relative_error": float(np.abs(found).max()),
            "target": targets[name],
            # The eigenvalue within the target for every seed; the estimates in the rms.
            "met": (float(np.abs(found).max()) if name == "largest eigenvalue" else rms(found))
            <= targets[name],
            "relative_errors": found,
        }
        for name, found in errors.items()
    }
    return {
        "seeds": seeds,
        "products": max(products),
        "products_target": 300,
        "products_met": max(products) <= 300,
        "median_seconds": float(np.median(seconds)),
        "quantities": rows,
    }


_shared: dict[str, Any] = {}


def _start_worker(layers: dict[str, list[slice]]) -> None:
    torch.set_num_threads(1)
    _shared.update(operator=MatrixOperator(dense_hessian(digits_probe())), layers=layers)


def _one_seed(seed: int) -> dict[str, tuple[float, tuple[float, float]]]:
    request = SpectrumRequest(seed=seed, **REQUEST)
    spectrum = compute_spectrum(_shared["operator"], request, layers=_shared["layers"])
    return intervals(spectrum)


def coverage(
    truth: dict[str, float], layers: dict[str, list[slice]], seeds: int, workers: int
) -> dict[str, Any]:
    """Share of seeds whose interval contains the truth, on the dense matrix."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_start_worker, initargs=(layers,)) as pool:
        found = []
        for number, one in enumerate(pool.imap(_one_seed, range(seeds)), start=1):
            found.append(one)
            if number % 20 == 0:
                console.print(f"coverage: {number} of {seeds} seeds")
    rows = {
        name: covered(truth[name], *zip(*(one[name] for one in found), strict=True))
        for name in found[0]
    }
    return {"seeds": seeds, "quantities": rows}


def spectra(digits: Array) -> Iterator[tuple[str, Array]]:
    """Name and eigenvalues of every synthetic spectrum, and the bulk of the digits Hessian."""
    grid = (np.arange(SIZE) + 0.5) / SIZE
    semicircle = _semicircle(grid)
    yield "uniform on [-1, 1]", 2 * grid - 1
    yield "uniform on [0, 1]", grid
    yield "semicircle", semicircle
    yield "semicircle shifted by 0.5", semicircle + 0.5
    for decades in (4, 8):
        magnitudes = 10.0 ** (-decades * grid)
        yield f"log-uniform, {decades} decades, positive", magnitudes
        signs = np.where(np.arange(SIZE) % 2, 1.0, -1.0)
        yield f"log-uniform, {decades} decades, both signs", signs * magnitudes
    half = _semicircle((np.arange(SIZE // 2) + 0.5) / (SIZE // 2))
    yield "half zeros, half semicircle", np.concatenate([np.zeros(SIZE // 2), half])
    tenth = (np.arange(SIZE // 10) + 0.5) / (SIZE // 10)
    for decades in (4, 8):
        few = 10.0 ** (-decades * tenth)
        name = f"90 % zeros, log-uniform, {decades} decades"
        yield name, np.concatenate([np.zeros(SIZE - len(few)), few])
    for power in (1, 2):
        law = np.arange(1.0, SIZE + 1) ** -power
        yield f"power law 1/i^{power}, 20 largest removed", law[20:]
    yield "digits Hessian, above 0.1 removed", digits[np.abs(digits) <= 0.1]


class Diagonal:
    """A diagonal matrix as an operator."""

    def __init__(self, entries: torch.Tensor) -> None:
        self._entries = entries
        self.size, self.dtype, self.device = len(entries), entries.dtype, entries.device

    def matmat(self, vectors: torch.Tensor) -> torch.Tensor:
        """Products with K vectors, (K, P) -> (K, P)."""
        return vectors * self._entries


def _semicircle(grid: Array) -> Array:
    """Quantiles of the semicircle law on [-1, 1]."""
    points = np.linspace(-1, 1, 20001)
    cumulated = 0.5 + (points * np.sqrt(1 - points**2) + np.arcsin(points)) / np.pi
    return np.interp(grid, cumulated, points)


def places(digits: Array, repeats: int) -> dict[str, Any]:
    """Error of the extrapolated place between the rules, by spectrum, power and steps.

    As in ``absolute_sum`` the place comes from the mean of 8 chains. The truth is that of the same
    random vectors, so that no sampling error enters.
    """
    rows = []
    for name, eigenvalues in spectra(digits):
        operator = Diagonal(torch.from_numpy(eigenvalues.copy()))
        for repeat in range(repeats):
            generator = torch.Generator().manual_seed(repeat)
            # Gaussian, since on a diagonal matrix signs would weight all eigenvalues alike.
            starts = torch.randn(8, operator.size, dtype=torch.float64, generator=generator)
            weights = (starts.numpy() ** 2).mean(0)
            chains = lanczos_chains(operator, starts, max(STEPS))
            for power in POWERS:
                truth = float(weights @ np.abs(eigenvalues) ** power)
                rows.extend(
                    {"spectrum": name, "repeat": repeat, **row}
                    for row in _place_errors(chains, power, truth)
                )
        console.print(f"place: {name}")
    errors = np.abs([row["error"] for row in rows if row["error"] is not None])
    limit = quadrature._PLACE_ERROR
    return {
        "half_width": limit,
        "repeats": repeats,
        "cases": len(errors),
        "exact_cases": len(rows) - len(errors),
        "largest_error": float(errors.max()),
        "share_within": float(np.mean(errors <= limit)),
        "rms": rms(errors),
        "rows": rows,
    }


def _place_errors(chains: Any, power: float, truth: float) -> Iterator[dict[str, Any]]:
    def function(values: Array) -> Array:
        return values**power

    signed = quadrature._has_negative(chains, np.zeros(0))
    gauss_rows, radau_rows = zip(
        *(quadrature._rules(chain, function, signed=signed) for chain in chains), strict=True
    )
    for steps in STEPS:
        # A chain of n steps has the rules of 1 ... (2 n - 1) // 4 nodes.
        length = max((2 * steps - 1) // (4 if signed else 2), 1)
        gauss = np.mean([_padded(row, length) for row in gauss_rows], axis=0)
        radau = np.mean([_padded(row, length) for row in radau_rows], axis=0)
        width = gauss[-1] - radau[-1]
        place, _ = quadrature._place(gauss, radau)
        exact = abs(width) <= 1e-9 * abs(truth)
        yield {
            "power": power,
            "steps": steps,
            "place": place,
            "relative_width": float(width / truth),
            "error": None if exact else float(place - (truth - radau[-1]) / width),
        }


def _padded(row: Array, length: int) -> Array:
    return np.pad(row[:length], (0, max(length - len(row), 0)), mode="edge")


def show(record: dict[str, Any]) -> None:
    """Prints the three parts."""
    if "accuracy" in record:
        found = record["accuracy"]
        rows = table(
            f"accuracy, float32 probe, {found['seeds']} seeds, {found['products']:.0f} products",
            "quantity",
            "rms error",
            "largest error",
            "target",
            "met",
        )
        for name, row in found["quantities"].items():
            rows.add_row(
                name,
                f"{row['rms_relative_error']:.2e}",
                f"{row['largest_relative_error']:.2e}",
                f"{row['target']:g}",
                "yes" if row["met"] else "NO",
            )
        console.print(rows)
    if "coverage" in record:
        found = record["coverage"]
        rows = table(
            f"coverage of 95 % intervals, {found['seeds']} seeds",
            "quantity",
            "covered",
            "truth",
            "bias",
            "rms error",
            "interval width",
            "≥ 90 %",
        )
        for name, row in found["quantities"].items():
            numbers = (row[key] for key in ("truth", "bias", "rms_error", "median_interval_width"))
            rows.add_row(
                name,
                f"{100 * row['coverage']:.1f} %",
                *(f"{number:.4g}" for number in numbers),
                "yes" if row["met"] else "NO",
            )
        console.print(rows)
    if "place" in record:
        show_places(record["place"])


def show_places(found: dict[str, Any]) -> None:
    """Prints the errors of the place by spectrum and power, the worst over steps and repeats."""
    rows = table(
        "largest |error| of the place as a share of the bracket / of the value",
        "spectrum",
        *(f"|x|^{power:g}" for power in POWERS),
    )
    for name in dict.fromkeys(row["spectrum"] for row in found["rows"]):
        cells = []
        for power in POWERS:
            chosen = [
                row
                for row in found["rows"]
                if (row["spectrum"], row["power"]) == (name, power) and row["error"] is not None
            ]
            share = max((abs(row["error"]) for row in chosen), default=0.0)
            value = max((abs(row["error"] * row["relative_width"]) for row in chosen), default=0.0)
            cells.append(f"{share:.2f} / {value:.0e}" if chosen else "exact")
        rows.add_row(name, *cells)
    console.print(rows)
    console.print(
        f"{found['cases']} cases: {100 * found['share_within']:.1f} % within "
        f"{found['half_width']}, largest {found['largest_error']:.2f}, rms {found['rms']:.3f}"
    )


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, help="seeds of the coverage")
    parser.add_argument("--probe-seeds", type=int, default=20, help="seeds of the float32 probe")
    parser.add_argument("--repeats", type=int, default=1, help="repeats of every synthetic case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=["accuracy", "coverage", "place"])
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RECORDS / "calibration.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # one is as quick here: the net is small
    start = time.perf_counter()
    probe = digits_probe()
    matrix = dense_hessian(probe)
    layers = layer_slices(probe)
    truth = truths(matrix, layers)
    record: dict[str, Any] = {
        "what": "accuracy and interval coverage on the digits checkpoint",
        "request": REQUEST,
        "truth": truth,
    }
    if "place" in options.parts:
        record["place"] = places(np.linalg.eigvalsh(matrix.numpy()), options.repeats)
    if "coverage" in options.parts:
        record["coverage"] = coverage(truth, layers, options.seeds, options.workers)
    if "accuracy" in options.parts:
        record["accuracy"] = accuracy(truth, options.probe_seeds)
    record["seconds"] = time.perf_counter() - start
    show(record)
    write_record(options.out, record)


if __name__ == "__main__":
    main()
