"""Products and seconds to equal accuracy on the digits checkpoint: landscape against PyHessian.

Ours is one ``SpectrumRequest`` with the budget of the standard preset, whose chains give all
quantities at once. PyHessian's numbers each cost their own products:

- largest eigenvalue: ``eigenvalues(top_n=1)``, power iteration, with its own tolerance and with
  tighter ones;
- trace: ``trace()``, Hutchinson with a stopping rule on the running mean, with its own tolerance,
  and without the rule for growing numbers of probes.

The truth is the dense Hessian in float64. Every setting runs with many seeds; the error is the rms
relative error over seeds. "Equal accuracy" is the first PyHessian setting whose error is not above
ours; its products and seconds are divided by those of our whole request. PyHessian's probes are
independent, so the settings without the rule are read off prefixes of one long run a seed, whose
seconds are shared out by products. Where no setting gets there, the trace is extrapolated by
the 1 / sqrt(probes) law and marked so.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import (
    RECORDS,
    REQUEST,
    console,
    dense_hessian,
    digits_batches,
    digits_model,
    digits_probe,
    rms,
    table,
    write_record,
)
from torch import Tensor, nn

from landscape.evidence import SpectrumRequest

ROUNDING = 1e-6  # smaller relative errors than this are rounding of float32, and count as equal
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
TRACE_PREFIXES = (100, 200, 400, 600)


@dataclass
class Runs:
    """One setting over many seeds."""

    errors: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, error: float, products: float, seconds: float) -> None:
        """One seed."""
        self.errors.append(error)
        self.products.append(products)
        self.seconds.append(seconds)

    def summary(self) -> dict[str, Any]:
        """Error, mean products and median seconds, with the raw errors."""
        return {
            "rms_relative_error": rms(self.errors),
            "products": float(np.mean(self.products)),
            "seconds": float(np.median(self.seconds)),
            "relative_errors": self.errors,
            "products_by_seed": self.products,
            "seconds_by_seed": self.seconds,
        }


class Ours:
    """The shared request on a probe; every quantity is charged with all of its products."""

    def __init__(self, truth: dict[str, float]) -> None:
        self._truth = truth
        self._probe = digits_probe()
        warm_up = torch.ones(REQUEST["probes"], self._probe.size)
        self._probe.hvp(warm_up)  # builds the graphs, chooses loop or batched
        self.runs = {name: Runs() for name in truth}

    def run(self, seed: int) -> None:
        """One seed."""
        with self._probe.meter() as cost:
            spectrum = SpectrumRequest(seed=seed, **REQUEST).compute(self._probe)
        values = {
            "largest eigenvalue": float(spectrum.values[-1]),
            "trace": spectrum.trace().value,
            "squared Frobenius norm": spectrum.frobenius_squared().value,
        }
        for name, value in values.items():
            self.runs[name].add(value / self._truth[name] - 1, cost.products, cost.seconds)


class Peer:
    """PyHessian on both batches, with its products counted."""

    def __init__(self) -> None:
        from pyhessian import hessian

        self.products = 0
        peer = self

        class Counted(hessian):
            def dataloader_hv_product(self, v: list[Tensor]) -> Any:
                peer.products += 1
                return super().dataloader_hv_product(v)

        batches = digits_batches()
        self.hessian = Counted(
            digits_model(), nn.CrossEntropyLoss(), dataloader=batches, cuda=False
        )

    def run(self, call: str, seed: int, **settings: Any) -> tuple[Any, int, float]:
        """Result, products and seconds of one call."""
        torch.manual_seed(seed)
        self.products, start = 0, time.perf_counter()
        result = getattr(self.hessian, call)(**settings)
        return result, self.products, time.perf_counter() - start


class Theirs:
    """Settings of PyHessian by quantity, cheapest first."""

    def __init__(self, truth: dict[str, float], prefixes: list[int]) -> None:
        self._truth = truth
        self._prefixes = prefixes
        self._peer = Peer()
        self.eigen = {f"tol {tol:g}": Runs() for tol in TOLERANCES}
        self.rule = Runs()
        self.probes = {f"{count} probes, no stopping rule": Runs() for count in prefixes}

    @property
    def runs(self) -> dict[str, dict[str, Runs]]:
        """All settings."""
        rule = {"own stopping rule (tol 0.001, maxIter 100)": self.rule}
        return {"largest eigenvalue": self.eigen, "trace": rule | self.probes}

    def run(self, seed: int) -> None:
        """One seed of all settings."""
        largest, trace = self._truth["largest eigenvalue"], self._truth["trace"]
        for tol, runs in zip(TOLERANCES, self.eigen.values(), strict=True):
            found, products, seconds = self._peer.run(
                "eigenvalues", seed, top_n=1, tol=tol, maxIter=100 if tol == TOLERANCES[0] else 1000
            )
            runs.add(found[0][0] / largest - 1, products, seconds)
        samples, products, seconds = self._peer.run("trace", seed)
        self.rule.add(float(np.mean(samples)) / trace - 1, products, seconds)
        samples, products, seconds = self._peer.run(
            "trace", seed, tol=-1.0, maxIter=self._prefixes[-1]
        )
        for count, runs in zip(self._prefixes, self.probes.values(), strict=True):
            error = float(np.mean(samples[:count])) / trace - 1
            runs.add(error, count, seconds * count / products)


def equal(our: dict[str, Any], settings: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """What PyHessian spends for our error, and the ratios to what we spend for everything."""
    target = max(our["rms_relative_error"], ROUNDING)
    for label, row in settings.items():
        if row["rms_relative_error"] <= target:
            found = {"setting": label, "products": row["products"], "seconds": row["seconds"]}
            break
    else:
        label, row = list(settings.items())[-1]
        if name != "trace":
            return {"setting": "not reached", "closest": label}
        more = (row["rms_relative_error"] / target) ** 2
        found = {
            "setting": f"extrapolated from {label}",
            "products": row["products"] * more,
            "seconds": row["seconds"] * more,
        }
    found["products_ratio"] = found["products"] / our["products"]
    found["seconds_ratio"] = found["seconds"] / our["seconds"]
    return found


def show(record: dict[str, Any]) -> None:
    """Prints the comparison."""
    rows = table(
        "digits checkpoint, errors over seeds",
        "quantity and way",
        "rms error",
        "products",
        "seconds",
    )
    for name, our in record["landscape"].items():
        rows.add_row(
            f"{name}: landscape, whole request",
            f"{our['rms_relative_error']:.2e}",
            f"{our['products']:.0f}",
            f"{our['seconds']:.2f}",
        )
        for label, row in record["pyhessian"].get(name, {}).items():
            rows.add_row(
                f"  PyHessian, {label}",
                f"{row['rms_relative_error']:.2e}",
                f"{row['products']:.0f}",
                f"{row['seconds']:.2f}",
            )
    console.print(rows)
    for name, found in record["equal_accuracy"].items():
        if "products_ratio" in found:
            console.print(
                f"{name}: PyHessian needs {found['products_ratio']:.2f} x our products and "
                f"{found['seconds_ratio']:.2f} x our seconds ({found['setting']})"
            )
        else:
            console.print(f"{name}: {found}")
    both = record["all_together"]
    console.print(
        f"all together: {both['products_ratio']:.1f} x our products, "
        f"{both['seconds_ratio']:.1f} x our seconds"
    )


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="seeds of each side")
    parser.add_argument(
        "--probes", type=int, default=TRACE_PREFIXES[-1], help="most probes of PyHessian's trace"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RECORDS / "spectral_audit.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # one is as quick here: the net is small
    eigenvalues = np.linalg.eigvalsh(dense_hessian(digits_probe()).numpy())
    truth = {
        "largest eigenvalue": float(eigenvalues[-1]),
        "trace": float(eigenvalues.sum()),
        "squared Frobenius norm": float((eigenvalues**2).sum()),
    }
    prefixes = [*(p for p in TRACE_PREFIXES if p < options.probes), options.probes]
    our, their = Ours(truth), Theirs(truth, prefixes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        for seed in range(options.seeds):  # in turns, so that a slow machine slows both
            our.run(seed)
            their.run(seed)
            console.print(f"seed {seed + 1} of {options.seeds}")
    record: dict[str, Any] = {
        "what": "products and seconds to equal accuracy on the digits checkpoint",
        "truth": truth,
        "seeds": options.seeds,
        "request": REQUEST,
        "landscape": {name: runs.summary() for name, runs in our.runs.items()},
        "pyhessian": {
            name: {label: runs.summary() for label, runs in settings.items()}
            for name, settings in their.runs.items()
        },
    }
    record["equal_accuracy"] = {
        name: equal(record["landscape"][name], settings, name)
        for name, settings in record["pyhessian"].items()
    }
    reached = [found for found in record["equal_accuracy"].values() if "products_ratio" in found]
    record["all_together"] = {
        key: sum(found[key] for found in reached) for key in ("products_ratio", "seconds_ratio")
    }
    show(record)
    write_record(options.out, record)


if __name__ == "__main__":
    main()
