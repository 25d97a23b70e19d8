"""Hugging Face datasets, in memory or saved to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landscape.tasks.data.column_examples import column_examples
from landscape.tasks.data.examples import Examples
from landscape.tasks.data.options import DataOptions

_MARKS = ("dataset_dict.json", "dataset_info.json", "state.json")


class DatasetColumns:
    """The columns of a ``datasets.Dataset``, read when they are needed.

    Args:
        dataset: Without splits.
        where: Named in errors.
    """

    def __init__(self, dataset: Any, where: str) -> None:
        self.where = where
        self.names = tuple(dataset.column_names)
        self._dataset = dataset.with_format(None)

    def __len__(self) -> int:
        return len(self._dataset)

    def take(self, name: str, rows: Sequence[int]) -> Any:
        """The values of a column in the given rows."""
        return self._dataset.select_columns([name])[
            rows if isinstance(rows, range) else list(rows)
        ][name]

    def classes(self, name: str) -> tuple[str, ...] | None:
        """The names of a column of ClassLabel, or of lists of such."""
        feature = self._dataset.features[name]
        if isinstance(feature, list):
            (feature,) = feature
        names = getattr(getattr(feature, "feature", feature), "names", None)
        return tuple(names) if names else None

    def is_image(self, name: str) -> bool:
        """Whether a column is an Image feature."""
        return type(self._dataset.features[name]).__name__ == "Image"


def dataset_examples(dataset: Any, options: DataOptions, where: str = "the dataset") -> Examples:
    """The examples of a ``datasets.Dataset`` or of one split of a ``DatasetDict``.

    Args:
        dataset: The dataset.
        options: Which columns are what, and which split.
        where: Named in errors.

    Returns:
        The examples, read lazily.

    Raises:
        ValueError: If the split is missing or the columns do not fit.
    """
    if isinstance(dataset, dict):
        if options.split not in dataset:
            came = "none was given" if options.split is None else f"got {options.split!r}"
            raise ValueError(f"{where} has splits, and {came}; choose with split: {_keys(dataset)}")
        return column_examples(
            DatasetColumns(dataset[options.split], f"{where}, split {options.split},"), options
        )
    if options.split is not None:
        raise ValueError(f"{where} has no splits; leave out split")
    return column_examples(DatasetColumns(dataset, where), options)


def is_saved_dataset(path: Path) -> bool:
    """Whether a directory was written by ``save_to_disk``."""
    return any((path / name).is_file() for name in _MARKS)


def read_saved_dataset(path: Path, options: DataOptions) -> Examples:
    """The examples of a directory that ``save_to_disk`` wrote.

    Args:
        path: The directory.
        options: Which columns are what, and which split.

    Returns:
        The examples, read lazily.

    Raises:
        ValueError: If it cannot be loaded or its columns do not fit.
    """
    try:
        import datasets  # noqa: PLC0415 - seconds to import, optional
    except ImportError as error:
        raise ValueError(
            f"{path} needs the package datasets, which is not installed; pip install datasets"
        ) from error
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever missing or broken files make it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be loaded as a saved dataset ({reason}); save it again with "
            "save_to_disk"
        ) from error
    return dataset_examples(found, options, str(path))


def is_hugging_face(source: Any) -> bool:
    """Whether an object is a dataset of the package ``datasets``, which is not imported for that.

    Args:
        source: Anything.

    Returns:
        True for a ``Dataset`` or a ``DatasetDict``.

    Raises:
        TypeError: If it is streamed, and so has no numbered examples.
    """
    module = type(source).__module__
    if module == "datasets.iterable_dataset":
        raise TypeError(
            "a streamed dataset gives single examples in a chain; load it without streaming, or "
            "give a DataLoader over it"
        )
    return module in {"datasets.arrow_dataset", "datasets.dataset_dict"}


def _keys(dataset: Any) -> str:
    return ", ".join(str(name) for name in dataset)
