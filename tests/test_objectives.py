"""Objectives of language models against Hugging Face's own losses; smoothing, weight decay."""

from __future__ import annotations

import pytest
import torch
from conftest import generator, labelled, mlp
from torch import nn
from torch.nn import functional

from landscape import Probe, probing
from landscape.probing import (
    CausalLM,
    CrossEntropy,
    MaskedLM,
    Seq2Seq,
    WeightDecay,
    as_objective,
    token_losses,
)

transformers = pytest.importorskip("transformers")


def tokens(count, length, vocabulary=50, seed=0):
    ids = torch.randint(3, vocabulary, (count, length), generator=generator(seed))
    mask = torch.ones_like(ids)
    mask[0, length - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
    )
    return transformers.BertForMaskedLM(config).eval()


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=50,
        d_model=8,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def test_causal_lm_is_the_loss_of_hugging_face(gpt2):
    batch = tokens(3, 9)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        truth = float(gpt2(**batch, labels=labels).loss)
    assert Probe(gpt2, "causal_lm", [{**batch, "labels": labels}]).loss() == pytest.approx(truth)
    probe = Probe(gpt2, "causal_lm", [batch])  # labels made of the inputs
    assert probe.loss() == pytest.approx(truth)
    assert probe.terms == 3 * 8 - 2


def test_tokens_are_weighted_right_over_uneven_batches(gpt2):
    batch = tokens(5, 9)
    parts = [{key: value[rows] for key, value in batch.items()} for rows in ([0, 1, 2], [3, 4])]
    whole = Probe(gpt2, "causal_lm", [batch])
    split = Probe(gpt2, "causal_lm", parts)
    assert split.loss() == pytest.approx(whole.loss(), rel=1e-6)
    v = torch.randn(whole.size, generator=generator(2))
    assert torch.allclose(split.hvp(v), whole.hvp(v), rtol=1e-3, atol=1e-5)


def test_masked_lm_is_the_loss_of_hugging_face(bert):
    batch = tokens(3, 9)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, 2:5] = batch["input_ids"][:, 2:5]
    with torch.no_grad():
        truth = float(bert(**batch, labels=labels).loss)
    probe = Probe(bert, "masked_lm", [{**batch, "labels": labels}])
    assert probe.loss() == pytest.approx(truth)
    assert probe.terms == 9


def test_seq2seq_is_the_loss_of_hugging_face(t5):
    batch = tokens(3, 9)
    labels = torch.randint(3, 50, (3, 5), generator=generator(4))
    labels[1, 3:] = -100
    with torch.no_grad():
        truth = float(t5(**batch, labels=labels).loss)
    assert Probe(t5, "seq2seq", [{**batch, "labels": labels}]).loss() == pytest.approx(truth)
    with pytest.raises(TypeError, match="needs 'decoder_input_ids'"):
        Probe(nn.Linear(2, 2), "seq2seq", [{**batch, "labels": labels}])


def test_products_of_a_language_model_are_those_of_differences(gpt2):
    model = transformers.GPT2LMHeadModel(gpt2.config).double().eval()
    probe = Probe(model, "causal_lm", [tokens(3, 9)])
    v = torch.randn(probe.size, generator=generator(3), dtype=torch.float64)
    slope = (probe.gradient(1e-6 * v) - probe.gradient(-1e-6 * v)) / 2e-6
    assert float((probe.hvp(v) - slope).norm()) < 1e-5 * float(slope.norm())


def test_large_vocabularies_are_chunked_and_agree_in_all_derivatives(gpt2, monkeypatch):
    model = transformers.GPT2LMHeadModel(gpt2.config).double().eval()
    v = torch.randn(sum(p.numel() for p in model.parameters()), generator=generator(3)).double()

    def numbers(chunk):
        monkeypatch.setattr(token_losses, "_CHUNK", chunk)
        probe = Probe(model, "causal_lm", [tokens(3, 9)])
        noise = probe.losses(torch.stack([0.01 * v, -0.01 * v]))
        return probe.gradient(0.1 * v), probe.hvp(v), probe.ggnvp(v), noise

    for chunked, plain in zip(numbers(4 * 50), numbers(1 << 24), strict=True):
        assert torch.allclose(chunked, plain, rtol=1e-9, atol=1e-12)


def test_chunked_losses_pass_torchs_own_check(monkeypatch):
    monkeypatch.setattr(token_losses, "_CHUNK", 8)
    logits = torch.randn(5, 4, generator=generator(), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, -100, 2, 1])
    losses = token_losses.token_losses(logits, targets)
    truth = functional.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(losses, truth, rtol=1e-12)

    def total(logits):
        return token_losses.token_losses(logits, targets).square().sum()

    assert torch.autograd.gradcheck(total, (logits,))
    assert torch.autograd.gradgradcheck(total, (logits,))


