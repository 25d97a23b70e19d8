"""Images as tensors in [0, 1], normalised, or by a vision model's processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.tasks.data.options import DataOptions, Settled
from landscape.tasks.data.processors import load_processor
from landscape.tasks.data.targets import Targets

_GREY, _DEEP = {"1", "L"}, {"I", "F"}


class ImageExamples:
    """Images by number, read from where they lie on every walk.

    A batch is (images, targets) with images (N, C, H, W); with a processor it is the dictionary
    pixel_values, labels.

    Args:
        opened: Gives the image of a number, as Pillow's.
        labels: The classes or numbers of all images.
        targets: How labels become targets.
        options: For images: size, mean and std, or processor.
        where: Named in errors.

    Raises:
        ValueError: If an image cannot be read or sizes differ and none is given.
    """

    def __init__(
        self,
        opened: Callable[[int], Any],
        labels: Sequence[Any],
        targets: Targets,
        options: DataOptions,
        where: str,
    ) -> None:
        self._opened, self._labels, self._targets = opened, labels, targets
        self._options, self._where = options, where
        self._processor = load_processor(options.processor) if options.processor else None
        self._mode, self._size = self._look()
        self.settled = Settled(classes=targets.classes, target=options.target)
        self.facts: dict[str, Any] = {
            "source": where,
            "mode": self._mode,
            "size": list(self._size) if self._size else "by the processor",
            "pixels": pixel_facts(options),
            **targets.facts,
        }

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: Sequence[int]) -> Any:
        """The images and targets of some rows."""
        images = [self._read(row) for row in rows]
        targets = self._targets.of([self._labels[row] for row in rows], rows)
        if self._processor is not None:
            found = self._processor(images=images, return_tensors="pt")
            return {"pixel_values": torch.as_tensor(found["pixel_values"]), "labels": targets}
        pixels = torch.stack([self._pixels(image) for image in images])
        if self._options.mean is not None:
            pixels = normalised(pixels, self._options, self._where)
        return pixels, targets

    def _look(self) -> tuple[str, tuple[int, int] | None]:
        """Mode and size; where the options leave one open, all headers are looked at."""
        options = self._options
        if self._processor is not None:
            grey = len(getattr(self._processor, "image_mean", None) or (0, 0, 0)) == 1
            return _mode(grey), None
        if options.mean is not None and options.image_size is not None:
            return _mode(len(options.mean) == 1), options.image_size
        grey, first = True, None
        for row in range(len(self)):
            with self._open(row) as image:
                grey = grey and image.mode in _GREY
                size = image.size[::-1]
            first = first or size
            if size != first and options.image_size is None:
                raise ValueError(
                    f"images of {self._where} differ in size: {first} and {size} (height, width); "
                    "give image_size to resize them"
                )
        grey = grey if options.mean is None else len(options.mean) == 1
        return _mode(grey), options.image_size or first

    def _open(self, row: int) -> Any:
        try:
            image = self._opened(row)
        except (OSError, SyntaxError) as error:  # Pillow's ways to say that a file is broken
            raise ValueError(
                f"image {row + 1} of {self._where} cannot be read ({error}); it is corrupted or of "
                "an unknown format"
            ) from error
        if image.mode.partition(";")[0] in _DEEP:
            image.close()
            raise ValueError(
                f"image {row + 1} of {self._where} has the mode {image.mode!r}, more than 8 bits a "
                "channel; convert it to 8 bits"
            )
        return image

    def _read(self, row: int) -> Any:
        with self._open(row) as image:
            try:
                return image.convert(self._mode)
            except (OSError, SyntaxError, ValueError) as error:
                name = getattr(image, "filename", "") or f"image {row + 1} of {self._where}"
                raise ValueError(
                    f"{name} cannot be read ({error}); it is truncated or corrupted"
                ) from error

    def _pixels(self, image: Any) -> Tensor:
        height, width = self._size or image.size[::-1]
        if image.size != (width, height):
            image = image.resize((width, height), resample=2)  # bilinear, averaging when shrinking
        array = np.asarray(image, dtype=np.float32).reshape(height, width, -1)
        return torch.from_numpy(array / 255).permute(2, 0, 1).contiguous()


def pillow() -> Any:
    """Pillow's module Image.

    Returns:
        The module.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ValueError(
            "images need the package pillow, which is not installed; pip install pillow"
        ) from error
    return Image


def opened_pixels(array: np.ndarray[Any, Any], label: str) -> Callable[[int], Any]:
    """Opens the images of an array by number.

    Args:
        array: Bytes (N, H, W), or with one or three channels second or last.
        label: Names it in the error.

    Returns:
        From a number to Pillow's image.

    Raises:
        ValueError: If the array is of another kind.
    """
    if array.ndim == 4:
        array = np.moveaxis(array, 1, -1) if array.shape[1] in {1, 3} else array
        array = array[..., 0] if array.shape[-1] == 1 else array
    if array.dtype != np.uint8 or array.shape[3:] not in {(), (3,)} or array.ndim < 3:
        raise ValueError(
            f"{label} holds {array.dtype} of the shape {array.shape}, and the model's processor "
            "takes images as bytes, (N, H, W) or (N, 3, H, W); give such, or mean and std for "
            "floats, 0 and 1 to take them as they are"
        )
    module = pillow()
    return lambda row: module.fromarray(np.ascontiguousarray(array[row]))


def pixel_facts(options: DataOptions) -> str:
    """In words, how bytes become inputs."""
    if options.processor is not None:
        return "by the processor"
    if options.mean is None:
        return "divided by 255, no normalisation"
    return f"divided by 255, mean {list(options.mean)}, std {list(options.std or ())}"


def normalised(pixels: Tensor, options: DataOptions, where: str) -> Tensor:
    """(pixels - mean) / std for every channel, which is dimension 1.

    Args:
        pixels: (N, C, ...).
        options: With mean and std.
        where: Named in the error.

    Returns:
        A tensor of the same shape and dtype.

    Raises:
        ValueError: If there are not as many channels as numbers.
    """
    mean, std = options.mean or (), options.std or ()
    if pixels.dim() < 2 or pixels.shape[1] != len(mean):
        raise ValueError(
            f"mean and std have {len(mean)} channels, but {where} has the shape "
            f"{tuple(pixels.shape)} with channels second; give one number a channel"
        )
    shape = (1, -1, *[1] * (pixels.dim() - 2))
    return (pixels - pixels.new_tensor(mean).reshape(shape)) / pixels.new_tensor(std).reshape(shape)


def _mode(grey: bool) -> str:
    return "L" if grey else "RGB"
