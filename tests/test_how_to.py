"""The pages of docs/how-to do what they say: their blocks run in order, in an empty folder.

A page is made of fenced blocks. One with a title (```python title="net.py") is the file of that
name; other ``python`` blocks run in one namespace a page; every line of a ``sh`` block is a command
that must succeed. Blocks of measures-while-training.md are run by test_callbacks.py.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.func import functional_call

import landscape
from landscape.commands.audit import audit
from landscape.tasks import composed_task

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "how-to"
PAGES = sorted(FOLDER.glob("*.md"))
ELSEWHERE = {"measures-while-training.md"}
LIBRARIES = ("lightning", "peft", "tokenizers", "transformers")
# Into a folder of the page, and without the network.
INSTALL = ("--quiet", "--no-deps", "--no-build-isolation", "--target", "site")
LANGUAGES = {"python", "sh", "yaml", "toml"}


class Block(NamedTuple):
    language: str
    title: str | None
    text: str


def blocks(page):
    found = re.findall(r'```(\w+)(?: title="([^"]+)")?\n(.*?)```', page.read_text(), re.DOTALL)
    return [Block(language, title or None, text) for language, title, text in found]


RUN = [page for page in PAGES if page.name not in ELSEWHERE and blocks(page)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; what a page imports from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for page in RUN:  # another test's module of the same name is not this page's
        for block in blocks(page):
            monkeypatch.delitem(sys.modules, Path(block.title or "").stem, raising=False)
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "page", types.ModuleType("page"))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def command(line, folder):
    """Runs one line of a page as a user would; what it installs goes to a folder of the page."""
    program, *arguments = shlex.split(line)
    if line == "pip install .":
        start = ["pip", "install", *INSTALL, "."]
    else:
        assert program == "landscape", f"pages run landscape only, got {line}"
        start = ["landscape", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", *start],
        env={
            **os.environ,
            "PYTHONPATH": str(folder / "site"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.filterwarnings("ignore")  # of the libraries that the pages use
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(page, folder, capsys):
    for library in LIBRARIES:
        if any(
            f"import {library}" in block.text or f"from {library}" in block.text
            for block in blocks(page)
        ):
            pytest.importorskip(library)
    torch.manual_seed(0)
    names = vars(sys.modules["page"])
    for block in blocks(page):
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
        else:
            for line in block.text.replace("\\\n", " ").strip().splitlines():
                command(line, folder)
    assert re.search(r"\d", capsys.readouterr().out)  # a page shows numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_kind_that_is_run_and_short(page):
    assert page.read_text().count("```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in LANGUAGES
        assert block.title is not None or block.language in {"python", "sh"}
        assert len(block.text.splitlines()) < 50


def test_the_index_names_every_page():
    index = (FOLDER / "README.md").read_text()
    assert sorted(re.findall(r"\]\(([\w-]+\.md)\)", index)) == [
        page.name for page in PAGES if page.name != "README.md"
    ]


def test_options_that_pages_name_are_options_of_the_command():
    known = {name.replace("_", "-") for name in inspect.signature(audit).parameters}
    for page in (*PAGES, ROOT / "README.md"):
        for named in re.findall(r"landscape audit.*?(?<![\w-])--([a-z][a-z-]+)", page.read_text()):
            assert named in known | {"json", "help"}, f"{page.name} names --{named}"


# What pages and table claim beyond that they run


def test_the_hessian_of_a_physics_loss_is_the_dense_one(folder):
    page = FOLDER / "regression-and-physics-losses.md"
    (code,) = [block.text for block in blocks(page) if block.title == "oscillator.py"]
    (folder / "oscillator.py").write_text(code, encoding="utf-8")
    torch.manual_seed(0)
    task = runpy.run_path("oscillator.py")["task"]
    opened = landscape.open_task(task, settings=landscape.Settings(dtype=torch.float64))
    model, batch = opened.model.double(), tuple(part.double() for part in task.train)
    names, weights = zip(*model.named_parameters(), strict=True)
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])

    def loss(flat):
        pieces = flat.split([weight.numel() for weight in weights])
        shaped = [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
        replaced = dict(zip(names, shaped, strict=True))
        return task.objective(lambda t: functional_call(model, replaced, t), batch).mean()

    dense = torch.autograd.functional.hessian(loss, flat)
    products = opened.probe.hvp(torch.eye(len(flat), dtype=torch.float64))
    assert opened.probe.loss() == pytest.approx(loss(flat).item(), rel=1e-12)
    assert torch.allclose(products, dense, rtol=1e-9, atol=1e-9 * float(dense.abs().max()))


def test_a_local_hub_directory_is_a_model(folder):
    (folder / "zoo").mkdir()
    code = "import torch\ndef small(width=3):\n    return torch.nn.Linear(width, 2)\n"
    (folder / "zoo" / "hubconf.py").write_text(code, encoding="utf-8")
    np.savez("data.npz", x=np.ones((4, 5), "float32"), y=np.array([0, 1, 0, 1]))
    task = composed_task("hub:zoo:small", "cross_entropy", "data.npz", arguments={"width": 5})
    assert landscape.open_task(task).probe.size == 12
    with pytest.raises(ValueError, match=r"needs a hubconf.py in other"):
        composed_task("hub:other:small", "cross_entropy", "data.npz")


# The table of the README


def backed():
    """What the README says is backed by a test: pairs of a file and a name."""
    (section,) = re.findall(
        r"## What can be loaded\n(.*?)(?=\n## |\Z)", (ROOT / "README.md").read_text(), re.DOTALL
    )
    rows = [line for line in section.splitlines() if re.match(r"\| (?!\*\*)", line)][1:]
    return rows, re.findall(r"`(test_\w+)::(test_\w+)`", section)


def test_every_row_of_the_table_of_what_can_be_loaded_names_a_test():
    rows, _ = backed()
    assert len(rows) > 20
    for row in rows:
        assert "::test_" in row or "untested" in row, row


@pytest.mark.parametrize(("file", "name"), backed()[1], ids="::".join)
def test_a_test_that_the_readme_names_exists(file, name):
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
