"""The house rules that a linter cannot state: which room imports which, and how long a file is."""

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From low to high: a room imports only from the rooms before it.
ROOMS = (
    "results",
    "correlation",
    "linalg",
    "probing",
    "geometry",
    "evidence",
    "slices",
    "tasks",
    "training",
)
ALLOWED = {room: set(ROOMS[:index]) for index, room in enumerate(ROOMS)} | {
    "version": set(),
    "measures": {"results", "linalg", "probing", "geometry", "evidence"},
    "viz": {"results", "correlation", "slices"},
    "auditing": {*ROOMS, "measures", "viz"},
    "orbits": {*ROOMS, "measures", "viz", "auditing"},
    "callbacks": {*ROOMS, "measures", "auditing"},
    "crosscheck": {"results", "linalg"},
    "populations": {*ROOMS, "measures", "viz", "auditing"},
}
TOP = {
    "",
    "__main__",
    "cli",
    "commands",
}  # landscape/__init__.py and the command line import everything

# What would let a room touch a model behind the probe's back.
MODEL_TOOLS = ("torch.nn", "torch.func", "torch.autograd")
BANNED_LIBRARIES = {"linalg": MODEL_TOOLS, "measures": MODEL_TOOLS, "viz": ("torch",)}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module, measures/ and viz/ at their real place."""
    found = {}
    for folder, package in (("landscape", ""), ("measures", "measures"), ("viz", "viz")):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            if not package and parts[0] in {"measures", "viz"}:
                continue  # through the symlink
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(filter(None, ("landscape", package, *parts)))] = path
    return found


def packages(root: Path) -> set[str]:
    return {name for name, path in modules(root).items() if path.name == "__init__.py"}


def room_of(module: str) -> str:
    """'landscape.probing.probe' -> 'probing'; '' for the package itself."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported dotted name with its line; `from a import b` gives 'a.b'."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, no TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not lazy and not typing:
            yield child
            yield from at_import_time(child)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def import_problems(module: str, source: str) -> list[str]:
    """What a module imports against the order of the rooms."""
    tree, room, problems = ast.parse(source), room_of(module), []
    if room not in ALLOWED and room not in TOP:
        return [f"{module}: the room {room!r} is not in the table of this test"]
    for name, line in imports(tree):
        where = f"{module}:{line}: imports {name}"
        if name.startswith("."):
            problems.append(f"{where}: relative")
        elif within(name, "measures") or within(name, "viz"):
            problems.append(f"{where}: import it as landscape.{name}")
        elif within(name, "landscape") and room not in TOP:
            target = room_of(name)
            if target not in ALLOWED and target not in TOP:
                problems.append(f"{where}: from the top of the package")  # import landscape; Probe
            elif target not in ALLOWED[room] | {room, "version"}:
                problems.append(f"{where}: {room} must not import {target or 'landscape'}")
        elif any(within(name, library) for library in BANNED_LIBRARIES.get(room, ())):
            problems.append(f"{where}: {room} must not touch a model")
    return problems


def source_problems(module: str, source: str) -> list[str]:
    """Prints, pyplot at import time, and torch.nn and its kin where no model may be touched."""
    tree, room, problems = ast.parse(source), room_of(module), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and room != "cli":
            problems.append(f"{module}:{node.lineno}: prints")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in BANNED_LIBRARIES.get(room, ()):
            problems.append(f"{module}:{node.lineno}: {room} must not touch a model")
    for node in at_import_time(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for name, _ in imports(node)]
            if any(within(name, "matplotlib.pyplot") for name in names):
                problems.append(f"{module}:{node.lineno}: imports pyplot when it is imported")
    return problems


def package_problems(listed: set[str], on_disk: set[str]) -> list[str]:
    return [f"{name}: a folder, but not in setup.cfg" for name in sorted(on_disk - listed)] + [
        f"{name}: in setup.cfg, but not a folder" for name in sorted(listed - on_disk)
    ]


def test_modules_are_found():
    assert {"landscape", "landscape.measures", "landscape.viz"} <= packages(ROOT)


@pytest.mark.parametrize(("module", "path"), modules(ROOT).items(), ids=list(modules(ROOT)))
def test_module_keeps_the_rules(module, path):
    source = path.read_text(encoding="utf-8")
    assert import_problems(module, source) + source_problems(module, source) == []


def test_every_package_is_listed_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert package_problems(set(config["options"]["packages"].split()), packages(ROOT)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("landscape.linalg.lanczos", "from landscape.probing import Probe"),
        ("landscape.linalg.lanczos", "def f():\n    import landscape.probing.probe"),
        ("landscape.results.table", "from landscape import probing"),
        ("landscape.probing.probe", "from landscape import Probe"),
        ("landscape.probing.probe", "import landscape"),
        ("landscape.probing.probe", "from landscape.cli import main"),
        ("landscape.measures.trace", "from landscape.viz import plot_slice"),
        ("landscape.measures.trace", "from landscape.tasks import load"),
        ("landscape.measures.trace", "from torch.nn import functional"),
        ("landscape.viz.report", "from landscape.measures import get"),
        ("landscape.viz.report", "from landscape.probing import Probe"),
        ("landscape.viz.report", "import torch"),
        ("landscape.auditing", "from landscape.populations import sweep"),
        ("landscape.utils.misc", "import math"),
        ("landscape.cli", "import measures"),
        ("landscape.cli", "from viz.report import render"),
        ("landscape.cli", "from . import auditing"),
        ("landscape.cli", "from .auditing import audit"),
    ],
)
def test_import_checker_finds(module, source):
    assert len(import_problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("landscape", "from landscape.cli import main"),
        ("landscape.cli", "import landscape\nfrom landscape.viz import report"),
        ("landscape.results.table", "from landscape.version import __version__"),
        ("landscape.results.table", "from landscape.results import Result"),
        ("landscape.measures.trace", "import torch\nfrom landscape.evidence import spectrum"),
        ("landscape.viz.report", "from landscape.results import Table"),
    ],
)
def test_import_checker_passes(module, source):
    assert import_problems(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("landscape.probing.probe", "def f():\n    print(1)"),
        (
            "landscape.measures.trace",
            "import torch\ndef f(x):\n    return torch.nn.functional.relu(x)",
        ),
        ("landscape.viz.slices", "import matplotlib.pyplot as plt"),
        ("landscape.viz.slices", "from matplotlib import pyplot"),
        (
            "landscape.viz.slices",
            "try:\n    from matplotlib.pyplot import subplots\nfinally:\n    pass",
        ),
    ],
)
def test_source_checker_finds(module, source):
    assert len(source_problems(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("landscape.cli", "print(1)"),
        ("landscape.viz.slices", "def draw():\n    import matplotlib.pyplot as plt"),
        (
            "landscape.viz.slices",
            "class A:\n    def draw(self):\n        from matplotlib import pyplot",
        ),
        ("landscape.viz.slices", "if TYPE_CHECKING:\n    import matplotlib.pyplot as plt"),
        ("landscape.viz.slices", "from matplotlib.figure import Figure"),
        ("landscape.probing.probe", "import torch\nMODULE = torch.nn.Module"),
    ],
)
def test_source_checker_passes(module, source):
    assert source_problems(module, source) == []


def test_package_checker_finds_both_directions():
    assert (
        len(package_problems({"landscape", "landscape.gone"}, {"landscape", "landscape.new"})) == 2
    )
    assert package_problems({"landscape"}, {"landscape"}) == []
