"""The page of the study of flat minima holds the numbers of its records."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def rounded(entry):
    """Numbers to nine digits, of which machines differ in the last of sixteen."""
    if isinstance(entry, dict):
        return {key: rounded(value) for key, value in entry.items()}
    if isinstance(entry, list | tuple):
        return [rounded(value) for value in entry]
    return float(f"{entry:.9g}") if isinstance(entry, float) else entry


@pytest.mark.parametrize("name", ["flat_minima", "flat_minima_long"])
def test_the_page_holds_the_numbers_of_the_record(name):
    study = runpy.run_path(str(ROOT / "examples" / "flat_minima.py"))
    record = json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text())
    page = (ROOT / "docs" / "flat_minima.md").read_text(encoding="utf-8")
    assert study["markdown"](record) in page
    assert rounded(study["summary"](record["methods"])) == rounded(record["summary"])
    for entry in record["methods"].values():
        known = {float(rate): loss for rate, loss in entry["grid"].items() if loss is not None}
        assert entry["lr"] == min(known, key=known.get)
        assert all(run["gradients"] < record["budget"] + 8 for run in entry["runs"])
        assert len(entry["runs"]) == record["seeds"]
