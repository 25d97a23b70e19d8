"""What the benchmark scripts share: the digits probe, its dense Hessian, and JSON records."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import landscape
from landscape.evidence import SpectrumRequest
from landscape.results import environment, to_json, write_atomically
from landscape.tasks import digits_task
from landscape.tasks.digits import cache_folder, digits_train

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "benchmarks"
#: Budget of the standard preset.
REQUEST = {name: getattr(SpectrumRequest(), name) for name in ("steps", "probes", "probe_steps")}
console = Console(width=None if sys.stdout.isatty() else 110)


def digits_model() -> nn.Module:
    """The embedded digits checkpoint, trained on the first call and cached after that."""
    return landscape.open_task(digits_task()).model


def digits_batches() -> list[tuple[Tensor, Tensor]]:
    """All 1,000 training images in two batches."""
    return digits_train()


def digits_probe(dtype: torch.dtype = torch.float32) -> landscape.Probe:
    """A fresh probe on the digits checkpoint."""
    return landscape.Probe(digits_model(), "cross_entropy", digits_batches(), dtype=dtype)


def dense_hessian(probe: landscape.Probe) -> Tensor:  # (P, P), float64
    """The float64 Hessian of the digits checkpoint: a minute or two once, then from the cache.

    Built from products with the identity; the file's name holds the hashes of weights and data.
    """
    identity = probe.identity()
    path = cache_folder() / f"hessian-{identity['weights']}-{identity['data']}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path))
    exact = digits_probe(torch.float64)
    unit = torch.eye(exact.size, dtype=torch.float64)
    with console.status("dense Hessian in float64, once"):
        rows = torch.cat([exact.hvp(block) for block in unit.split(32)])
    asymmetry = float((rows - rows.T).norm() / rows.norm())
    if asymmetry > 1e-12:
        raise RuntimeError(f"the Hessian is not symmetric: relative difference {asymmetry:.1e}")
    matrix = (rows + rows.T) / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npy")
    np.save(partial, matrix.numpy())
    partial.replace(path)
    return matrix


def rms(errors: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(errors, dtype=np.float64)))))


def covered(
    truth: float, values: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """How often intervals contain the truth, and how far the values are from it."""
    share = float(np.mean([low <= truth <= high for low, high in intervals]))
    found = np.asarray(values, dtype=np.float64)
    return {
        "coverage": share,
        "target": 0.9,
        "met": share >= 0.9,
        "truth": truth,
        "bias": float(found.mean() - truth),
        "rms_error": rms(found - truth),
        "median_interval_width": float(np.median([high - low for low, high in intervals])),
        "values": found.tolist(),
    }


def write_record(path: Path, body: dict[str, Any]) -> None:
    """Writes a benchmark's JSON: how it was run, on what, and what was found."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    command = " ".join(["python", str(name), *sys.argv[1:]])
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    machine = {**environment(), "cpu": _cpu(), "load_average_at_end": load}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_json({"command": command, "machine": machine, **body}))
    console.print(f"written: {path}")


def table(title: str, *columns: str) -> Table:
    """A rich table, first column left and the rest right aligned."""
    made = Table(title=title)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return made


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
