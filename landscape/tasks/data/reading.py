"""From a path to examples."""

from __future__ import annotations

from pathlib import Path

from landscape.tasks.data.arrays import read_arrays
from landscape.tasks.data.examples import Examples
from landscape.tasks.data.image_folders import read_image_folder
from landscape.tasks.data.options import DataOptions
from landscape.tasks.data.saved_datasets import is_saved_dataset, read_saved_dataset
from landscape.tasks.data.tables import TABLE_SUFFIXES, read_table


def read_examples(path: Path, options: DataOptions | None = None) -> Examples:
    """The examples in a file or directory, by its suffix or what it holds.

    Args:
        path: An ``.npz``, ``.csv``, ``.parquet`` or ``.jsonl`` file, a folder with one folder of
            images a class, or a directory written by ``datasets``' ``save_to_disk``.
        options: What the files do not say themselves.

    Returns:
        The examples.

    Raises:
        ValueError: If the path is missing, empty, broken or of no known kind, or the options do
            not fit.
    """
    path, options = Path(path), options or DataOptions()
    if path.is_dir():
        if is_saved_dataset(path):
            return read_saved_dataset(path, options)
        return read_image_folder(path, options)
    if not path.exists():
        raise ValueError(f"there are no data at {path}")
    suffix = path.suffix.lower()
    if suffix != ".npz" and suffix not in TABLE_SUFFIXES:
        raise ValueError(
            f"{path} is of no known kind; give .npz, {', '.join(TABLE_SUFFIXES)}, a folder with "
            "one folder of images a class, or a directory written by save_to_disk"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; the file was not written completely")
    try:
        return read_arrays(path, options) if suffix == ".npz" else read_table(path, options)
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: permission denied") from error
