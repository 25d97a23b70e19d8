"""What one step does around its rule: statistics, scaling, clipping, failures."""

import pytest
import torch
from test_training_state import BASES, NEEDED, X, Y, advance, closure_of, made, network
from torch import nn
from torch.nn import functional

from landscape import training
from landscape.training import METHODS


def test_parameters_without_gradient_are_left_alone_even_by_weight_decay():
    model = network()
    spare = nn.Parameter(torch.ones(3))
    base = torch.optim.SGD([*model.parameters(), spare], lr=0.1, weight_decay=0.5)
    advance(model, training.SAM(base, model))
    assert torch.equal(spare, torch.ones(3))
    assert spare.grad is None


def test_the_combined_gradient_is_clipped():
    model, clipped = network(), network()
    advance(model, made("sam", model))
    advance(clipped, made("sam", clipped, max_norm=1e-3))
    norms = [
        torch.cat([p.grad.flatten() for p in net.parameters()]).norm() for net in (model, clipped)
    ]
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_loss_scaling_changes_nothing_but_rounding(name):
    plain, scaled = network(), network()
    advance(plain, made(name, plain), 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    settings = NEEDED.get(name, {}) | {"scaler": scaler}
    optimizer = METHODS[name](BASES["sgd"](scaled.parameters()), scaled, **settings)
    if name == "ssam-f":
        optimizer.refresh_mask([closure_of(scaled, scaler)])
    for _ in range(3):
        advance(scaled, optimizer, scaler=scaler)
        scaler.update()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fails", [1, 2])
def test_an_overflow_in_any_pass_skips_the_step_and_lowers_the_scale(fails):
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = made("friendly-sam", model, scaler=scaler)
    advance(model, optimizer, scaler=scaler)
    scaler.update()
    before = [p.detach().clone() for p in model.parameters()]
    calls = []

    def closure():
        calls.append(1)
        loss = closure_of(model, scaler)()
        if len(calls) == fails:
            model[0].weight.grad[0, 0] = float("inf")
        return loss

    optimizer.step(closure)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert all(t.isfinite().all() for t in optimizer.memory["mean"].tensors)
    advance(model, optimizer, scaler=scaler)
    assert not torch.equal(model[0].weight, before[0])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_running_statistics_follow_each_example_once(name):
    """The counter of batch norm counts the passes that were let in."""
    model = network()
    optimizer = METHODS[name](BASES["sgd"](model.parameters()), model, **NEEDED.get(name, {}))
    advance(model, optimizer, 2)
    passes = {"m-sam": 4, "lpf-sgd": 8}.get(name, 1)
    assert int(model[1].num_batches_tracked) == 2 * passes


def test_statistics_are_those_of_the_plain_pass_even_where_the_other_overflows():
    model, plain = network(), network()
    plain(X)
    calls = []

    def closure():
        calls.append(1)
        loss = functional.cross_entropy(model(X * (float("nan") if len(calls) > 1 else 1)), Y)
        loss.backward()
        return loss

    made("sam", model).step(closure)
    assert torch.equal(model[1].running_mean, plain[1].running_mean)


def test_weights_and_statistics_are_put_back_when_the_closure_fails():
    model = network()
    optimizer = made("sam", model, rho=0.5)
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            assert not torch.equal(model[0].weight, before["0.weight"])
            model(X)
            raise KeyboardInterrupt
        return closure_of(model)()

    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    after = model.state_dict()
    assert all(
        torch.equal(after[key], before[key])
        for key in before
        if "running" not in key and "num" not in key
    )
    assert int(after["1.num_batches_tracked"]) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_a_step_of_the_right_length(dtype):
    """Norms of many small entries overflow or vanish in half precision."""
    weight = nn.Parameter(torch.zeros(40_000, dtype=dtype))
    model = nn.Module()
    model.weight = weight
    seen = []

    def closure():
        seen.append(weight.detach().float())
        weight.grad = torch.full_like(weight, 10.0)
        return torch.zeros(())

    training.SAM(torch.optim.SGD([weight], lr=0.0), model, rho=2.0).step(closure)
    assert (seen[1] - seen[0]).norm() == pytest.approx(2.0, rel=1e-2)


def test_an_example_that_overflows_is_left_out_of_the_fisher_mask():
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = METHODS["ssam-f"](BASES["sgd"](model.parameters()), model, scaler=scaler)

    def overflowing():
        loss = closure_of(model, scaler)()
        model[0].weight.grad[0, 0] = float("inf")
        return loss

    optimizer.refresh_mask([closure_of(model, scaler)])
    expected = optimizer.memory["mask"].flat()
    optimizer.refresh_mask([overflowing, closure_of(model, scaler)])
    assert torch.equal(optimizer.memory["mask"].flat(), expected)
    with pytest.raises(ValueError, match="finite gradient"):
        optimizer.refresh_mask([overflowing])


def test_sparse_gradients_are_refused():
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = training.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)

    def closure():
        loss = model(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step(closure)
