"""A checkpoint that was read: its weights, its optimiser's state, and what was done to get them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landscape.tasks.checkpoints.converting import converted
from landscape.tasks.checkpoints.directories import read_content
from landscape.tasks.checkpoints.errors import CheckpointError, listed
from landscape.tasks.checkpoints.fitting import fit_into
from landscape.tasks.checkpoints.naming import cleaned
from landscape.tasks.checkpoints.nesting import find_optimizer, find_weights
from landscape.tasks.checkpoints.optimizer_state import (
    has_running_means,
    running_means,
)
from landscape.tasks.stability import edge_of_groups, shared_rate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint.

    Args:
        path: Where it was read.
        state: Name to tensor, on the CPU; wrappers inside the names are removed.
        optimizer: The optimiser's state_dict, where the file holds one.
        notes: What was done to find them.
    """

    path: Path
    state: dict[str, Tensor]
    optimizer: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def load_into(self, model: nn.Module, *, allow_missing: bool = False) -> tuple[str, ...]:
        """Puts the weights into a model, every tensor of which must be there with its shape.

        Args:
            model: Modified in place.
            allow_missing: Loads what fits, and notes what was missing or unexpected.

        Returns:
            What was done: prefixes, what was left out.

        Raises:
            CheckpointError: If names are missing or unexpected, a shape is wrong, or values are
                of a kind that cannot be used; it lists them.
        """
        try:
            return tuple(fit_into(model, self.state, self.path))
        except CheckpointError:
            state = converted(model, self.state)
            if state is None and not allow_missing:
                raise
        notes = ["names converted by transformers"] if state is not None else []
        state = self.state if state is None else state
        return (*notes, *fit_into(model, state, self.path, allow_missing=allow_missing))

    def momentum(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The optimiser's running mean of gradients.

        Args:
            model: With the parameters that were optimised.

        Returns:
            By the name of every parameter that requires a gradient; None where the optimiser keeps
            none, or it cannot be told which belongs to which parameter.
        """
        if self.optimizer is None or not has_running_means(self.optimizer):
            return None
        found = running_means(self.optimizer, model)
        if found is None:
            logger.warning("the optimiser state of %s does not fit the model; left out", self.path)
        return found

    def learning_rate(self) -> float | None:
        """The optimiser's learning rate; None without one, or where its groups differ."""
        return None if self.optimizer is None else shared_rate(self.optimizer["param_groups"])

    def stability_edge(self) -> float | None:
        """The edge of stability of the optimiser; None where it has none of the Hessian."""
        return None if self.optimizer is None else edge_of_groups(self.optimizer["param_groups"])


def read_checkpoint(
    path: Path, *, ema: bool = False, trust_pickle: bool = False, key: str | None = None
) -> Checkpoint:
    """Reads a checkpoint of any kind.

    Args:
        path: A safetensors file; a file written by torch.save, with a state_dict in it or a
            training checkpoint around one; an index of shards; a directory of Hugging Face or of
            torch.distributed.checkpoint, or one with a single checkpoint in it.
        ema: Takes the average of the weights (EMA, SWA) that the file holds beside them.
        trust_pickle: Reads pickles of any type, which executes whatever code is in them.
        key: The entry that holds the weights, as ``find_weights`` takes it.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: If it is missing, broken, of another format, or needs trust.
    """
    content = read_content(path, trust_pickle=trust_pickle)
    weights, notes = find_weights(content.found, path, ema=ema, key=key)
    optimizer = content.optimizer or find_optimizer(content.found)
    if flat := [name for name in weights if "_flat_param" in name]:
        raise CheckpointError(
            f"{path} holds flattened shards of FSDP ({listed(flat)}); save it with "
            "StateDictType.FULL_STATE_DICT"
        )
    state = {cleaned(name): tensor for name, tensor in weights.items()}
    if len(state) != len(weights):
        raise CheckpointError(f"{path} holds weights twice, with and without a wrapper's name")
    if state.keys() != weights.keys():
        notes = [*notes, "wrappers of torch.compile, FSDP or activation checkpoints removed"]
    return Checkpoint(path=path, state=state, optimizer=optimizer, notes=(*content.notes, *notes))
