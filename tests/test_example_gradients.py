"""Gradients of single examples and the Fisher measures, against loops of autograd."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, Status, measures
from landscape.evidence import ExampleGradientsRequest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def net(dtype=torch.float64, *, bias=True, outputs=3, activation=nn.ReLU):
    model = nn.Sequential(
        nn.Linear(4, 7, bias=bias),
        activation(),
        nn.Linear(7, 5, bias=bias),
        activation(),
        nn.Linear(5, outputs, bias=bias),
    )
    draws = generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=draws))
    return model.to(dtype)


def data(*sizes, dtype=torch.float64, targets="labels", outputs=3):
    draws = generator(2)
    batches = []
    for size in sizes:
        x = torch.randn(size, 4, generator=draws).to(dtype)
        labels = torch.randint(0, outputs, (size,), generator=draws)
        values = torch.randn(size, outputs, generator=draws).to(dtype)
        bits = torch.randint(0, 2, (size, outputs), generator=draws).to(dtype)
        batches.append((x, {"labels": labels, "values": values, "bits": bits}[targets]))
    return batches


LOSSES = {
    "cross_entropy": ("labels", functional.cross_entropy),
    "mse": ("values", functional.mse_loss),
    "bce": ("bits", functional.binary_cross_entropy_with_logits),
}


def example_gradients(model, batches, loss):
    rows = []
    for x, y in batches:
        for i in range(len(x)):
            value = loss(model(x[i : i + 1]), y[i : i + 1])
            found = torch.autograd.grad(value, list(model.parameters()))
            rows.append(torch.cat([part.reshape(-1) for part in found]))
    return torch.stack(rows)


def measured(probe, name, seed=0, **config):
    result = measures.get(name, **config).compute(probe, seed)
    low, high = result.interval
    assert low <= result.value <= high
    assert np.isfinite(result.stderr)
    return result


# -- moments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("products", ["loop", "batched"])
@pytest.mark.parametrize("objective", LOSSES)
def test_moments_against_a_loop(objective, products):
    targets, loss = LOSSES[objective]
    model, batches = net(), data(6, 3, targets=targets)
    g = example_gradients(model, batches, loss)
    probe = Probe(model, objective, batches, products=products)
    for memory in (256 << 20, 1):  # all at once, or one after another
        found = probe.evidence(ExampleGradientsRequest(memory=memory))
        np.testing.assert_allclose(found.squares, g.square().sum(1), rtol=1e-9)
        spread = (g - g.mean(0)).square().sum(1)
        np.testing.assert_allclose(found.spread, spread, rtol=1e-9)
        np.testing.assert_allclose(found.along, g @ probe.weights(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.diagonal, g.square().mean(0))
    first = probe.evidence(ExampleGradientsRequest(points=7))
    np.testing.assert_allclose(first.squares, g[:7].square().sum(1), rtol=1e-9)


def test_moments_in_float32():
    model, batches = net(torch.float32), data(20, dtype=torch.float32)
    g = example_gradients(model.double(), data(20), functional.cross_entropy)
    found = Probe(net(torch.float32), "cross_entropy", batches).evidence(ExampleGradientsRequest())
    np.testing.assert_allclose(found.squares, g.square().sum(1), rtol=1e-4)
    np.testing.assert_allclose(found.spread, (g - g.mean(0)).square().sum(1), rtol=1e-4)


def test_the_covariance_trace_against_numpy():
    model, batches = net(), data(8, 5)
    g = example_gradients(model, batches, functional.cross_entropy).numpy()
    result = measured(Probe(model, "cross_entropy", batches), "gradient-covariance-trace")
    assert result.value == pytest.approx(np.trace(np.cov(g.T)))
    assert result.stderr == pytest.approx(
        ((g - g.mean(0)) ** 2).sum(1).std(ddof=1) * 13 / 12 / math.sqrt(13)
    )


def test_the_covariance_is_the_noise_of_a_batch():
    """E ||g_B - g||^2 = tr Cov / B for batches drawn with replacement."""
    model, batches = net(), data(60)
    g = example_gradients(model, batches, functional.cross_entropy).numpy()
    rng = np.random.default_rng(0)
    drawn = g[rng.integers(0, 60, (20000, 8))].mean(1)
    noise = ((drawn - g.mean(0)) ** 2).sum(1)
    trace = measured(Probe(model, "cross_entropy", batches), "gradient-covariance-trace").value
    assert abs(noise.mean() - trace * 59 / 60 / 8) < 4 * noise.std() / math.sqrt(20000)


def test_the_empirical_fisher_trace_and_its_error():
    model, batches = net(), data(30)
    squares = example_gradients(model, batches, functional.cross_entropy).square().sum(1).numpy()
    result = measured(Probe(model, "cross_entropy", batches), "fisher-trace")
    assert result.value == pytest.approx(squares.mean())
    assert result.stderr == pytest.approx(squares.std(ddof=1) / math.sqrt(30))
    assert result.interval[0] >= 0


# -- the Fisher information itself ----------------------------------------------------------------


def gauss_newton_trace(model, batches, kind):
    """Mean over examples of tr J' (d2 loss / dz2) J for the sum of an example's terms."""
    total, count = 0.0, 0
    for x, _ in batches:
        for row in x:
            z = model(row[None])[0]
            jacobian = []
            for entry in z:
                found = torch.autograd.grad(entry, list(model.parameters()), retain_graph=True)
                jacobian.append(torch.cat([part.reshape(-1) for part in found]))
            j, z = torch.stack(jacobian), z.detach()
            if kind == "cross_entropy":
                p = z.softmax(0)
                inner = torch.diag(p) - torch.outer(p, p)
            elif kind == "mse":
                inner = 2 * torch.eye(len(z), dtype=z.dtype)
            else:
                p = z.sigmoid()
                inner = torch.diag(p * (1 - p))
            total += float((j.T @ inner @ j).trace())
            count += 1
    return total / count


@pytest.mark.parametrize("objective", LOSSES)
def test_drawn_targets_give_the_gauss_newton_trace(objective):
    """Where an example has K terms, its loss is their mean and the Fisher trace that / K^2.

    The data loss averages over all entries, so that its Gauss-Newton matrix has 1/K once.
    """
    model = net(activation=nn.Tanh)
    batches = data(10, targets=LOSSES[objective][0])
    probe = Probe(model, objective, batches, products="batched")
    summed = gauss_newton_trace(model, batches, objective)
    terms = 1 if objective == "cross_entropy" else 3
    identity = torch.eye(probe.size, dtype=torch.float64)
    assert float(probe.ggnvp(identity).trace()) == pytest.approx(summed / terms)
    values = [measured(probe, "fisher-trace", seed, kind="model").value for seed in range(40)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - summed / terms**2) < 4 * error
    assert error < 0.15 * np.mean(values)


def test_a_single_output_has_the_trace_of_gauss_newton():
    model = net(outputs=1, activation=nn.Tanh)
    batches = data(10, targets="values", outputs=1)
    probe = Probe(model, "mse", batches, products="batched")
    truth = gauss_newton_trace(model, batches, "mse")
    values = [measured(probe, "fisher-trace", seed, kind="model").value for seed in range(40)]
    assert abs(np.mean(values) - truth) <= 4 * np.std(values, ddof=1) / math.sqrt(40) + 1e-9 * truth


def test_the_diagonal_of_drawn_targets_is_gauss_newtons():
    model, batches = net(activation=nn.Tanh), data(10)
    probe = Probe(model, "cross_entropy", batches, products="batched")
    truth = probe.ggnvp(torch.eye(probe.size, dtype=torch.float64)).diagonal()
    requests = [ExampleGradientsRequest(targets="model", seed=seed) for seed in range(80)]
    drawn = torch.stack([probe.evidence(request).diagonal for request in requests])
    error = drawn.std(0) / math.sqrt(80)
    assert ((drawn.mean(0) - truth).abs() <= 5 * error + 1e-12).all()


def test_drawn_targets_follow_the_seed():
    probe = Probe(net(), "cross_entropy", data(20))
    one, again, other = (
        measured(probe, "fisher-trace", seed, kind="model").value for seed in (0, 0, 1)
    )
    assert one == again
    assert one != other
    empirical = [measured(probe, "fisher-trace", seed).value for seed in (0, 1)]
    assert empirical[0] == empirical[1]


def test_drawn_labels_have_the_model_s_frequencies():
    model = nn.Linear(1, 3).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.log(torch.tensor([0.7, 0.2, 0.1])))
    x = torch.zeros(4000, 1, dtype=torch.float64)
    batch = (x, torch.zeros(4000, dtype=torch.long))
    probe = Probe(model, "cross_entropy", [batch])
    # The loss of drawn labels is the entropy in expectation.
    p = np.array([0.7, 0.2, 0.1])
    entropy, square = -(p * np.log(p)).sum(), (p * np.log(p) ** 2).sum()
    drawn = probe.sampled_targets(0).loss()
    assert abs(drawn - entropy) < 4 * math.sqrt((square - entropy**2) / 4000)


# -- Fisher-Rao norm ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", ["cross_entropy", "mse"])
def test_fisher_rao_of_a_homogeneous_net_is_its_closed_form(objective, dtype):
    """L sqrt(mean <dl/dz, z>^2) for L layers without biases."""
    targets, loss = LOSSES[objective]
    model, batches = net(dtype, bias=False), data(15, 5, dtype=dtype, targets=targets)
    squares = []
    for x, y in batches:
        for i in range(len(x)):
            z = model(x[i : i + 1]).detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(z, y[i : i + 1]), z)
            squares.append(float((slope * z).sum().detach()) ** 2)
    result = measured(Probe(model, objective, batches), "fisher-rao-norm")
    assert result.value == pytest.approx(3 * math.sqrt(np.mean(squares)), rel=1e-5)
    error = 9 * np.std(squares, ddof=1) / math.sqrt(20) / (2 * result.value)
    assert result.stderr == pytest.approx(error, rel=1e-4)


def test_fisher_rao_against_the_fisher_matrix():
    model, batches = net(), data(12)
    g = example_gradients(model, batches, functional.cross_entropy)
    w = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    truth = math.sqrt(float(w @ (g.T @ g / 12) @ w))
    probe = Probe(model, "cross_entropy", batches, products="batched")
    assert measured(probe, "fisher-rao-norm").value == pytest.approx(truth)
    fisher = probe.ggnvp(w) @ w  # the model's Fisher information for cross-entropy
    values = [
        measured(probe, "fisher-rao-norm", seed, kind="model").value ** 2 for seed in range(40)
    ]
    assert abs(np.mean(values) - float(fisher)) < 4 * np.std(values, ddof=1) / math.sqrt(40)


# -- statuses -------------------------------------------------------------------------------------

NAMES = ("fisher-trace", "fisher-rao-norm", "gradient-covariance-trace")


def told(probe, name, **config):
    result = measures.get(name, **config).compute(probe)
    if result.status.measured:
        low, high = result.interval
        assert np.isfinite([result.value, result.stderr, low, high]).all()
        assert low <= result.value <= high
    else:
        assert math.isnan(result.value)
        assert result.message
    return result


@pytest.mark.parametrize("name", NAMES)
def test_batches_that_cannot_be_cut(name):
    def loss(model, batch):
        return (model(batch["x"]).square().sum(), 3)

    probe = Probe(net(), loss, [{"x": data(4)[0][0], "other": torch.zeros(2)}])
    result = told(probe, name)
    assert result.status is Status.DECLINED
    assert "single examples" in result.message


@pytest.mark.parametrize("name", NAMES)
def test_a_single_example(name):
    """One example has gradients, but no spread."""
    result = told(Probe(net(), "cross_entropy", data(1)), name)
    assert result.status.measured == (name != "gradient-covariance-trace")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_example_many_times(name):
    x, y = data(1)[0]
    result = told(Probe(net(), "cross_entropy", [(x.expand(6, -1), y.expand(6))]), name)
    assert result.stderr == pytest.approx(0, abs=1e-12)
    if name == "gradient-covariance-trace":
        assert result.value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_loss_has_no_information(name):
    def loss(model, batch):
        return 0 * model(batch[0]).sum(1)

    result = told(Probe(net(), loss, data(5)), name)
    assert result.value == 0


@pytest.mark.parametrize("name", ["fisher-trace", "fisher-rao-norm"])
def test_a_callable_has_no_distribution(name):
    def loss(model, batch):
        return model(batch[0]).square().sum(1)

    result = told(Probe(net(), loss, data(5)), name, kind="model")
    assert result.status is Status.DECLINED
    assert "kind='empirical'" in result.message


@pytest.mark.parametrize("mode", ["batch", "recalibrate"])
@pytest.mark.parametrize("name", [*NAMES, "sparse-gap"])
def test_batch_statistics_leave_no_single_examples(name, mode):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    result = told(Probe(model, "cross_entropy", data(8), batch_norm=mode), name)
    assert result.status is Status.DECLINED
    assert "statistics" in result.message


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        measures.get("fisher-trace", kind="true")
    with pytest.raises(ValueError, match="kind must be one of"):
        measures.get("fisher-rao-norm", kind="true")
    with pytest.raises(ValueError, match="points must be at least 2"):
        measures.get("gradient-covariance-trace", points=1)
    with pytest.raises(ValueError, match="targets must be one of"):
        ExampleGradientsRequest(targets="labels")
