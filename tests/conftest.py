"""What several test files share: small models of every kind, matrices with a known spectrum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import landscape
from landscape import Probe

# The models are tiny: threads cost more than they give.
torch.set_num_threads(1)

Made = tuple[nn.Module, Any, list[Any]]


@dataclass(frozen=True, repr=False)
class ModelCase:
    """A model with its objective and data, made anew at every call."""

    name: str
    make: Callable[[], Made]  # model, objective, batches

    def __repr__(self) -> str:
        return self.name

    def probe(self, **settings: Any) -> Probe:
        return Probe(*self.make(), **settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seeded(model: nn.Module, scale: float = 0.6, seed: int = 0) -> nn.Module:
    """Weights that do not depend on the global random state, large enough to be curved."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source))
    return model


def labelled(*sizes: int, features: tuple[int, ...] = (4,), classes: int = 3) -> list[Any]:
    """Batches of the given sizes of random inputs and labels."""
    source = generator(1)
    return [
        (
            torch.randn(size, *features, generator=source),
            torch.randint(0, classes, (size,), generator=source),
        )
        for size in sizes
    ]


def mlp(activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3)))


def convolutional() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)
    )
    seeded(model)
    norm = model[1]
    norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
    norm.running_var.copy_(torch.tensor([0.5, 1.5, 2.0]))
    return model.eval()


class Attention(nn.Module):
    """One pre-norm transformer block with scaled dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12)
        self.project = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, S, 4)
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return self.head(functional.gelu(x)).mean(1)


class Tied(nn.Module):
    """Tokens in and out by the same embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.mix = nn.Linear(3, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(torch.tanh(self.mix(self.embedding(tokens))))


class PartlyUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.spare = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(torch.tanh(x))


class Scalar(nn.Module):
    """A single parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def frozen() -> nn.Module:
    model = mlp()
    model[0].weight.requires_grad_(False)
    return model


def tied_batches() -> list[Any]:
    tokens = torch.randint(0, 5, (8, 2), generator=generator(2))
    return [(tokens[:, 0], tokens[:, 1])]


def squared_errors(model: nn.Module, batch: Any) -> Tensor:
    """A bare callable objective: one loss per example, no outputs."""
    inputs, labels = batch
    return (model(inputs) - functional.one_hot(labels, 3)).square().sum(1)


def scalar_losses(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) - 1) ** 2


CASES = (
    ModelCase("mlp", lambda: (mlp(), "cross_entropy", labelled(8))),
    ModelCase(
        "conv-bn-eval", lambda: (convolutional(), "cross_entropy", labelled(6, features=(1, 5, 5)))
    ),
    ModelCase(
        "attention",
        lambda: (seeded(Attention()), "cross_entropy", labelled(6, features=(3, 4))),
    ),
    ModelCase("tied", lambda: (seeded(Tied()), "cross_entropy", tied_batches())),
    ModelCase("unused", lambda: (seeded(PartlyUnused()), "cross_entropy", labelled(8))),
    ModelCase("frozen", lambda: (frozen(), "cross_entropy", labelled(8))),
    ModelCase("uneven-batches", lambda: (mlp(nn.ReLU), "cross_entropy", labelled(5, 5, 1))),
    ModelCase("callable", lambda: (mlp(), squared_errors, labelled(5, 3))),
    ModelCase("float64", lambda: (mlp().double(), "cross_entropy", labelled(8))),
    ModelCase("scalar", lambda: (Scalar(), scalar_losses, [torch.tensor([1.0, 2.0, -1.0])])),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``model_case`` runs on every case."""
    if "model_case" in metafunc.fixturenames:
        metafunc.parametrize("model_case", CASES, ids=repr, scope="module")


@pytest.fixture(scope="session")
def named_case() -> Callable[[str], ModelCase]:
    """A model case by name, for tests that need only one."""
    return {case.name: case for case in CASES}.__getitem__


@pytest.fixture(scope="session")
def symmetric() -> Callable[..., Tensor]:
    """A dense symmetric matrix with given eigenvalues and random eigenvectors."""

    def make(eigenvalues: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        values = torch.as_tensor(np.asarray(eigenvalues), dtype=torch.float64)
        draws = torch.randn(len(values), len(values), generator=generator(seed), dtype=values.dtype)
        vectors = torch.linalg.qr(draws).Q
        matrix = (vectors * values) @ vectors.T
        return ((matrix + matrix.T) / 2).to(dtype)

    return make


class Quadratic(nn.Module):
    """Two layers whose parameters together are one point of a quadratic bowl."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        first = size // 2
        weights = torch.linspace(-1, 1, size, dtype=dtype)
        self.low = nn.ParameterDict({"w": nn.Parameter(weights[:first])}) if first else None
        self.high = nn.ParameterDict({"w": nn.Parameter(weights[first:])})

    def forward(self, matrix: Tensor) -> Tensor:
        parts = [self.high["w"]] if self.low is None else [self.low["w"], self.high["w"]]
        w = torch.cat(parts)
        return 0.5 * w @ matrix @ w


@pytest.fixture(scope="session")
def quadratic() -> Callable[..., Probe]:
    """A probe on L(w) = scale/2 w^T H w, whose Hessian is scale * H everywhere."""

    def make(matrix: Tensor, scale: float = 1.0) -> Probe:
        def loss(model: nn.Module, batch: Tensor) -> Tensor:
            return scale * model(batch)[None]

        return landscape.Probe(Quadratic(len(matrix), matrix.dtype), loss, [matrix])

    return make
