"""Image processors of vision models, from local directories."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any


def load_processor(directory: Path) -> Any:
    """A vision model's image processor from a local directory.

    Args:
        directory: With ``preprocessor_config.json``.

    Returns:
        The processor, in the version that needs Pillow only.

    Raises:
        ValueError: If it cannot be loaded.
    """
    if not (directory / "preprocessor_config.json").is_file():
        raise ValueError(f"there is no preprocessor_config.json in {directory}; save the processor")
    try:
        import transformers  # noqa: PLC0415 - seconds to import, optional
    except ImportError as error:
        raise ValueError(
            "a processor needs the package transformers, which is not installed; pip install "
            "transformers"
        ) from error
    newer = int(transformers.__version__.partition(".")[0]) >= 5
    backend: dict[str, Any] = {"backend": "pil"} if newer else {"use_fast": False}
    hints = logging.getLogger("transformers")
    level = hints.level
    hints.setLevel(logging.ERROR)  # it recommends torchvision, which is not needed
    try:
        loader: Any = transformers.AutoImageProcessor
        return loader.from_pretrained(str(directory), local_files_only=True, **backend)
    except Exception as error:  # whatever a broken configuration makes it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{directory} holds no image processor that can be loaded: {reason}"
        ) from error
    finally:
        hints.setLevel(level)
