"""Finding attention: the pairs of matrices that a model sees only through their product."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from landscape.geometry.quotient import Pair
from landscape.geometry.verification import Change, Sample, Verifier, log_uniform, on_flat
from landscape.probing import ParamSpace, Probe

# Names under which libraries keep query, key and value, and what follows them.
_SEPARATE = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("to_q", "to_k", "to_v"),
)
_FUSED = ("qkv", "c_attn")
_OUTPUTS = ("out_proj", "o_proj", "out_lin", "c_proj", "proj", "to_out")
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_WIDTHS = ("head_dim", "attention_head_size")
_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_norm", "key_norm")
_ROTARY = re.compile(r"rotary|(?<![a-z])rope(?![a-z])")


@dataclass(frozen=True)
class Attention:
    """What was found in a model.

    Args:
        pairs: Two a head: query and key, value and output; of LoRA one a layer.
        left_out: By name of a block, why it has no such symmetry or is not covered.
    """

    pairs: list[Pair] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each block that was left out."""
        return tuple(
            f"{name} is treated entry by entry, without its symmetry: {reason}"
            for name, reason in self.left_out.items()
        )


@dataclass(frozen=True)
class _Map:
    """Places of an affine map's weight in a flat vector, inputs by outputs, and of its bias."""

    weight: Tensor
    bias: Tensor | None

    def outputs(self, start: int, stop: int) -> Tensor:
        """Some output columns, with the bias as a further row."""
        rows = [self.weight[:, start:stop]]
        return torch.cat(rows if self.bias is None else [*rows, self.bias[None, start:stop]])

    def thirds(self) -> list[_Map]:
        """The three maps that stand side by side in a fused one."""
        biases = [None] * 3 if self.bias is None else list(self.bias.chunk(3))
        return [
            _Map(weight, bias)
            for weight, bias in zip(self.weight.chunk(3, dim=1), biases, strict=True)
        ]


def find_attention(modules: Mapping[str, nn.Module], space: ParamSpace) -> Attention:
    """The pairs of all attention heads and LoRA layers of a model.

    Known are ``nn.MultiheadAttention``, modules with separate query, key and value maps (Hugging
    Face's BERT, ViT, DistilBERT, Llama and their kin) and fused ones in the order query, key,
    value (timm, GPT-2). Biases of query, key and value are further rows. Where several query heads
    share a key (grouped queries), the query heads are stacked; likewise the outputs of a value.
    Rotary positions and normalised queries or keys leave no GL(h) on query and key: those pairs are
    left out, value and output stay.

    Args:
        modules: Name to module, as ``model.named_modules()`` gives them.
        space: The trainable parameters; blocks with frozen ones are left out.

    Returns:
        The pairs, with places in a flat vector of the space, and what was left out.
    """
    finder = _Finder(modules, space)
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            finder.multihead(name, module)
        elif hasattr(module, "lora_A") and hasattr(module, "lora_B"):
            finder.low_rank(name)
        else:
            finder.by_names(name, module)
    return finder.found


@dataclass(frozen=True)
class PairsRequest:
    """The pairs of a probe's model: evidence, since they are verified by evaluating it."""

    def compute(self, probe: Probe) -> Attention:
        """Declared blocks first, then what is found beside them; each is tried."""
        found = find_attention(probe.modules(), probe.space)
        declared, left_out = [], dict(found.left_out)
        for block in probe.blocks:
            name = f"{block.left.weight} x {block.right.weight}"
            if not block.parameters <= set(probe.space.names):
                left_out[name] = "not all of its parameters are probed"
                continue
            declared += [
                Pair(f"{name} {head}", left, right)
                for head, (left, right) in enumerate(block.places(probe.space))
            ]
        taken = torch.zeros(probe.size, dtype=torch.bool)
        for pair in declared:
            taken[pair.left], taken[pair.right] = True, True
        pairs = declared + [
            pair for pair in found.pairs if not taken[pair.left].any() | taken[pair.right].any()
        ]
        if not pairs:
            return Attention([], left_out)
        kept = Verifier(probe).kept(pairs, lambda pair: general_linear(probe, pair))
        names = {pair.name for pair in kept}
        for pair in pairs:
            if pair.name not in names:
                left_out[pair.name] = "a random element of GL(h) changes the outputs"
        return Attention(kept, left_out)


def find_pairs(probe: Probe) -> Attention:
    """The declared blocks of a probe, and the attention that is found beside them.

    Names and shapes only suggest pairs: each is kept if a random element of GL(h) on it leaves the
    outputs on the first batch unchanged.

    Args:
        probe: Its blocks go first: what is found is left out where it shares an entry with one.

    Returns:
        The pairs, with places in a flat vector of the probe's space, and what was left out.
    """
    return probe.evidence(PairsRequest())


def general_linear(probe: Probe, pair: Pair) -> Sample:
    """Random elements A of GL(h) on a pair, with singular values within the spread.

    Args:
        probe: In whose flat vector the pair lies.
        pair: Becomes (G A^-1, K A^T).

    Returns:
        A function of a generator and a spread that gives a change of the model.
    """

    def sample(source: torch.Generator, spread: float) -> Change:
        width = pair.left.shape[1]
        draws = torch.randn(2, width, width, generator=source, dtype=torch.float64)
        turns, signs = torch.linalg.qr(draws)
        turns = turns * signs.diagonal(dim1=1, dim2=2).sign()[:, None]
        stretch = log_uniform(width, source, spread)
        forward = turns[0] * stretch @ turns[1]
        backward = turns[1].mT / stretch @ turns[0].mT

        def change(flat: Tensor) -> None:
            left, right = flat[pair.left].double(), flat[pair.right].double()
            flat[pair.left] = (left @ backward.to(flat.device)).to(flat.dtype)
            flat[pair.right] = (right @ forward.mT.to(flat.device)).to(flat.dtype)

        return on_flat(probe, change)

    return sample


