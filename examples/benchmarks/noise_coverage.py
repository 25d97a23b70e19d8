"""Whether 95 % intervals of the noise measures hold the truth wherever the status is "ok".

Quadratics of several spectra, at their minimum and on a slope, have closed forms for every measure;
the truth on tiny trained nets is the same measure with very many samples, where enough of them
count. Each measure runs with few and with the usual number of samples on many seeds. Counted are
the seeds that call themselves "ok", how many of their intervals hold the truth, and the median
width of those intervals over the needed one, twice the 95 % quantile of the errors of all seeds.

Tilts and inverse temperatures go from where the value is nearly a mean to where it is infinite.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RECORDS, console, table, write_record
from torch import Tensor, nn

import landscape
from landscape.measures import get
from landscape.measures.base import Measure
from landscape.results import Status

SCALES = (0.1, 0.3)
TILTS = (1.0, 5.0, 20.0, 100.0)
#: Of a reference with many samples, below which it is no truth.
LEAST_EFFECTIVE = 2000.0
SPECTRA: dict[str, Tensor] = {
    "one": torch.tensor([4.0]),
    "three": torch.tensor([2.0, 2.0, 2.0]),
    "decaying": 4 / torch.arange(1, 31) ** 2,
    "flat": torch.full((40,), 0.5),
    "saddle": torch.tensor([3.0, 1.0, 0.5, -0.5, -1.0]),
    "maximum": torch.tensor([-4.0, -1.0, -0.2]),
}


@dataclass(frozen=True)
class Case:
    """A probe with the truth of a measure at a noise scale."""

    name: str
    probe: landscape.Probe
    truth: Callable[[Measure], float]


@dataclass
class Counted:
    """What the seeds gave for one measure in one case."""

    truth: float
    values: list[float] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    ok: list[bool] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Seeds, those that are ok, their hits, and the width of their intervals."""
        low, high = np.array(self.intervals).T
        ok = np.array(self.ok)
        held = (low <= self.truth) & (self.truth <= high)
        widths = (high - low)[ok]
        width = None
        if len(widths) and math.isfinite(self.truth):
            errors = np.abs(np.array(self.values) - self.truth)
            width = float(np.median(widths) / (2 * np.quantile(errors, 0.95)))
        return {
            "truth": self.truth if math.isfinite(self.truth) else None,
            "seeds": len(ok),
            "ok": int(ok.sum()),
            "held": int((held & ok).sum()),
            "held_of_all": int(held.sum()),
            "width": width,
        }


class Point(nn.Module):
    """Parameters that are one point."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(weights.clone())

    def forward(self) -> Tensor:
        """The point."""
        return self.w


def measures_at(scale: float, samples: int) -> list[Measure]:
    """Those that are measured."""
    rho, sigma = {"rho": scale, "samples": samples}, {"sigma": scale, "samples": samples}
    return [
        get("average-sharpness", **rho),
        get("adaptive-average-sharpness", **rho),
        get("low-pass-sharpness", **sigma),
        get("noise-stability", **sigma),
        *(get("tilted-sharpness", t=t, **rho) for t in TILTS),
        *(get("local-entropy", beta=beta, **sigma) for beta in TILTS),
    ]


def quadratics() -> Iterator[Case]:
    """L = 1 + s'w + w'Hw/2 at w = 1, that is, with slope s + H there, for diagonal H."""
    for name, spectrum in SPECTRA.items():
        for slope in (0.0, 0.5):
            values = spectrum.double()
            first = torch.full_like(values, slope) / math.sqrt(len(values))

            def loss(model: nn.Module, batch: Tensor, h: Tensor = values, s: Tensor = first) -> Any:
                away = model() - 1
                return (1 + s @ away + 0.5 * away @ (h * away))[None] + 0 * batch.sum()

            probe = landscape.Probe(
                Point(torch.ones_like(values)), loss, [torch.zeros(1, dtype=torch.float64)]
            )
            h, s = values.numpy(), first.numpy()
            yield Case(
                f"{name}, slope {slope:g}",
                probe,
                lambda measure, h=h, s=s: closed_form(measure, h, s),  # type: ignore[misc]
            )


def closed_form(measure: Measure, h: Any, s: Any) -> float:
    """Of a quadratic with eigenvalues h and slope s along them, whose loss is 1."""
    settings: Any = measure
    variance = settings.radius**2
    rise = float(variance * h.sum() / 2)
    if measure.name == "low-pass-sharpness":
        return 1 + rise
    if measure.name == "noise-stability":
        return float(h.sum())
    if measure.name == "tilted-sharpness":
        return tilted(settings.t, variance, h, s)
    if measure.name == "local-entropy":
        return -settings.beta * (1 + tilted(-settings.beta, variance, h, s))
    return rise  # also where noise is relative, since all weights are 1


def tilted(t: float, variance: float, h: Any, s: Any) -> float:
    """(1/t) log E exp(t (s'u + u'Hu/2)) by completing the square."""
    left = 1 - t * variance * h
    if (left <= 0).any():
        return math.inf
    return float((t * variance * s**2 / left).sum() / 2 - np.log(left).sum() / (2 * t))


def nets(many: int) -> Iterator[Case]:
    """Tiny nets that were trained a little, in float64."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 3, generator=draws, dtype=torch.float64)
    labels = (inputs[:, 0] + 0.5 * inputs[:, 1] > 0).long()
    targets = torch.sin(inputs[:, :1])
    for name, activation, objective in (
        ("tanh, cross-entropy", nn.Tanh(), "cross_entropy"),
        ("ReLU, mean squared error", nn.ReLU(), "mse"),
    ):
        outputs = 2 if objective == "cross_entropy" else 1
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, outputs)).double()
        wanted: Tensor = labels if objective == "cross_entropy" else targets
        criterion = nn.CrossEntropyLoss() if objective == "cross_entropy" else nn.MSELoss()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(200):
            optimiser.zero_grad()
            criterion(model(inputs), wanted).backward()
            optimiser.step()
        probe = landscape.Probe(model, objective, [(inputs, wanted)])
        yield Case(name, probe, lambda measure, probe=probe: by_many(measure, probe, many))  # type: ignore[misc]


