"""Hessian-vector products: time per vector, against one gradient and against other libraries.

Measured is a block of 8 products of the Hessian of the mean cross-entropy over 2 batches of 128
random examples with random vectors, for three models in evaluation mode:

- mlp: 3072-256-256-10 with ReLU;
- resnet20: ResNet-20 for 32 x 32 images, width 16, with batch normalisation;
- transformer: 4 encoder layers of width 128 on 64 patches, scaled-dot-product attention.

The contenders take turns in random order within every round, so that a slow phase of the machine
hits all alike. Of each the median over rounds is quoted, divided by 8 and by the same run's
gradient (plain autograd over the same two batches). All contenders must agree within 1e-3.

- landscape, warm: ``Probe.hvp`` with room to keep the graphs of both batches (8 GiB allowed).
- landscape, cold: ``graph_memory=0``; the graph of every batch is rebuilt in each call.
- PyHessian: ``hessian(...).dataloader_hv_product``, one vector a call.
- curvlinops: ``HessianLinearOperator @ block``, batched by vmap.
- hessian-eigenthings: ``HessianOperator.matvec``, one vector a call.
- PyHessian by hand: one ``hessian`` object a batch, whose kept gradients are differentiated by
  ``hessian_vector_product`` and summed by the caller. It is not offered for several batches; it
  shows what graph reuse alone is worth and is not counted as a peer.

Fused attention has no double backward, so all products run with the math kernel, which landscape
chooses by itself; the gradient runs with torch's default.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _common import RECORDS, console, table, write_record
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import landscape

VECTORS = 8
BATCH = 128
GRADIENT = "gradient"
TARGETS = {"mlp": 0.6, "resnet20": 0.8, "transformer": 0.8}  # of the fastest peer
GRADIENTS = 3.0
PACKAGES = ("pyhessian", "curvlinops-for-pytorch", "hessian-eigenthings")

Batches = list[tuple[Tensor, Tensor]]
Block = Callable[[Tensor], Tensor]  # (K, P) -> (K, P)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm; the shortcut subsamples and pads with zeros."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride = width // before
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.norm1(self.conv1(images)))
        features = self.norm2(self.conv2(features))
        if self.stride > 1:
            missing = features.shape[1] - images.shape[1]
            images = functional.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 0, missing))
        return functional.relu(features + images)


def resnet20(width: int = 16) -> nn.Module:
    """ResNet-20 for 32 x 32 images (He et al. 2016, section 4.2)."""
    widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 3
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *(ResidualBlock(*pair) for pair in pairwise(widths)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, 10),
    )


class PatchTransformer(nn.Module):
    """Encoder on 8 x 8 patches of 4 x 4 pixels, mean pooling, linear head."""

    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(64, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.mean(1))


def mlp() -> nn.Module:
    """Two hidden layers of 256."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "resnet20": resnet20,
    "transformer": PatchTransformer,
}


@dataclass
class Contender:
    """A way to make a block of products, or why there is none."""

    name: str
    product: Block | None = None
    reason: str = ""
    peer: bool = True
    #: The probe where it is ours, for what it chose and kept.
    probe: landscape.Probe | None = None


def gradient(model: nn.Module, batches: Batches) -> Tensor:
    """The full gradient by plain autograd."""
    params = list(model.parameters())
    total = torch.zeros((), device=params[0].device)
    for images, labels in batches:
        loss = functional.cross_entropy(model(images), labels)
        total = total + flat(torch.autograd.grad(loss, params))
    return total / len(batches)


def split(model: nn.Module, vector: Tensor) -> list[Tensor]:
    """A flat vector as a list shaped like the parameters."""
    shapes = [param.shape for param in model.parameters()]
    pieces = vector.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def flat(tensors: Any) -> Tensor:
    """A list shaped like the parameters as a flat vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def one_by_one(product: Callable[[Tensor], Tensor]) -> Block:
    """A block product from a product with one vector."""
    return lambda block: torch.stack([product(vector) for vector in block])


def math_attention(product: Block) -> Block:
    """A product under the math attention kernel."""

    def found(block: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return product(block)

    return found


def pyhessian(model: nn.Module, batches: Batches) -> Block:
    """PyHessian's product over a data loader."""
    from pyhessian import hessian

    found = hessian(model, nn.CrossEntropyLoss(), dataloader=batches, cuda=batches[0][0].is_cuda)
    return one_by_one(lambda vector: flat(found.dataloader_hv_product(split(model, vector))[1]))


