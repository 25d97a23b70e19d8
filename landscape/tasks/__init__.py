"""Tasks: what to load and how."""

from landscape.tasks.checkpoints import CheckpointError, load_into, load_momentum, load_state
from landscape.tasks.digits import Digits, DigitsNet, digits_checkpoint, digits_data, train_digits
from landscape.tasks.slicing import directions_of
from landscape.tasks.task import Task

#: Embedded tasks by name.
TASKS: dict[str, type[Task]] = {Digits.name: Digits}


def get_task(name: str) -> Task:
    """An embedded task by name.

    Returns:
        The task.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; embedded tasks are {', '.join(TASKS)}")
    return TASKS[name]()


__all__ = [
    "TASKS",
    "CheckpointError",
    "Digits",
    "DigitsNet",
    "Task",
    "digits_checkpoint",
    "digits_data",
    "directions_of",
    "get_task",
    "load_into",
    "load_momentum",
    "load_state",
    "train_digits",
]
