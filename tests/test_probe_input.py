"""What a probe accepts, what it refuses and in which words, and what it counts."""

from __future__ import annotations

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import CallableObjective, Probe


def pairs():
    torch.manual_seed(0)
    return [
        (torch.randn(5, 3), torch.randint(0, 2, (5,))),
        (torch.randn(2, 3), torch.tensor([0, 1])),
    ]


def linear():
    torch.manual_seed(1)
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (iter(pairs()), TypeError, "one-shot"),
        ((b for b in pairs()), TypeError, "one-shot"),
        (pairs()[0], TypeError, "put it in a list"),
        (torch.randn(4, 3), TypeError, "put it in a list"),
        (3, TypeError, "iterable"),
        ([], ValueError, "no batch"),
        ([torch.randn(4, 3)], TypeError, r"\(inputs, targets\)"),
    ],
    ids=["iterator", "generator", "bare pair", "tensor", "number", "empty", "not a pair"],
)
def test_bad_batches_are_refused_in_words(batches, error, words):
    with pytest.raises(error, match=words):
        Probe(linear(), "cross_entropy", batches)


def test_shuffling_is_detected():
    data = torch.utils.data.TensorDataset(torch.randn(64, 3), torch.randint(0, 2, (64,)))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    with pytest.raises(ValueError, match="shuffling or augmentation"):
        Probe(linear(), "cross_entropy", loader)
    ordered = torch.utils.data.DataLoader(data, batch_size=8)
    assert Probe(linear(), "cross_entropy", ordered).terms == 64


def test_a_random_forward_pass_is_detected():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear()

        def forward(self, x):
            return functional.dropout(self.linear(x), 0.5, training=True)

    with pytest.raises(ValueError, match="dropout or noise"):
        Probe(Noisy(), "cross_entropy", pairs())


def test_dropout_modules_are_off():
    model = nn.Sequential(linear(), nn.Dropout(0.5)).train()
    assert Probe(model, "cross_entropy", pairs()).loss() == pytest.approx(
        Probe(model[0], "cross_entropy", pairs()).loss()
    )


def test_bad_models_and_objectives_are_refused_in_words():
    broken = linear()
    nn.init.constant_(broken.weight, float("nan"))
    complex_model = linear()
    complex_model.extra = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        Probe("model", "cross_entropy", pairs())
    with pytest.raises(ValueError, match="no trainable parameter"):
        Probe(linear().requires_grad_(requires_grad=False), "cross_entropy", pairs())
    with pytest.raises(ValueError, match="unknown objective 'hinge'; use one of"):
        Probe(linear(), "hinge", pairs())
    with pytest.raises(TypeError, match="name, an Objective or a callable"):
        Probe(linear(), 3, pairs())
    with pytest.raises(ValueError, match="bare scalar"):
        Probe(linear(), lambda net, b: functional.cross_entropy(net(b[0]), b[1]), pairs())
    with pytest.raises(ValueError, match="needs count"):
        CallableObjective(lambda net, b: net(b[0]).sum(), reduction="mean")
    with pytest.raises(ValueError, match="loss at the checkpoint is nan"):
        Probe(broken, "cross_entropy", pairs())
    with pytest.raises(ValueError, match="needs targets shaped like the outputs"):
        Probe(linear(), "mse", [(torch.randn(4, 3), torch.randn(4, 5))])
    with pytest.raises(ValueError, match="batch_norm must be one of"):
        Probe(linear(), "cross_entropy", pairs(), batch_norm="train")
    with pytest.raises(ValueError, match="products must be one of"):
        Probe(linear(), "cross_entropy", pairs(), products="fast")
    with pytest.raises(ValueError, match=r"float32 or torch\.float64"):
        Probe(linear(), "cross_entropy", pairs(), dtype=torch.float16)
    with pytest.raises(ValueError, match="only real floating parameters"):
        Probe(complex_model, "cross_entropy", pairs())


def test_wrong_shapes_are_refused_in_words():
    probe = Probe(linear(), "cross_entropy", pairs())
    with pytest.raises(ValueError, match=r"delta must have shape \(8,\)"):
        probe.loss(torch.zeros(7))
    with pytest.raises(ValueError, match="v must have rows of 8 entries"):
        probe.hvp(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="no parameter matches"):
        probe.restrict("layer4.*")


def test_an_mse_target_without_the_trailing_one_is_not_broadcast():
    inputs, targets = torch.randn(6, 3), torch.randn(6)
    model = nn.Linear(3, 1)
    probe = Probe(model, "mse", [(inputs, targets)])
    assert probe.loss() == pytest.approx(functional.mse_loss(model(inputs)[:, 0], targets).item())


