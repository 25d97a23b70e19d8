"""Terms of the loss (SAF, MESA) and averages of the weights (SWA, EMA, WASAM)."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import training

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (12,), generator=torch.Generator().manual_seed(2))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def divergence(past, now, temperature):
    """T² KL(past ‖ now), mean over rows, written from the definition."""

    def softmax(z):
        e = np.exp(z / temperature)
        return e / e.sum(1, keepdims=True)

    p, q = softmax(past.detach().double().numpy()), softmax(now.detach().double().numpy())
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()


def logits_of(epoch, rows=4):
    source = torch.Generator().manual_seed(epoch)
    return torch.randn(rows, 3, generator=source, requires_grad=True)


def test_saf_is_the_divergence_from_the_logits_of_delay_epochs_ago():
    saf = training.SAF(4, 3, weight=0.3, temperature=5.0, delay=2, start=1)
    rows = torch.arange(4)
    for epoch in range(6):
        term = saf(logits_of(epoch), rows, epoch)
        if epoch <= 1:
            assert term == 0
        else:
            expected = 0.3 * divergence(logits_of(epoch - 2), logits_of(epoch), 5.0)
            assert float(term.detach()) == pytest.approx(expected, rel=1e-4)


def test_the_direction_of_the_divergence_matters_and_is_from_the_past():
    past, now = logits_of(0), logits_of(1)
    assert divergence(past, now, 1.0) != pytest.approx(divergence(now, past, 1.0), rel=1e-2)
    saf = training.SAF(4, 3, weight=1.0, temperature=1.0, delay=1, start=0)
    saf(past, torch.arange(4), 0)
    assert float(saf(now, torch.arange(4), 1).detach()) == pytest.approx(
        divergence(past, now, 1.0), rel=1e-4
    )


def test_saf_leaves_out_examples_that_were_not_seen_and_survives_repetition():
    saf = training.SAF(4, 3, weight=1.0, temperature=1.0, delay=2, start=0)
    saf(logits_of(0, 2), torch.tensor([0, 3]), 0)
    saf(logits_of(1, 2), torch.tensor([1, 2]), 1)
    term = saf(logits_of(2), torch.tensor([3, 1, 0, 0]), 2)
    past = torch.stack([logits_of(0, 2)[1], logits_of(0, 2)[0], logits_of(0, 2)[0]])
    now = logits_of(2)[[0, 2, 3]]
    assert float(term.detach()) == pytest.approx(divergence(past, now, 1.0) * 3 / 4, rel=1e-4)
    again = saf(logits_of(9), torch.tensor([3, 1, 0, 0]), 2)  # drawn again in the same epoch
    assert float(again.detach()) == 0


def test_saf_gives_a_gradient_to_the_present_alone_and_is_saved_with_its_memory():
    saf = training.SAF(4, 3, delay=1, start=0)
    rows = torch.arange(4)
    past, now = logits_of(0), logits_of(1)
    saf(past, rows, 0)
    other = training.SAF(4, 3, delay=1, start=0)
    other.load_state_dict(saf.state_dict())
    saf(now, rows, 1).backward()
    assert past.grad is None
    assert now.grad.abs().sum() > 0
    assert float(other(logits_of(1), rows, 1).detach()) > 0


def test_mesa_is_the_divergence_from_the_averaged_model_in_evaluation_mode():
    model = network()
    mesa = training.MESA(model, weight=0.8, temperature=5.0, decay=0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    average = None
    for _ in range(4):
        optimizer.zero_grad()
        logits = model(X)
        term = mesa(logits, X)
        (functional.cross_entropy(logits, Y) + term).backward()
        optimizer.step()
        mesa.update()
        present = {key: value.detach().clone() for key, value in model.state_dict().items()}
        average = average or present
        average = {
            key: torch.lerp(average[key], value, 0.1) if value.is_floating_point() else value
            for key, value in present.items()
        }
    model.eval()
    logits = model(X)
    reference = network().eval()
    reference.load_state_dict(average)
    expected = 0.8 * divergence(reference(X), logits, 5.0)
    assert float(mesa.train()(logits, X).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_trained_model_is_no_part_of_mesa():
    model = network()
    ours = {id(p) for p in training.MESA(model).parameters()}
    assert not ours & {id(p) for p in model.parameters()}


def closure_of(model):
    def closure():
        loss = functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    return closure


def iterates(optimizer, model, steps):
    found = []
    for _ in range(steps):
        optimizer.step(closure_of(model))
        found.append(model[0].weight.detach().clone())
    return found


@pytest.mark.parametrize("method", [training.SWA, training.WASAM])
def test_swa_is_the_mean_of_every_second_iterate_after_the_start(method):
    model = network()
    optimizer = method(torch.optim.SGD(model.parameters(), lr=0.5), model, start=3, every=2)
    found = iterates(optimizer, model, 9)
    expected = torch.stack([found[index] for index in (4, 6, 8)]).mean(0)
    torch.testing.assert_close(optimizer.average.module[0].weight, expected)


def test_ema_is_the_exponential_mean_with_running_statistics():
    model = network()
    optimizer = training.EMA(torch.optim.SGD(model.parameters(), lr=0.5), model, decay=0.8)
    weight = mean = None
    for _ in range(5):
        optimizer.step(closure_of(model))
        now, running = model[0].weight.detach().clone(), model[1].running_mean.clone()
        weight = now if weight is None else 0.8 * weight + 0.2 * now
        mean = running if mean is None else 0.8 * mean + 0.2 * running
    torch.testing.assert_close(optimizer.average.module[0].weight, weight)
    torch.testing.assert_close(optimizer.average.module[1].running_mean, mean)


def test_statistics_of_the_average_are_those_of_the_data_after_a_refresh():
    model = network()
    optimizer = training.SWA(torch.optim.SGD(model.parameters(), lr=0.5), model, start=0)
    iterates(optimizer, model, 3)
    optimizer.refresh_statistics([(X, Y)])
    average = optimizer.average.module
    torch.testing.assert_close(average[1].running_mean, average[0](X).mean(0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: training.SAF(0, 3), "examples must be a whole number of at least 1"),
        (lambda: training.SAF(4, 3, temperature=0), "temperature must be"),
        (lambda: training.MESA(network(), decay=1.5), "decay must be a number between 0 and 1"),
    ],
)
def test_bad_settings_of_terms_are_one_clear_line(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
