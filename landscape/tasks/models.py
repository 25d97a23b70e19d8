"""Models from where they come: own code, Hugging Face directories, timm, torch.hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from landscape.tasks.importing import imported, is_reference, with_arguments

FORMS = "file.py:name, package.module:name, hf:DIR, timm:NAME or hub:DIR:ENTRY"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from, and what it says of itself.

    Args:
        build: Makes it, or the module itself.
        name: For the report.
        objective: The objective that its head is for; None where that is unknown.
        directory: With weights, tokenizer or processor.
        checkpoint: The weights that come with it.
        label_names: Its classes by name.
        channels: Of the images that it takes.
        pad_token_id: Token that it takes for padding.
        pools: Whether it has one output a text, which may be read at the last token.
    """

    build: nn.Module | Callable[..., nn.Module]
    name: str
    objective: str | None = None
    directory: Path | None = None
    checkpoint: Path | None = None
    label_names: Mapping[str, int] | None = None
    channels: int | None = None
    pad_token_id: int | None = None
    pools: bool = False

    def padded_with(self, token: int) -> ModelSource:
        """The source of the same model, told the token that batches of text are padded with.

        It is told once the model is made: told before, its embedding would stay without gradient.

        Args:
            token: Its number.

        Returns:
            The source.
        """

        def build() -> nn.Module:
            model: Any = self.build() if callable(self.build) else self.build
            model.config.get_text_config().pad_token_id = token
            return model  # type: ignore[no-any-return]

        return replace(self, build=build, pad_token_id=token)


def model_source(
    text: str, arguments: Mapping[str, Any] | None = None, objective: str | None = None
) -> ModelSource:
    """The model that a text stands for.

    Args:
        text: ``file.py:name`` or ``package.module:name`` (a module or a function that makes one),
            ``hf:DIR`` (a local Hugging Face directory or its config.json), ``timm:NAME``,
            ``hub:DIR:ENTRY`` (a local directory with hubconf.py).
        arguments: Of the function that makes it.
        objective: Chooses the head of a Hugging Face model; None takes that of its architecture.

    Returns:
        The source; nothing is built yet.

    Raises:
        ValueError: If the text is none of these, or a library or file is missing.
    """
    arguments = arguments or {}
    kind, _, rest = text.partition(":")
    if kind == "hf":
        from landscape.tasks.hugging_face import hugging_face_source  # noqa: PLC0415 - slow import

        return hugging_face_source(Path(rest), arguments, objective)
    if kind == "timm":
        return ModelSource(build=_timm(rest, arguments), name=rest)
    if kind == "hub":
        return _hub(rest, arguments)
    if not is_reference(text):
        raise ValueError(f"a model is given as {FORMS}; got {text!r}")
    return ModelSource(build=with_arguments(imported(text), arguments, text), name=text)


def _timm(name: str, arguments: Mapping[str, Any]) -> Callable[[], nn.Module]:
    try:
        import timm  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ValueError(
            f"timm:{name} needs the package timm, which is not installed; pip install timm"
        ) from error
    if name not in timm.list_models():
        raise ValueError(f"timm knows no model {name!r}; timm.list_models() lists them")
    return partial(timm.create_model, name, pretrained=False, **arguments)


def _hub(text: str, arguments: Mapping[str, Any]) -> ModelSource:
    folder, _, entry = text.rpartition(":")
    file = Path(folder) / "hubconf.py"
    if not file.is_file():
        raise ValueError(f"hub:{text} needs a hubconf.py in {folder or 'DIR'}; give hub:DIR:ENTRY")
    return ModelSource(
        build=with_arguments(imported(f"{file}:{entry}"), arguments, text), name=entry
    )
