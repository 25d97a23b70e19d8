"""The slices of a report: a line along the top eigenvector, and a small plane."""

from __future__ import annotations

import base64
from typing import Any

from landscape.viz.display import svg
from landscape.viz.slices import plot_slice
from landscape.viz.style import style


def slice_figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The pictures of ``report["extras"]["slices"]``.

    Args:
        report: As ``Table.to_dict()`` gives it.

    Returns:
        For each ``uri``, its ``name`` ("line" or "plane"), and what the caption needs.
    """
    from landscape.slices.overview import from_record

    found = []
    for name, record in (report["extras"].get("slices") or {}).items():
        dataset = from_record(record)
        with style():
            figure = plot_slice(dataset).ax_.get_figure(root=True)
            text = "" if figure is None else svg(figure)
        found.append(
            {
                "name": name,
                "uri": "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode(),
                "total": dataset["train_loss"].size,
                "evaluated": int(dataset["evaluated"].sum()),
            }
        )
    return found
