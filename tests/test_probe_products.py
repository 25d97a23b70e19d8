"""Curvature products against dense matrices built without the probe."""

from __future__ import annotations

import pathlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from landscape import CallableObjective, Probe

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


class Attention(nn.Module):
    """A transformer block with scaled-dot-product attention and a tied output matrix."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        h = self.block(self.embed(x))
        q = self.head(h)
        h = functional.scaled_dot_product_attention(q[:, None], h[:, None], h[:, None])[:, 0]
        return self.out(h.mean(1))


class Tied(nn.Module):
    """Encoder and decoder share a matrix; one parameter is never used; one layer is frozen."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 6, bias=False)
        self.middle = nn.Linear(6, 6)
        self.b = nn.Linear(4, 6, bias=False)
        self.b.weight = self.a.weight
        self.frozen = nn.Linear(6, 6).requires_grad_(requires_grad=False)
        self.unused = nn.Parameter(torch.randn(3))
        self.empty = nn.Parameter(torch.empty(0))

    def forward(self, x):
        h = torch.tanh(self.frozen(torch.tanh(self.middle(torch.tanh(self.a(x))))))
        return h @ self.b.weight


def mlp():
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 4))


def conv():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()
    )
    net = nn.Sequential(net, nn.Linear(12, 4))
    net(torch.randn(16, 1, 6, 6))  # running statistics away from (0, 1)
    return net


CASES = {
    "mlp": (mlp, (4,)),
    "conv-batchnorm": (conv, (1, 6, 6)),
    "attention": (Attention, (5, 3)),
    "tied-unused-frozen": (Tied, (4,)),
}


def case(name, dtype=torch.float64, objective="cross_entropy"):
    torch.manual_seed(0)
    make, shape = CASES[name]
    model = make().to(dtype).eval()
    inputs = torch.randn(11, *shape, dtype=dtype)
    if objective == "cross_entropy":
        targets = torch.randint(0, 4, (11,))
    else:
        targets = torch.rand(11, 4, dtype=dtype)
    # 4 + 4 + 3: the last batch is uneven
    return model, list(zip(inputs.split(4), targets.split(4), strict=True))


LOSSES = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "bce": functional.binary_cross_entropy_with_logits,
}