Point = namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: {"x": x, "y": y},
        Point,
        lambda x, y: [x, {"deep": (y,)}],
    ],
    ids=["dict", "namedtuple", "nested"],
)
def test_batches_may_have_any_structure(wrap):
    def read(batch):
        if isinstance(batch, dict):
            return batch["x"], batch["y"]
        if isinstance(batch, Point):
            return batch.x, batch.y
        return batch[0], batch[1]["deep"][0]

    def loss(net, batch):
        x, y = read(batch)
        return functional.cross_entropy(net(x), y, reduction="none")

    probe = Probe(linear(), loss, [wrap(x, y) for x, y in pairs()], dtype=torch.float64)
    plain = Probe(linear(), "cross_entropy", pairs(), dtype=torch.float64)
    assert probe.loss() == pytest.approx(plain.loss(), rel=1e-12)


def test_unused_parameters_are_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = linear(), linear()

        def forward(self, x):
            return self.used(x)

    probe = Probe(Half(), "cross_entropy", pairs())
    assert probe.unused == ("idle.weight", "idle.bias")
    assert probe.size == 16
    assert "idle.weight" in landscape.audit(probe, ["parameter-norm"]).warnings[0]


def test_tied_parameters_are_counted_and_moved_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    torch.manual_seed(0)
    model = Twice()
    probe = Probe(model, "mse", [(torch.randn(4, 3), torch.randn(4, 3))])
    assert (probe.size, probe.space.names) == (9, ("first.weight",))
    zero = -probe.weights()
    outputs_zero = probe.loss(zero)  # both layers vanish together
    assert outputs_zero == pytest.approx(float((probe._batches._cached[0][1] ** 2).mean()))


def test_space_layers_and_selection():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    space = Probe(model, "cross_entropy", pairs()).space
    assert space.by_layer() == {"0": ("0.weight", "0.bias"), "2": ("2.weight", "2.bias")}
    assert space.select("*.bias").names == ("0.bias", "2.bias")
    flat = torch.arange(float(space.size))
    assert torch.equal(space.flatten(space.split(flat)), flat)


def test_batch_norm_modes_evaluate_what_they_say():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model.train()(torch.randn(32, 3).double())
    inputs, targets = torch.randn(12, 3).double(), torch.randint(0, 2, (12,))
    batches = [(inputs, targets)]

    def loss(net):
        return functional.cross_entropy(net(inputs), targets).item()

    def at(mode, delta=None):
        probe = Probe(model, "cross_entropy", batches, batch_norm=mode)
        return probe.loss(None if delta is None else delta * probe.weights())

    plain = [p.detach().clone() for p in model.parameters()]
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    for delta in (None, 0.5):
        with torch.no_grad():
            for p, base in zip(model.parameters(), plain, strict=True):
                p.copy_(base * (1 + (delta or 0)))
        model.eval()
        want_eval = loss(model)
        model.train()
        want_batch = loss(model)
        # one batch: recalibrated statistics are the batch's, with the unbiased variance
        model[1].reset_running_stats()
        model[1].momentum = None
        model(inputs)
        model.eval()
        want_recalibrated = loss(model)
        model.load_state_dict(saved)
        assert at("eval", delta) == pytest.approx(want_eval, rel=1e-12)
        assert at("batch", delta) == pytest.approx(want_batch, rel=1e-12)
        assert at("recalibrate", delta) == pytest.approx(want_recalibrated, rel=1e-12)


def test_the_meter_counts_passes():
    probe = Probe(linear(), "cross_entropy", pairs())
    vector = torch.zeros(probe.size)
    with probe.meter() as cost:
        probe.loss()
        probe.gradient()
    assert cost.passes == 0  # known since construction
    with probe.meter() as cost:
        probe.losses(torch.zeros(3, probe.size))
        probe.gradient(vector)
        probe.hvp(torch.zeros(4, probe.size))
        probe.restrict("bias").hvp(torch.zeros(2))
    assert (cost.forwards, cost.gradients, cost.products) == (3, 1, 5)
    assert cost.seconds > 0
    assert cost.peak_memory > 0
    with suppress(ValueError), probe.meter() as cost:
        probe.hvp(vector)
        probe.hvp(torch.zeros(1))
    assert cost.products == 1  # counted up to the exception


def test_losses_and_gradient_agree_with_autograd():
    model, delta = linear().double(), torch.randn(8).double()
    batches = [(x.double(), y) for x, y in pairs()]
    probe = Probe(model, "cross_entropy", batches)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        for parameter, part in zip(
            model.parameters(), probe.space.split(delta).values(), strict=True
        ):
            parameter.add_(part)
    value = functional.cross_entropy(model(inputs), targets)
    value.backward()
    assert probe.loss(delta) == pytest.approx(value.item(), rel=1e-12)
    truth = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert torch.allclose(probe.gradient(delta), truth, rtol=1e-12)
    terms = probe.term_losses(delta)
    assert torch.allclose(
        terms, functional.cross_entropy(model(inputs), targets, reduction="none").detach()
    )


