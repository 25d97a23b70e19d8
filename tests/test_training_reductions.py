"""Methods at special settings are other methods, and expectations that are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import training
from landscape.training import METHODS, RowOptimizer

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (12,), generator=torch.Generator().manual_seed(2))

# Settings under which nothing is perturbed or changed. WASAM, SWA and EMA average on the side.
OFF = {
    "sam": {"rho": 0.0},
    "asam": {"rho": 0.0},
    "gsam": {"rho": 0.0},
    "looksam": {"rho": 0.0},
    "friendly-sam": {"rho": 0.0},
    "momentum-sam": {"rho": 0.0},
    "ssam-f": {"rho": 0.0},
    "ssam-d": {"rho": 0.0, "refresh_every": 1, "total_steps": 9},
    "fsam": {"rho": 0.0},
    "esam": {"rho": 0.0},
    "bsam": {"rho": 0.0, "rho_min": 0.0},
    "tsam": {"rho": 0.0, "sigma": 0.0, "samples": 1},
    "nso": {"sigma": 0.0},
    "rsam": {"rho": 0.0},
    "m-sam": {"rho": 0.0, "micro_batch": 12},
    "lpf-sgd": {"gamma": 0.0, "parts": 1},
    "swa": {"start": 2},
    "ema": {},
    "wasam": {"rho": 0.0, "start": 2},
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def losses_of(model):
    return lambda rows: functional.cross_entropy(model(X[rows]), Y[rows], reduction="none")


def closure_of(model):
    def closure():
        loss = functional.cross_entropy(model(X), Y, reduction="none").mean()
        loss.backward()
        return loss

    return closure


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def train(model, optimizer, steps=4):
    for _ in range(steps):
        if isinstance(optimizer, RowOptimizer):
            optimizer.step(losses_of(model), len(X))
        elif isinstance(optimizer, training.FlatOptimizer):
            optimizer.step(closure_of(model))
        else:
            optimizer.zero_grad()
            optimizer.step(closure_of(model))
    return model.state_dict()


def method(name, **settings):
    model = network()
    return train(model, METHODS[name](sgd(model), model, **settings))


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_table_of_settings_is_complete():
    assert set(OFF) == set(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_without_perturbation_it_is_the_base_optimiser_bit_for_bit(name):
    model = network()
    plain = train(model, sgd(model))
    assert same(method(name, **OFF[name]), plain)  # running statistics of batch norm included


def close(a, b):
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ssam-f", {}),
        ("ssam-d", {"sparsity": 0.0, "refresh_every": 1, "total_steps": 9}),
        ("fsam", {"keep": 1.0}),
        ("m-sam", {"micro_batch": 12}),
        ("esam", {"beta": 1.0, "gamma": 1.0}),
        ("gsam", {"alpha": 0.0}),
        ("looksam", {"every": 1}),
        ("friendly-sam", {"sigma": 0.0}),
        ("tsam", {"sigma": 0.0, "samples": 1}),
        ("tsam", {"sigma": 0.0, "samples": 3}),
        ("asam", {"eta": 1e6, "adapt": "all"}),  # T = η everywhere: SAM of radius ρ η
        ("wasam", {"start": 0}),
    ],
)
def test_it_is_sam(name, settings):
    rho = 0.5 / 1e6 if name == "asam" else 0.5
    close(method(name, rho=rho, **settings), method("sam", rho=0.5))


def test_a_full_fisher_mask_is_sam():
    model = network()
    optimizer = training.SparseSAM(sgd(model), model, rho=0.5, sparsity=0.0)
    optimizer.refresh_mask([closure_of(model)])
    close(train(model, optimizer), method("sam", rho=0.5))


def test_bsam_without_its_step_down_adds_a_rescaled_plain_gradient():
    model = network()
    optimizer = training.BilateralSAM(sgd(model), model, rho=0.5, rho_min=0.0)
    at = {}

    class Spy:
        def gradient(self, offset=None):
            gradient = optimizer._passes(closure_of(model)).gradient(offset)
            at.setdefault("up" if offset is not None and "g" in at else "g", gradient)
            return gradient

    found = optimizer.direction(Spy()).flat()
    g, up = at["g"].flat(), at["up"].flat()
    torch.testing.assert_close(found, up + (1 - up.norm() / g.norm()) * g)


@pytest.mark.parametrize("tilt", [0.0, 1e-3, 5.0, 1e4])
def test_streamed_tilt_is_the_softmax_of_stored_gradients(tilt):
    """0 is the plain mean; 10⁴ takes the highest sample and overflows nowhere."""
    model = network()
    optimizer = training.TiltedSAM(sgd(model), model, tilt=tilt, samples=5, sigma=0.2, radius=9.0)
    stored = []

    class Recorder(training.Passes):
        def gradient(self, offset=None, *, rows=None, statistics=None):
            gradient = super().gradient(offset, rows=rows, statistics=statistics)
            stored.append((self.losses[-1], gradient.flat()))
            return gradient

    found = optimizer.direction(Recorder(list(model.parameters()), model, closure_of(model)))
    losses, gradients = zip(*stored[1::2], strict=True)  # the second pass of each sample
    weights = torch.softmax(tilt * torch.stack(losses), 0)
    torch.testing.assert_close(found.flat(), weights @ torch.stack(gradients))


class Cubic(nn.Module):
    """L(w) = Σ (a_i w_i³ + h_i w_i²): ∇ Tr H = 6a, and the noisy mean has no further order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64))
        self.a = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        self.h = torch.tensor([0.7, 0.2, 1.0], dtype=torch.float64)

    def closure(self):
        loss = (self.a * self.weight**3 + self.h * self.weight**2).sum()
        loss.backward()
        return loss


