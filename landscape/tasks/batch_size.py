"""A batch size whose graphs fit in memory."""

from __future__ import annotations

from torch import nn

from landscape.probing import Objective, Probe
from landscape.probing.cutting import ExampleDim
from landscape.tasks.data import Batched
from landscape.tasks.data.regrouping import ExampleBatches

# Bytes for the graph of a gradient, beside what it takes for the weights. The same on every
# machine, since sums over other batches are other numbers, if only by rounding.
_GRAPH = 1 << 30
# Graphs of so many examples tell what one more takes.
_FEW, _MORE = 2, 4


def fitting_batch_size(
    model: nn.Module,
    objective: Objective,
    train: Batched,
    device: str | None,
    example_dim: ExampleDim = 0,
) -> int | None:
    """Examples a batch for which the graph of the gradient takes a GiB at most.

    Args:
        model: The model.
        objective: The loss.
        train: The data.
        device: Where the probe will be.
        example_dim: The dimension of the examples.

    Returns:
        A power of two; None where the source has batches of its own, or any size will do.
    """
    source = train.batches
    if not isinstance(source, ExampleBatches) or len(source) < 1 or (train.examples or 0) < _MORE:
        return None
    rows = list(source.rows)
    lengths = getattr(source.examples, "lengths", None)
    if lengths is not None:  # a batch of the longest takes most
        rows.sort(key=lambda row: -lengths[row])
    rows = rows[:_MORE]
    batches = [source.examples.batch(rows[:_FEW]), source.examples.batch(rows)]
    probe = Probe(
        model, objective, batches, device=device, products="loop", example_dim=example_dim
    )
    few, more = probe.graph_bytes()
    each = (more - few) / (_MORE - _FEW)
    most = _GRAPH / max(each, 1.0)
    if most >= (train.batch_size or 1):
        return None
    return 1 << (max(int(most), 1).bit_length() - 1)
