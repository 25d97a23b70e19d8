"""Tokenizers of local directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_DEFAULT_LENGTH = 512
_LARGEST_SANE = 1 << 20  # transformers writes 1e30 where a tokenizer knows no limit


def load_tokenizer(directory: Path) -> tuple[Any, dict[str, Any]]:
    """A tokenizer as ``save_pretrained`` wrote it, from the disk alone.

    Args:
        directory: Local.

    Returns:
        The tokenizer, which pads on the right, so that no text moves with the length of the
        batch; where it has no token for padding, that of the end of a text is used. And facts of
        the padding.

    Raises:
        ValueError: If it cannot be loaded, or has no token that could pad.
    """
    if not directory.is_dir():
        raise ValueError(
            f"there is no tokenizer directory at {directory}; give the one that save_pretrained "
            "wrote"
        )
    try:
        from transformers import AutoTokenizer  # noqa: PLC0415 - seconds to import, optional
    except ImportError as error:
        raise ValueError(
            "text needs the package transformers, which is not installed; pip install transformers"
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # whatever the files of a broken directory make it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{directory} holds no tokenizer that can be loaded: {reason}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"the tokenizer in {directory} has neither a token for padding nor one for the "
                "end; set its pad_token and save it again"
            )
        tokenizer.pad_token = tokenizer.eos_token
    facts = {"padded_with": tokenizer.pad_token}
    if tokenizer.padding_side != "right":
        facts["padded_on"] = f"the right; the tokenizer itself pads on the {tokenizer.padding_side}"
        tokenizer.padding_side = "right"
    return tokenizer, facts


def length_limit(tokenizer: Any, max_length: int | None) -> int:
    """Tokens an example at most: the given limit, else the tokenizer's if sane, else 512."""
    if max_length is not None:
        return max_length
    own = int(tokenizer.model_max_length)
    return own if 0 < own <= _LARGEST_SANE else _DEFAULT_LENGTH
