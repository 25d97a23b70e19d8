"""What is loaded: the options that all commands on a checkpoint share."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from landscape.commands.config import read_config
from landscape.commands.exits import Value, fail, or_exit_with_place

if TYPE_CHECKING:
    from landscape.tasks import Opened, Settings, Task


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Floating type of weights and products."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    AUTO = "auto"


class Ways(StrEnum):
    """How Hessian products are computed."""

    AUTO = "auto"
    LOOP = "loop"
    BATCHED = "batched"
    FINITE_DIFFERENCE = "finite_difference"


_TASK, _DATA, _WEIGHTS = "What is measured", "Data", "Weights"
_Text = str | None
_File = Path | None


def _option(text: str, panel: str, **settings: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, **settings)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Model, objective, data and weights, as the options name them."""

    checkpoint: Annotated[
        _File,
        typer.Argument(
            help="Weights: a file, a directory, a LoRA adapter; the task's own if left out."
        ),
    ] = None
    config: Annotated[
        _File,
        _option("YAML file with any of these options.", _TASK, is_eager=True, callback=read_config),
    ] = None
    task: Annotated[
        _Text, _option("digits (embedded), file.py:name or package.module:name.", _TASK)
    ] = None
    model: Annotated[
        _Text, _option("file.py:name, module:name, hf:DIR, timm:NAME or hub:DIR:ENTRY.", _TASK)
    ] = None
    objective: Annotated[
        _Text,
        _option("A name such as cross_entropy, or file.py:name; a model's head may say it.", _TASK),
    ] = None
    arg: Annotated[
        list[str] | None, _option("key=value for the task's or model's function.", _TASK)
    ] = None
    label_smoothing: Annotated[
        float, _option("Of the cross-entropy that is measured.", _TASK, min=0, max=0.999)
    ] = 0.0
    class_weights: Annotated[
        _Text, _option("Of the cross-entropy, one a class: 0.3,0.9,1.7.", _TASK)
    ] = None
    ignore_index: Annotated[
        int | None, _option("Target that is no term of the cross-entropy.", _TASK)
    ] = None
    weight_decay: Annotated[
        float, _option("Adds c/2 |w|^2 to the loss that is measured.", _TASK, min=0)
    ] = 0.0
    data: Annotated[
        _Text,
        _option(
            "Training data: .npz, .csv, .parquet, .jsonl, image folder, saved dataset, "
            "file.py:name.",
            _DATA,
        ),
    ] = None
    test_data: Annotated[_Text, _option("Test data, given the same way.", _DATA)] = None
    split: Annotated[_Text, _option("Part of the data, such as train.", _DATA)] = None
    test_split: Annotated[_Text, _option("Part of the test data.", _DATA)] = None
    samples: Annotated[
        int | None, _option("Use a fixed random subset of N training examples.", _DATA, min=1)
    ] = None
    data_seed: Annotated[int, _option("Of that subset, and of masks.", _DATA, min=0)] = 0
    batch_size: Annotated[
        int | None, _option("Examples a batch; what fits in memory if left out.", _DATA, min=1)
    ] = None
    target: Annotated[_Text, _option("Column or array of the targets.", _DATA)] = None
    inputs: Annotated[
        list[str] | None, _option("Columns or arrays of the inputs (repeatable).", _DATA)
    ] = None
    text: Annotated[_Text, _option("Column of the text.", _DATA)] = None
    tokenizer: Annotated[
        _File, _option("Directory of a tokenizer; the model's if left out.", _DATA)
    ] = None
    max_length: Annotated[int | None, _option("Tokens an example at most.", _DATA, min=1)] = None
    image_size: Annotated[tuple[int, int] | None, _option("Height and width of images.", _DATA)] = (
        None
    )
    mean: Annotated[
        list[float] | None, _option("Of each channel of images in [0, 1] (repeatable).", _DATA)
    ] = None
    std: Annotated[
        list[float] | None, _option("Of each channel, with --mean (repeatable).", _DATA)
    ] = None
    processor: Annotated[
        _File, _option("Directory of an image processor; the model's if left out.", _DATA)
    ] = None
    initial: Annotated[
        _File,
        _option("Weights before training, for measures of the distance from them.", _WEIGHTS),
    ] = None
    ema: Annotated[
        bool, _option("Take the averaged weights (EMA, SWA) that the checkpoint holds.", _WEIGHTS)
    ] = False
    weights_key: Annotated[
        _Text, _option("Entry of the checkpoint that holds the weights, if unusual.", _WEIGHTS)
    ] = None
    allow_missing: Annotated[
        bool, _option("Load what fits of a checkpoint, and say what does not.", _WEIGHTS)
    ] = False
    trust_pickle: Annotated[
        bool, _option("Read any pickle: EXECUTES the code in the file.", _WEIGHTS)
    ] = False
    device: Annotated[Device, _option("auto takes CUDA if there is one.", _WEIGHTS)] = Device.AUTO
    dtype: Annotated[
        Precision | None,
        _option(
            "Precision of the measurement; the model's if left out. auto takes float64 for models "
            "of up to 100,000 parameters on a CPU.",
            _WEIGHTS,
        ),
    ] = None
    products: Annotated[
        Ways, _option("finite_difference where no second derivative is to be had.", _WEIGHTS)
    ] = Ways.AUTO

    def open(self, **further: Any) -> Opened:
        """Loads everything; what goes wrong ends the command in one line.

        Args:
            **further: Settings beyond the options.

        Returns:
            Model, data and probe.
        """
        from landscape.tasks import open_task

        return self.call(
            lambda task, settings: open_task(task, self.checkpoint, settings), **further
        )

    def call(self, function: Callable[[Task, Settings], Value], **further: Any) -> Value:
        """Calls a function on the task; what goes wrong ends the command in one line.

        Args:
            function: Of the task and the settings.
            **further: Settings beyond the options.

        Returns:
            What it returns.
        """
        from landscape.tasks import folder_of, importable, is_reference

        where = self._device()
        references = [self.task, self.model, self.objective, self.data, self.test_data]
        folders = [folder_of(text) for text in references if text and is_reference(text)]
        with importable(folders):
            return or_exit_with_place(
                lambda: function(self._task(), self._settings(device=where, **further))
            )

    def _task(self) -> Task:
        from landscape.tasks import composed_task, digits_task, is_reference, named_task, parsed
        from landscape.tasks.data import DataOptions

        arguments = parsed(self.arg or ())
        parts = {
            "--objective": self.objective,
            "--data": self.data,
            "--test-data": self.test_data,
            "--test-split": self.test_split,
            "--split": self.split,
            "--target": self.target,
            "--inputs": self.inputs or None,
            "--text": self.text,
            "--tokenizer": self.tokenizer,
            "--max-length": self.max_length,
            "--image-size": self.image_size,
            "--mean": self.mean or None,
            "--std": self.std or None,
            "--processor": self.processor,
        }
        if self.model is None:
            if idle := [name for name, value in parts.items() if value is not None]:
                raise ValueError(f"{', '.join(idle)} belong to --model, which is missing")
            if self.task in {None, "digits"}:
                if arguments:
                    raise ValueError("--arg has no use for the embedded task")
                return digits_task()
            if not is_reference(self.task or ""):
                raise ValueError(
                    f"unknown task {self.task!r}; embedded tasks are digits, others are given as "
                    "path/to/file.py:name or package.module:name"
                )
            return named_task(self.task or "", arguments)
        if self.task is not None:
            raise ValueError("--task says everything that --model and --data do; give one of them")
        return composed_task(
            self.model,
            self.objective,
            self.data,
            test_data=self.test_data,
            test_split=self.test_split,
            arguments=arguments,
            options=DataOptions(
                target=self.target,
                inputs=tuple(self.inputs) if self.inputs else None,
                text=self.text,
                tokenizer=self.tokenizer,
                max_length=self.max_length,
                image_size=self.image_size,
                mean=tuple(self.mean) if self.mean else None,
                std=tuple(self.std) if self.std else None,
                processor=self.processor,
                split=self.split,
                seed=self.data_seed,
                ignore_index=self.ignore_index,
            ),
        )

    def _settings(self, **further: Any) -> Settings:
        from landscape.tasks import Settings

        return Settings(
            ema=self.ema,
            weights_key=self.weights_key,
            allow_missing=self.allow_missing,
            trust_pickle=self.trust_pickle,
            samples=self.samples,
            data_seed=self.data_seed,
            batch_size=self.batch_size,
            label_smoothing=self.label_smoothing,
            class_weights=_numbers(self.class_weights, "--class-weights"),
            ignore_index=self.ignore_index,
            weight_decay=self.weight_decay,
            dtype=self._dtype(),
            initial=self.initial,
            products=self.products.value,
            **further,
        )

    def _dtype(self) -> Any:
        import torch

        if self.dtype is None or self.dtype is Precision.AUTO:
            return None if self.dtype is None else "auto"
        return getattr(torch, self.dtype.value)

    def _device(self) -> str:
        import torch

        if self.device is Device.CUDA and not torch.cuda.is_available():
            fail("--device cuda was asked for, but torch finds no CUDA device; use --device cpu")
        if self.device is Device.AUTO:
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device.value


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"{option} takes one number a class, separated by commas, got {text!r}"
        ) from error


def takes_source(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is a ``Source``, with the options of that in its place."""
    hints = get_type_hints(Source, include_extras=True)
    fields = dataclasses.fields(Source)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields
    ]

    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        given = {field.name: options.pop(field.name) for field in fields}
        command(Source(**given), **options)

    parameters = [*shared, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapped.__wrapped__
    return wrapped
