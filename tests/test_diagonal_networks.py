"""Geodesic sharpness of diagonal linear networks x -> x.(u*v), whose maxima are known.

Every pair (u_i, v_i) is 1 x 1, so a horizontal vector is b_i (u_i, v_i). The loss below is
||u*v - target||^2 + constant, that of inputs with X'X = n I. With r = rho / sqrt(2):

    inv: ||b|| <= r, beta_i -> beta_i exp(2 b_i), to second order beta_i (1 + b_i + b_i^2 / 2)^2
    mix: ||beta b|| <= r, beta_i -> beta_i (1 + 2 b_i), to second order beta_i (1 + b_i - b_i^2/2)^2
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import nn

from landscape import Block, Factor, Probe, measures

ROOT2 = 2**0.5
U, V = (0.8, -1.5, 0.6, 1.1), (1.2, 0.7, -0.9, 1.3)
TARGET = (0.7, -1.4, 0.1, 1.0)
METRICS = ("inv", "mix")
# There is a maximum on either side of the minimum: one start may find the lower one.
SEARCH = {"steps": 20, "restarts": 3}
SCALAR = {"steps": 10, "restarts": 6}
PATHS = {
    "inv": lambda b: (1 + b + b**2 / 2) ** 2,
    "mix": lambda b: (1 + b - b**2 / 2) ** 2,
    "straight": lambda b: (1 + b) ** 2,
}


class Diagonal(nn.Module):
    def __init__(self, u, v):
        super().__init__()
        self.u = nn.Parameter(torch.tensor(u, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(v, dtype=torch.float64))

    def forward(self, x):
        return x @ (self.u * self.v)


def probe_of(u=U, v=V, target=TARGET, *, declared=True):
    size, source = len(u), torch.Generator().manual_seed(0)
    rows = torch.randn(3 * size, size, generator=source, dtype=torch.float64)
    x = torch.linalg.qr(rows).Q * (3 * size) ** 0.5  # X'X = n I
    blocks = [Block(Factor("u"), Factor("v"), heads=size)] if declared else []
    labels = x @ torch.tensor(target, dtype=torch.float64)
    return Probe(Diagonal(u, v), "mse", [(x, labels)], blocks=blocks, products="batched")


def geodesic(probe, rho, metric="inv", **config):
    found = measures.get("geodesic-sharpness", metric=metric, rho=rho, **{**SEARCH, **config})
    return found.compute(probe).value


def adaptive(probe, rho):
    return measures.get("adaptive-sharpness", rho=rho, **SEARCH).compute(probe).value


def highest(rho, metric, path, target=TARGET, starts=10):
    """The largest rise over the ball, by scipy from many starts."""
    beta, aim = np.multiply(U, V), np.asarray(target)
    weight = np.ones_like(beta) if metric == "inv" else np.abs(beta)

    def fall(z):
        b = rho / ROOT2 * z / max(1.0, np.linalg.norm(z)) / weight
        return ((beta - aim) ** 2).sum() - ((beta * PATHS[path](b) - aim) ** 2).sum()

    source = np.random.default_rng(0)
    # On the sphere: the loss is convex enough for its maximum to lie there.
    found = [
        minimize(
            lambda z: fall(z / np.linalg.norm(z)), source.normal(size=len(beta)),
            options={"gtol": 1e-12},
        ).fun
        for _ in range(starts)
    ]  # fmt: skip
    inside = min(fall(0.9 * source.normal(size=len(beta))) for _ in range(2000))
    assert min(found) <= inside
    return -min(found)


@pytest.mark.parametrize("label", [0.3, 1.5, 6.0])
def test_scalar_by_direct_maximisation(label):
    """y0 = G H x; inv is max of y0^2 (e^4b - 1) - 2 y y0 (e^2b - 1) over |b| <= rho / sqrt(2)."""
    g, k, x = 1.7, 0.6, 1.4
    size = 4  # identical examples
    model = Diagonal([g], [k])
    data = [(torch.full((size, 1), x, dtype=torch.float64), torch.full((size,), label).double())]
    probe = Probe(model, "mse", data, blocks=[Block(Factor("u"), Factor("v"))], products="loop")
    y0 = g * k * x

    def largest(rise, reach):
        ends = [rise(-reach), rise(reach)]
        inner = minimize_scalar(lambda b: -rise(b), bounds=(-reach, reach), method="bounded")
        return max(*ends, -inner.fun)

    def along(path):
        return lambda b: (y0 * PATHS[path](b) - label) ** 2 - (y0 - label) ** 2

    def exponential(b):
        return y0**2 * (np.exp(4 * b) - 1) - 2 * label * y0 * (np.exp(2 * b) - 1)

    for rho in (0.02, 0.5):
        reach = rho / ROOT2
        bent = geodesic(probe, rho, **SCALAR)
        assert bent == pytest.approx(largest(along("inv"), reach), rel=1e-6)
        straight = geodesic(probe, rho, second_order=False, **SCALAR)
        assert straight == pytest.approx(largest(along("straight"), reach), rel=1e-6)
        mixed = geodesic(probe, rho, "mix", **SCALAR)
        assert mixed == pytest.approx(largest(along("mix"), reach / (g * k)), rel=1e-6)
        exact = largest(exponential, reach)
        # The second-order path ends short of the geodesic by b^3 / 3 and less of beta.
        far = abs(y0 - label) + y0 * (np.exp(2 * reach) - 1)
        assert abs(bent - exact) <= 2 * far * y0 * 0.6 * reach**3
        assert abs(straight - exact) > abs(bent - exact)
    small = 1e-5
    assert geodesic(probe, small, **SCALAR) == pytest.approx(
        4 * small / ROOT2 * y0 * abs(label - y0), rel=1e-3
    )


def test_scalar_without_residual_grows_with_the_square():
    """4 (rho / sqrt(2))^2 y0^2."""
    probe = probe_of([1.7], [0.6], [1.7 * 0.6])
    assert probe.loss() < 1e-25
    for rho in (1e-3, 1e-2):
        found = geodesic(probe, rho, **SCALAR)
        assert found == pytest.approx(2 * rho**2 * 1.02**2, rel=3 * rho)


@pytest.mark.parametrize("rho", [0.02, 0.2])
@pytest.mark.parametrize("metric", METRICS)
def test_diagonal_by_direct_maximisation(metric, rho):
    probe = probe_of()
    assert geodesic(probe, rho, metric) == pytest.approx(highest(rho, metric, metric), rel=1e-5)
    straight = geodesic(probe, rho, metric, second_order=False)
    assert straight == pytest.approx(highest(rho, metric, "straight"), rel=1e-5)


def test_inv_at_small_radii():
    """2 sqrt(2) rho ||beta (beta - target)||, and without residual 2 rho^2 max beta^2.

    The printed 4 rho and 4 rho^2 are those of the radius of b, which counts each pair once.
    """
    beta = np.multiply(U, V)
    slope = np.linalg.norm(beta * (beta - np.asarray(TARGET)))
    rho = 1e-5
    assert geodesic(probe_of(), rho) == pytest.approx(2 * ROOT2 * rho * slope, rel=1e-3)
    at_zero = probe_of(target=tuple(beta))
    rho = 1e-3
    assert geodesic(at_zero, rho) == pytest.approx(2 * (rho * abs(beta).max()) ** 2, rel=5 * rho)


def test_mix_at_small_radii():
    """2 sqrt(2) rho ||beta - target|| + 2 rho^2, exactly on geodesics that keep all signs."""
    away = np.linalg.norm(np.multiply(U, V) - np.asarray(TARGET))
    errors = []
    for rho in (0.02, 0.01):
        closed = 2 * ROOT2 * rho * away + 2 * rho**2
        errors.append(abs(geodesic(probe_of(), rho, "mix") / closed - 1))
    assert errors[0] < 1e-3
    # The second-order path misses the geodesic by b^3, of 2 b.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_second_order_mix_leaves_the_geodesic_where_an_entry_is_small():
    """An entry of 1e-3 moves by (rho / beta)^4 beta / 16, not by sqrt(2) rho."""
    u, v = (1.0, 0.1, 0.01), (1.0, 0.1, 0.1)
    target = tuple(np.multiply(u, v))
    rho = 0.01
    found = geodesic(probe_of(u, v, target), rho, "mix")
    b = -rho / ROOT2 / 1e-3
    assert found >= 0.99 * (1e-3 * (PATHS["mix"](b) - 1)) ** 2
    assert found > 4000 * 2 * rho**2


def test_straight_inv_is_adaptive_sharpness():
    """The same norm, and equal relative changes of u_i and v_i move their product farthest."""
    probe = probe_of()
    for rho in (0.01, 0.4):
        straight = geodesic(probe, rho, second_order=False)
        assert straight == pytest.approx(adaptive(probe, rho), rel=1e-5)
    assert geodesic(probe, 0.4) > 1.01 * straight


@pytest.mark.parametrize("metric", METRICS)
def test_without_declared_blocks_it_is_adaptive_sharpness(metric):
    probe = probe_of(declared=False)
    for second_order in (False, True):
        found = measures.get(
            "geodesic-sharpness", metric=metric, rho=0.3, second_order=second_order
        )
        result = found.compute(probe)
        expected = measures.get("adaptive-sharpness", rho=0.3).compute(probe).value
        assert result.value == pytest.approx(expected, rel=1e-12)
        assert result.diagnostics["pairs"] == 0


def test_none_of_them_sees_the_scales_of_u_and_v():
    """Adaptive sharpness included: on a diagonal network all symmetries are of single entries."""
    source = np.random.default_rng(3)
    probe, values = probe_of(), {}
    for seed in range(3):
        c = 10 ** source.uniform(-2, 2, len(U))
        moved = probe_of(np.multiply(U, c).tolist(), np.divide(V, c).tolist())
        plain = measures.get("max-sharpness", rho=0.1)
        assert abs(plain.compute(moved).value / plain.compute(probe).value - 1) > 0.1, seed
        for name, value in (
            ("adaptive", lambda at: adaptive(at, 0.3)),
            ("inv", lambda at: geodesic(at, 0.3)),
            ("mix", lambda at: geodesic(at, 0.3, "mix")),
        ):
            if name not in values:
                values[name] = value(probe)
            assert value(moved) == pytest.approx(values[name], rel=1e-8), name
    assert len({round(value, 3) for value in values.values()}) == 3


@pytest.mark.parametrize(("smallest", "status"), [(0.9, "ok"), (1e-4, "uncertain")])
def test_a_path_that_bends_too_much_is_told(smallest, status):
    probe = probe_of(u=(smallest, 1.0, -0.9), v=(1.0, 0.8, 1.2), target=(0.0, 0.5, -0.8))
    found = measures.get("geodesic-sharpness", metric="mix", rho=0.3, **SEARCH).compute(probe)
    assert found.status.value == status
    assert (found.diagnostics["bending"] > 1) == (status == "uncertain")
    straight = measures.get(
        "geodesic-sharpness", metric="mix", rho=0.3, second_order=False, **SEARCH
    ).compute(probe)
    assert straight.diagnostics["bending"] == 0


def test_the_page_holds_the_numbers_of_the_record():
    docs = Path(__file__).parents[1] / "docs"
    record = json.loads((docs / "benchmarks" / "diagonal_networks.json").read_text())
    lines = (docs / "diagonal_networks.md").read_text(encoding="utf-8").splitlines()
    checked = 0
    for name in record["settings"]["sgd"]["rows"]:
        title = name.replace("rho", "ρ").replace("|beta|", r"\|β\|")
        (line,) = (line for line in lines if line.startswith(f"| {title} |"))
        cells = line.replace(r"\|", "").strip("| ").split(" | ")[-len(record["settings"]) :]
        for cell, setting in zip(cells, record["settings"].values(), strict=True):
            row = setting["rows"][name]
            ends = ", ".join(f"{end:+.2f}" for end in row["interval"])
            assert cell.strip() == f"{row['tau']:+.2f} ({ends})".replace("-", "−")
            checked += 1
    assert checked == 60
