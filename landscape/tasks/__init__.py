"""Tasks: what to load and how."""

from landscape.tasks.checkpoints import Checkpoint, CheckpointError, read_checkpoint
from landscape.tasks.composing import composed_task, named_task
from landscape.tasks.digits import (
    DigitsNet,
    digits_checkpoint,
    digits_data,
    digits_task,
    train_digits,
)
from landscape.tasks.digits_nets import digits_nets
from landscape.tasks.importing import (
    folder_of,
    importable,
    is_own,
    is_reference,
    parsed,
    told,
)
from landscape.tasks.opening import Opened, Settings, open_task
from landscape.tasks.slicing import directions_of
from landscape.tasks.task import Task

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "DigitsNet",
    "Opened",
    "Settings",
    "Task",
    "composed_task",
    "digits_checkpoint",
    "digits_data",
    "digits_nets",
    "digits_task",
    "directions_of",
    "folder_of",
    "importable",
    "is_own",
    "is_reference",
    "named_task",
    "open_task",
    "parsed",
    "read_checkpoint",
    "told",
    "train_digits",
]
