"""A monitor as a callback of the Hugging Face Trainer."""

from __future__ import annotations

from typing import Any

from landscape.callbacks.libraries import library
from landscape.callbacks.monitor import Monitor


def TrainerMonitor(monitor: Monitor) -> Any:  # noqa: N802 - reads as the class it makes
    """A callback of transformers.Trainer that measures the model in training.

    Steps are those of ``state.global_step``, and the initial weights are step 0.

    Args:
        monitor: What is measured and when; ``every="epoch"`` measures at the ends of epochs.

    Returns:
        The callback, for ``Trainer(callbacks=[...])``.

    Raises:
        ValueError: If transformers is not installed.
    """
    base = library(["transformers"], "TrainerMonitor", "'transformers[torch]'").TrainerCallback

    class Callback(base):  # type: ignore[misc, valid-type]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                monitor.begin(state.global_step)
                self.on_step_end(args, state, control, **kwargs)

        def on_step_end(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                monitor.step(kwargs["model"], **_moment(state, kwargs))

        def on_epoch_end(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero and monitor.every == "epoch":
                monitor.measure(kwargs["model"], **_moment(state, kwargs))

    Callback.__name__ = Callback.__qualname__ = "TrainerMonitor"
    return Callback()


def _moment(state: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        "step": state.global_step,
        "optimizer": kwargs.get("optimizer"),
        "epoch": state.epoch,
    }
