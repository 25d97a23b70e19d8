"""Peak memory of a Spectrum in bounded mode on a net of 20 million parameters.

The process's peak resident size during the Lanczos runs, minus what it held after one product (the
model, the probe's copy and the temporaries of a product), is compared with the request's budget.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import torch
from _common import RECORDS, console, write_record
from torch import nn

from landscape import Probe
from landscape.evidence import SpectrumRequest


def peak() -> int:
    """Largest resident size of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=3.0, help="GiB for vectors")
    parser.add_argument("--width", type=int, default=3160, help="two square layers of this width")
    parser.add_argument("--out", type=Path, default=RECORDS / "memory.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    width = options.width
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    batches = [(torch.randn(16, width), torch.randint(0, width, (16,)))]
    probe = Probe(model, "cross_entropy", batches)
    probe.hvp(torch.randn(2, probe.size))
    before = peak()
    request = SpectrumRequest(
        steps=40, probes=4, probe_steps=10, memory=int(options.budget * 2**30)
    )
    with probe.meter() as cost:
        spectrum = probe.evidence(request)
    used = (peak() - before) / 2**30
    found = {
        "parameters": probe.size,
        "budget_gib": options.budget,
        "used_gib": used,
        "unbounded_basis_gib": 2 * request.steps * probe.size * 4 / 2**30,
        "basis_vectors": len(spectrum.values),
        "largest_eigenvalue": float(spectrum.values[-1]),
        "error_bound": float(spectrum.error_bounds[-1]),
        "trace": spectrum.trace().value,
        "trace_stderr": spectrum.trace().stderr,
        "products": cost.products,
        "seconds": cost.seconds,
    }
    write_record(options.out, found)
    console.print(found)


if __name__ == "__main__":
    main()
