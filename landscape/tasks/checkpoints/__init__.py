"""Checkpoints of every kind, read safely, with one clear line when they cannot be read."""

from landscape.tasks.checkpoints.adapters import is_adapter, load_adapter
from landscape.tasks.checkpoints.checkpoint import (
    Checkpoint,
    read_checkpoint,
)
from landscape.tasks.checkpoints.directories import HUGGING_FACE_WEIGHTS
from landscape.tasks.checkpoints.errors import CheckpointError

__all__ = [
    "HUGGING_FACE_WEIGHTS",
    "Checkpoint",
    "CheckpointError",
    "is_adapter",
    "load_adapter",
    "read_checkpoint",
]
