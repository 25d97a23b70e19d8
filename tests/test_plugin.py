"""The example plug-in, installed as a third party would install it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the built plug-in and its entry points."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in PLUGIN.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
            "--no-build-isolation", "--target", str(target), str(source),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


def landscape(installed, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "landscape", *arguments],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_finds_and_runs_it(installed, tmp_path):
    assert "negative-curvature" in landscape(installed, "measures").stdout
    done = landscape(
        installed, "audit", "--samples", "50", "--out", str(tmp_path),
        "--measures", "negative-curvature,hessian-trace",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "negative-curvature" in (tmp_path / "results.csv").read_text()
    # both rows read one Spectrum
    assert "Total: 300 curvature products" in done.stdout


def test_without_it_the_name_is_unknown(tmp_path):
    done = landscape("", "audit", "--measures", "negative-curvature", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "unknown measure 'negative-curvature'" in done.stderr
