"""The code in the documentation runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import textwrap
from pathlib import Path

import matplotlib as mpl
import pytest

import landscape

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(landscape.__path__, prefix="landscape.")
    if module.name != "landscape.__main__"
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_the_docstring_examples_were_found():
    finder = doctest.DocTestFinder()
    found = sum(
        bool(test.examples)
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
    )
    assert found >= 8


def blocks(page):
    found = re.findall(r"^( *)```python\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, capsys, tmp_path, monkeypatch):
    # Those of docs/how-to are run by test_how_to.py.
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), {})
    assert capsys.readouterr().out


def test_the_pages_with_code_are_known():
    assert {"README.md", "slices.md", "symmetries.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
