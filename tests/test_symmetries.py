"""Symmetries: what is found on a model, that it holds, and that nothing else is claimed."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import landscape
from landscape import Block, Factor, Probe
from landscape.geometry import find_symmetries, scaled_loss, transform


def seeded(model, scale=0.6):
    source = torch.Generator().manual_seed(0)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            draw = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
            parameter.copy_(scale * draw)
    return model.eval()


def probe_of(model, *shape, **settings):
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, *shape, generator=source, dtype=torch.float64)
    return Probe(seeded(model), "cross_entropy", [(inputs, torch.arange(12) % 3)], **settings)


def places(probe):
    return {(symmetry.kind, symmetry.name) for symmetry in find_symmetries(probe)}


def kinds(probe):
    return Counter(symmetry.kind for symmetry in find_symmetries(probe))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up = nn.Linear(4, 5), nn.Linear(4, 5)
        self.down = nn.Linear(5, 3)

    def forward(self, x):
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.one, self.two = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        hidden = functional.relu(self.trunk(x))
        return self.one(hidden) + self.two(hidden).tanh()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(1, 4, 3, padding=1)
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.start(x).relu()
        x = x + self.second(self.norm(self.first(x)).relu())
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self, activation="relu"):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            8, 2, 12, dropout=0.0, activation=activation, batch_first=True
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.block(x).mean(1))


RECTIFIED = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
SMOOTH = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_a_rectified_net_has_rescalings_and_permutations():
    assert places(probe_of(RECTIFIED, 4)) == {
        ("layer", "0 → 2"),
        ("neuron", "0 → 2"),
        ("permutation", "0 → 2"),
    }


@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus])
def test_other_activations_leave_permutations_only(activation):
    model = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3))
    assert places(probe_of(model, 4)) == {("permutation", "0 → 2")}


def test_channels_are_followed_through_norms_depthwise_maps_and_flattening():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 3, 2, groups=3),
        nn.PReLU(3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    probe = probe_of(model, 1, 7, 7)
    assert places(probe) == {
        ("layer", "1 → 7"),
        ("neuron", "1 → 7"),
        ("norm", "0 → 1"),
        ("permutation", "0 → 7"),
    }
    for symmetry in find_symmetries(probe):
        assert transform(probe, [symmetry], seed=3).change < 1e-13


def test_a_gated_unit_is_linear_in_one_factor_and_permuted_in_both():
    assert places(probe_of(Gated(), 4)) == {
        ("layer", "up → down"),
        ("neuron", "up → down"),
        ("permutation", "gate + up → down"),
    }


def test_two_maps_may_read_the_same_units():
    assert places(probe_of(TwoHeads(), 4)) == {
        ("layer", "trunk → one + two"),
        ("neuron", "trunk → one + two"),
        ("permutation", "trunk → one + two"),
    }


def test_a_residual_stream_is_left_alone_and_a_branch_is_not():
    found = places(probe_of(Residual(), 1, 5, 5))
    assert found == {
        ("layer", "norm → second"),
        ("neuron", "norm → second"),
        ("norm", "first → norm"),
        ("permutation", "first → second"),
    }


def test_attention_has_its_linear_groups_and_heads():
    probe = probe_of(Encoder(), 4, 8)
    # Behind the last norm, its weight and bias and the head can be rescaled too.
    assert kinds(probe) == {"layer": 2, "neuron": 2, "attention": 4, "permutation": 2}
    assert ("permutation", "heads of block.self_attn") in places(probe)


def test_a_declared_block_is_checked_like_what_is_found():
    class Product(nn.Module):
        def __init__(self, activation):
            super().__init__()
            self.u, self.v = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(3, 2))
            self.activation = activation

        def forward(self, x):
            return self.activation(x @ self.u) @ self.v.T

    block = Block(Factor("u", axis=1), Factor("v", axis=1))
    linear = probe_of(Product(nn.Identity()), 4, blocks=[block])
    assert places(linear) == {("attention", "u x v 0")}
    assert not places(probe_of(Product(nn.Tanh()), 4, blocks=[block]))


def test_maps_that_hardly_matter_are_not_taken_for_symmetric():
    """Close to zero tanh is linear: its rescaling then nearly holds, and is no symmetry."""
    model = seeded(SMOOTH)
    with torch.no_grad():
        model[2].weight.mul_(1e-7)
        model[2].bias.fill_(1.0)
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 4, generator=source, dtype=torch.float64)
    probe = Probe(model, "cross_entropy", [(inputs, torch.arange(12) % 3)])
    assert places(probe) == {("permutation", "0 → 2")}


def test_frozen_shared_and_computed_weights_are_not_changed():
    frozen = copy.deepcopy(RECTIFIED)
    frozen[2].weight.requires_grad_(False)
    assert not places(probe_of(frozen, 4))
    computed = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 3)
    )
    assert not places(probe_of(computed, 4))
    shared = nn.Linear(4, 4)
    assert not places(probe_of(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 3)), 4))
    assert not places(probe_of(copy.deepcopy(RECTIFIED), 4).restrict("0.*"))


def test_a_random_element_moves_the_weights_and_not_the_model_given():
    probe = probe_of(RECTIFIED, 4, initial=torch.full((51,), 0.5))
    before = probe.weights()
    found = find_symmetries(probe)
    moved = transform(probe, found, seed=1, spread=10)
    assert moved.change < 1e-14
    assert torch.equal(probe.weights(), before)
    assert (moved.probe.weights() - before).norm() > before.norm()
    assert torch.equal(transform(probe, found, seed=1).probe.weights(), moved.probe.weights())
    assert not torch.equal(transform(probe, found, seed=2).probe.weights(), moved.probe.weights())
    assert not torch.equal(moved.probe.initial, probe.initial)
    with pytest.raises(ValueError, match="spread"):
        transform(probe, found, spread=1.0)


def test_factors_lie_within_the_spread():
    probe = probe_of(RECTIFIED, 4)
    neuron = next(entry for entry in find_symmetries(probe) if entry.kind == "neuron")
    here = probe.space.split(probe.weights())["0.bias"]
    factors = torch.cat(
        [
            moved.space.split(moved.weights())["0.bias"] / here
            for moved in (transform(probe, [neuron], seed, spread=5.0).probe for seed in range(40))
        ]
    )
    assert factors.min() > 0.2 - 1e-9
    assert factors.max() < 5 + 1e-9
    assert factors.log().mean().abs() < 0.2
    # Log-uniform on [-log 5, log 5]
    assert factors.log().std() == pytest.approx(torch.tensor(5.0).log().item() / 3**0.5, rel=0.1)


def test_running_statistics_go_along_whatever_their_epsilon():
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, eps=0.3), nn.Flatten(), nn.Linear(27, 3)
    )
    probe = probe_of(model, 1, 5, 5)
    own = [entry for entry in find_symmetries(probe) if entry.kind == "norm"]
    assert len(own) == 1
    assert transform(probe, own, spread=50.0).change < 1e-13


def test_the_momentum_goes_along_with_a_linear_change():
    probe = probe_of(RECTIFIED, 4, momentum=torch.linspace(-1, 1, 51, dtype=torch.float64))
    moved = transform(probe, find_symmetries(probe), seed=4).probe
    for share in (0.3, 1.0):
        there = moved.loss(share * moved.momentum)
        assert there == pytest.approx(probe.loss(share * probe.momentum), rel=1e-9)


def test_a_scaled_loss_scales_all_and_keeps_what_the_objective_knows():
    probe = probe_of(RECTIFIED, 4)
    other = scaled_loss(probe, 3.0)
    assert other.loss() == pytest.approx(3 * probe.loss(), rel=1e-12)
    assert torch.allclose(other.gradient(), 3 * probe.gradient())
    vector = torch.ones(probe.size, dtype=torch.float64)
    assert torch.allclose(other.hvp(vector), 3 * probe.hvp(vector))
    assert torch.allclose(other.ggnvp(vector), 3 * probe.ggnvp(vector))
    assert other.objective.has_accuracy
    with pytest.raises(ValueError, match="positive"):
        scaled_loss(probe, 0.0)


def test_outputs_that_are_only_losses_will_do():
    def loss(model, batch):
        return model(batch).square().sum(1)

    model = seeded(copy.deepcopy(RECTIFIED))
    probe = Probe(model, loss, [torch.randn(6, 4, dtype=torch.float64)])
    assert {kind for kind, _ in places(probe)} == {"layer", "neuron", "permutation"}


def test_the_check_flags_what_depends_and_tells_what_was_left_out():
    probe = probe_of(RECTIFIED, 4)
    names = ["train-loss", "hessian-trace", "fisher-rao-norm", "parameter-norm"]
    found = landscape.symmetry_check(probe, names, elements=2, spread=30.0)
    assert found["train-loss"].verdict == "unchanged"
    assert found["fisher-rao-norm[kind=empirical]"].verdict == "unchanged"
    assert found["hessian-trace"].verdict == "depends on the parametrisation"
    low, high = found["hessian-trace"].range
    assert low <= found["hessian-trace"].base.value <= high
    assert found["hessian-trace"].factor("loss") == pytest.approx(30.0)
    frame = found.to_frame()
    assert list(frame.index) == [orbit.measure for orbit in found]
    assert frame.loc["hessian-trace", "neuron"] > 10
    alone = landscape.symmetry_check(probe, "train-loss", kinds=("loss",))
    assert alone.found == {"loss": ["the loss"]}
    for wrong in ({"elements": 0}, {"elements": 1.5}, {"spread": 1.0}, {"kinds": ("turns",)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            landscape.symmetry_check(probe, "train-loss", **wrong)


def test_a_copy_that_cannot_be_probed_is_told(monkeypatch):
    def broken(*_):
        raise ValueError("the loss is nan")

    monkeypatch.setattr(landscape.orbits, "transform", broken)
    found = landscape.symmetry_check(probe_of(RECTIFIED, 4), "train-loss", elements=1)
    assert len(found.warnings) == 3
    assert "the loss is nan" in found.warnings[0]
    assert found["train-loss"].points.keys() == {"loss"}


def test_what_holds_on_the_first_batch_only_is_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        model[0].bias.zero_()
    small, large = 1e-5 * torch.randn(8, 4).double(), torch.randn(8, 4).double()
    batches = [(part, torch.arange(8) % 3) for part in (small, large)]
    probe = Probe(model, "cross_entropy", batches)
    found = landscape.symmetry_check(probe, ["train-loss", "gradient-norm"], elements=1)
    assert {symmetry.kind for symmetry in find_symmetries(probe)} >= {"layer", "neuron"}
    assert found.found.keys() == found.changes.keys() == {"loss", "permutation"}
    assert any("no symmetry on all of the data" in warning for warning in found.warnings)
    assert "layer" not in found["gradient-norm"].points


@pytest.mark.parametrize("activation", [nn.ReLU6, lambda: nn.Hardtanh(-5, 5)])
def test_a_clamp_that_small_factors_do_not_reach_is_no_homogeneous_function(activation):
    model = nn.Sequential(nn.Linear(4, 16), activation(), nn.Linear(16, 3))
    assert {kind for kind, _ in places(probe_of(model, 4))} == {"permutation"}


def test_models_with_single_precision_of_their_own():
    weight = torch.tensor([1.0, 2.0, 3.0])

    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], weight=weight, reduction="none")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    probe = Probe(model, loss, [(torch.randn(9, 4), torch.arange(9) % 3)])
    assert {kind for kind, _ in places(probe)} == {"layer", "neuron", "permutation"}


def test_pairs_that_names_promise_and_the_model_does_not_keep_are_left_out():
    class Interleaved(nn.Module):
        """Fused queries, keys and values, but head by head."""

        def __init__(self):
            super().__init__()
            self.num_heads = 2
            self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x):
            parts = self.qkv(x).unflatten(-1, (2, 3, 4)).permute(3, 0, 2, 1, 4)
            mixed = functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
            return self.proj(mixed).mean(1)

    torch.manual_seed(0)
    model = nn.Sequential(Interleaved(), nn.Linear(8, 3)).double()
    for parameter in model.parameters():
        parameter.data.normal_()
    inputs = torch.randn(6, 5, 8, dtype=torch.float64)
    probe = Probe(model, "cross_entropy", [(inputs, torch.arange(6) % 3)])
    result = landscape.measures.get("geodesic-sharpness").compute(probe)
    assert result.diagnostics["pairs"] + len(result.warnings) == 4
    assert len(result.warnings) >= 3
    assert "changes the outputs" in result.warnings[0]


def test_rounding_is_called_by_its_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    inputs = torch.randn(9, 4)
    with torch.no_grad():
        targets = model(inputs) + 1e-7
    probe = Probe(model, "mse", [(inputs, targets)])
    found = landscape.symmetry_check(probe, "train-loss", elements=1)
    assert any("rounding" in warning for warning in found.warnings)
