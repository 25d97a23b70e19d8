"""``landscape validate``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from landscape.commands.exits import or_exit_with_place
from landscape.commands.source import Source, takes_source

if TYPE_CHECKING:
    from landscape.probing import Probe
    from landscape.results import Cost
    from landscape.tasks import Opened
    from landscape.tasks.data import Batched

# How files were read, where that can go wrong unseen.
_READ_AS = ("inputs", "text", "target", "classes", "pixels", "padded_with")
# The search takes some copies of the model in double precision.
_SEARCHED = 20_000_000


@takes_source
def validate(
    source: Source,
    seed: Annotated[int, typer.Option(min=0, help="Of the vector that is tried.")] = 0,
) -> None:
    """Load everything, evaluate once, and say what measuring will take. Measures nothing."""
    from rich.markup import escape

    from landscape.auditing import pace

    opened = source.open()
    found = or_exit_with_place(lambda: pace(opened.probe, seed))
    metrics = or_exit_with_place(opened.metrics)
    console = Console(width=None if sys.stdout.isatty() else 120)
    told = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    for name, text in [*_facts(opened, found), ("metrics", told.replace("_", " "))]:
        console.print(f"[bold]{name:<13}[/] {escape(text)}", highlight=False)
    _presets(console, opened.probe, found, seed)


def _facts(opened: Opened, found: Cost) -> list[tuple[str, str]]:
    from landscape.results import format_bytes, format_seconds

    probe, told = opened.probe, opened.probe.provenance()
    layers = len(probe.space.by_layer())
    forward, gradient, product = map(
        format_seconds, (found.forwards, found.gradients, found.products)
    )
    facts = [
        ("checkpoint", str(opened.path or "none: the weights that the model was made with")),
        *(("", note) for note in opened.notes if opened.path),
        (
            "model",
            (
                f"{type(opened.model).__name__}: {probe.size:,} trainable parameters in "
                f"{len(probe.space.names)} tensors of {layers} layers, "
                f"{format_bytes(probe.size * probe.dtype.itemsize)}"
            ),
        ),
        *(("", note) for note in told["handled"]),
        ("objective", probe.objective.name),
        ("train data", _data(opened.train, probe)),
        *(
            ("", f"{key}: {_short(opened.train.facts[key])}")
            for key in _READ_AS
            if key in opened.train.facts
        ),
        ("test data", "none" if opened.test is None else _data(opened.test, None)),
        ("two passes", f"agree: loss {probe.loss():.6g}, fingerprint {told['data'][:12]}"),
        (
            "one pass",
            (
                f"{forward} forward, {gradient} with gradient, {product} a Hessian product on "
                f"{probe.device}"
            ),
        ),
        ("symmetries", _symmetries(probe)),
    ]
    if found.peak_memory is not None:
        facts.append(("memory", f"{format_bytes(found.peak_memory)} so far"))
    if opened.stability_edge:
        rate = f"learning rate {opened.learning_rate:g}"
        facts.append(("edge", f"of stability {opened.stability_edge:g}, {rate}"))
    facts += [("please note", text) for text in probe.warnings]
    return facts


def _data(data: Batched, probe: Probe | None) -> str:
    of = data.facts.get("of")
    count = "examples" if data.examples is None else f"{data.examples:,} examples"
    some = f" of {of:,} (seed {data.facts['data_seed']})" if "data_seed" in data.facts else ""
    size = "batches of their own" if data.batch_size is None else f"batches of {data.batch_size}"
    terms = "" if probe is None else f", {round(probe.terms, 3):,} loss terms"
    return f"{count}{some} in {size}{terms}, from {data.facts['source']}"


def _short(value: object) -> str:
    """A fact of the data in a line."""
    if isinstance(value, Mapping):
        entries = [f"{key} = {entry}" for key, entry in value.items()]
    else:
        entries = list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
    return ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")


def _symmetries(probe: Probe) -> str:
    from landscape.geometry import find_symmetries

    if probe.size > _SEARCHED:
        return f"not looked for in models above {_SEARCHED:,} parameters"
    kinds = Counter(symmetry.kind for symmetry in find_symmetries(probe))
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.items()) or "none found"


def _presets(console: Console, probe: Probe, found: Cost, seed: int) -> None:
    from rich.table import Table as Grid

    from landscape.auditing import expected_cost
    from landscape.measures import PRESETS, resolve
    from landscape.results import format_bytes, format_seconds

    grid = Grid(title="What measuring will take", title_justify="left")
    for heading in ("preset", "forwards", "gradients", "products", "time", "memory at most"):
        grid.add_column(heading, justify="left" if heading == "preset" else "right")
    for preset in PRESETS:
        cost = expected_cost(probe, resolve(preset, probe.size), seed, found)
        grid.add_row(
            preset,
            *(f"{number:.0f}" for number in (cost.forwards, cost.gradients, cost.products)),
            format_seconds(cost.seconds),
            format_bytes(cost.peak_memory or 0),
        )
    console.print(grid)
