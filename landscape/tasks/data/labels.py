"""Labels of language models, made of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = -100  # no term of the loss, as in transformers
_MASKED_SHARE = 0.15


def causal_labels(
    tokens: dict[str, Tensor],  # input_ids, attention_mask: (N, S)
) -> Tensor:  # (N, S)
    """The tokens themselves, ignored where padded; models shift them."""
    return tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, IGNORED)


def masked_labels(
    tokens: dict[str, Tensor],  # input_ids, attention_mask: (N, S)
    rows: Sequence[int],
    tokenizer: Any,
    seed: int,
) -> tuple[Tensor, Tensor]:  # (N, S), (N, S)
    """Replaces 15 % of the tokens, at least one an example, by the mask token.

    Which ones depends on the seed and the number of the example, not on its batch. Special tokens
    stay. Unlike in the training of BERT, every chosen token is replaced, none by a random one.

    Args:
        tokens: Padded.
        rows: Numbers of the examples.
        tokenizer: With a mask token.
        seed: Of the choice.

    Returns:
        The tokens with masks, and the labels, which are ignored elsewhere.

    Raises:
        ValueError: If an example has no token to mask.
    """
    ids = tokens["input_ids"]
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids, dtype=ids.dtype))
    free = ~special & (tokens["attention_mask"] == 1)
    chosen = torch.zeros_like(free)
    for place, row in enumerate(rows):
        positions = free[place].nonzero()[:, 0].numpy()
        if not len(positions):
            raise ValueError(f"row {row + 1} has no token to mask; drop it")
        count = max(1, round(_MASKED_SHARE * len(positions)))
        draw = np.random.default_rng([seed, row])
        chosen[place, draw.choice(positions, count, replace=False)] = True
    return ids.masked_fill(chosen, tokenizer.mask_token_id), ids.where(chosen, IGNORED)
