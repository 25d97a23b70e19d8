"""How a user's data are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

#: Objectives whose labels are made from the tokens.
TOKEN_OBJECTIVES = ("causal_lm", "masked_lm", "seq2seq")
#: Objectives whose targets are real numbers.
REAL_OBJECTIVES = ("mse", "bce")
#: Objectives whose targets are class numbers.
CLASS_OBJECTIVES = ("cross_entropy", "token_classification")
_OBJECTIVES = (*CLASS_OBJECTIVES, *REAL_OBJECTIVES, *TOKEN_OBJECTIVES)
# Everywhere the same, whether it matters to the source or not: given by the model, not the data.
_COMMON = {"objective", "label_names", "seed", "pad_token_id", "like", "ignore_index"}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What reading the training data settled, so that test data are read alike.

    Args:
        classes: Number of every class by name; empty where the classes are numbers already, None
            where the targets are no classes or the model numbers them.
        inputs: Columns of the inputs, in their order.
        target: Column of the targets.
    """

    classes: Mapping[str, int] | None = None
    inputs: tuple[str, ...] | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What the files do not say themselves.

    Args:
        target: Column or array of the targets.
        inputs: Columns or arrays of the inputs.
        text: Column of the text.
        tokenizer: Local directory of a tokenizer, as ``save_pretrained`` writes it.
        max_length: Tokens an example at most; by default what the tokenizer says, or 512.
        image_size: Height and width to which images are resized.
        mean: Of the channels, subtracted from images in [0, 1].
        std: Of the channels, by which images are divided then.
        processor: Local directory with the ``preprocessor_config.json`` of a vision model.
        label_names: The model's classes by name, so that the data's classes are numbered alike.
        objective: "cross_entropy", "token_classification", "mse", "bce", "causal_lm",
            "masked_lm" or "seq2seq".
        split: Part of the data, such as "train".
        seed: Of the masks of "masked_lm".
        pad_token_id: Token with which the model pads; by default what the tokenizer says.
        like: What the training data settled, for test data.
        ignore_index: Class number that is no target, beside -100.

    Raises:
        ValueError: If a value makes no sense.
    """

    target: str | None = None
    inputs: tuple[str, ...] | None = None
    text: str | None = None
    tokenizer: Path | None = None
    max_length: int | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    processor: Path | None = None
    label_names: Mapping[str, int] | None = None
    objective: str | None = None
    split: str | None = None
    seed: int = 0
    pad_token_id: int | None = None
    like: Settled | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.objective not in (None, *_OBJECTIVES):
            raise ValueError(
                f"objective must be one of {', '.join(_OBJECTIVES)}, got {self.objective!r}"
            )
        if self.inputs == ():
            raise ValueError("inputs must name at least one column or array, got none")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}")
        if self.image_size is not None and min(self.image_size) < 1:
            raise ValueError(f"image_size must be (height, width), got {self.image_size}")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                "mean and std go together, with one number a channel each; got "
                f"mean={self.mean} and std={self.std}"
            )
        if self.std is not None and not all(value > 0 for value in self.std):
            raise ValueError(f"std must be positive, got {self.std}")
        if self.processor is not None and (self.mean or self.image_size):
            raise ValueError(
                "processor sets the size and the normalisation of images; leave out image_size, "
                "mean and std"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def settled(self) -> Settled:
        """What is settled before the data are looked at."""
        found = self.like or Settled()
        return replace(
            found, inputs=self.inputs or found.inputs, target=self.target or found.target
        )

    def only(self, used: set[str], source: str) -> None:
        """Refuses options that have no meaning for a source.

        Args:
            used: Names of the options that have one.
            source: Named in the error.

        Raises:
            ValueError: If another option is set.
        """
        idle = [
            field.name
            for field in fields(self)
            if field.name not in used | _COMMON and getattr(self, field.name) is not None
        ]
        if idle:
            raise ValueError(f"{source} takes no {' and no '.join(idle)}; leave it out")
