"""A quick audit of a language model of GPT-2's size, as a user runs it: time, memory, forecast.

124 million random weights, 50,257 tokens of vocabulary, 8 sequences of 128 tokens. `landscape
validate` and `landscape audit --measures quick` run as processes of their own; their wall time and
peak resident size are compared with what `validate` and the audit itself announce beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import RECORDS, console, write_record

CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
TOKENS = """import torch

data = {"input_ids": torch.randint(0, 50257, (8, 128), generator=torch.Generator().manual_seed(0))}
"""
SECONDS = {"s": 1, "min": 60, "h": 3600}


def run(folder: Path, *arguments: str) -> tuple[str, dict[str, float]]:
    """A command's output, with its wall time and the peak of its memory."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "landscape", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    console.print(output)
    if process.returncode != 0:
        raise SystemExit(f"landscape {arguments[0]} ended with {process.returncode}")
    return output, {
        "seconds": time.perf_counter() - start,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def announced(pattern: str, output: str) -> float:
    """Seconds of "12 min" and its like."""
    number, unit = re.search(pattern + r"([\d.]+) (s|min|h)", output).groups()
    return float(number) * SECONDS[unit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RECORDS / "language_model.json")
    parser.add_argument("--audit-only", action="store_true", help="without validate")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokens.py").write_text(TOKENS)
        source = ("--model", "hf:.", "--data", "tokens.py:data")
        validation: dict[str, float] = {}
        if not options.audit_only:
            output, validation = run(folder, "validate", *source)
            validation["announced_quick_seconds"] = announced(r"quick.*?", output)
        output, audit = run(folder, "audit", *source, "--measures", "quick", "--out", "report")
        audit["announced_seconds"] = announced("passes, about ", output)
        report = json.loads((folder / "report" / "report.json").read_text())
    audit["measured_seconds"] = report["cost"]["seconds"]
    found = {
        "parameters": report["provenance"]["size"],
        "terms": report["provenance"]["terms"],
        "batch": report["extras"]["task"]["data"]["train"].get("batch_size"),
        "validate": validation,
        "audit": audit,
        "results": {
            entry["measure"]: {key: entry[key] for key in ("value", "interval", "status")}
            for entry in report["results"]
        },
    }
    write_record(options.out, found)
    console.print(found)


if __name__ == "__main__":
    main()
