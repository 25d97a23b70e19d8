"""The methods on CUDA: the same steps as on the CPU, and mixed precision."""

from functools import partial

import pytest
import torch
from test_training_state import NEEDED, X, Y, network, saved
from torch.nn import functional

from landscape.training import METHODS, RowOptimizer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
NOISY = {"ssam-d", "esam", "tsam", "nso", "lpf-sgd"}  # their draws depend on the device


def row_losses(model, device, rows, half=False):
    x, y = X.to(device)[rows], Y.to(device)[rows]
    with torch.autocast(device, dtype=torch.float16, enabled=half):
        return functional.cross_entropy(model(x), y, reduction="none")


def advance(model, optimizer, device, scaler=None):
    losses = partial(row_losses, model, device, half=scaler is not None)

    def closure():
        loss = losses(torch.arange(len(X), device=device)).mean()
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    if isinstance(optimizer, RowOptimizer):
        return optimizer.step(losses, len(X))
    return optimizer.step(closure)


def made(name, model, **settings):
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return METHODS[name](base, model, **NEEDED.get(name, {}), **settings)


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOISY))
def test_steps_on_cuda_are_those_on_the_cpu(name):
    models = {device: network().to(device) for device in ("cpu", "cuda")}
    for device, model in models.items():
        optimizer = made(name, model)
        for _ in range(3):
            advance(model, optimizer, device)
    for key, value in models["cpu"].state_dict().items():
        torch.testing.assert_close(
            models["cuda"].state_dict()[key].cpu(), value, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_on_cuda_is_saved_and_loaded(name):
    model = network().cuda()
    optimizer = made(name, model)
    advance(model, optimizer, "cuda")
    again = made(name, model, seed=7)
    again.load_state_dict(saved(optimizer.state_dict()))
    noise = optimizer.noise(optimizer._passes(row_losses).weights)
    assert torch.equal(again.noise(noise).flat(), noise.flat())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_mixed_precision_with_loss_scaling_trains(name):
    model = network().cuda()
    scaler = torch.amp.GradScaler("cuda")
    optimizer = made(name, model, scaler=scaler)
    losses = []
    for _ in range(20):
        losses.append(float(advance(model, optimizer, "cuda", scaler)))
        scaler.update()
    assert all(param.isfinite().all() for param in model.parameters())
    assert min(losses[1:]) < losses[0]