def pyhessian_by_hand(model: nn.Module, batches: Batches) -> Block:
    """One PyHessian object a batch; the caller sums."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    parts = []
    for batch in batches:
        model.zero_grad(set_to_none=True)
        parts.append(hessian(model, nn.CrossEntropyLoss(), data=batch, cuda=batch[0].is_cuda))
    model.zero_grad(set_to_none=True)

    def product(vector: Tensor) -> Tensor:
        pieces = split(model, vector)
        return sum(
            flat(hessian_vector_product(part.gradsH, part.params, pieces)) for part in parts
        ) / len(parts)

    return one_by_one(product)


def curvlinops(model: nn.Module, batches: Batches) -> Block:
    """curvlinops' product with a matrix of vectors."""
    from curvlinops import HessianLinearOperator

    operator = HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        batches,
        check_deterministic=False,
    )
    return lambda block: (operator @ block.T).T


def eigenthings(model: nn.Module, batches: Batches) -> Block:
    """hessian-eigenthings' product with a vector."""
    from hessian_eigenthings import HessianOperator, supervised_loss

    operator = HessianOperator(model, batches, supervised_loss(nn.CrossEntropyLoss()))
    return one_by_one(operator.matvec)


def contenders(model: nn.Module, batches: Batches) -> list[Contender]:
    """Ours, the peers, and the one by hand."""
    warm = landscape.Probe(model, "cross_entropy", batches, graph_memory=8 << 30)
    cold = landscape.Probe(model, "cross_entropy", batches, graph_memory=0)
    found = [
        Contender("landscape, warm", warm.hvp, peer=False, probe=warm),
        Contender("landscape, cold", cold.hvp, peer=False, probe=cold),
    ]
    peers = {
        "PyHessian": pyhessian,
        "curvlinops": curvlinops,
        "hessian-eigenthings": eigenthings,
        "PyHessian by hand": pyhessian_by_hand,
    }
    for name, make in peers.items():
        contender = Contender(name, peer=make is not pyhessian_by_hand)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                contender.product = math_attention(make(model, batches))
        except Exception as error:  # noqa: BLE001 - reported with its reason
            contender.reason = describe(error)
        found.append(contender)
    return found


