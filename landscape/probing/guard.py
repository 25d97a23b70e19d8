"""Evaluation without a trace: random state, kernels and modes are put back afterwards."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape.probing.replacements import replaced
from landscape.probing.walls import explain

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def random_state() -> Iterator[None]:
    """Puts the global random states of torch, NumPy and Python back on leaving."""
    cpu = torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    legacy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(python)


@contextmanager
def evaluation(
    device: torch.device, handled: set[str], *, gradient: bool, recurrent: bool = False
) -> Iterator[None]:
    """The settings under which every evaluation runs.

    Autocast and inference mode are off, fused attention is replaced by the math kernel (it alone
    has a double backward, and losses, gradients and products should agree), cuDNN is off for
    recurrent nets for the same reason, TF32 is off, activation checkpointing is off.

    Args:
        device: Where the model lives.
        handled: Collects in words what had to be switched off.
        gradient: Whether autograd records.
        recurrent: Whether the model holds recurrent modules.

    Raises:
        TypeError: If saved tensors are hooked, or the model is compiled and differentiated twice.
        RuntimeError: What the evaluation raises otherwise.
    """
    with ExitStack() as stack:
        # The settings are global and functional calls swap parameters on the shared snapshot.
        stack.enter_context(_ONE_AT_A_TIME)
        fast_path = torch.backends.mha.get_fastpath_enabled()
        stack.enter_context(random_state())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(gradient))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(replaced(handled.add))
        if device.type == "cuda":
            if recurrent:
                handled.add("cuDNN switched off for recurrent modules")
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(
                    enabled=cudnn.enabled and not recurrent,
                    benchmark=cudnn.benchmark,
                    deterministic=cudnn.deterministic,
                    allow_tf32=False,
                )
            )
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        except RuntimeError as error:  # NotImplementedError among them
            if advice := explain(error):
                raise TypeError(advice) from error
            raise
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
