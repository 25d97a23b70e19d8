"""States of Hugging Face models in the names and layouts of other versions of transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from landscape.tasks.checkpoints.fitting import matches


def converted(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The state in the names of a model of transformers.

    Files keep the names that a model had when it was first published, while its code has moved on;
    transformers renames, splits and joins them when it loads. It is asked to do so here.

    Args:
        model: Left as it is.
        state: Name to tensor.

    Returns:
        By the model's names, with what is unexpected by its own; without what is missing. None
        where the model is not of transformers, or that finds no more than the names as they are.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return None
    kind: Any = type(model)
    try:
        with _quiet(transformers), torch.random.fork_rng(devices=[]):
            loaded, told = kind.from_pretrained(
                None,
                config=model.config,
                state_dict=dict(state),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # left out below, with the file's own shape
            )
    except Exception:  # noqa: BLE001 - the state is then said to be misfit under its own names
        return None
    own = loaded.state_dict()
    new = set(told["missing_keys"]) | {name for name, *_ in told["mismatched_keys"]}
    strange = {name: state[name] for name in told["unexpected_keys"] if name in state}
    wrong = {name: own[name].new_empty(shape) for name, shape, _ in told["mismatched_keys"]}
    found = {name: own[name] for name in own.keys() - new} | strange | wrong
    return found if matches(model, found) > matches(model, state) else None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and reports: what does not fit is said in an error."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logs.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
