"""Derivatives beside differences: what is wrong is told, what is right is not."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import Probe, measures

NAMES = ["gradient-norm", "hessian-trace", "train-loss"]


def data(dtype=torch.float64, count=40):
    source = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(count, 4, generator=source).to(dtype),
            torch.randint(0, 3, (count,), generator=source),
        )
    ]


def chain(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.Linear(6, 3)).double()


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class KeptSwish(torch.autograd.Function):
    """Keeps its gate on ctx, where autograd does not see it."""

    @staticmethod
    def forward(ctx, x):
        ctx.x, ctx.gate = x, torch.sigmoid(x)
        return x * ctx.gate

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.gate * (1 + ctx.x * (1 - ctx.gate))


class KeptCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.slope = 3 * x.detach() ** 2
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.slope


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):  # noqa: ARG004
        return -slope


class Rounded(torch.autograd.Function):
    """Straight-through: steps, with the derivative of the identity."""

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx, slope):  # noqa: ARG004
        return slope


class Equilibrium(nn.Module):
    """z = tanh(W z + x) by iteration, its gradient by the usual hook."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.w.weight.data *= 0.5

    def forward(self, x):
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(80):
                z = torch.tanh(self.w(z) + x)
        z = torch.tanh(self.w(z) + x)
        if torch.is_grad_enabled():
            start = z.detach().requires_grad_()
            again = torch.tanh(self.w(start) + x)

            def solve(slope):
                found = slope
                for _ in range(80):
                    found = slope + torch.autograd.grad(again, start, found, retain_graph=True)[0]
                return found

            if z.requires_grad:
                z.register_hook(solve)
        return self.head(z)


