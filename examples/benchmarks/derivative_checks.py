"""Checks of derivatives on the first batch: false alarms, wrong derivatives found, and their cost.

1. False alarms: ordinary architectures times losses, in float32 and float64, fresh and trained.
   The checks of gradient, Hessian and Gauss-Newton products must all agree.
2. Power: wrong backward passes planted in a network, whose gradient or Hessian products are off by
   a known share of at least 1 %. How often they are found, over 100 seeds.
3. Cost on the digits checkpoint: seconds of all checks as a share of the quick preset, and the
   losses, gradients and products of the first batch that they take.

    python examples/benchmarks/derivative_checks.py
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import RECORDS, console, digits_batches, digits_model, write_record
from torch import Tensor, nn
from torch.nn import functional

import landscape
from landscape import Probe

DERIVATIVES = ("gradient", "hessian", "ggn")


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], outputs: int) -> None:
        super().__init__()
        self.cells, self.head = kind(4, 6, batch_first=True), nn.Linear(6, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x.view(len(x), 3, 4))[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, outputs: int, activation: str) -> None:
        super().__init__()
        self.enter = nn.Linear(4, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.enter(x.view(len(x), 3, 4))).mean(1))


class Graph(nn.Module):
    """Two rounds of mean aggregation on a fixed ring of examples' features."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:  # (N, 12): three nodes of four features
        nodes = x.view(len(x), 3, 4)
        hidden = torch.relu(self.first(nodes + nodes.roll(1, 1)))
        return self.second((hidden + hidden.roll(1, 1)).amax(1))


class Residual(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.enter, self.inner = nn.Linear(12, 12), nn.Linear(12, 12)
        self.head, self.gate = nn.Linear(12, outputs), nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.silu(self.enter(x))
        return self.head(hidden + self.gate * functional.relu(self.inner(hidden)))


class Convolutional(nn.Module):
    def __init__(self, outputs: int, pool: type[nn.Module], *, norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
            nn.Linear(4 * 1 * 2 if pool is nn.MaxPool2d else 4 * 2 * 2, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.view(len(x), 1, 3, 4))


def mlp(*inner: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def make(outputs: int) -> nn.Module:
        layers = [make_layer() for make_layer in inner]
        return nn.Sequential(nn.Linear(12, 16), *layers, nn.Linear(16, outputs))

    return make


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda outputs: nn.Linear(12, outputs),
    "relu": mlp(nn.ReLU),
    "tanh": mlp(nn.Tanh),
    "gelu": mlp(nn.GELU),
    "silu": mlp(nn.SiLU),
    "elu": mlp(nn.ELU),
    "leaky relu": mlp(nn.LeakyReLU),
    "hardswish": mlp(nn.Hardswish),
    "softplus": mlp(nn.Softplus),
    "prelu": mlp(nn.PReLU),
    "batch norm": mlp(lambda: nn.BatchNorm1d(16), nn.ReLU),
    "layer norm": mlp(lambda: nn.LayerNorm(16), nn.ReLU),
    "deep relu": lambda outputs: nn.Sequential(
        nn.Linear(12, 16),
        *itertools.chain(*((nn.ReLU(), nn.Linear(16, 16)) for _ in range(6))),
        nn.ReLU(),
        nn.Linear(16, outputs),
    ),
    "residual, zero gate": Residual,
    "convolution, max pool": lambda outputs: Convolutional(outputs, nn.MaxPool2d, norm=True),
    "convolution, adaptive pool": lambda outputs: Convolutional(
        outputs, nn.AdaptiveAvgPool2d, norm=False
    ),
    "rnn": lambda outputs: Recurrent(nn.RNN, outputs),
    "lstm": lambda outputs: Recurrent(nn.LSTM, outputs),
    "gru": lambda outputs: Recurrent(nn.GRU, outputs),
    "attention, relu": lambda outputs: Transformer(outputs, "relu"),
    "attention, gelu": lambda outputs: Transformer(outputs, "gelu"),
    "graph": Graph,
    "weight norm": lambda outputs: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(12, 16)), nn.ReLU(), nn.Linear(16, outputs)
    ),
    "zero biases, zero inputs": lambda outputs: _zero_biases(mlp(nn.ReLU)(outputs)),
}