class _Finder:
    def __init__(self, modules: Mapping[str, nn.Module], space: ParamSpace) -> None:
        self._modules = modules
        self._places = space.split(torch.arange(space.size))
        kinds = (f"{name} {type(module).__name__}".lower() for name, module in modules.items())
        self._rotary = any(_ROTARY.search(kind) for kind in kinds)
        self.found = Attention()

    def multihead(self, name: str, module: nn.MultiheadAttention) -> None:
        stem = f"{name}." if name else ""
        packed = self._places.get(f"{stem}in_proj_weight")
        bias = self._places.get(f"{stem}in_proj_bias")
        if module.bias_k is not None:
            self.found.left_out[name] = "it appends a bias to keys and values"
            return
        if packed is not None:
            maps: list[_Map | None] = list(_Map(packed.T, bias).thirds())
        else:
            weights = [self._places.get(f"{stem}{part}_proj_weight") for part in "qkv"]
            biases = [None] * 3 if bias is None else list(bias.chunk(3))
            maps = [
                None if weight is None else _Map(weight.T, own)
                for weight, own in zip(weights, biases, strict=True)
            ]
        width = module.embed_dim // module.num_heads
        has_bias = dict(module.named_parameters(recurse=False)).get("in_proj_bias") is not None
        out = None if has_bias and bias is None else self._map(f"{stem}out_proj")
        self._add(name, maps, out, width, normalised=False)

    def low_rank(self, name: str) -> None:
        stem = f"{name}." if name else ""
        for lower in self._places:
            if lower.startswith(f"{stem}lora_A.") and lower.endswith(".weight"):
                upper = lower.replace("lora_A.", "lora_B.")
                if upper in self._places:
                    pair = Pair(f"{name} (LoRA)", self._places[upper], self._places[lower].T)
                    self.found.pairs.append(pair)

    def by_names(self, name: str, module: nn.Module) -> None:
        children = dict(module.named_children())
        stem = f"{name}." if name else ""
        parts = next((names for names in _SEPARATE if set(names) <= children.keys()), None)
        fused = next((part for part in _FUSED if part in children), None)
        if parts is None and fused is None:
            return
        if parts is not None:
            maps = [self._map(f"{stem}{part}") for part in parts]
        else:
            joined = self._map(f"{stem}{fused}")
            maps = [None] * 3 if joined is None else list(joined.thirds())
            if joined is not None and joined.weight.shape[1] % 3:
                self.found.left_out[name] = "its fused map is not three of one size"
                return
        width = _width(module, maps[0])
        if width is None:
            self.found.left_out[name] = "the number of its heads is not known"
            return
        norms = [children.get(norm) for norm in _NORMS]
        normalised = any(norm is not None and not isinstance(norm, nn.Identity) for norm in norms)
        self._add(name, maps, self._output(name, children), width, normalised=normalised)

    def _output(self, name: str, children: Mapping[str, nn.Module]) -> _Map | None:
        """The map after the heads: a child, its first entry, or the parent's output.dense."""
        stem, parent = f"{name}." if name else "", name.rpartition(".")[0]
        own = [f"{stem}{part}" for part in _OUTPUTS if part in children]
        tried = [*own, *(f"{place}.0" for place in own), f"{parent}.output.dense"]
        return next((found for place in tried if (found := self._map(place)) is not None), None)

    def _map(self, name: str) -> _Map | None:
        module = self._modules.get(name)
        weight = self._places.get(f"{name}.weight")
        if module is None or weight is None or len(weight.shape) != 2:
            return None
        if getattr(module, "bias", None) is not None and f"{name}.bias" not in self._places:
            return None
        transposed = type(module).__name__ == "Conv1D"  # GPT-2 keeps (inputs, outputs)
        if not (transposed or isinstance(module, nn.Linear)):
            return None
        return _Map(weight if transposed else weight.T, self._places.get(f"{name}.bias"))

    def _add(
        self, name: str, maps: list[_Map | None], out: _Map | None, width: int, *, normalised: bool
    ) -> None:
        query, key, value = maps
        if query is None or key is None or value is None or out is None:
            self.found.left_out[name] = "not all of its maps are trainable linear layers"
            return
        shared = key.weight.shape[1] // width
        group = query.weight.shape[1] // (width * shared)
        reason = "queries and keys are normalised" if normalised else ""
        reason = reason or ("queries and keys are rotated by position" if self._rotary else "")
        if reason:
            self.found.left_out[f"{name} (query-key)"] = reason
        for head in range(shared):
            own = slice(head * width, (head + 1) * width)
            members = [(head * group + place) * width for place in range(group)]
            if not reason:
                left = torch.cat([query.outputs(start, start + width) for start in members])
                right = key.outputs(own.start, own.stop)
                self.found.pairs.append(Pair(f"{name} query-key {head}", left, right, name, head))
            outgoing = torch.cat([out.weight[start : start + width].T for start in members])
            incoming = value.outputs(own.start, own.stop)
            pair = Pair(f"{name} value-output {head}", incoming, outgoing, name, head)
            self.found.pairs.append(pair)


def _width(module: nn.Module, query: _Map | None) -> int | None:
    """Width of a head, from what the module says of itself."""
    for name in _WIDTHS:
        if isinstance(width := getattr(module, name, None), int):
            return width
    for name in _HEADS:
        if isinstance(heads := getattr(module, name, None), int) and query is not None:
            return query.weight.shape[1] // heads
    return None
