"""Means over data, in evaluation mode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from landscape.probing import Metric, Objective
from landscape.probing.guard import random_state


@torch.no_grad()
def evaluate(
    model: nn.Module, objective: Objective, batches: Iterable[Any], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """Mean loss and metrics of a model over data.

    Args:
        model: Its mode is put back.
        objective: Whose loss.
        batches: On the model's device.
        metrics: Name to function of (outputs, batch) with one value an example.

    Returns:
        "loss" and the metrics.
    """
    modes = {module: module.training for module in model.modules()}
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(int)
    model.eval()
    try:
        with random_state():
            for batch in batches:
                if objective.has_outputs:
                    outputs = objective.outputs(model, batch)
                    terms = objective.penalised(objective.reduce(outputs, batch), model)
                    for name, metric in metrics.items():
                        values = metric(outputs, batch).double()
                        sums[name] += float(values.sum())
                        counts[name] += values.numel()
                else:
                    terms = objective.evaluate(model, batch)
                sums["loss"] += float(terms.total)
                counts["loss"] += terms.count
    finally:
        for module, mode in modes.items():
            module.training = mode
    return {name: sums[name] / max(1, counts[name]) for name in ("loss", *metrics) if name in sums}
