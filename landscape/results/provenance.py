"""Where numbers come from: content hashes, software and machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import scipy
import torch

from landscape.version import __version__


def content_hash(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash of names, dtypes, shapes and exact bytes of tensors, in the order given."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        # Viewed as bytes, so that bfloat16, which NumPy lacks, hashes too.
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Versions, machine and numeric settings that can change a number or a time."""
    return {
        "landscape": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
