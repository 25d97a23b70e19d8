"""Pairs of matrices that a user declares."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from landscape import Block, Factor, Probe, measures
from landscape.geometry import find_attention
from landscape.geometry.attention import find_pairs

WIDTH = 8


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Hidden(Attend):
    """The same function and names; the finder does not know the module."""

    def __init__(self):
        super().__init__()
        self.attention = Unknown()


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        kept = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.in_proj_weight, self.in_proj_bias = kept.in_proj_weight, kept.in_proj_bias
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, *_, need_weights):
        assert not need_weights
        return nn.functional.multi_head_attention_forward(
            x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), WIDTH, 2,
            self.in_proj_weight, self.in_proj_bias, None, None, False, 0.0,
            self.out_proj.weight, self.out_proj.bias, training=False, need_weights=False,
        )[0].transpose(0, 1), None  # fmt: skip


def third(place):
    return Factor(
        "attention.in_proj_weight",
        bias="attention.in_proj_bias",
        start=place * WIDTH,
        stop=(place + 1) * WIDTH,
    )


BY_HAND = [
    Block(third(0), third(1), heads=2),
    Block(third(2), Factor("attention.out_proj.weight", axis=1), heads=2),
]


def probe_of(model, blocks=(), dtype=torch.float64):
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=source))
    batches = [(torch.randn(12, 4, WIDTH, generator=source), torch.arange(12) % 3)]
    model = model.to(dtype).eval()
    return Probe(model, "cross_entropy", batches, blocks=blocks, products="loop")


def as_sets(pairs):
    return {(tuple(p.left.flatten().tolist()), tuple(p.right.flatten().tolist())) for p in pairs}


def test_blocks_by_hand_are_the_pairs_that_are_found():
    found = probe_of(Attend())
    declared = probe_of(Hidden(), BY_HAND)
    assert not find_attention(declared.modules(), declared.space).pairs
    pairs = find_pairs(declared).pairs
    assert [tuple(pair.left.shape) for pair in pairs] == [(WIDTH + 1, 4)] * 4
    # Parameters may stand in another order: compare entries of the weights, all different.
    by_value = [
        {
            (tuple(flat[p.left].flatten().tolist()), tuple(flat[p.right].flatten().tolist()))
            for p in find_pairs(probe).pairs
        }
        for probe in (found, declared)
        for flat in (probe.weights(),)
    ]
    assert by_value[0] == by_value[1]


@pytest.mark.parametrize("metric", ["inv", "mix"])
def test_measures_agree(metric):
    for name in ("geodesic-sharpness", "geodesic-average-sharpness"):
        measure = measures.get(name, metric=metric, rho=0.1)
        found, declared = probe_of(Attend()), probe_of(Hidden(), BY_HAND)
        assert declared.loss() == pytest.approx(found.loss(), rel=1e-12)
        expected, result = measure.compute(found), measure.compute(declared)
        if name == "geodesic-sharpness":
            assert result.diagnostics["pairs"] == expected.diagnostics["pairs"] == 4
        assert result.value == pytest.approx(expected.value, rel=1e-9)
        assert measure.compute(probe_of(Hidden())).value != pytest.approx(expected.value, rel=1e-3)


def test_declared_blocks_stand_in_for_found_ones_they_share_entries_with():
    pairs = find_pairs(probe_of(Attend(), BY_HAND[:1])).pairs
    alone = find_pairs(probe_of(Attend())).pairs
    assert as_sets(pairs) == as_sets(alone)
    assert [pair.name.split()[0] for pair in pairs] == ["attention.in_proj_weight"] * 2 + [
        "attention"
    ] * 2
    # One pair over both heads is no symmetry; the found pairs that share its entries are gone too.
    found = find_pairs(probe_of(Attend(), [Block(third(0), third(1))]))
    assert [tuple(pair.left.shape) for pair in found.pairs] == [(WIDTH + 1, 4)] * 2
    assert list(found.left_out.values()) == ["a random element of GL(h) changes the outputs"]


def test_blocks_are_part_of_the_identity_and_leave_when_a_parameter_does():
    probe = probe_of(Attend(), BY_HAND)
    assert probe.identity() != probe_of(Attend()).identity()
    found = find_pairs(probe.restrict("head*"))
    assert not found.pairs
    assert "not all of its parameters" in " ".join(found.left_out.values())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block(Factor("nowhere"), Factor("head.weight")), "'nowhere' is no trainable parameter"),
        (Block(Factor("head.weight", bias="no"), Factor("head.weight")), "'no' is no trainable"),
        (Block(Factor("head.weight"), Factor("head.weight", axis=1)), "widths 3 and 8 must be"),
        (Block(third(0), third(1), heads=3), "divisible by heads=3"),
        (Block(third(0), third(1), heads=0), "divisible by heads=0"),
        (Block(Factor("head.weight", axis=2), Factor("head.weight")), "none is 2"),
        (Block(Factor("head.weight", axis=1, bias="head.bias"), third(0)), "must be as many"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(block, message):
    with pytest.raises(ValueError, match=message):
        probe_of(Attend(), [block])


def test_a_frozen_parameter_is_refused():
    model = Attend()
    model.attention.out_proj.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="is no trainable parameter"):
        probe_of(model, BY_HAND)


def test_blocks_that_overlap_are_refused():
    blocks = [BY_HAND[0], Block(third(1), Factor("attention.out_proj.weight", axis=1), heads=2)]
    with pytest.raises(ValueError, match="overlap"):
        measures.get("geodesic-sharpness").compute(probe_of(Attend(), blocks))


def test_vectors_are_one_row():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x @ (self.u * self.v)

    probe = Probe(
        Rows(), "mse", [(torch.ones(2, 3), torch.ones(2))],
        blocks=[Block(Factor("u"), Factor("v"), heads=3)],
    )  # fmt: skip
    pairs = find_pairs(probe).pairs
    assert [(p.left.tolist(), p.right.tolist()) for p in pairs] == [
        ([[place]], [[3 + place]]) for place in range(3)
    ]
