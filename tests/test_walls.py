"""What frameworks put in the way of a second derivative, and models in odd clothes."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from conftest import generator, labelled, mlp, seeded
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrizations

from landscape import Probe

DATA = labelled(7, 5)


def agree(model, plain, data=DATA, rtol=1e-5, **settings):
    """Losses, gradients and products of a model are those of its plain twin."""
    probe, truth = (
        Probe(model, "cross_entropy", data, **settings),
        Probe(plain, "cross_entropy", data, **settings),
    )
    assert probe.space.names == truth.space.names
    v = torch.randn(probe.size, generator=generator(3)).to(probe.dtype)
    assert probe.loss() == pytest.approx(truth.loss(), rel=rtol)
    assert torch.allclose(probe.gradient(0.1 * v), truth.gradient(0.1 * v), rtol=rtol, atol=1e-6)
    assert torch.allclose(probe.hvp(v), truth.hvp(v), rtol=rtol, atol=1e-6)
    return probe


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_compiled_models_are_unwrapped():
    model = mlp()
    probe = agree(torch.compile(model), model)
    assert probe.provenance()["handled"] == ["taken out of OptimizedModule"]
    inner = copy.deepcopy(model)
    inner[0] = torch.compile(inner[0])
    agree(inner, model)
    assert type(inner[0]).__name__ == "OptimizedModule"  # the user's model is as it was
    called = copy.deepcopy(model)
    called.compile()
    agree(called, model)


def test_data_parallel_models_are_unwrapped():
    model = mlp()
    probe = agree(DataParallel(model), model)
    assert probe.provenance()["handled"] == ["taken out of DataParallel"]


def test_distributed_models_are_unwrapped(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = mlp()
        probe = agree(DistributedDataParallel(copy.deepcopy(model)), model)
        assert probe.provenance()["handled"] == ["taken out of DistributedDataParallel"]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrised_weights(norm):
    """The parameters of a norm are probed; products agree with differences of gradients."""
    model = mlp().double()
    getattr(parametrizations, norm)(model[0])
    data = [(x.double(), y) for x, y in DATA]
    probe = Probe(model.eval(), "cross_entropy", data)
    assert any("parametrizations.weight" in name for name in probe.space.names)
    v = torch.randn(probe.size, generator=generator(3), dtype=torch.float64)
    step = 1e-5 * v
    slope = (probe.gradient(step) - probe.gradient(-step)) / 2e-5
    assert torch.allclose(probe.hvp(v), slope, rtol=1e-5, atol=1e-7)
    told = ["fused weight norm replaced, its second derivative is wrong in torch"]
    assert probe.provenance()["handled"] == (told if norm == "weight_norm" else [])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_hook_based_norms_are_copied(norm):
    torch.manual_seed(0)
    old, new = mlp().double(), mlp().double()
    getattr(nn.utils, norm)(old[0])
    old.train()
    old(torch.zeros(2, 4, dtype=torch.float64))  # the weight is now computed, with a graph
    old.eval()
    probe = Probe(old, "cross_entropy", [(x.double(), y) for x, y in DATA])
    if norm == "weight_norm":  # nothing but another parametrisation of the same weights
        assert probe.loss() == pytest.approx(
            Probe(new, "cross_entropy", [(x.double(), y) for x, y in DATA]).loss(), rel=1e-12
        )
    v = torch.randn(probe.size, generator=generator(3), dtype=torch.float64)
    slope = (probe.gradient(1e-5 * v) - probe.gradient(-1e-5 * v)) / 2e-5
    assert torch.allclose(probe.hvp(v), slope, rtol=1e-5, atol=1e-7)


def test_models_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        data = [(x.clone(), y.clone()) for x, y in DATA]
    assert next(model.parameters()).is_inference()
    agree(model, nn.Sequential(*copy.deepcopy(model)), data)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_are_measured_in_float32_copies_and_it_is_told(dtype):
    model = mlp().to(dtype)
    probe = agree(model, copy.deepcopy(model).float())
    assert probe.dtype == torch.float32
    kind = str(dtype).removeprefix("torch.")
    assert probe.provenance()["handled"] == [f"{kind} weights measured in a float32 copy"]


@dataclass
class Output:
    hidden: torch.Tensor
    logits: torch.Tensor


Pair = namedtuple("Pair", ["output", "state"])
RETURNED = {
    "data class": Output,
    "mapping": lambda h, z: {"hidden": h, "logits": z},
    "tuple": lambda h, z: (z, h),
    "named tuple": lambda h, z: Pair(z, h),
    "single entry": lambda _, z: {"scores": z},
}


class Returning(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = mlp(), how

    def forward(self, x):
        return self.how(self.inner[0](x), self.inner(x))


@pytest.mark.parametrize("how", RETURNED.values(), ids=RETURNED)
def test_outputs_are_found_in_what_a_model_returns(how):
    assert Probe(Returning(how), "cross_entropy", DATA).loss() == pytest.approx(
        Probe(mlp(), "cross_entropy", DATA).loss()
    )


def test_outputs_that_cannot_be_told_apart_are_refused():
    model = Returning(lambda h, z: {"one": h, "two": z})
    with pytest.raises(TypeError, match=r"got dict with one, two; give a callable"):
        Probe(model, "cross_entropy", DATA)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x, scale):
        return self.inner(x * scale)


SCALED = [(x, torch.full((len(x), 1), 0.5), y) for x, y in DATA]
FORMS = {
    "tuple": SCALED,
    "nested": [((x, s), y) for x, s, y in SCALED],
    "mapping": [{"x": x, "scale": s, "labels": y} for x, s, y in SCALED],
    "mapping and targets": [({"x": x, "scale": s}, y) for x, s, y in SCALED],
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_several_inputs(data):
    plain = Probe(mlp(), "cross_entropy", [(x * s, y) for x, s, y in SCALED])
    assert Probe(TwoInputs(), "cross_entropy", data).loss() == pytest.approx(plain.loss())


def test_inputs_that_do_not_fit_forward_are_told():
    data = [{"x": x, "weight": x, "labels": y} for x, y in DATA]
    with pytest.raises(
        TypeError, match=r"keys x, weight does not say what TwoInputs\.forward\(x, scale\)"
    ):
        Probe(TwoInputs(), "cross_entropy", data)


def test_a_mapping_without_targets_is_told():
    with pytest.raises(TypeError, match="or a mapping with 'labels'; got a mapping with x"):
        Probe(mlp(), "cross_entropy", [{"x": x} for x, _ in DATA])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))

    def forward(self, x):
        return self.layers(x.mul_(2.0).add_(1.0))


def test_modules_that_write_into_their_inputs():
    data = copy.deepcopy(DATA)
    plain = nn.Sequential(*copy.deepcopy(InPlace().layers))
    plain[1] = nn.ReLU()
    probe = Probe(InPlace(), "cross_entropy", data)
    truth = Probe(plain, "cross_entropy", [(2 * x + 1, y) for x, y in DATA])
    v = torch.ones(probe.size)
    assert torch.allclose(probe.hvp(v), truth.hvp(v), rtol=1e-5)
    assert all(torch.equal(one[0], two[0]) for one, two in zip(data, DATA, strict=True))