class Checkpointed(nn.Module):
    """A layer under activation checkpointing of either kind."""

    def __init__(self, *, reentrant):
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(3, 3), linear(), reentrant

    def forward(self, x):
        h = torch.utils.checkpoint.checkpoint(
            lambda y: torch.tanh(self.first(y)), x.requires_grad_(), use_reentrant=self.reentrant
        )
        return self.second(h)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_switched_off(reentrant):
    model = Checkpointed(reentrant=reentrant)
    plain = nn.Sequential(model.first, nn.Tanh(), model.second)
    probe, truth = (Probe(net, "cross_entropy", pairs()) for net in (model, plain))
    v = torch.ones(probe.size)
    assert torch.allclose(probe.hvp(v), truth.hvp(v), rtol=1e-6)
    assert torch.allclose(probe.gradient(0.1 * v), truth.gradient(0.1 * v), rtol=1e-6)
    assert probe.provenance()["handled"] == ["activation checkpointing switched off"]
    assert truth.provenance()["handled"] == []


def test_a_checkpoint_of_torch_is_a_checkpoint_again_outside_of_evaluations():
    before = torch.utils.checkpoint.CheckpointFunction
    Probe(Checkpointed(reentrant=True), "cross_entropy", pairs())
    assert torch.utils.checkpoint.CheckpointFunction is before


def saved_tensor_hooks(x):
    with torch.autograd.graph.save_on_cpu():
        return torch.tanh(x)


def test_hooks_on_saved_tensors_are_refused_in_words():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear()

        def forward(self, x):
            return saved_tensor_hooks(self.linear(x))

    with pytest.raises(TypeError, match=r"activation checkpointing.*switch it off"):
        Probe(Net(), "cross_entropy", pairs())


def test_a_single_differentiation_is_explained():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.sin(x)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad * torch.cos(ctx.saved_tensors[0])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear()

        def forward(self, x):
            return Once.apply(self.linear(x))

    probe = Probe(Net(), "cross_entropy", pairs())
    with pytest.raises(TypeError, match="finite_difference"):
        probe.hvp(torch.ones(probe.size))


def test_a_callable_that_ignores_the_model_it_is_handed_is_refused():
    model = linear()
    with pytest.raises(ValueError, match="must evaluate the model it is handed"):
        Probe(
            model,
            lambda _, b: functional.cross_entropy(model(b[0]), b[1], reduction="none"),
            pairs(),
        )


def test_complex_tensors_are_refused_in_words():
    model = linear()
    model.register_buffer("freqs", torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex tensors"):
        Probe(model, "cross_entropy", pairs())


def test_targets_of_another_shape_are_not_reshaped():
    with pytest.raises(ValueError, match="needs targets shaped like the outputs"):
        Probe(linear(), "mse", [(torch.randn(5, 3), torch.randn(2, 5))])


class Forgetful(nn.Module):
    """Writes to a buffer and, in place, to its input in every forward pass."""

    def __init__(self):
        super().__init__()
        self.linear = linear()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x += 1
        return self.linear(x) * (2 if self.calls > 4 else 1)


def test_what_a_forward_pass_writes_is_not_kept():
    model, batches = Forgetful(), pairs()
    before = [x.clone() for x, _ in batches]
    probe = Probe(model, "cross_entropy", batches)
    zero = torch.zeros(probe.size)
    first = probe.loss(zero)
    assert probe.losses(torch.stack([zero] * 10)).tolist() == [first] * 10
    assert probe.loss() == first
    assert model.calls == 0
    assert all(torch.equal(x, old) for (x, _), old in zip(batches, before, strict=True))
    for x, _ in batches:
        x.zero_()  # the probe keeps data of its own
    assert probe.loss(zero) == first


def test_threads_may_share_a_probe():
    probe = Probe(linear(), "cross_entropy", pairs(), dtype=torch.float64)
    deltas = [torch.full((probe.size,), 0.1 * k, dtype=torch.float64) for k in range(8)]
    alone = [probe.hvp(delta, delta) for delta in deltas]
    flag = torch.backends.mha.get_fastpath_enabled()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda delta: probe.hvp(delta, delta), deltas))
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.backends.mha.get_fastpath_enabled() == flag


def test_vectors_made_in_inference_mode_are_accepted():
    probe = Probe(linear(), "cross_entropy", pairs())
    with torch.inference_mode():
        delta = 0.1 * torch.ones(probe.size)
        inside = probe.gradient(delta), probe.losses(delta[None]), probe.hvp(delta, delta)
    delta = 0.1 * torch.ones(probe.size)
    assert torch.equal(inside[0], probe.gradient(delta))
    assert torch.equal(inside[1], probe.losses(delta[None]))
    assert torch.equal(inside[2], probe.hvp(delta, delta))