def reference(model, batches, objective="cross_entropy"):
    """Flat weights, the loss of flat weights, and the outputs of flat weights, in float64."""
    model = model.double()
    trainable = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.numel()
    }
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in trainable.values()])
    inputs = torch.cat([batch[0] for batch in batches]).double()
    targets = torch.cat([batch[1] for batch in batches])
    if targets.is_floating_point():
        targets = targets.double()

    def outputs(w):
        replaced, start = {}, 0
        for name, parameter in trainable.items():
            replaced[name] = w[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        # the math kernel, as double backward needs it
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(model, replaced, inputs)

    return flat, lambda w: LOSSES[objective](outputs(w), targets), outputs, targets


def dense_hessian(model, batches, objective="cross_entropy", at=0.0):
    flat, loss, _, _ = reference(model, batches, objective)
    return torch.autograd.functional.hessian(loss, flat + at)


def dense_ggn(model, batches, objective="cross_entropy"):
    flat, _, outputs, targets = reference(model, batches, objective)
    jacobian = torch.autograd.functional.jacobian(outputs, flat).flatten(0, 1)
    z = outputs(flat).detach()
    curvature = torch.autograd.functional.hessian(lambda z: LOSSES[objective](z, targets), z)
    return jacobian.T @ curvature.reshape(z.numel(), z.numel()) @ jacobian


def relative(found, truth):
    return float((found.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("products", ["loop", "batched", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_hessian_products_equal_the_dense_hessian(name, products, dtype):
    model, batches = case(name, dtype)
    probe = Probe(model, "cross_entropy", batches, products=products)
    vectors = torch.randn(5, probe.size, dtype=dtype)
    truth = vectors.double() @ dense_hessian(model, batches)
    for _ in range(2):  # the second call uses kept graphs
        assert relative(probe.hvp(vectors), truth) < TOLERANCE[dtype]
    assert relative(probe.hvp(vectors[0]), truth[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("objective", LOSSES)
@pytest.mark.parametrize("name", CASES)
def test_gauss_newton_products_equal_the_dense_matrix(name, objective, dtype):
    model, batches = case(name, dtype, objective)
    probe = Probe(model, objective, batches)
    vectors = torch.randn(3, probe.size, dtype=dtype)
    truth = vectors.double() @ dense_ggn(model, batches, objective)
    assert relative(probe.ggnvp(vectors), truth) < TOLERANCE[dtype]
    assert relative(probe.ggnvp(vectors[1]), truth[1]) < TOLERANCE[dtype]


@pytest.mark.parametrize("objective", ["mse", "bce"])
def test_other_objectives_have_the_dense_hessian(objective):
    model, batches = case("mlp", objective=objective)
    probe = Probe(model, objective, batches)
    vector = torch.randn(probe.size, dtype=torch.float64)
    assert relative(probe.hvp(vector), dense_hessian(model, batches, objective) @ vector) < 1e-10


def test_products_away_from_the_checkpoint():
    model, batches = case("mlp")
    probe = Probe(model, "cross_entropy", batches)
    delta = 0.1 * torch.randn(probe.size, dtype=torch.float64)
    vector = torch.randn(probe.size, dtype=torch.float64)
    at_base = probe.hvp(vector)
    truth = dense_hessian(model, batches, at=delta) @ vector
    assert relative(probe.hvp(vector, delta), truth) < 1e-10
    assert torch.equal(probe.hvp(vector), at_base)


def test_no_kept_graphs_gives_the_same_products():
    model, batches = case("conv-batchnorm")
    kept, rebuilt = (
        Probe(model, "cross_entropy", batches, graph_memory=memory, products="loop")
        for memory in (1 << 30, 0)
    )
    vectors = torch.randn(3, kept.size, dtype=torch.float64)
    assert torch.equal(kept.hvp(vectors), rebuilt.hvp(vectors))


def test_sub_space_products_are_blocks_of_the_dense_hessian():
    model, batches = case("mlp")
    probe = Probe(model, "cross_entropy", batches)
    part = probe.restrict("2.*")
    full = dense_hessian(model, batches)
    place = slice(probe.space.slices["2.weight"].start, probe.space.slices["2.bias"].stop)
    vector = torch.randn(part.size, dtype=torch.float64)
    assert relative(part.hvp(vector), full[place, place] @ vector) < 1e-10
    assert torch.equal(part.gradient(), probe.gradient()[place])
    assert part is probe.restrict(["2.weight", "2.bias"])


def test_finite_difference_products_are_close_and_labelled():
    model, batches = case("mlp")
    probe = Probe(model, "cross_entropy", batches, products="finite_difference")
    truth = dense_hessian(model, batches)
    # The step is set by the direction's norm: short and long vectors are equally exact.
    for length in (1e-3, 1.0, 1e3):
        vector = length * torch.randn(probe.size, dtype=torch.float64)
        assert relative(probe.hvp(vector), truth @ vector) < 1e-6
    assert probe.identity()["products"] == "finite_difference"
    assert probe.provenance()["products_used"] == "finite_difference"
    with probe.meter() as cost:
        probe.hvp(torch.randn(3, probe.size))
    assert (cost.products, cost.gradients) == (0, 6)  # what was really evaluated


class NoDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.cos(x)


def test_finite_differences_serve_models_without_double_backward():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.exact = False

        def forward(self, x):
            h = self.linear(x)
            return torch.sin(h) if self.exact else NoDoubleBackward.apply(h)

    torch.manual_seed(0)
    model = Net().double()
    batches = [(torch.randn(6, 3).double(), torch.randn(6, 2).double())]
    probe = Probe(model, "mse", batches, products="finite_difference")
    vector = torch.randn(probe.size, dtype=torch.float64)
    found = probe.hvp(vector)
    model.exact = True
    assert relative(found, dense_hessian(model, batches, "mse") @ vector) < 1e-6


def test_a_linear_loss_has_zero_curvature():
    model = nn.Linear(3, 1)
    batches = [(torch.randn(4, 3), torch.zeros(4, 1))]
    probe = Probe(model, lambda net, batch: net(batch[0]).sum(1), batches)
    assert torch.equal(probe.hvp(torch.ones(2, probe.size)), torch.zeros(2, probe.size))


def test_gauss_newton_without_outputs_says_what_to_do():
    model = nn.Linear(3, 1)
    probe = Probe(model, lambda net, batch: net(batch).sum(1), [torch.randn(4, 3)])
    with pytest.raises(TypeError, match="needs the network's outputs"):
        probe.ggnvp(torch.ones(probe.size))


@pytest.mark.parametrize("way", ["per-term", "pair", "mean", "sum"])
def test_callables_are_weighted_by_terms(way):
    model, batches = case("mlp")

    def losses(net, batch):
        return functional.cross_entropy(net(batch[0]), batch[1], reduction="none")

    def count(batch):
        return len(batch[1])

    objective = {
        "per-term": losses,
        "pair": lambda net, batch: (losses(net, batch).sum(), len(batch[1])),
        "mean": CallableObjective(
            lambda net, batch: losses(net, batch).mean(), reduction="mean", count=count
        ),
        "sum": CallableObjective(
            lambda net, batch: losses(net, batch).sum(), reduction="sum", count=count
        ),
    }[way]
    named, called = Probe(model, "cross_entropy", batches), Probe(model, objective, batches)
    vector = torch.randn(named.size, dtype=torch.float64)
    assert called.loss() == pytest.approx(named.loss(), rel=1e-12)
    assert relative(called.hvp(vector), named.hvp(vector)) < 1e-12


def test_ignored_targets_are_no_terms():
    torch.manual_seed(0)
    model = nn.Linear(3, 5).double()
    inputs, targets = torch.randn(6, 3).double(), torch.tensor([1, -100, 2, -100, -100, 4])
    probe = Probe(model, "cross_entropy", [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    assert probe.terms == 3
    assert probe.loss() == pytest.approx(functional.cross_entropy(model(inputs), targets).item())


def test_peak_memory_is_flat_over_repetitions():
    model, batches = case("conv-batchnorm", torch.float32)
    inputs, targets = torch.randn(256, 1, 6, 6), torch.randint(0, 4, (256,))
    del batches
    probe = Probe(model, "cross_entropy", [(inputs, targets)], graph_memory=0)
    vectors = torch.randn(4, probe.size)

    def resident():
        with pathlib.Path("/proc/self/statm").open() as stream:
            return int(stream.read().split()[1]) * 4096

    calls = (
        lambda: probe.hvp(vectors),
        lambda: probe.ggnvp(vectors),
        lambda: probe.loss(vectors[0]),
    )
    for call in calls:
        for _ in range(5):
            call()
        before = resident()
        for _ in range(50):
            call()
        assert resident() - before < 4 << 20
