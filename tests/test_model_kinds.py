"""Models and losses of every kind: measured right, or said in a sentence."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import landscape
from landscape import Probe, measures
from landscape.probing import NotApplicableError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def inputs(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def labels(count=30, classes=3):
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(2))


def seeded(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double()


def dense(model, batch, loss=functional.cross_entropy):
    """Hessian of the mean loss, an entry of the gradient after the other."""
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    value = loss(torch.func.functional_call(model, leaves, (batch[0],)), batch[1])

    slopes = torch.autograd.grad(value, list(leaves.values()), create_graph=True)
    rows = [
        torch.autograd.grad(slope.reshape(-1)[entry], list(leaves.values()), retain_graph=True)
        for slope in slopes
        for entry in range(slope.numel())
    ]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def assert_exact(probe, truth):
    eye = torch.eye(probe.size, dtype=torch.float64)
    assert torch.allclose(probe.hvp(eye), truth, atol=1e-9)
    assert probe.checks.compare("hessian").agrees


# -- parameters -----------------------------------------------------------------------------------


class Scaled(nn.Module):
    """CLIP's temperature, ReZero's gate."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.tensor(0.0)), nn.Linear(4, 3)

    def forward(self, x):
        return self.scale.exp() * self.layer(x)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.gate = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return self.last(x + self.gate * torch.tanh(self.first(x)))


class Spectral(nn.Module):
    """A complex kernel held as pairs of real numbers, behind an odd number of others."""

    def __init__(self):
        super().__init__()
        self.skip = nn.Parameter(torch.ones(1))
        self.kernel, self.out = nn.Parameter(torch.randn(3, 2)), nn.Linear(4, 3)

    def forward(self, x):
        spectrum = torch.fft.rfft(x) * torch.view_as_complex(self.kernel)
        return self.out(torch.fft.irfft(spectrum, n=4) + self.skip * x)