class ForceField(nn.Module):
    """The slope of an energy by the inputs, differentiable only while training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.energy = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        x = x.clone().requires_grad_()
        (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=self.training)
        return self.scale * force


WRONG_CURVATURE = {
    "swish keeps its gate": (lambda: chain(Layer(KeptSwish.apply)), "cross_entropy"),
    "cube keeps its slope": (lambda: chain(Layer(KeptCube.apply)), "cross_entropy"),
    "equilibrium layer with a hook": (lambda: Equilibrium().double(), "cross_entropy"),
}
WRONG_GRADIENT = {
    "stop-gradient": (lambda: chain(Layer(lambda x: x * x.detach())), "cross_entropy"),
    "straight-through": (lambda: chain(Layer(Rounded.apply)), "cross_entropy"),
    "gradient reversal": (lambda: chain(Layer(Reversed.apply)), "cross_entropy"),
    "force field in evaluation mode": (
        lambda: ForceField().double(),
        lambda model, batch: (model(batch[0]) - batch[0]).square().sum(1),
    ),
}


@pytest.mark.parametrize("name", WRONG_CURVATURE)
def test_wrong_curvature_makes_what_rests_on_it_uncertain(name):
    make, objective = WRONG_CURVATURE[name]
    table = landscape.audit(Probe(make(), objective, data()), NAMES)
    trace = table["hessian-trace"]
    assert trace.status.value == "uncertain"
    assert "Hessian products by autograd differ by" in trace.message
    assert "finite_difference" in trace.message
    assert table["gradient-norm"].status.value == table["train-loss"].status.value == "ok"
    assert table.warnings == [trace.message]
    assert not table.provenance["checks"]["hessian"]["agrees"]


@pytest.mark.parametrize("name", WRONG_GRADIENT)
def test_a_wrong_gradient_makes_all_derivatives_uncertain(name):
    make, objective = WRONG_GRADIENT[name]
    table = landscape.audit(Probe(make(), objective, data()), NAMES)
    for measure in NAMES[:2]:
        assert table[measure].status.value == "uncertain"
        assert "surrogate" in table[measure].message
    assert table["train-loss"].status.value == "ok"
    assert not table.provenance["checks"]["gradient"]["agrees"]


def test_finite_differences_measure_what_double_backward_gets_wrong():
    probe = Probe(
        chain(Layer(KeptSwish.apply)), "cross_entropy", data(), products="finite_difference"
    )
    right = Probe(chain(nn.SiLU()), "cross_entropy", data())
    found = measures.get("hessian-trace").compute(probe)
    assert found.status.value == "ok"
    assert found.value == pytest.approx(measures.get("hessian-trace").compute(right).value, 1e-6)


def test_a_measure_from_shared_evidence_is_doubted_too():
    probe = Probe(chain(Layer(KeptSwish.apply)), "cross_entropy", data())
    first, second = (
        measures.get(name).compute(probe) for name in ("hessian-trace", "hessian-frobenius")
    )
    assert first.status.value == second.status.value == "uncertain"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "middle", [nn.ReLU, nn.GELU, lambda: nn.BatchNorm1d(6), lambda: nn.LayerNorm(6)]
)
def test_right_derivatives_agree(middle, dtype):
    model = chain(middle()).to(dtype).eval()
    probe = Probe(model, "cross_entropy", data(dtype))
    for kind in ("gradient", "hessian", "ggn"):
        found = probe.checks.compare(kind)
        assert found.agrees
        assert found.precision == "float64"
        assert found.disagreement < 1e-5
    assert probe.warnings == []


def test_a_checkpoint_on_a_kink_agrees():
    model = chain(nn.ReLU())
    nn.init.zeros_(model[0].bias)
    batch = data()[0]
    batch[0][:20] = 0.0  # half of the examples lie on the kink of every unit
    probe = Probe(model, "cross_entropy", [batch])
    assert all(probe.checks.compare(kind).agrees for kind in ("gradient", "hessian"))


def test_planted_errors_of_one_percent_are_found():
    found = 0
    for seed in range(20):
        torch.manual_seed(seed)
        layer = Layer(lambda x: 0.98 * x + 0.02 * x.detach())
        model = nn.Sequential(nn.Linear(4, 6), layer, nn.Tanh(), nn.Linear(6, 3))
        found += (
            not Probe(model, "cross_entropy", data(torch.float32)).checks.compare("gradient").agrees
        )
    assert found >= 19


def test_losses_alone_pay_for_losses_only():
    probe = Probe(chain(nn.Tanh()).float(), "cross_entropy", data(torch.float32))
    spent = probe.provenance()["preparation"]
    assert (spent["gradients"], spent["products"]) == (0, 0)
    probe.losses(torch.zeros(2, probe.size))
    measures.get("train-loss").compute(probe)
    spent = probe.provenance()["preparation"]
    assert (spent["gradients"], spent["products"]) == (0, 0)


def test_construction_takes_one_loss():
    calls = []

    def loss(model, batch):
        calls.append(1)
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    Probe(chain(nn.Tanh()), loss, data() * 3)
    assert len(calls) == 3


def test_checks_take_at_most_six_gradients_of_a_batch():
    batches = data(torch.float32) * 4
    probe = Probe(chain(nn.Tanh()).float(), "cross_entropy", batches)
    before = probe.provenance()["preparation"]
    probe.checks.compare("hessian")
    after = probe.provenance()["preparation"]
    spent = {
        kind: 4 * (after[kind] - before[kind]) for kind in ("forwards", "gradients", "products")
    }
    # A loss is a third of a gradient, a product at most two.
    assert spent["forwards"] / 3 + spent["gradients"] + 2 * spent["products"] <= 6


def test_checks_can_be_switched_off():
    probe = Probe(chain(Layer(KeptSwish.apply)), "cross_entropy", data(), checks="off")
    table = landscape.audit(probe, NAMES)
    assert all(result.status.value == "ok" for result in table)
    assert table.provenance["checks"] == {"checks": "off"}
    with pytest.raises(ValueError, match="checks must be 'on' or 'off', got 'no'"):
        Probe(chain(), "cross_entropy", data(), checks="no")


def test_numbers_do_not_depend_on_the_checks():
    on, off = (
        landscape.audit(
            Probe(chain(nn.Tanh()).float(), "cross_entropy", data(torch.float32), checks=checks),
            ["hessian-trace", "max-sharpness", "average-sharpness"],
        )
        for checks in ("on", "off")
    )
    for one, other in zip(on, off, strict=True):
        assert one.value == other.value
        assert one.cost.to_dict() | {"seconds": 0, "peak_memory": 0} == (
            other.cost.to_dict() | {"seconds": 0, "peak_memory": 0}
        )


# -- rounding -------------------------------------------------------------------------------------


def saturated(scale):
    """A classifier that fits its data well."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model[2].weight.data *= scale
    model[2].bias.data *= scale
    return model, [(x, y)]


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_loss_and_gradient_norm_hold_the_float64_truth(scale):
    model, batches = saturated(scale)
    names = ["train-loss", "gradient-norm"]
    single, double = (
        landscape.audit(Probe(model, "cross_entropy", batches, dtype=dtype), names)
        for dtype in (torch.float32, torch.float64)
    )
    for name in names:
        low, high = single[name].interval
        assert low <= double[name].value <= high
        told = single[name].status.value == "uncertain"
        assert told == (single[name].stderr > 0.005 * single[name].value)
        assert "float64" in single[name].message or not told
        assert double[name].stderr < 1e-6 * double[name].value
    assert single["gradient-norm"].status.value == ("uncertain" if scale == 4 else "ok")


