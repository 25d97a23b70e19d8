"""What kind of examples the columns of a source are."""

from __future__ import annotations

from dataclasses import replace

from landscape.tasks.data.columns import Columns, column
from landscape.tasks.data.examples import Examples
from landscape.tasks.data.images import ImageExamples, pillow
from landscape.tasks.data.numbers import NumberExamples
from landscape.tasks.data.options import TOKEN_OBJECTIVES, DataOptions
from landscape.tasks.data.text import TARGET_NAMES, TextExamples, column_targets
from landscape.tasks.data.tokens import TokenExamples


def column_examples(columns: Columns, options: DataOptions) -> Examples:
    """Examples of tokens, text, images or numbers, by what columns there are.

    Args:
        columns: Of the source.
        options: Of the user.

    Returns:
        The examples; they read their columns batch by batch.

    Raises:
        ValueError: If there is no row, or the columns do not make examples.
    """
    if not len(columns):
        raise ValueError(f"{columns.where} holds no rows; give at least one example")
    if "input_ids" in columns.names and options.text is None and options.inputs is None:
        return TokenExamples(columns, options)
    if options.objective == "token_classification":
        raise ValueError(
            f"{columns.where} has no column input_ids; token classification needs tokens and one "
            "label for each, columns input_ids and labels, since words and tokens differ"
        )
    if options.tokenizer is not None:
        return TextExamples(columns, options)
    if options.text is not None or options.objective in TOKEN_OBJECTIVES:
        raise ValueError(
            f"text in {columns.where} needs a tokenizer; give its local directory with tokenizer"
        )
    images = [name for name in options.inputs or columns.names if columns.is_image(name)]
    if images:
        return _image_examples(columns, images[0], options)
    return NumberExamples(columns, options)


def _image_examples(columns: Columns, name: str, options: DataOptions) -> ImageExamples:
    pillow()
    usual = {"target", "inputs", "image_size", "mean", "std", "processor", "split"}
    options.only(usual, f"{columns.where}, with images in {name!r},")
    target = column(columns, options.settled.target, TARGET_NAMES, "target")
    targets = column_targets(columns, target, options)
    labels = columns.take(target, range(len(columns)))
    return ImageExamples(
        lambda row: columns.take(name, [row])[0],
        labels,
        targets,
        replace(options, target=target),
        columns.where,
    )