def test_the_accuracy_of_a_language_model_is_that_of_its_tokens(gpt2):
    batch = tokens(3, 9)
    probe = Probe(gpt2, "causal_lm", [batch])
    with torch.no_grad():
        best = gpt2(**batch).logits.argmax(-1)[:, :-1]
    told = batch["attention_mask"][:, 1:] == 1
    truth = (best == batch["input_ids"][:, 1:])[told].double().mean()
    found = probe.term_values(probe.objective.correct).double()
    assert len(found) == int(told.sum())
    assert float(found.mean()) == pytest.approx(float(truth))


def test_the_fisher_information_of_a_language_model_is_its_gauss_newton_matrix(gpt2):
    """Mean square of gradients at drawn targets; v'Fv = v'Gv for cross-entropy."""
    model = transformers.GPT2LMHeadModel(gpt2.config).double().eval()
    batch = {key: value[1:2, :4] for key, value in tokens(3, 9).items()}
    probe = Probe(model, "causal_lm", [batch])
    v = torch.randn(probe.size, generator=generator(5), dtype=torch.float64)
    truth = float(v @ probe.ggnvp(v))
    terms = probe.terms
    squares = torch.tensor(
        [float(probe.sampled_targets(s).gradient() @ v) ** 2 * terms for s in range(400)]
    )
    error = squares.std() / 20
    assert abs(squares.mean() - truth) < 4 * error
    assert error < 0.1 * truth


def test_logits_of_another_shape_are_refused():
    batch = {"input": torch.randn(3, 4), "labels": torch.randint(0, 3, (3,))}
    with pytest.raises(
        TypeError, match=r"logits of shape \(batch, tokens, vocabulary\), got \(3, 3"
    ):
        Probe(nn.Sequential(nn.Linear(4, 3)), "masked_lm", [batch])


# -- settings -------------------------------------------------------------------------------------


def test_label_smoothing_is_torchs_and_off_by_default():
    data = labelled(6)
    model = mlp()
    logits = model(data[0][0]).detach()
    for smoothing in (0.0, 0.2):
        truth = functional.cross_entropy(logits, data[0][1], label_smoothing=smoothing)
        probe = Probe(model, CrossEntropy(label_smoothing=smoothing), data)
        assert probe.loss() == pytest.approx(float(truth))
    assert probe.objective.name == "cross_entropy, labels smoothed by 0.2"
    assert Probe(model, "cross_entropy", data).objective.label_smoothing == 0
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        CrossEntropy(label_smoothing=1.0)
    assert as_objective("causal_lm", label_smoothing=0.1).label_smoothing == 0.1
    with pytest.raises(ValueError, match="objective 'mse' has no label_smoothing"):
        as_objective("mse", label_smoothing=0.1)


@pytest.mark.parametrize("name", ["cross_entropy", "callable"])
def test_weight_decay_adds_half_its_square(name):
    def each(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    inner = as_objective("cross_entropy" if name == "cross_entropy" else each)
    data = [(x.double(), y) for x, y in labelled(7, 5)]
    model = mlp().double()
    plain, decayed = Probe(model, inner, data), Probe(model, WeightDecay(inner, 0.3), data)
    w = plain.weights()
    v = torch.randn(plain.size, generator=generator(3), dtype=torch.float64)
    assert decayed.loss() == pytest.approx(plain.loss() + 0.15 * float(w @ w), rel=1e-12)
    assert torch.allclose(decayed.gradient(), plain.gradient() + 0.3 * w, rtol=1e-10)
    assert torch.allclose(decayed.hvp(v), plain.hvp(v) + 0.3 * v, rtol=1e-10)
    points = torch.stack([0.1 * v, -0.2 * v])
    moved = plain.losses(points) + 0.15 * (w + points).square().sum(1)
    assert torch.allclose(decayed.losses(points), moved, rtol=1e-10)
    at = torch.tensor([[0.1], [-0.2]], dtype=torch.float64)
    drawn = decayed.scratch().evaluate(at, [v], decayed.batches, {})
    assert torch.allclose(drawn.mean["loss"], moved, rtol=1e-10)
    if inner.has_outputs:
        assert torch.allclose(decayed.ggnvp(v), plain.ggnvp(v) + 0.3 * v, rtol=1e-10)
    with pytest.raises(ValueError, match="weight decay must be positive"):
        WeightDecay(inner, -1.0)


def test_every_name_is_an_objective():
    for name, kind in probing.OBJECTIVES.items():
        assert type(as_objective(name)) is kind
    assert {CausalLM, MaskedLM, Seq2Seq} <= set(probing.OBJECTIVES.values())
