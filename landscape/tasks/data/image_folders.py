"""Images in one folder a class."""

from __future__ import annotations

from pathlib import Path

from landscape.tasks.data.images import ImageExamples, pillow
from landscape.tasks.data.options import DataOptions
from landscape.tasks.data.targets import Targets

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def read_image_folder(path: Path, options: DataOptions) -> ImageExamples:
    """Images in one folder a class, ``root/CLASS/*.png``, ordered by class and name.

    Args:
        path: The root, or the folder that holds the root of the split.
        options: For images.

    Returns:
        The images.

    Raises:
        ValueError: If there are no images where they should be.
    """
    root = path / options.split if options.split else path
    options.only(
        {"image_size", "mean", "std", "processor", "split"}, f"{path}, a folder of images,"
    )
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; choose another split")
    image_module = pillow()
    folders = sorted(entry for entry in root.iterdir() if _is_folder(entry))
    files = {folder: sorted(filter(_is_image, folder.iterdir())) for folder in folders}
    if not any(files.values()):
        inner = [entry.name for entry in folders if any(map(_is_folder, entry.iterdir()))]
        advice = f"choose one with split: {', '.join(inner)}" if inner else "put them there"
        raise ValueError(
            f"{root} is no saved dataset, and holds no images in folders of classes, CLASS/*.png; "
            f"{advice}"
        )
    empty = [folder.name for folder, found in files.items() if not found]
    if empty:
        raise ValueError(
            f"the class folders {', '.join(map(repr, empty))} of {root} hold no images; remove "
            "them or fill them"
        )
    paths = [file for found in files.values() for file in found]
    labels = [file.parent.name for file in paths]
    targets = Targets(labels, options, f"the class folders of {root}")
    return ImageExamples(
        lambda row: image_module.open(paths[row]), labels, targets, options, str(root)
    )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
