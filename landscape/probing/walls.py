"""Where autograd would be silently wrong: found in the graph, and said in words."""

from __future__ import annotations

import re

from torch import Tensor
from torch.autograd.graph import Node

CHECKPOINTING = (
    "the model uses activation checkpointing (or other saved-tensor hooks), which recomputes parts "
    "of the forward pass with weights other than those probed; switch it off for the probe, it "
    "changes no number"
)

_FINITE_DIFFERENCES = (
    "use products='finite_difference' (--products finite_difference on the command line), which "
    "takes differences of gradients"
)

# What an error of torch's says, and what to do about it; {0} is what the pattern's group holds.
_EXPLAINED = {
    re.escape(CHECKPOINTING): CHECKPOINTING,
    "does not currently support double backward": (
        "the model is compiled, and compiled code has no double backward; give the module that "
        "was compiled (model._orig_mod)"
    ),
    r"derivative for '?([\w:]+)'? is not implemented": (
        "the operation {0} has no further derivative in torch; where its gradient is there, "
        f"{_FINITE_DIFFERENCES}"
    ),
    r"differentiate twice a function that was marked with @?once_differentiable": (
        "an operation of the model can be differentiated only once (once_differentiable); "
        f"{_FINITE_DIFFERENCES}"
    ),
}


def explain(error: BaseException) -> str | None:
    """What an error of torch's means for the user, and what to do; None where that is unknown."""
    for pattern, advice in _EXPLAINED.items():
        if match := re.search(pattern, str(error)):
            return advice.format(*match.groups())
    return None


# A gradient of chosen inputs walks only nodes that lead to them. The nodes below cut that path
# without an error, so that what lies behind them would count as constant.
_WALLS = {
    "CheckpointFunctionBackward": CHECKPOINTING,
    "torch::autograd::Error": (
        "an operation of the model can be differentiated only once (once_differentiable); "
        f"{_FINITE_DIFFERENCES}"
    ),
}


def refuse_walls(*values: Tensor) -> None:
    """Walks the graph of values and raises where a derivative of them would be silently wrong.

    Args:
        *values: A loss, or gradients that will be differentiated again.

    Raises:
        TypeError: If the graph holds re-entrant checkpoints or operations without a further
            derivative.
    """
    seen: set[Node] = set()
    waiting = [value.grad_fn for value in values]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in _WALLS:
            raise TypeError(_WALLS[node.name()])
        waiting.extend(following for following, _ in node.next_functions)
