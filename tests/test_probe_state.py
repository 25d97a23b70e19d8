"""A probe leaves no trace: on the model, on global state, also after an exception."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import landscape
from landscape import Probe


def make_model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    model[0].bias.requires_grad_(requires_grad=False)
    model[3].eval()  # mixed training flags
    model[5].weight.grad = torch.ones(3, 8)
    model.register_forward_hook(lambda *_: None)
    return model


def make_batches():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(7, 1, 4, 4, generator=generator)
    targets = torch.randint(0, 3, (7,), generator=generator)
    return list(zip(inputs.split(4), targets.split(4), strict=True))


def state(model):
    """Everything that must be bit-identical after a call."""
    return {
        "weights": {name: p.detach().clone() for name, p in model.named_parameters()},
        "identity": [id(p) for p in model.parameters()],
        "buffers": {name: b.clone() for name, b in model.named_buffers()},
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [list(module._forward_hooks) for module in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
    }


def assert_same(before, after):
    for key, value in before.items():
        if isinstance(value, dict):
            assert all(torch.equal(value[name], after[key][name]) for name in value), key
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, after[key]), key
        elif key == "grad":
            for old, new in zip(value, after[key], strict=True):
                assert (old is None) == (new is None)
                assert old is None or torch.equal(old, new)
        elif isinstance(value, np.ndarray):
            assert np.array_equal(value, after[key]), key
        else:
            assert value == after[key], key


def calls(probe):
    """Every public call of a probe, by name."""
    size = probe.size
    vector = torch.full((size,), 0.01)
    return {
        "loss": lambda: probe.loss(vector),
        "losses": lambda: probe.losses(torch.stack([vector, -vector])),
        "term_losses": probe.term_losses,
        "gradient": lambda: probe.gradient(vector),
        "hvp": lambda: probe.hvp(vector),
        "hvp block": lambda: probe.hvp(torch.stack([vector, -vector])),
        "hvp away": lambda: probe.hvp(vector, delta=vector),
        "ggnvp": lambda: probe.ggnvp(vector),
        "restrict": lambda: probe.restrict("5.*").hvp(torch.ones(27)),
        "weights": lambda: probe.weights().zero_(),
        "audit": lambda: landscape.audit(
            probe, [landscape.measures.get("hessian-trace", steps=3, probes=2, probe_steps=2)]
        ),
        "provenance": probe.provenance,
        "release": probe.release,
    }


MODES = ["eval", "batch", "recalibrate"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", calls(Probe(make_model(), "cross_entropy", make_batches())))
def test_every_call_leaves_everything_as_it_was(name, mode):
    model = make_model()
    torch.manual_seed(3)
    before = state(model)
    probe = Probe(model, "cross_entropy", make_batches(), batch_norm=mode)
    assert_same(before, state(model))
    first = probe.gradient(torch.zeros(probe.size))
    calls(probe)[name]()
    assert_same(before, state(model))
    assert torch.equal(first, probe.gradient(torch.zeros(probe.size)))


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.sampled_from(list(calls(Probe(make_model(), "cross_entropy", make_batches())))),
        min_size=1,
        max_size=6,
    ),
    mode=st.sampled_from(MODES),
)
def test_random_sequences_of_calls_change_nothing(names, mode):
    model = make_model()
    probe = Probe(model, "cross_entropy", make_batches(), batch_norm=mode)
    vector = torch.linspace(-1, 1, probe.size)
    product, loss = probe.hvp(vector), probe.loss(0.1 * vector)
    before = state(model)
    for name in names:
        calls(probe)[name]()
    assert_same(before, state(model))
    # What the probe says does not depend on what was asked before.
    assert torch.allclose(probe.hvp(vector), product, rtol=1e-5, atol=1e-7)
    assert probe.loss(0.1 * vector) == pytest.approx(loss, rel=1e-6)


class Bomb(landscape.Objective):
    """Cross-entropy that raises on the second batch once it is armed."""

    name = "bomb"

    def __init__(self, error):
        self.error, self.armed, self.seen = error, False, 0

    def outputs(self, model, batch):
        torch.rand(1)  # an objective that uses global randomness on the side
        np.random.rand()  # noqa: NPY002
        random.random()
        return model(batch[0])

    def losses(self, outputs, batch):
        self.seen += 1
        if self.armed and self.seen % 2 == 0:
            raise self.error
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none")


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("mode", MODES)
def test_an_exception_in_the_objective_leaves_everything_as_it_was(error, mode):
    model, objective = make_model(), Bomb(error)
    probe = Probe(model, objective, make_batches(), batch_norm=mode, graph_memory=0)
    vector = torch.full((probe.size,), 0.01)
    expected = probe.losses(torch.stack([vector, -vector]))
    before = state(model)
    for name in ("loss", "losses", "term_losses", "gradient", "hvp", "hvp away", "ggnvp"):
        objective.armed, objective.seen = True, 0
        with pytest.raises(type(error)):
            calls(probe)[name]()
        assert_same(before, state(model))
    objective.armed = False
    assert torch.equal(probe.losses(torch.stack([vector, -vector])), expected)


def test_a_failing_objective_at_construction_leaves_everything_as_it_was():
    model, objective = make_model(), Bomb(KeyboardInterrupt())
    objective.armed = True
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        Probe(model, objective, make_batches())
    assert_same(before, state(model))


def test_the_probe_is_a_snapshot():
    model = make_model()
    probe = Probe(model, "cross_entropy", make_batches())
    vector = torch.ones(probe.size)
    product, loss = probe.hvp(vector), probe.loss(0 * vector)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(probe.hvp(vector), product)
    assert probe.loss(0 * vector) == loss
    assert Probe(model, "cross_entropy", make_batches()).model_hash != probe.model_hash


def test_works_inside_no_grad_inference_mode_and_autocast():
    model = make_model()
    probe = Probe(model, "cross_entropy", make_batches())
    vector = torch.ones(probe.size)
    product = probe.hvp(vector)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu")):
        with context:
            fresh = Probe(make_model(), "cross_entropy", make_batches())
            assert torch.allclose(fresh.hvp(vector), product)
            assert torch.allclose(probe.gradient(), fresh.gradient())


def test_half_precision_models_are_measured_in_float32_copies():
    model = make_model().to(torch.bfloat16)
    probe = Probe(model, "cross_entropy", make_batches())
    assert probe.dtype == torch.float32
    assert probe.hvp(torch.ones(probe.size)).dtype == torch.float32
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    whole = copy.deepcopy(model).float()
    assert torch.allclose(probe.weights(), Probe(whole, "cross_entropy", make_batches()).weights())