def test_product_errors_are_those_of_the_working_precision():
    model, batches = saturated(2)
    single, double = (
        Probe(model, "cross_entropy", batches, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    vectors = torch.randn(3, single.size)
    errors = single.product_errors(vectors)
    there = single.hvp(vectors).double() - double.hvp(vectors.double())
    assert errors.dtype == torch.float64
    assert torch.allclose(errors, there, atol=float(there.norm()) / 10)
    scaled = double.product_errors(vectors.double())
    assert float(scaled.norm()) == pytest.approx(float(there.norm()) * 2.0**-29, rel=0.5)


def test_a_model_that_float64_cannot_evaluate_is_measured_all_the_same():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) @ torch.eye(3, dtype=torch.float32)

    torch.manual_seed(0)
    probe = Probe(Fixed(), "cross_entropy", data(torch.float32))
    table = landscape.audit(probe, NAMES)
    assert all(result.status.value == "ok" for result in table)
    checks = table.provenance["checks"]
    assert checks["gradient"]["precision"] == "float32"
    assert "float64" not in checks["obstacle"] or checks["obstacle"]
    assert probe.product_errors(torch.ones(1, probe.size)) is None


def test_precision_chosen_by_size():
    small = Probe(nn.Linear(4, 3), "cross_entropy", data(torch.float32), dtype="auto")
    large = Probe(
        nn.Sequential(nn.Linear(4, 20_001), nn.Linear(20_001, 3)),
        "cross_entropy",
        data(torch.float32),
        dtype="auto",
    )
    assert (small.dtype, large.dtype) == (torch.float64, torch.float32)


def test_the_report_has_a_line_and_a_box():
    from landscape.viz import render_report

    good = landscape.audit(Probe(chain(nn.Tanh()), "cross_entropy", data()), NAMES)
    bad = landscape.audit(Probe(chain(Layer(KeptSwish.apply)), "cross_entropy", data()), NAMES)
    pages = [render_report(table.to_dict(), {}) for table in (good, bad)]
    assert all("Checked against differences: the gradient to" in page for page in pages)
    assert ['id="disagreements"' in page for page in pages] == [False, True]
    assert not math.isnan(good["hessian-trace"].value)


def softmax_in_single(model, batch):
    shares = functional.softmax(model(batch[0]), 1, dtype=torch.float32)
    return functional.nll_loss(shares.log(), batch[1], reduction="none")


CASTS = {
    "logits": lambda net, b: functional.cross_entropy(net(b[0]).float(), b[1], reduction="none"),
    "softmax": softmax_in_single,
    "half": lambda net, b: functional.cross_entropy(
        net(b[0]).half().double(), b[1], reduction="none"
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASTS)
def test_casts_to_single_precision_inside_raise_no_alarm(name, dtype):
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
        probe = Probe(model, CASTS[name], data(dtype), dtype=dtype)
        assert all(probe.checks.compare(kind).agrees for kind in ("gradient", "hessian"))
        assert probe.checks.compare("gradient").precision != "float64"


@pytest.mark.parametrize("scale", [1, 4, 16, 64])
def test_saturated_classifiers_raise_no_alarm(scale):
    model, batches = saturated(scale)
    for dtype in (torch.float32, torch.float64):
        probe = Probe(model, "cross_entropy", batches, dtype=dtype)
        assert all(probe.checks.compare(kind).agrees for kind in ("gradient", "hessian", "ggn"))


def test_pruned_units_raise_no_alarm():
    for seed in range(3):
        torch.manual_seed(seed)
        model = chain(nn.ReLU(), nn.Linear(6, 6).double(), nn.ReLU())
        for layer in (model[0], model[2]):
            layer.weight.data[::2], layer.bias.data[::2] = 0, 0
        probe = Probe(model, "cross_entropy", data())
        assert all(probe.checks.compare(kind).agrees for kind in ("gradient", "hessian"))


class Branches(nn.Module):
    """A weak branch with a fault beside a strong one without."""

    def __init__(self, fault):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.side = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(4, 3)
        self.fault = fault

    def forward(self, x):
        return 0.1 * self.b(self.fault(self.a(x))) + 10 * self.side(x)


@pytest.mark.parametrize("restricted", [True, False])
@pytest.mark.parametrize("fault", [KeptSwish.apply, lambda x: functional.silu(x.detach()) + 0 * x])
def test_a_fault_in_a_weak_layer_is_found(fault, restricted):
    x = data()[0][0]
    probe = Probe(Branches(fault).double(), "mse", [(x, x[:, :3].sin())])
    probe = probe.restrict("a.*") if restricted else probe
    trace = measures.get("hessian-trace").compute(probe)
    assert trace.status.value == "uncertain"
    assert "by autograd differ" in trace.message
    right = Probe(Branches(functional.silu).double(), "mse", [(x, x[:, :3].sin())])
    assert measures.get("hessian-trace").compute(right).status.value == "ok"


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.source = nn.Linear(4, 3), torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.layer(x) * (torch.rand(len(x), 3, generator=self.source) > 0.2)


class Counter(OwnGenerator):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (1 + 0.01 * self.calls)


@pytest.mark.parametrize("kind", [OwnGenerator, Counter])
def test_what_changes_from_call_to_call_is_found_by_measures_of_losses(kind):
    probe = Probe(kind(), "cross_entropy", data(torch.float32))
    found = landscape.audit(probe, ["average-sharpness"])["average-sharpness"]
    assert found.status.value == "failed"
    assert "the forward pass is random" in found.message