def _zero_biases(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


LOSSES: dict[str, Any] = {
    "cross_entropy": "cross_entropy",
    "mse": "mse",
    "bce": "bce",
    "l1": lambda model, batch: (model(batch[0]) - batch[1]).abs().sum(1),
    "hinge": lambda model, batch: functional.relu(1 - model(batch[0]) * batch[1]).sum(1),
}


def data(loss: str, seed: int, *, zeros: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(48, 12, generator=generator)
    if zeros:
        inputs[:16] = 0
    if loss == "cross_entropy":
        return inputs, torch.randint(0, 3, (48,), generator=generator)
    if loss == "mse":
        return inputs, torch.randn(48, 3, generator=generator)
    signs = torch.randint(0, 2, (48, 3), generator=generator).float()
    return inputs, signs if loss == "bce" else 2 * signs - 1


def trained(model: nn.Module, loss: str, batch: tuple[Tensor, Tensor], steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    criterion = {
        "cross_entropy": functional.cross_entropy,
        "mse": functional.mse_loss,
        "bce": functional.binary_cross_entropy_with_logits,
        "l1": functional.l1_loss,
        "hinge": lambda outputs, targets: functional.relu(1 - outputs * targets).mean(),
    }[loss]
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(model(batch[0]), batch[1]).backward()
        optimizer.step()
    return model.eval()


def false_alarms(seeds: int) -> dict[str, Any]:
    alarms, untold, checked, largest = [], 0, 0, 0.0
    cases = itertools.product(ARCHITECTURES, LOSSES, (torch.float32, torch.float64), (0, 150))
    for architecture, loss, dtype, steps in cases:
        for seed in range(seeds):
            torch.manual_seed(seed)
            batch = data(loss, seed, zeros="zero inputs" in architecture)
            model = trained(ARCHITECTURES[architecture](3), loss, batch, steps)
            probe = Probe(model, LOSSES[loss], [batch], dtype=dtype)
            kinds = DERIVATIVES if isinstance(LOSSES[loss], str) else DERIVATIVES[:2]
            for kind in kinds:
                found = probe.checks.compare(kind)
                checked += 1
                if found.disagreement != found.disagreement:
                    untold += 1
                elif found.agrees:
                    largest = max(largest, found.disagreement)
                else:
                    alarms.append([architecture, loss, str(dtype), steps, seed, kind])
    return {
        "architectures": len(ARCHITECTURES),
        "losses": len(LOSSES),
        "checked": checked,
        "alarms": alarms,
        "too_noisy_to_tell": untold,
        "largest_disagreement": largest,
    }


class Scaled(torch.autograd.Function):
    """The identity, whose derivative is claimed to be ``factor``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope * ctx.factor, None


class Kept(torch.autograd.Function):
    """x + share * tanh(x), which keeps a result on ctx, so that its slope counts as constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        ctx.kept, ctx.share = torch.tanh(x), share
        return x + share * ctx.kept

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope * (1 + ctx.share * (1 - ctx.kept**2)), None


class Planted(nn.Module):
    """A network in which the hidden layer goes through ``fault``, or through what it stands for."""

    def __init__(self, fault: Callable[[Tensor], Tensor], activation: nn.Module) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(12, 16), nn.Linear(16, 3)
        self.fault, self.activation = fault, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.activation(self.fault(self.enter(x))))


def _detached(x: Tensor, share: float) -> Tensor:
    return (1 - share) * x + share * x.detach()


# Name: what is checked, the fault, and the same function with right derivatives.
FAULTS: dict[str, tuple[str, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "wrong slope": ("gradient", lambda x, size: Scaled.apply(x, 1 + size), lambda x, _: x),
    "stop-gradient": ("gradient", _detached, lambda x, _: x),
    "result kept on ctx": (
        "hessian",
        Kept.apply,
        lambda x, size: x + size * torch.tanh(x),
    ),
}


def power(seeds: int) -> list[dict[str, Any]]:
    rows = []
    for name in FAULTS:
        for activation, steps in itertools.product((nn.Tanh, nn.ReLU), (0, 50)):
            found, untold, sizes = 0, 0, []
            for seed in range(seeds):
                dtype = (torch.float32, torch.float64)[seed % 2]
                error, agrees, told = _plant(name, activation, steps=steps, dtype=dtype, seed=seed)
                sizes.append(error)
                found += not agrees
                untold += not told
            rows.append(
                {
                    "fault": name,
                    "activation": activation.__name__,
                    "trained_steps": steps,
                    "true_error_min": min(sizes),
                    "true_error_median": statistics.median(sizes),
                    "found": found,
                    "too_noisy_to_tell": untold,
                    "of": seeds,
                }
            )
    return rows


def _plant(
    name: str, activation: type[nn.Module], *, steps: int, dtype: torch.dtype, seed: int
) -> tuple[float, bool, bool]:
    """The true relative error, of 1 % at least; whether it agrees; whether it can be told."""
    kind, fault, right = FAULTS[name]
    batch = data("cross_entropy", seed, zeros=False)
    size = 0.02
    while True:
        torch.manual_seed(seed)
        chosen = size
        good = Planted(lambda x: right(x, chosen), activation())  # noqa: B023
        good = trained(good, "cross_entropy", batch, steps)
        bad = Planted(lambda x: fault(x, chosen), activation())  # noqa: B023
        bad.load_state_dict(good.state_dict())
        truth = Probe(good, "cross_entropy", [batch], dtype=torch.float64, checks="off")
        wrong = Probe(bad, "cross_entropy", [batch], dtype=torch.float64, checks="off")
        if kind == "gradient":
            there, here = truth.gradient(), wrong.gradient()
        else:
            vectors = torch.randn(8, truth.size, dtype=torch.float64)
            there, here = truth.hvp(vectors), wrong.hvp(vectors)
        error = float((here - there).norm() / there.norm())
        if error >= 0.01 or size > 10:
            break
        size *= 1.5
    comparison = Probe(bad, "cross_entropy", [batch], dtype=dtype).checks.compare(kind)  # type: ignore[arg-type]
    told = comparison.disagreement == comparison.disagreement
    return error, comparison.agrees, told


def cost(rounds: int) -> dict[str, Any]:
    with_checks, without, shares = [], [], []
    model = digits_model()
    for _ in range(rounds):
        for seconds, checks in ((with_checks, "on"), (without, "off")):
            probe = Probe(model, "cross_entropy", digits_batches(), checks=checks)
            start = time.perf_counter()
            landscape.audit(probe, "quick")
            seconds.append(time.perf_counter() - start)
        shares.append(with_checks[-1] / without[-1] - 1)
    probe = Probe(model, "cross_entropy", digits_batches())
    probe.gradient()
    landscape.audit(probe, "quick")
    whole = probe.provenance()["preparation"]
    probe = Probe(model, "cross_entropy", digits_batches())
    batches = len(list(probe.batches))
    before = probe.provenance()["preparation"]
    probe.checks.compare("gradient")
    probe.checks.compare("hessian")
    after = probe.provenance()["preparation"]
    spent = {k: batches * (after[k] - before[k]) for k in ("forwards", "gradients", "products")}
    return {
        "quick_seconds_with": statistics.median(with_checks),
        "quick_seconds_without": statistics.median(without),
        "share_median": statistics.median(shares),
        "of_one_batch": spent,
        "with_rounding_in_an_audit": whole,
        "batches": batches,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="Seeds of every ordinary case, or 0.")
    parser.add_argument(
        "--planted", type=int, default=100, help="Seeds of every planted fault, or 0."
    )
    parser.add_argument("--rounds", type=int, default=5, help="Rounds of the cost, or 0.")
    parser.add_argument("--record", type=Path, default=RECORDS / "derivative_checks.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable()  # every planted fault is warned of
    found: dict[str, Any] = {}
    if given.seeds:
        found["false_alarms"] = false_alarms(given.seeds)
    if given.planted:
        found["power"] = power(given.planted)
    if given.rounds:
        found["cost"] = cost(given.rounds)
    console.print(found)
    write_record(given.record, found)


if __name__ == "__main__":
    main()