class FlatSpectral(Spectral):
    """The same kernel as a flat row of six."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6))

    def forward(self, x):
        spectrum = torch.fft.rfft(x) * torch.view_as_complex(self.kernel.view(3, 2))
        return self.out(torch.fft.irfft(spectrum, n=4) + self.skip * x)


@pytest.mark.parametrize("kind", [Scaled, Gated, Spectral, FlatSpectral])
def test_parameters_of_any_shape_and_place(kind):
    model, batch = seeded(kind()), (inputs(30, 4), labels())
    for products in ("auto", "loop"):
        probe = Probe(model, "cross_entropy", [batch], products=products)
        assert_exact(probe, dense(model, batch))
        assert torch.isfinite(probe.ggnvp(torch.ones(2, probe.size, dtype=torch.float64))).all()
    names = ["max-sharpness", "average-sharpness", "fisher-trace", "micro-batch-gap"]
    assert all(r.status.value != "failed" for r in landscape.audit(probe, names))
    plane = landscape.evaluate_slice(probe, landscape.slices.random(probe, 1), (-1, 1), 3)
    assert float(plane.train_loss[1]) == pytest.approx(probe.loss())


@pytest.mark.parametrize("kind", ["embedding", "bag", "functional"])
def test_sparse_gradients_are_made_dense(kind):
    class Words(nn.Module):
        def __init__(self, *, sparse):
            super().__init__()
            layer = nn.EmbeddingBag if kind == "bag" else nn.Embedding
            self.table, self.out, self.sparse = layer(12, 4, sparse=sparse), nn.Linear(4, 3), sparse

        def forward(self, x):
            if kind == "functional":
                found = functional.embedding(x, self.table.weight, sparse=self.sparse).mean(1)
            else:
                found = self.table(x) if kind == "bag" else self.table(x).mean(1)
            return self.out(torch.tanh(found))

    words = torch.randint(0, 12, (30, 5), generator=torch.Generator().manual_seed(3))
    sparse, plain = (
        Probe(seeded(Words(sparse=on)), "cross_entropy", [(words, labels())])
        for on in (True, False)
    )
    assert torch.equal(sparse.gradient(), plain.gradient())
    names = ["max-sharpness", "sam-gap", "fisher-trace"]
    names += ["hessian-trace"] if kind != "bag" else []
    for one, other in zip(
        landscape.audit(sparse, names), landscape.audit(plain, names), strict=True
    ):
        assert one.value == pytest.approx(other.value, rel=1e-6)
    assert "sparse gradients of embeddings made dense" in sparse.provenance()["handled"]


def test_no_second_derivative_is_told_and_differences_measure_it():
    bag = seeded(nn.Sequential(nn.EmbeddingBag(9, 4), nn.Tanh(), nn.Linear(4, 3)))
    words = torch.randint(0, 9, (30, 4), generator=torch.Generator().manual_seed(3))
    found = measures.get("hessian-trace")
    table = landscape.audit(Probe(bag, "cross_entropy", [(words, labels())]), [found])
    assert table["hessian-trace"].status.value == "failed"
    assert "_embedding_bag_backward" in table["hessian-trace"].message
    assert "products='finite_difference'" in table["hessian-trace"].message
    plain = seeded(nn.Sequential(nn.Embedding(9, 4), Mean(), nn.Tanh(), nn.Linear(4, 3)))
    plain.load_state_dict(
        {
            k.replace("1.", "2.").replace("2.", "3.") if k[0] == "2" else k: v
            for k, v in bag.state_dict().items()
        }
    )
    truth = found.compute(Probe(plain, "cross_entropy", [(words, labels())])).value
    probe = Probe(bag, "cross_entropy", [(words, labels())], products="finite_difference")
    assert found.compute(probe).value == pytest.approx(truth, rel=1e-6)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


# -- kinds of modules -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["script", "trace", "part"])
def test_torchscript_is_measured(form):
    plain = seeded(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    batch = inputs(30, 4), labels()
    model = {
        "script": lambda: torch.jit.script(plain),
        "trace": lambda: torch.jit.trace(plain, batch[0]),
        "part": lambda: nn.Sequential(torch.jit.script(plain[:2]), plain[2]),
    }[form]()
    before = [p.clone() for p in model.parameters()]
    probe = Probe(model, "cross_entropy", [batch])
    assert_exact(probe, dense(plain, batch))
    assert measures.get("max-sharpness").compute(probe).status.value == "ok"
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again, self.out = self.first, nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.again(torch.tanh(self.first(x)))))


def test_a_module_under_two_names_keeps_its_parameters():
    model, batch = seeded(Twice()), (inputs(30, 4), labels())
    probe = Probe(model, "cross_entropy", [batch])
    own = probe._snapshot.model
    before = [id(parameter) for parameter in own.parameters()]
    assert_exact(probe, dense(model, batch))
    measures.get("max-sharpness").compute(probe)
    assert [id(parameter) for parameter in own.parameters()] == before
    alone = measures.get("relative-flatness").compute(Probe(model, "cross_entropy", [batch]))
    assert measures.get("relative-flatness").compute(probe).value == alone.value


class Keeps(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how

    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        self.kept = {"tensor": hidden, "list": [hidden], "dict": {"maps": [hidden]}}[self.how]
        return self.b(hidden)


def normed(wrap):
    def make():
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        wrap(model[0])
        return model

    return make


KEEPERS = {
    "tensor": lambda: Keeps("tensor"),
    "list": lambda: Keeps("list"),
    "dict": lambda: Keeps("dict"),
    "weight norm": normed(parametrizations.weight_norm),
    "spectral norm": normed(nn.utils.spectral_norm),
    "pruned": normed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_what_modules_keep_is_copied_without_its_graph(name):
    torch.manual_seed(0)
    model = KEEPERS[name]()
    model(inputs(30, 4, dtype=torch.float32))  # now it keeps something
    probe = Probe(model.eval(), "cross_entropy", [(inputs(30, 4), labels())])
    probe.hvp(torch.ones(probe.size))
    probe.model_copy()
    probe.scratch()
    kept = [v for m in probe.modules().values() for v in vars(m).values()]
    assert not any(isinstance(v, torch.Tensor) and v.grad_fn is not None for v in kept)
    again = probe.changed(lambda _: None)
    assert again.loss() == pytest.approx(probe.loss(), rel=1e-6)


def pickled(probe):
    return pickle.loads(pickle.dumps(probe))  # noqa: S301


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("copier", [pickled, copy.deepcopy])
def test_a_used_probe_can_be_pickled_and_copied(norm, copier):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)]
    model = (
        nn.Sequential(*layers[:1], nn.BatchNorm1d(6), *layers[1:])
        if norm
        else nn.Sequential(*layers)
    )
    probe = Probe(model.eval(), "cross_entropy", [(inputs(30, 4), labels())] * 2)
    vectors = torch.randn(5, probe.size)
    here = probe.hvp(vectors), probe.ggnvp(vectors), probe.gradient()
    other = copier(probe)
    there = other.hvp(vectors), other.ggnvp(vectors), other.gradient()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(here, there, strict=True))


# -- losses ---------------------------------------------------------------------------------------


class Holds(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.decayed = [self.a.weight, self.b.weight]

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


@pytest.mark.parametrize("how", ["list", "closure", "other model", "plain tensor"])
def test_weights_by_reference_are_named(how):
    model, batch = seeded(Holds()), (inputs(30, 4), labels())
    teacher, offset = (
        seeded(nn.Linear(4, 3)),
        torch.zeros(3, dtype=torch.float64, requires_grad=True),
    )

    def loss(net, batch):
        outputs = net(batch[0])
        further = {
            "list": lambda: sum(w.square().sum() for w in net.decayed),
            "closure": lambda: model.a.weight.square().sum(),
            "other model": lambda: (outputs - teacher(batch[0])).square().mean(),
            "plain tensor": lambda: (outputs + offset).square().mean(),
        }[how]()
        return functional.cross_entropy(outputs, batch[1], reduction="none") + 0.05 * further

    probe = Probe(model, loss, [batch])
    table = landscape.audit(probe, ["train-loss"])
    (warning,) = table.warnings
    named = {
        "list": "a.weight, b.weight",
        "closure": "a.weight",
        "other model": "a tensor without a name (3), a tensor without a name (3x4)",
        "plain tensor": "a tensor without a name (3)",
    }[how]
    assert warning.startswith(f"The loss depends on {named} by reference")
    assert "count as constants" in warning


def test_derivatives_by_inputs_are_no_strangers():
    def loss(model, batch):
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return (slope - 1).square().sum(1)

    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)))
    probe = Probe(model, loss, [(inputs(30, 4),)])
    assert probe.warnings == [f"No gradient reaches 1 parameters: {probe.unused[0]}."]
    assert probe.checks.compare("hessian").agrees


def test_a_loss_may_take_derivatives_by_the_weights():
    def loss(model, batch):
        losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        slopes = torch.autograd.grad(losses.mean(), list(model.parameters()), create_graph=True)
        return losses + 0.1 * sum(slope.square().sum() for slope in slopes)

    model, batch = seeded(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))), None
    batch = inputs(30, 4), labels()
    probe = Probe(model, loss, [batch])
    assert probe.checks.compare("hessian").agrees
    delta = 0.01 * torch.ones(probe.size, dtype=torch.float64)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.01)
    assert probe.loss(delta) == pytest.approx(float(loss(moved, batch).mean().detach()), rel=1e-12)
    assert measures.get("average-sharpness", samples=4).compute(probe).status.measured
    assert probe.restrict("2.*").checks.compare("hessian").agrees
    assert torch.isfinite(probe.restrict("2.*").hvp(torch.ones(18, dtype=torch.float64))).all()


class Adjoint(torch.autograd.Function):
    """y -> y + f(y) / 2 twice, whose backward pass evaluates f again."""

    @staticmethod
    def forward(ctx, function, y, *parameters):
        ctx.function = function
        with torch.no_grad():
            middle = y + function(y) / 2
            out = middle + function(middle) / 2
        ctx.save_for_backward(y, middle, *parameters)
        return out

    @staticmethod
    def backward(ctx, slope):
        y, middle, *parameters = ctx.saved_tensors
        totals = [torch.zeros_like(p) for p in parameters]
        with torch.enable_grad():
            for point in (middle, y):
                leaf = point if point.requires_grad else point.detach().requires_grad_()
                after = leaf + ctx.function(leaf) / 2
                found = torch.autograd.grad(after, (leaf, *parameters), slope, create_graph=True)
                slope, totals = found[0], [t + f for t, f in zip(totals, found[1:], strict=True)]
        return None, slope, *totals


def test_a_backward_pass_may_evaluate_the_module_again():
    class Net(nn.Module):
        def __init__(self, adjoint):
            super().__init__()
            self.f, self.head = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 3)
            self.adjoint = adjoint

        def forward(self, x):
            if self.adjoint:
                return self.head(Adjoint.apply(self.f, x, *self.f.parameters()))
            for _ in range(2):
                x = x + self.f(x) / 2
            return self.head(x)

    batch = inputs(30, 4), labels()
    adjoint, plain = (Probe(seeded(Net(on)), "cross_entropy", [batch]) for on in (True, False))
    assert torch.allclose(adjoint.gradient(), plain.gradient(), atol=1e-12)
    points = 0.1 * torch.randn(3, plain.size, dtype=torch.float64)
    for one, other in zip(
        adjoint.parts(5).losses_and_gradients(points, [0, 1, 2]),
        plain.parts(5).losses_and_gradients(points, [0, 1, 2]),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-12)
    # Points of the first step are saved detached: its second derivative is lost, and told.
    assert not adjoint.checks.compare("hessian").agrees


@pytest.mark.parametrize("how", ["train", "train and back", "a part"])
def test_training_mode_inside_a_loss_is_told(how):
    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)))
    model(5 + inputs(30, 4))
    model.eval()
    before = copy.deepcopy(model.state_dict())

    def loss(net, batch):
        (net[1] if how == "a part" else net).train()
        losses = functional.cross_entropy(net(batch[0]), batch[1], reduction="none")
        if how == "train and back":
            net.eval()
        return losses

    probe = Probe(model, loss, [(inputs(30, 4), labels())])
    probe.gradient()
    told = probe.provenance()
    assert told["batch_norm"] == "batch"
    assert probe.uses_batch_statistics
    assert any("training mode" in note for note in told["handled"])
    assert measures.get("fisher-trace").compute(probe).status.value == "declined"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module.training for module in probe.modules().values())


@pytest.mark.parametrize("how", ["block", "decorator"])
def test_autocast_inside_a_model_is_switched_off_and_told(how):
    class Mixed(nn.Module):
        def __init__(self, *, on):
            super().__init__()
            self.layer, self.on = nn.Linear(4, 3), on

        def forward(self, x):
            if how == "decorator" and self.on:
                return self.cast(x)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.on):
                return self.layer(x)

        @torch.autocast("cpu", dtype=torch.bfloat16)
        def cast(self, x):
            return self.layer(x)

    batch = inputs(30, 4, dtype=torch.float32), labels()
    mixed, plain = (
        Probe(seeded(Mixed(on=on)).float(), "cross_entropy", [batch]) for on in (True, False)
    )
    assert mixed.loss() == plain.loss()
    assert torch.equal(mixed.hvp(torch.ones(15)), plain.hvp(torch.ones(15)))
    assert "autocast inside the model switched off" in mixed.provenance()["handled"]
    # The user's own model goes on in half precision.
    assert Mixed(on=True)(batch[0]).dtype == torch.bfloat16


# -- parts of the data ----------------------------------------------------------------------------


def info_nce(model, batch):
    one, two = (functional.normalize(model(part), dim=1) for part in batch)
    return functional.cross_entropy(one @ two.T / 0.2, torch.arange(len(one)), reduction="none")


def over_the_batch(model, batch):
    outputs = model(batch[0])
    outputs = outputs - outputs.mean(0)
    return functional.mse_loss(outputs, batch[1], reduction="none").sum(1)


def seeds_itself(model, batch):
    torch.manual_seed(0)
    return (model(batch[0] + torch.randn_like(batch[0])) - batch[1]).square().sum(1)


def steps_first(model, batch):
    return functional.mse_loss(model(batch[0])[0], batch[1], reduction="none").flatten()


COUPLED = {
    "contrastive": (nn.Linear(4, 3), info_nce, lambda: (inputs(32, 4), inputs(32, 4) + 0.1)),
    "centred over the batch": (
        nn.Linear(4, 3),
        over_the_batch,
        lambda: (inputs(32, 4), inputs(32, 3)),
    ),
    "own seed": (nn.Linear(4, 3), seeds_itself, lambda: (inputs(32, 4), inputs(32, 3))),
    "time first": (nn.GRU(4, 3), steps_first, lambda: (inputs(7, 10, 4), inputs(7, 10, 3))),
}


@pytest.mark.parametrize("name", COUPLED)
def test_examples_that_do_not_add_up_are_declined(name):
    model, loss, batch = COUPLED[name]
    probe = Probe(seeded(model), loss, [batch()])
    table = landscape.audit(probe, ["fisher-trace", "gradient-covariance-trace", "hessian-trace"])
    declined = [result for result in table if result.status.value == "declined"]
    assert len(declined) >= 2
    assert all(
        "no sum over its examples" in r.message for r in declined if "model" not in r.measure
    )
    assert table["hessian-trace"].status.value == "ok"
    # Whole batches are parts all the same.
    assert len(probe.parts(32 if name != "time first" else 7)) == 1


def test_declared_coupling_is_not_evaluated():
    objective = landscape.CallableObjective(info_nce, couples_examples=True)
    probe = Probe(seeded(nn.Linear(4, 3)), objective, [(inputs(32, 4), inputs(32, 4))])
    with pytest.raises(NotApplicableError, match="couples the examples"):
        probe.parts(1)


# -- identity -------------------------------------------------------------------------------------


def test_nets_of_equal_weights_and_loss_are_told_apart():
    def net(activation):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 3))
        nn.init.zeros_(model[2].weight)
        nn.init.zeros_(model[2].bias)
        return Probe(model, "cross_entropy", [(inputs(30, 4), labels())]).identity()

    relu, tanh, again = net(nn.ReLU()), net(nn.Tanh()), net(nn.ReLU())
    assert relu["weights"] == tanh["weights"]
    assert relu["loss"] == tanh["loss"]
    assert relu != tanh
    assert relu == again


@pytest.mark.parametrize("name", ["Hessian", "fisher", "hesian"])
def test_unknown_operators_are_refused(name):
    probe = Probe(nn.Linear(4, 3), "cross_entropy", [(inputs(30, 4), labels())])
    with pytest.raises(ValueError, match=r"operator must be one of 'hessian', 'ggn'; got"):
        probe.operator(name)


def test_the_gauss_newton_diagonal_declines_what_does_not_add_up():
    class Centred(landscape.probing.CrossEntropy):
        name = "centred"

        def outputs(self, model, batch):
            found = super().outputs(model, batch)
            return found - found.mean(0)

    probe = Probe(seeded(nn.Linear(4, 3)), Centred(), [(inputs(30, 4), labels())])
    found = measures.get("minimum-sharpness").compute(probe)
    assert found.status.value == "declined"
    assert "no sum over its examples" in found.message


def test_sparse_inputs_have_products():
    x, y = inputs(30, 4), inputs(30, 3)

    def loss(model, batch):
        rows = batch[0] if batch[0].layout == torch.strided else batch[0].to_dense()
        return (model(rows) - batch[1]).square().mean(1)

    def curvature(data):
        probe = Probe(seeded(nn.Linear(4, 3)), loss, [(data, y)])
        return probe.hvp(torch.eye(probe.size, dtype=torch.float64))

    assert torch.allclose(curvature(x.to_sparse()), curvature(x))