def describe(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def verify(found: list[Contender], block: Tensor) -> None:
    """Compares every contender with the first; drops those that fail, with the reason."""
    truth: Tensor | None = None
    for contender in found:
        if contender.product is None:
            continue
        try:
            result = contender.product(block)
        except Exception as error:  # noqa: BLE001 - reported with its reason
            contender.product, contender.reason = None, describe(error)
            continue
        if truth is None:
            truth = result
        difference = float((result - truth).norm() / truth.norm())
        if not difference < 1e-3:
            contender.product = None
            contender.reason = f"disagrees with landscape by {difference:.1e}"


def seconds(function: Callable[[], Any], repeat: int, device: str) -> float:
    """Seconds a call, over some calls in a row."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeat):
        function()
    synchronise(device)
    return (time.perf_counter() - start) / repeat


def synchronise(device: str) -> None:
    """Waits for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(name: str, rounds: int, device: str) -> dict[str, Any]:
    """Times all contenders on one model."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(device)
    batches = [
        (
            torch.randn(BATCH, 3, 32, 32, device=device),
            torch.randint(0, 10, (BATCH,), device=device),
        )
        for _ in range(2)
    ]
    size = sum(param.numel() for param in model.parameters())
    block = torch.randn(VECTORS, size, device=device)
    with warnings.catch_warnings():
        # PyHessian calls backward(create_graph=True), which torch warns about.
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        found = contenders(model, batches)
        verify(found, block)
        functions: dict[str, Callable[[], Any]] = {GRADIENT: lambda: gradient(model, batches)}
        for contender in found:
            if contender.product is not None:
                functions[contender.name] = lambda product=contender.product: product(block)
        times = interleaved(functions, rounds, device)
    model.zero_grad(set_to_none=True)
    return summary(name, size, found, times)


def interleaved(
    functions: dict[str, Callable[[], Any]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds of every function in every round, in a new random order each round."""
    repeat = {}
    for name, function in functions.items():  # warm already: they were verified
        repeat[name] = max(1, math.ceil(0.2 / seconds(function, 1, device)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    shuffle = random.Random(0)
    for _ in range(rounds):
        order = list(functions)
        shuffle.shuffle(order)
        for name in order:
            gc.collect()
            times[name].append(seconds(functions[name], repeat[name], device))
    return times


def summary(
    name: str, size: int, found: list[Contender], times: dict[str, list[float]]
) -> dict[str, Any]:
    """Medians and ratios of one model."""
    base = statistics.median(times[GRADIENT])
    rows: dict[str, Any] = {}
    for contender in found:
        if contender.product is None:
            rows[contender.name] = {"missing": contender.reason, "peer": contender.peer}
            continue
        per_vector = statistics.median(times[contender.name]) / VECTORS
        rows[contender.name] = {
            "peer": contender.peer,
            "seconds_per_vector": per_vector,
            "gradients_per_vector": per_vector / base,
        }
        if contender.probe is not None:
            rows[contender.name]["way"] = contender.probe.provenance()["products_used"]
    peers = {
        key: row["seconds_per_vector"]
        for key, row in rows.items()
        if row["peer"] and "missing" not in row
    }
    fastest = min(peers, key=peers.__getitem__) if peers else None
    for row in rows.values():
        if fastest and "missing" not in row:
            row["of_fastest_peer"] = row["seconds_per_vector"] / peers[fastest]
    ours = rows["landscape, warm"]
    return {
        "parameters": size,
        "gradient_seconds": base,
        "fastest_peer": fastest,
        "contenders": rows,
        "targets": {
            "of_fastest_peer": TARGETS[name],
            "met_of_fastest_peer": bool(fastest) and ours["of_fastest_peer"] <= TARGETS[name],
            "gradients_per_vector": GRADIENTS,
            "met_gradients_per_vector": ours["gradients_per_vector"] <= GRADIENTS,
        },
        "block_seconds_by_round": times,
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Prints one model's table."""
    rows = table(
        f"{name}: {found['parameters']:,} parameters, "
        f"gradient {1e3 * found['gradient_seconds']:.1f} ms",
        "contender",
        "ms a vector",
        "× gradient",
        "× fastest peer",
    )
    for key, row in found["contenders"].items():
        if "missing" in row:
            rows.add_row(key, "-", "-", row["missing"])
            continue
        rows.add_row(
            key,
            f"{1e3 * row['seconds_per_vector']:.2f}",
            f"{row['gradients_per_vector']:.2f}",
            f"{row['of_fastest_peer']:.2f}" if "of_fastest_peer" in row else "-",
        )
    console.print(rows)
    targets = found["targets"]
    for key in ("of_fastest_peer", "gradients_per_vector"):
        verdict = "met" if targets[f"met_{key}"] else "MISSED"
        console.print(f"target {key} <= {targets[key]}: {verdict}")


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads of torch; its default if absent")
    parser.add_argument("--out", type=Path, default=RECORDS / "products.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.mha.set_fastpath_enabled(False)  # inference only; curvlinops would fall into it
    record: dict[str, Any] = {
        "what": "products of the Hessian with a block of vectors",
        "vectors": VECTORS,
        "batches": [BATCH, BATCH],
        "rounds": options.rounds,
        "device": options.device,
        "peers": {package: version(package) for package in PACKAGES},
        "models": {},
    }
    for name in options.models:
        record["models"][name] = measure(name, options.rounds, options.device)
        show(name, record["models"][name])
        write_record(options.out, record)  # after every model, so that an interrupt keeps it
        gc.collect()


def version(package: str) -> str:
    """Installed version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


if __name__ == "__main__":
    main()
