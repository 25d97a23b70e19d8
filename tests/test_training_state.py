"""Saving, schedulers, clipping, loss scaling, batch norm, several processes, what is refused."""

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import training
from landscape.training import METHODS, RowOptimizer

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(2))
NEEDED = {
    "m-sam": {"micro_batch": 4},
    "ssam-d": {"refresh_every": 2, "total_steps": 9},
    "swa": {"start": 1},
    "wasam": {"start": 1},
}
BASES = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def made(name, model, base="sgd", **settings):
    optimizer = METHODS[name](
        BASES[base](model.parameters()), model, **NEEDED.get(name, {}), **settings
    )
    if name == "ssam-f":
        optimizer.refresh_mask([closure_of(model)])
    return optimizer


def closure_of(model, scaler=None):
    def closure():
        loss = functional.cross_entropy(model(X), Y)
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss

    return closure


def advance(model, optimizer, steps=1, scaler=None):
    for _ in range(steps):
        if isinstance(optimizer, RowOptimizer):
            losses = partial(row_losses, model)
            optimizer.step(losses, len(X))
        else:
            optimizer.step(closure_of(model, scaler))


def row_losses(model, rows):
    return functional.cross_entropy(model(X[rows]), Y[rows], reduction="none")


def saved(value):
    """Through a file and back, as a user would."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("base", sorted(BASES))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_run_that_is_saved_and_loaded_goes_on_bit_for_bit(name, base):
    model = network()
    optimizer = made(name, model, base)
    advance(model, optimizer, 3)
    weights, state = saved(model.state_dict()), saved(optimizer.state_dict())
    advance(model, optimizer, 4)

    other = network(seed=5)
    other.load_state_dict(weights)
    again = made(name, other, base, seed=9)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    advance(other, again, 4)
    assert_same(model.state_dict(), other.state_dict())
    if hasattr(optimizer, "average"):
        assert_same(optimizer.average.state_dict(), again.average.state_dict())


def test_a_scheduler_drives_the_base_and_a_radius_follows():
    model = network()
    optimizer = made("gsam", model, rho=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    radius = training.FollowLearningRate(optimizer, high=0.3, low=0.1, lr_high=0.1)
    seen = []
    for _ in range(4):
        advance(model, optimizer)
        scheduler.step()
        radius.step()
        seen.append(
            (optimizer.base_optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"])
        )
    assert [lr for lr, _ in seen] == pytest.approx([0.0853553, 0.05, 0.0146447, 0], abs=1e-6)
    assert [rho for _, rho in seen] == pytest.approx([0.1 + 2 * lr for lr, _ in seen])


def test_groups_survive_loading():
    model = network()
    optimizer = made("sam", model)
    state = saved(optimizer.state_dict())
    state["param_groups"][0] |= {"lr": 0.5, "rho": 0.7}
    optimizer.load_state_dict(state)
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["rho"]) == (0.5, 0.7)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameters_may_be_added_and_frozen_on_the_way(name):
    model = network()
    head = model[3]
    base = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], lr=0.1, momentum=0.9)
    optimizer = METHODS[name](base, model, **NEEDED.get(name, {}))
    advance(model, optimizer, 2)
    optimizer.add_param_group({"params": list(head.parameters())})
    model[0].weight.requires_grad_(False)
    first, last = model[0].weight.detach().clone(), head.weight.detach().clone()
    advance(model, optimizer, 2)
    assert torch.equal(model[0].weight, first)
    assert not torch.equal(head.weight, last)


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


SCRIPT = """
import sys, torch
from torch import nn
from torch.nn import functional
from landscape.training import METHODS, RowOptimizer
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
source = torch.Generator().manual_seed(0)
x, y = torch.randn(8, 4, generator=source), torch.randint(0, 3, (8,), generator=source)
mine = slice(4 * rank, 4 * rank + 4)
found = {}
needed = {"m-sam": {"micro_batch": 2}, "ssam-d": {"refresh_every": 1, "total_steps": 9},
          "swa": {"start": 0}, "wasam": {"start": 0}}
for views in (False, True):
    for mode in ("synchronised", "local"):
        for name, method in METHODS.items():
            if views and name not in {"sam", "bsam", "tsam"}:
                continue
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
            wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=views)
            base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            settings = needed.get(name, {})
            if name in {"sam", "tsam"}:
                settings = {"rho": 0.5}
            optimizer = method(base, wrapped, perturbation=mode, **settings)
            def losses(rows):
                logits = wrapped(x[mine][rows])
                return functional.cross_entropy(logits, y[mine][rows], reduction="none")
            def closure():
                loss = losses(torch.arange(4)).mean()
                loss.backward()
                return loss
            for _ in range(2):
                if isinstance(optimizer, RowOptimizer):
                    optimizer.step(losses, 4)
                else:
                    optimizer.step(closure)
            flat = torch.cat([p.detach().flatten() for p in model.parameters()])
            found[f"{name} {mode} {views}"] = flat
