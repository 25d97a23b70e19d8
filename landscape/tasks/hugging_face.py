"""Models of Hugging Face directories: the class from the head, nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape.tasks.checkpoints import HUGGING_FACE_WEIGHTS
from landscape.tasks.models import ModelSource

# By the ending of the architecture's name: the objective, and the Auto class that has the head.
_HEADS = {
    "ForSequenceClassification": ("sequence_classification", "AutoModelForSequenceClassification"),
    "ForImageClassification": ("image_classification", "AutoModelForImageClassification"),
    "ForTokenClassification": ("token_classification", "AutoModelForTokenClassification"),
    "ForMaskedLM": ("masked_lm", "AutoModelForMaskedLM"),
    "ForCausalLM": ("causal_lm", "AutoModelForCausalLM"),
    "LMHeadModel": ("causal_lm", "AutoModelForCausalLM"),
    "ForConditionalGeneration": ("seq2seq", "AutoModelForSeq2SeqLM"),
}
_AUTO = dict(_HEADS.values())
_PROBLEMS = {"regression": "mse", "multi_label_classification": "bce"}


def hugging_face_source(
    path: Path, arguments: Mapping[str, Any], objective: str | None
) -> ModelSource:
    """A model of a local directory, or of a config.json alone.

    Args:
        path: As ``save_pretrained`` writes it.
        arguments: Set in the configuration, such as ``num_labels``.
        objective: Chooses the head; None takes that of the architecture the configuration names.

    Returns:
        The source, with the directory's weights as its checkpoint.

    Raises:
        ValueError: If there is no configuration, no such head, or transformers is not installed.
    """
    try:
        import transformers  # noqa: PLC0415 - optional, slow
    except ImportError as error:
        raise ValueError(
            f"hf:{path} needs the package transformers, which is not installed; pip install "
            "transformers"
        ) from error
    folder = path.parent if path.is_file() else path
    if not (path if path.is_file() else folder / "config.json").is_file():
        raise ValueError(
            f"there is no config.json in {folder}; give a local directory written by "
            "save_pretrained (nothing is downloaded)"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, **arguments)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise ValueError(f"{path} is no configuration that transformers knows: {error}") from error
    head = objective if objective in _AUTO else _head(config, path)
    auto = getattr(transformers, _AUTO[head])
    if type(config) not in auto._model_mapping:
        raise ValueError(f"transformers has no {head} head for {config.model_type} models")
    weights = [name for name in HUGGING_FACE_WEIGHTS if (folder / name).is_file()]
    names = None if head == "causal_lm" else getattr(config, "label2id", None)
    return ModelSource(
        build=lambda: auto.from_config(config),
        name=f"{config.model_type} ({folder.name})",
        objective=_problem(config, head),
        directory=folder,
        checkpoint=folder if weights and not path.is_file() else None,
        label_names=names or None,
        channels=getattr(config, "num_channels", None),
        pad_token_id=_pad(config),
        pools=head == "sequence_classification",
    )


def _head(config: Any, path: Path) -> str:
    for architecture in config.architectures or ():
        for ending, (objective, _) in _HEADS.items():
            if architecture.endswith(ending):
                return objective
    told = ", ".join(config.architectures or ()) or "no architecture"
    raise ValueError(
        f"{path} names {told}, from which no head follows; give --objective, one of "
        f"{', '.join(_AUTO)}"
    )


def _pad(config: Any) -> int | None:
    given = getattr(config.get_text_config(), "pad_token_id", None)
    return given if isinstance(given, int) and given >= 0 else None  # -1 stands for none


def _problem(config: Any, head: str) -> str:
    if head not in {"sequence_classification", "image_classification"}:
        return head
    problem = getattr(config, "problem_type", None)
    if problem is None and config.num_labels == 1:
        problem = "regression"  # as the models themselves decide
    return _PROBLEMS.get(problem or "", head)