def test_the_mean_of_noise_stability_is_the_gradient_of_loss_plus_half_variance_times_trace():
    model, sigma, draws = Cubic(), 0.3, 2000
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = training.NoiseStability(base, model, sigma=sigma)
    found = []
    for _ in range(draws):
        optimizer.step(model.closure)
        found.append(model.weight.grad.numpy().copy())
    w, a, h = model.weight.detach().numpy(), model.a.numpy(), model.h.numpy()
    expected = 3 * a * w**2 + 2 * h * w + sigma**2 / 2 * 6 * a
    error = np.std(found, axis=0) / np.sqrt(draws)
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * error)
    # The term of the trace is seen: it is many standard errors large.
    assert np.all(np.abs(sigma**2 / 2 * 6 * a) > 10 * error)


def test_esam_perturbs_on_average_as_sam_does():
    model = network()
    optimizer = training.ESAM(sgd(model), model, rho=1.0, beta=0.5, gamma=1.0)
    offsets = []

    class Recorder(training.Passes):
        def gradient(self, offset=None, *, rows=None, statistics=None):
            if offset is not None:
                offsets.append(offset.flat())
            return super().gradient(offset, rows=rows, statistics=statistics)

    params = list(model.parameters())
    gradient = optimizer._passes(losses_of(model), len(X)).gradient()
    for _ in range(400):
        optimizer.direction(Recorder(params, model, losses_of(model), size=len(X)))
    # Draws in which no tensor takes part make no second pass; they count as 0.
    mean = torch.stack(offsets).sum(0) / 400
    error = gradient.unit().flat().abs() / 400**0.5  # of 0 or 2, each with probability one half
    assert torch.all((mean - gradient.unit().flat()).abs() <= 4 * error + 1e-6)


def test_dynamic_masks_keep_their_number_and_change():
    model = network()
    optimizer = training.DynamicSparseSAM(
        sgd(model), model, sparsity=0.3, refresh_every=1, total_steps=6
    )
    masks = []
    for _ in range(8):
        train(model, optimizer, steps=1)
        masks.append(optimizer.memory["mask"].flat())
    assert len({float(mask.sum()) for mask in masks}) == 1
    changed = [int((a != b).sum()) for a, b in pairwise(masks)]
    assert changed[0] > changed[3] > 0
    assert changed[-1] == 0  # past the last of the total steps nothing moves


def test_a_group_without_radius_is_not_perturbed():
    model = network()
    seen = []
    base = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[3].parameters(), "rho": 0.0}], lr=0.1
    )
    optimizer = training.SAM(base, model, rho=0.5)

    def closure():
        seen.append((model[0].weight.detach().clone(), model[3].weight.detach().clone()))
        return closure_of(model)()

    optimizer.step(closure)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