torch.save(found, f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(landscape.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", str(script)]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_groups_with_named_parameters_are_taken_as_they_are():
    model = network()
    groups = [{"params": model[0].named_parameters()}, {"params": model[3].named_parameters()}]
    optimizer = training.SAM(torch.optim.SGD(groups, lr=0.1), model)
    optimizer.add_param_group({"params": list(model[1].named_parameters())})
    advance(model, optimizer)
    assert [group["rho"] for group in optimizer.param_groups] == [0.05] * 3
    assert optimizer.state_dict()["param_groups"][2]["param_names"] == ["weight", "bias"]


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


@pytest.mark.slow
def test_processes_stay_together(two_processes):
    first, second = two_processes
    assert len(first) == 2 * len(METHODS) + 2 * 3
    for key, weights in first.items():
        assert torch.equal(weights, second[key]), key


@pytest.mark.slow
def test_gradients_that_are_views_of_buckets_change_nothing(two_processes):
    for key, weights in two_processes[0].items():
        torch.testing.assert_close(weights, two_processes[0][key.replace("True", "False")])


@pytest.mark.slow
def test_synchronised_is_sam_on_the_whole_batch_and_local_is_micro_batch_sam(two_processes):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=source)
    y = torch.randint(0, 3, (8,), generator=source)
    expected = {}
    for mode, name, settings in [("synchronised", "m-sam", 8), ("local", "m-sam", 4)]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        optimizer = METHODS[name](
            BASES["sgd"](model.parameters()), model, micro_batch=settings, rho=0.5
        )
        for _ in range(2):
            optimizer.step(
                lambda rows, model=model: functional.cross_entropy(
                    model(x[rows]), y[rows], reduction="none"
                ),
                8,
            )
        expected[mode] = torch.cat([p.detach().flatten() for p in model.parameters()])
    found = two_processes[0]
    for mode, weights in expected.items():
        torch.testing.assert_close(found[f"sam {mode} False"], weights)
    assert not torch.allclose(expected["local"], expected["synchronised"], atol=1e-4)


def sam(model, **settings):
    return training.SAM(BASES["sgd"](model.parameters()), model, **settings)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda m: training.SAM(torch.optim.SGD, m), TypeError, "the class SGD; use torch.optim"),
        (lambda m: training.SAM(BASES["sgd"](m.parameters()), 3), TypeError, "got int"),
        (lambda m: sam(m, rho=-1), ValueError, "rho must be a number at least 0, got -1"),
        (lambda m: sam(m, rho=float("nan")), ValueError, "got nan"),
        (lambda m: sam(m, rho="big"), ValueError, "got 'big'"),
        (lambda m: sam(m, maximum=3), TypeError, "unknown setting 'maximum' of SAM"),
        (lambda m: sam(m, perturbation="global"), ValueError, "synchronised or local"),
        (lambda m: sam(m).step(None), TypeError, "SAM.step needs a closure"),
        (lambda m: sam(m).step(lambda: 3.0), TypeError, "loss as a tensor, got float"),
        (lambda m: made("esam", m).step(lambda _: torch.ones(()), 4), ValueError, "each of the 4"),
        (lambda m: made("esam", m).step(lambda _: None, 4), ValueError, "got NoneType"),
        (lambda m: made("esam", m).step(3, 4), TypeError, "losses of rows"),
        (lambda m: made("esam", m).step(lambda _: None, 0), ValueError, "size must be"),
        (lambda m: made("rsam", m, alpha=1), ValueError, "differ from 1"),
        (lambda m: made("asam", m, adapt="some"), ValueError, "weights or all"),
        (
            lambda m: made("looksam", m, every=0),
            ValueError,
            "every must be a whole number of at least 1",
        ),
        (lambda m: made("tsam", m, samples=2.5), ValueError, "samples must be a whole number"),
        (
            lambda m: training.SAM(
                torch.optim.SGD([{"params": list(m.parameters()), "rho": -1.0}], lr=1.0), m
            ),
            ValueError,
            "rho must be a number at least 0, got -1.0",
        ),
        (
            lambda m: training.MomentumSAM(torch.optim.SGD(m.parameters(), lr=1.0), m),
            ValueError,
            r"this SGD has none; use SGD\(..., momentum=0.9\)",
        ),
        (lambda m: made("ssam-f", m).refresh_mask([]), ValueError, "at least one example"),
        (
            lambda m: sam(m).load_state_dict(BASES["sgd"](m.parameters()).state_dict()),
            ValueError,
            "the state of a plain optimiser, not of SAM",
        ),
        (
            lambda m: sam(m).load_state_dict(made("bsam", m).state_dict()),
            ValueError,
            "the state of BilateralSAM, not of SAM",
        ),
        (
            lambda m: training.FollowLearningRate(sam(m), "rho_min", high=1.0, lr_high=1.0),
            ValueError,
            "SAM has no setting 'rho_min'",
        ),
        (
            lambda m: training.FollowLearningRate(sam(m), high=1.0, lr_high=0.0),
            ValueError,
            "lr_low must be below lr_high",
        ),
    ],
)
def test_bad_input_is_one_clear_line(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong(network())


def test_a_state_of_other_shapes_is_refused_before_anything_changes():
    model = network()
    optimizer = made("looksam", model)
    advance(model, optimizer)
    state = optimizer.state_dict()
    other = nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    again = made("looksam", other)
    with pytest.raises(ValueError, match="parameters of other shapes"):
        again.load_state_dict(state)
    assert not again.memory
    assert not again.base_optimizer.state


def test_sparse_gradients_are_refused():
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = training.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)

    def closure():
        loss = model(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step(closure)
