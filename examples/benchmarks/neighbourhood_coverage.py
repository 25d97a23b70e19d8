"""Coverage of the 95 % intervals of the noise measures on the digits checkpoint.

The measures run as in an audit, with their default radii and 100 samples, once for every seed. The
truth is the same measure with 100,000 samples from an independent seed; its own standard error is
recorded, and is a thirtieth of that of a seed. How often the intervals contain it is counted.
At least 90 % is wanted where the tilt is small. At large tilts the value is set by the few largest
losses seen: there the share of seeds whose status says so is recorded, and no coverage asked.

Measures of the same noise read the same losses: 100 forward passes a seed and kind of noise.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from _common import RECORDS, console, covered, digits_model, table, write_record
from rich.markup import escape

import landscape
from landscape.measures import get
from landscape.measures.noise import NoiseMeasure
from landscape.results import Result, Status
from landscape.tasks import digits_data

#: Name, settings, and whether the coverage is asked for.
MEASURES: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("average-sharpness", {}, True),
    ("adaptive-average-sharpness", {}, True),
    ("tilted-sharpness", {"t": 1.0}, True),
    ("tilted-sharpness", {"t": 5.0}, True),
    ("tilted-sharpness", {"t": 20.0}, False),
    ("tilted-sharpness", {"t": 100.0}, False),
    ("noise-stability", {}, True),
    ("low-pass-sharpness", {}, True),
    # The noise of the adaptive measure raises the loss more, so that large tilts are harder.
    *(
        ("tilted-sharpness", {"t": t, "geometry": "elementwise", "rho": 0.1}, False)
        for t in (1.0, 5.0, 20.0, 100.0)
    ),
)
REFERENCE_SEED = 1_000_003


@dataclass
class Counted:
    """What the seeds gave for one measure."""

    measure: NoiseMeasure
    asked: bool
    values: list[float] = field(default_factory=list)
    intervals: list[tuple[float, float]] = field(default_factory=list)
    uncertain: int = 0

    def add(self, result: Result) -> None:
        """Takes in one seed."""
        self.values.append(result.value)
        self.intervals.append(result.interval)
        self.uncertain += result.status is Status.UNCERTAIN

    def row(self, truth: Result) -> dict[str, Any]:
        """Coverage, errors, and what the truth itself is worth."""
        found = covered(truth.value, self.values, self.intervals)
        target = {"target": found.pop("target"), "met": found.pop("met")}
        return {
            **found,
            **(target if self.asked else {}),
            "truth_stderr": truth.stderr,
            "truth_status": truth.status.value,
            "truth_effective_samples": truth.diagnostics.get("effective_samples"),
            "uncertain": self.uncertain / len(self.values),
            "radius": self.measure.radius,
            "geometry": self.measure.geometry,
        }


def coverage(probe: landscape.Probe, seeds: int, samples: int) -> dict[str, Any]:
    """Share of seeds whose interval contains the truth, by measure."""
    counted = []
    for name, settings, asked in MEASURES:
        measure = get(name, **settings)
        if not isinstance(measure, NoiseMeasure):
            raise TypeError(f"{name} is no measure of the losses under noise")
        counted.append(Counted(measure, asked))
    measures = [one.measure for one in counted]
    with probe.meter() as cost:
        for seed in range(seeds):
            results = landscape.audit(probe, measures, seed)
            for one, result in zip(counted, results, strict=True):
                one.add(result)
            if (seed + 1) % 20 == 0:
                console.print(f"{seed + 1} of {seeds} seeds")
    with probe.meter() as reference_cost:
        many = [replace(measure, samples=samples) for measure in measures]
        truths = list(landscape.audit(probe, many, REFERENCE_SEED))
    return {
        "samples": measures[0].samples,
        "forwards": cost.forwards,
        "seconds": cost.seconds,
        "reference_forwards": reference_cost.forwards,
        "reference_seconds": reference_cost.seconds,
        "quantities": {
            one.measure.label: one.row(truth) for one, truth in zip(counted, truths, strict=True)
        },
    }


def show(record: dict[str, Any]) -> None:
    """Prints the table."""
    rows = table(
        f"coverage of 95 % intervals, {record['seeds']} seeds, {record['examples']} examples",
        "measure",
        "covered",
        "truth",
        "rms error",
        "uncertain",
        "≥ 90 %",
    )
    for name, row in record["quantities"].items():
        rows.add_row(
            escape(name),
            f"{100 * row['coverage']:.1f} %",
            f"{row['truth']:.3g}",
            f"{row['rms_error']:.2g}",
            f"{100 * row['uncertain']:.0f} %",
            {True: "yes", False: "NO", None: "-"}[row.get("met")],
        )
    console.print(rows)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--reference", type=int, default=100_000, help="samples of the truth")
    parser.add_argument("--examples", type=int, default=200, help="of the 1,000 training images")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--out", type=Path, default=RECORDS / "neighbourhood_coverage.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # one is as quick here: the net is small
    batches = [tuple(part[: options.examples] for part in digits_data()[0])]
    # Points one by one: as quick as batched here, and the same in every repetition.
    probe = landscape.Probe(digits_model(), "cross_entropy", batches, products="loop")
    start = time.perf_counter()
    record: dict[str, Any] = {
        "what": "interval coverage of the noise measures on the digits checkpoint",
        "seeds": options.seeds,
        "examples": options.examples,
        "reference_samples": options.reference,
        "reference_seed": REFERENCE_SEED,
        **coverage(probe, options.seeds, options.reference),
    }
    record["total_seconds"] = time.perf_counter() - start
    show(record)
    write_record(options.out, record)


if __name__ == "__main__":
    main()
