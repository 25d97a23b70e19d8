"""Exporters: measured numbers beside the other curves of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from landscape.callbacks.libraries import library
from landscape.callbacks.row import Row


class Exporter(Protocol):
    """Takes the rows of a step as soon as they are measured."""

    def export(self, step: int, rows: Sequence[Row]) -> None:
        """Sends the rows of one step on."""


class TensorBoardExporter:
    """Scalars ``landscape/<measure>``, the ends of its 95 % interval as ``/low`` and ``/high``.

    Beside the Hessian's top eigenvalue stands ``/edge``, 2 / learning rate. Values that are not
    finite are left out.

    Args:
        target: Folder of the event files, or a SummaryWriter.

    Raises:
        ValueError: If a folder is given and neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, target: str | Path | Any) -> None:
        if isinstance(target, str | Path):
            names = ("torch.utils.tensorboard", "tensorboardX")
            target = library(names, "TensorBoardExporter", "tensorboard").SummaryWriter(str(target))
        self._writer = target

    def export(self, step: int, rows: Sequence[Row]) -> None:
        """Writes the rows of one step."""
        for tag, value in scalars(rows).items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()


class WandbExporter:
    """The same scalars in a run of Weights & Biases, drawn over ``landscape/step``.

    The step is logged as a value: a run drops what comes with a smaller ``step=`` than it has
    counted itself, which happens wherever something else logs more than once a step.

    Args:
        run: What ``wandb.init()`` returns.

    Raises:
        TypeError: If it is no run.
    """

    def __init__(self, run: Any) -> None:
        if not (hasattr(run, "log") and hasattr(run, "define_metric")):
            raise TypeError(
                f"run must be what wandb.init() returns, got {type(run).__name__}; Weights & "
                "Biases is installed by: pip install wandb"
            )
        run.define_metric("landscape/*", step_metric="landscape/step")
        self._run = run

    def export(self, step: int, rows: Sequence[Row]) -> None:
        """Logs the rows of one step."""
        self._run.log({"landscape/step": step, **scalars(rows)})


def scalars(rows: Sequence[Row]) -> dict[str, float]:
    """The finite numbers of rows by tag.

    Args:
        rows: Of one step.

    Returns:
        Values, ends of their intervals and edges of stability.
    """
    found: dict[str, float] = {}
    for row in rows:
        tag = f"landscape/{row.measure}"
        found |= {tag: row.value, f"{tag}/low": row.low, f"{tag}/high": row.high}
        found[f"{tag}/edge"] = row.edge
    return {tag: value for tag, value in found.items() if math.isfinite(value)}
