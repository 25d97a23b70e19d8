"""A monitor as a callback of Lightning."""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import Any

from torch import nn

from landscape.callbacks.libraries import library
from landscape.callbacks.monitor import Monitor

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def LightningMonitor(monitor: Monitor, module: str | None = None) -> Any:  # noqa: N802 - reads as the class it makes
    """A Lightning callback that measures the LightningModule in training.

    Steps are those of ``trainer.global_step``, and the initial weights are step 0. Works with
    lightning and with pytorch_lightning, whichever is imported.

    Args:
        monitor: What is measured and when; ``every="epoch"`` measures at the ends of epochs.
        module: Attribute that holds the model to be measured, such as "net"; None takes the
            LightningModule itself, by its ``forward``.

    Returns:
        The callback, for ``Trainer(callbacks=[...])``.

    Raises:
        ValueError: If Lightning is not installed.
    """
    loaded = [name for name in _PACKAGES if name in sys.modules]
    bases = tuple(library([name], "LightningMonitor", "lightning").Callback for name in loaded) or (
        library(_PACKAGES, "LightningMonitor", "lightning").Callback,
    )

    def model_of(pl_module: nn.Module) -> nn.Module:
        try:
            found: nn.Module = attrgetter(module)(pl_module) if module else pl_module
        except AttributeError as error:
            raise ValueError(
                f"{type(pl_module).__name__} has no attribute {module!r} to measure; its modules "
                f"are {', '.join(name for name, _ in pl_module.named_children())}"
            ) from error
        return found

    class Callback(*bases):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                monitor.begin(trainer.global_step)
                self._step(trainer, pl_module)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.is_global_zero:
                self._step(trainer, pl_module)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero and monitor.every == "epoch":
                monitor.measure(model_of(pl_module), **_moment(trainer))

        def _step(self, trainer: Any, pl_module: Any) -> None:
            monitor.step(model_of(pl_module), **_moment(trainer))

    Callback.__name__ = Callback.__qualname__ = "LightningMonitor"
    return Callback()


def _moment(trainer: Any) -> dict[str, Any]:
    return {
        "step": trainer.global_step,
        "optimizer": trainer.optimizers,
        "epoch": trainer.current_epoch,
    }
