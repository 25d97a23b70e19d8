"""SAF and MESA: losses that keep outputs close to what they were."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from landscape.training.passes import bare
from landscape.training.settings import check, check_count


class SAF(nn.Module):
    """A term for the loss: the divergence from the logits of the same example some epochs ago.

        λ T² KL(softmax(z_past/T) ‖ softmax(z/T)),  mean over the batch

    Add it to the loss in any training loop, with any optimiser here. The logits are stored with it
    (in its ``state_dict`` too).

    Source: Du et al. 2022, arXiv 2205.14083; AngusDujw/SAF. Cost: 1 gradient a step, and memory for
    N × K × delay logits.

    Differences from the published code:

    1. The epoch of every stored logit is kept: an example that was not seen exactly ``delay``
       epochs ago adds nothing, so subsets and draws with replacement are safe.
    2. A ring of ``delay`` slots is enough, the code has one more.

    Args:
        examples: N.
        classes: K.
        weight: λ.
        temperature: T.
        delay: Epochs between the two outputs, Ẽ.
        start: The term is 0 up to this epoch.
    """

    def __init__(
        self,
        examples: int,
        classes: int,
        *,
        weight: float = 0.3,
        temperature: float = 5.0,
        delay: int = 3,
        start: int = 5,
    ) -> None:
        super().__init__()
        _check(weight, temperature)
        check_count("examples", examples)
        check_count("classes", classes)
        check_count("delay", delay)
        self._weight, self._temperature, self._start = weight, temperature, start
        self.logits: Tensor
        self.epochs: Tensor
        self.register_buffer("logits", torch.zeros(delay, examples, classes))
        self.register_buffer("epochs", torch.full((delay, examples), torch.iinfo(torch.long).min))

    def forward(
        self,
        logits: Tensor,  # (B, K)
        indices: Tensor,  # (B,)
        epoch: int,
    ) -> Tensor:  # ()
        """The term for a batch, whose logits are stored.

        Args:
            logits: Of the batch, with their graph.
            indices: Of its examples in the data, from 0 to N − 1.
            epoch: Counted from any number on.

        Returns:
            The term, to be added to the loss.
        """
        delay = len(self.logits)
        slot, indices = epoch % delay, indices.to(self.logits.device)
        past = self.logits[slot, indices]
        known = self.epochs[slot, indices] == epoch - delay
        self.logits[slot, indices] = logits.detach().to(self.logits)
        self.epochs[slot, indices] = epoch
        if epoch <= self._start:
            return logits.new_zeros(())
        terms = _divergence(past.to(logits), logits, self._temperature)
        return self._weight * (terms * known.to(terms)).mean()


class MESA(nn.Module):
    """A term for the loss: the divergence from the outputs of an averaged model.

        λ T² KL(softmax(z̄/T) ‖ softmax(z/T)),  z̄ of the exponential average of the weights

    Call ``update`` after every step of the optimiser.

    Source: Du et al. 2022, arXiv 2205.14083; AngusDujw/SAF. Cost: 1 gradient and one forward
    pass a step, and a copy of the model.

    Differences from the published code:

    1. The average is torch's ``AveragedModel``, buffers included, in evaluation mode, as timm's is
       there. It starts as the model after the first step.

    Args:
        model: The model that is trained.
        weight: λ.
        temperature: T.
        decay: Of the average.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        weight: float = 0.8,
        temperature: float = 5.0,
        decay: float = 0.9998,
    ) -> None:
        super().__init__()
        _check(weight, temperature)
        check("decay", decay, high=1)
        self._weight, self._temperature = weight, temperature
        self._model = (bare(model),)  # in a tuple: the trained model is no part of this module
        self.average = AveragedModel(
            bare(model), multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )
        self.average.eval()

    def forward(self, logits: Tensor, *inputs: Any) -> Tensor:
        """The term for a batch.

        Args:
            logits: Of the model on the batch, with their graph, (B, K).
            *inputs: What the model was called with.

        Returns:
            The term, to be added to the loss.
        """
        with torch.no_grad():
            past = self.average(*inputs)
        return self._weight * _divergence(past, logits, self._temperature).mean()

    def update(self) -> None:
        """Takes the present weights into the average."""
        self.average.update_parameters(self._model[0])

    def train(self, mode: bool = True) -> MESA:  # noqa: ARG002 - the average never trains
        """Leaves the average in evaluation mode."""
        return self


def _check(weight: float, temperature: float) -> None:
    check("weight", weight)
    check("temperature", temperature, low=1e-6)


def _divergence(past: Tensor, now: Tensor, temperature: float) -> Tensor:  # (B,)
    """T² KL(past ‖ now) of each example; gradients reach ``now`` alone."""
    target = functional.log_softmax(past.detach() / temperature, dim=-1)
    terms = functional.kl_div(
        functional.log_softmax(now / temperature, dim=-1), target, reduction="none", log_target=True
    )
    return temperature**2 * terms.sum(-1)
