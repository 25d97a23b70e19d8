"""Attention is found, and GL(h) on what is found leaves the model's outputs as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape.geometry import find_attention
from landscape.probing import ParamSpace


class Fused(nn.Module):
    """The layout of timm: one linear layer for query, key and value."""

    def __init__(self, *, normalise=False):
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(8, 24)
        self.q_norm = nn.LayerNorm(4) if normalise else nn.Identity()
        self.k_norm = nn.LayerNorm(4) if normalise else nn.Identity()
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 8).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 8, bias=False)})

    def forward(self, x):
        return self.base(x) + self.lora_B["default"](self.lora_A["default"](x))


class Attend(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **settings)

    def forward(self, x):
        memory = x[..., : self.attention.kdim]
        return self.attention(x, memory, memory, need_weights=False)[0]


def vectors():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))


def plain(model):
    return model, lambda: model(vectors().to(next(model.parameters()).dtype))


def hugging_face(name):
    transformers = pytest.importorskip("transformers")
    tokens = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(1))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    small = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16,
             "num_attention_heads": 2, "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    if name == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**small))
    elif name == "vit":
        del small["vocab_size"], small["bos_token_id"], small["eos_token_id"]
        config = transformers.ViTConfig(**small, image_size=8, patch_size=4)
        model = transformers.ViTForImageClassification(config)
    elif name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=20, n_embd=8, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
        )
        model = transformers.GPT2LMHeadModel(config)
    elif name == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=20, dim=8, n_layers=2, n_heads=2, hidden_dim=16
        )
        model = transformers.DistilBertForSequenceClassification(config)
    else:
        config = transformers.LlamaConfig(
            **{**small, "hidden_size": 16, "num_attention_heads": 4}, num_key_value_heads=2
        )
        model = transformers.LlamaForCausalLM(config)

    def outputs():
        inputs = images.to(model.dtype) if name == "vit" else tokens
        return model(inputs).logits

    return model, outputs


CASES = {
    "multihead": (lambda: plain(Attend()), 4, []),
    "multihead without biases": (lambda: plain(Attend(bias=False)), 4, []),
    "multihead, other sizes": (lambda: plain(Attend(kdim=6, vdim=6)), 4, []),
    "encoder layer": (
        lambda: plain(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), 4, [],
    ),
    "fused": (lambda: plain(nn.Sequential(Fused(), Fused())), 8, []),
    "fused, normalised": (lambda: plain(nn.Sequential(Fused(normalise=True))), 2, ["query-key"]),
    "low rank": (lambda: plain(nn.Sequential(LowRank())), 1, []),
    "bert": (lambda: hugging_face("bert"), 8, []),
    "vit": (lambda: hugging_face("vit"), 8, []),
    "gpt2": (lambda: hugging_face("gpt2"), 8, []),
    "distilbert": (lambda: hugging_face("distilbert"), 8, []),
    "llama": (lambda: hugging_face("llama"), 4, ["query-key"]),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", CASES)
def test_all_heads_are_found_and_outputs_stay(name, dtype, most):
    make, count, left_out = CASES[name]
    model, outputs = make()
    model.to(dtype).eval()
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=source, dtype=dtype))
        space = ParamSpace.of(model)
        found = find_attention(dict(model.named_modules()), space)
        assert len(found.pairs) == count
        assert all(any(word in key for key in found.left_out) for word in left_out)
        assert bool(found.left_out) == bool(left_out)
        before = outputs()
        parameters = {n: p for n, p in model.named_parameters() if n in space.names}
        flat = space.flatten(parameters)
        moved = flat.clone()
        for pair in found.pairs:
            width = pair.left.shape[1]
            a = torch.eye(width) + 0.4 * torch.randn(width, width, generator=source)
            a = a.to(torch.float64)
            moved[pair.left] = (flat[pair.left].double() @ torch.linalg.inv(a)).to(dtype)
            moved[pair.right] = (flat[pair.right].double() @ a.T).to(dtype)
        for key, value in space.split(moved).items():
            parameters[key].copy_(value)
        change = (outputs() - before).norm() / before.norm()
    assert (moved - flat).norm() > 0.1 * flat[
        torch.cat([p.left.flatten() for p in found.pairs])
    ].norm()
    assert change < most


def test_what_is_frozen_or_of_unknown_heads_is_left_out():
    model = nn.Sequential(Fused(), Fused())
    model[0].proj.weight.requires_grad_(False)
    del model[1].num_heads
    found = find_attention(dict(model.named_modules()), ParamSpace.of(model))
    assert not found.pairs
    assert "trainable" in found.left_out["0"]
    assert "heads is not known" in found.left_out["1"]