def by_many(measure: Measure, probe: landscape.Probe, many: int) -> float:
    """The measure with very many samples; NaN where too few of them count."""
    more = get(measure.name, **{**measure.config, "samples": many})
    result = more.compute(probe, 1_000_003)
    effective = result.diagnostics.get("effective_samples", math.inf)
    return result.value if effective >= LEAST_EFFECTIVE else math.nan


def count(cases: list[Case], seeds: int, samples: tuple[int, ...]) -> dict[str, Any]:
    """Rows by number of samples, measure and case."""
    rows: dict[str, Any] = {}
    for case in cases:
        truths: dict[str, float] = {}
        for number in samples:
            for scale in SCALES:
                for measure in measures_at(scale, number):
                    key = f"{measure.name} {vars(measure)}".replace(f"'samples': {number}", "")
                    if key not in truths:
                        truths[key] = case.truth(measure)
                    if math.isnan(truths[key]):
                        continue
                    found = Counted(truths[key])
                    for seed in range(seeds):
                        result = measure.compute(case.probe, seed)
                        found.values.append(result.value)
                        found.intervals.append(result.interval)
                        found.ok.append(result.status is Status.OK)
                    place = rows.setdefault(str(number), {}).setdefault(measure.name, {})
                    tilt = getattr(measure, "t", getattr(measure, "beta", None))
                    told = f", tilt {tilt:g}" if tilt is not None else ""
                    place[f"{case.name}, noise {scale:g}{told}"] = found.row()
        console.print(case.name)
    return rows


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """Pooled over the cases, by number of samples and measure."""
    return {
        number: {
            name: {
                "ok": sum(row["ok"] for row in cases.values())
                / sum(row["seeds"] for row in cases.values()),
                "held_among_ok": _ratio(cases, "held", "ok"),
                "held_of_all": _ratio(cases, "held_of_all", "seeds"),
                # Over the cases that are mostly ok.
                "width": _median(
                    [row["width"] for row in cases.values() if 2 * row["ok"] > row["seeds"]]
                ),
                "cases": len(cases),
                # Where a twentieth or more of the seeds are ok, and fewer than 90 % of those hold.
                "cases_below": sum(
                    row["ok"] >= row["seeds"] / 20 and row["held"] < 0.9 * row["ok"]
                    for row in cases.values()
                ),
            }
            for name, cases in by_name.items()
        }
        for number, by_name in rows.items()
    }


def _ratio(cases: dict[str, Any], part: str, whole: str) -> float | None:
    among = sum(row[whole] for row in cases.values())
    return sum(row[part] for row in cases.values()) / among if among else None


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def show(found: dict[str, Any]) -> None:
    """Prints the table."""
    columns = ("samples", "ok", "held among ok", "width over needed", "cases", "below 90 %")
    rows = table("95 % intervals of the noise measures", "measure", *columns)
    for number, by_name in found.items():
        for name, row in by_name.items():
            held = row["held_among_ok"]
            rows.add_row(
                name,
                number,
                f"{100 * row['ok']:.0f} %",
                "-" if held is None else f"{100 * held:.1f} %",
                "-" if row["width"] is None else f"{row['width']:.2f}",
                str(row["cases"]),
                str(row["cases_below"]),
            )
    console.print(rows)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--samples", type=int, nargs="+", default=[10, 20, 40, 100])
    parser.add_argument("--many", type=int, default=400_000, help="samples of the truth on nets")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RECORDS / "noise_coverage.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    cases = [*quadratics(), *nets(options.many)]
    rows = count(cases, options.seeds, tuple(options.samples))
    found = summary(rows)
    show(found)
    record = {
        "what": "intervals of the noise measures that hold the truth, among those that are ok",
        "seeds": options.seeds,
        "samples": options.samples,
        "samples_of_the_truth": options.many,
        "seconds": time.perf_counter() - start,
        "summary": found,
        "cases": rows,
    }
    write_record(options.out, record)


if __name__ == "__main__":
    main()
