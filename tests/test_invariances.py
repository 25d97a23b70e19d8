"""Every measure along every symmetry: what it declares to be unchanged stays, all else moves."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

import landscape
from landscape import Measure, Probe, SymmetryCheck, measures
from landscape.geometry import TRANSFORMATIONS

SETTINGS = {
    "steps": 20,
    "probes": 6,
    "probe_steps": 20,
    "samples": 60,
    "draws": 60,
    "m": 12,
    "sigma": 0.1,
}
CLASSES = 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(self.block(x).mean(1))


def rectified():
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES)
    ), (4,)


def normalised():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    ), (1, 4, 4)


def attention():
    return Attention(), (3, 6)


MODELS = {make.__name__: make for make in (rectified, normalised, attention)}
# Each kind where it is plainest, so that all measures can be tried.
KINDS = {
    "rectified": ("layer", "neuron", "loss", "permutation"),
    "normalised": ("norm",),
    "attention": ("attention",),
}


@cache
def trained(name: str) -> Probe:
    """Trained until all is right, as a real checkpoint is; with a momentum and initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, shape = MODELS[name]()
        model.double()
        inputs = torch.randn(36, *shape, dtype=torch.float64)
        labels = (inputs.flatten(1) @ torch.randn(inputs[0].numel(), CLASSES).double()).argmax(1)
    initial = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    buffers = {
        name: optimizer.state[value]["momentum_buffer"] for name, value in model.named_parameters()
    }
    return Probe(
        model.eval(),
        "cross_entropy",
        [(inputs, labels)],
        products="loop",
        momentum=buffers,
        initial=initial,
    )


def every_measure() -> list[Measure]:
    found = []
    for name, measure in measures.available().items():
        for variant in measure.variants:
            made = measures.get(name, **variant)
            own = {entry.name for entry in fields(made)} - variant.keys()
            own -= {"sigma"} if name == "friendly-gap" else set()  # no noise there
            found.append(
                replace(made, **{key: entry for key, entry in SETTINGS.items() if key in own})
            )
    return found


MEASURES = every_measure()
# Noise with a floor of 1e-3, which does not move along with the weights; and norms of folded
# layers, free of the scale before a batch norm and not of that before a layer norm.
BOUNDS = ("pac-bayes-flatness", "pac-bayes-origin", "pac-bayes-initial")
FLOOR = {f"{name}[magnitude_aware=True]": {"layer", "neuron", "norm"} for name in BOUNDS}
FOLDED = {measure.label: {"norm"} for measure in MEASURES if getattr(measure, "fold", False)}
NEARLY = FLOOR | FOLDED


@cache
def check(name: str) -> SymmetryCheck:
    return landscape.symmetry_check(
        trained(name), MEASURES, elements=1, spread=20.0, kinds=KINDS[name]
    )


@pytest.mark.parametrize("name", MODELS)
def test_all_symmetries_are_found_and_leave_the_function_alone(name):
    found = check(name)
    assert found.found.keys() == set(KINDS[name])
    assert max(found.changes.values()) < 1e-12
    assert not found.warnings


def test_every_kind_is_covered():
    assert {kind for kinds in KINDS.values() for kind in kinds} == TRANSFORMATIONS.keys()


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.label)
def test_it_is_unchanged_by_what_it_declares(measure):
    orbits = {name: check(name)[measure.label] for name in MODELS}
    moved = {
        (name, kind): orbit.factor(kind) for name, orbit in orbits.items() for kind in orbit.broken
    }
    assert not moved


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.label)
def test_it_changes_with_all_else(measure):
    """By more than 1 %: with the same seed, draws and parts, chance plays no role."""
    orbits = [check(name)[measure.label] for name in MODELS]
    told = [orbit for orbit in orbits if math.isfinite(orbit.base.value)]
    factors = {kind: orbit.factor(kind) for orbit in told for kind in orbit.points}
    assert {"layer", "neuron", "loss", "permutation"} <= factors.keys()
    undeclared = factors.keys() - {*measure.invariances, *NEARLY.get(measure.label, ())}
    assert not {kind: factors[kind] for kind in undeclared if factors[kind] < 1.01}
