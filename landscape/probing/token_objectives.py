"""Language models: one loss a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.probing.calling import has_target_key, output_of, targets_of
from landscape.probing.entries import named_entries
from landscape.probing.supervised import CrossEntropy
from landscape.probing.token_losses import token_losses


class TokenObjective(CrossEntropy):
    """-log p of every token whose label is not ignored; no caches, logits kept once.

    Outputs are logits with the vocabulary second, (N, V, T), so that they are those of
    ``CrossEntropy``.
    """

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits, (N, V, T)."""
        logits = output_of(self._call(model, batch, use_cache=False), self.name)
        if logits.dim() != 3:
            raise TypeError(
                f"objective {self.name!r} expects logits of shape (batch, tokens, vocabulary), got "
                f"{tuple(logits.shape)}"
            )
        return logits.mT

    def _each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point() or self.label_smoothing or outputs.dim() != 3:
            return super()._each(outputs, targets)
        rows = outputs.mT.reshape(-1, outputs.shape[1])
        losses = token_losses(rows, targets.reshape(-1), self.ignore_index)
        if (weight := self._weight_for(outputs)) is not None:
            losses = losses * weight[targets.where(targets != self.ignore_index, 0).reshape(-1)]
        return losses.reshape(targets.shape)


class MaskedLM(TokenObjective):
    """Masked language models: labels at the masked places, -100 elsewhere.

    Batches are mappings with "input_ids" and "labels" (and what else forward takes), or
    (input_ids, labels).
    """

    name = "masked_lm"


class TokenClassification(TokenObjective):
    """One class for every token, -100 for those that have none."""

    name = "token_classification"


class CausalLM(TokenObjective):
    """Causal language models: the logits at t predict the token at t + 1.

    Batches are mappings with "input_ids", or (input_ids, labels). Without "labels" they are the
    inputs, without those that "attention_mask" leaves out. Labels stand where their tokens stand;
    they are shifted here, as in Hugging Face models.
    """

    name = "causal_lm"

    def targets(self, batch: Any) -> Tensor:
        """The label of the following token, (N, T); the last one is ignored."""
        labels = self._labels(batch)
        if labels.is_floating_point():  # soft targets, drawn in their places
            return labels
        labels = labels.long()
        last = torch.full_like(labels[:, :1], self.ignore_index)
        return torch.cat([labels[:, 1:], last], 1)

    def _labels(self, batch: Any) -> Tensor:
        if not isinstance(batch, Mapping) or has_target_key(batch) or self.entries.targets:
            return self._given(batch)
        if "input_ids" not in batch:
            raise TypeError(
                f"objective {self.name!r} expects batches with 'input_ids', got a mapping with "
                f"{', '.join(map(str, batch))}"
            )
        ids: Tensor = batch["input_ids"]
        if "attention_mask" not in batch:
            return ids
        told = batch["attention_mask"] != 0
        # The first token after padding on the left has nothing to be predicted from.
        seen = torch.cat([torch.zeros_like(told[:, :1]), told[:, :-1]], 1)
        return ids.masked_fill(~(told & seen), self.ignore_index)

    def check(self, batch: Any) -> None:
        """Refuses labels that are shifted already.

        Raises:
            ValueError: If each label is the token that follows in the inputs.
        """
        super().check(batch)
        inputs = (named_entries(batch) or {}).get("input_ids")
        if inputs is None and isinstance(batch, list | tuple):
            inputs = batch[0]
        labels = self._labels(batch)
        if not isinstance(inputs, Tensor) or inputs.shape != labels.shape or labels.shape[1] < 4:
            return
        if torch.equal(labels[:, :-1], inputs[:, 1:]) and not torch.equal(labels, inputs):
            raise ValueError(
                "the labels are those of the following tokens already, and objective 'causal_lm' "
                "shifts them itself; give labels equal to the inputs, or objective 'masked_lm', "
                "which does not shift"
            )

    def sampled(self, outputs: Tensor, batch: Any, generator: torch.Generator) -> Any:
        """As for any cross-entropy, with labels written into the batch where it has none."""
        if isinstance(batch, Mapping) and not (has_target_key(batch) or self.entries.targets):
            batch = {**batch, "labels": self._labels(batch)}
        return super().sampled(outputs, batch, generator)


class Seq2Seq(TokenObjective):
    """Encoder-decoder models: labels of the decoder, -100 where there is none.

    Batches are mappings with "input_ids" and "labels". Without "decoder_input_ids" the model makes
    them of the labels (``prepare_decoder_input_ids_from_labels``).
    """

    name = "seq2seq"

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Logits of the decoder, (N, V, T)."""
        if isinstance(batch, Mapping) and "decoder_input_ids" not in batch:
            make = getattr(model, "prepare_decoder_input_ids_from_labels", None)
            if make is None:
                raise TypeError(
                    f"objective {self.name!r} needs 'decoder_input_ids' in the batch: "
                    f"{type(model).__name__} cannot make them of the labels"
                )
            batch = {**batch, "decoder_input_ids": make(labels=targets_of(batch, self.entries))}
        return super().outputs(model, batch)
