"""Searches in balls against long searches from many starts, on nets that nothing was tuned on.

Small nets in float64, each trained for a while: a ReLU and a tanh classifier, a ReLU and a tanh
regression, one of few parameters, and a stiff one (a physics-informed net for u'' = f, trained by
L-BFGS). All data are one part, so that the only doubt of a value is that of its search.

The reference of a case is the best of SciPy's L-BFGS-B (up to 400 iterations) from many starts: the
checkpoint, both ends along the gradient, both ends of the eigenvectors of the three most extreme
eigenvalues of the Hessian in the coordinates of the ball, and random points of its surface and
inside. In a box it keeps to the bounds; in a round ball it moves z, of which u = z rho / max(rho,
|z|) is evaluated. Where the search of the toolkit finds more, that is the reference.

For every case: the share of the reference that was reached, whether the status is ok, whether the
interval holds the reference, and the gradients taken. Targets: at least 95 % of the reference
wherever the status is ok, and where less is reached, the status or the interval says so in at least
95 % of the cases.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RECORDS, console, table, write_record
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional

import landscape
from landscape.geometry import as_geometry

Array = NDArray[np.float64]
LossFunction = Callable[[nn.Module, Any], Tensor]

REACHED = 0.95
ITERATIONS = 400
RADII: dict[str, dict[str, tuple[float, ...]]] = {
    "euclidean-l2": {"up": (0.05, 0.25, 1.0), "down": (0.05, 0.25, 1.0)},
    "euclidean-linf": {"up": (0.002, 0.01, 0.05), "down": (0.05,)},
    "filterwise-l2": {"up": (0.05, 0.25, 1.0), "down": (0.25,)},
    "elementwise-l2": {"up": (0.25, 0.5, 1.0, 2.0), "down": (0.5,)},
    "elementwise-linf": {"up": (0.002, 0.01, 0.05), "down": ()},
}


@dataclass(frozen=True)
class Net:
    """A trained net with its loss and its batch."""

    model: nn.Module
    loss: LossFunction
    batch: tuple[Tensor, ...]


def mlp(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers with an activation between them, float64."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1]).double()


def classifying(model: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(model(batch[0]), batch[1])


def regressing(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error."""
    return functional.mse_loss(model(batch[0]), batch[1])


def physics(model: nn.Module, batch: Any) -> Tensor:
    """Residual of u'' = -pi^2 sin(pi x) inside, and u = 0 at both ends."""

    def u(x: Tensor) -> Tensor:
        value: Tensor = model(x[None])[0]
        return value

    second = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(u)))(batch[0]).reshape(-1)
    residual = second + torch.pi**2 * torch.sin(torch.pi * batch[0][:, 0])
    ends = model(batch[0].new_tensor([[-1.0], [1.0]]))
    return residual.square().mean() + 10 * ends.square().mean()


def trained(net: Net, steps: int, rate: float = 0.01) -> Net:
    """After some steps of Adam on the whole batch."""
    optimizer = torch.optim.Adam(net.model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss(net.model, net.batch).backward()
        optimizer.step()
    return net


def polished(net: Net, steps: int) -> Net:
    """After L-BFGS, as physics-informed nets are trained."""
    optimizer = torch.optim.LBFGS(
        net.model.parameters(), max_iter=steps, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net.loss(net.model, net.batch)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type, no-untyped-call]
    return net


def made(kind: str, seed: int) -> Net:
    """A net by name."""
    torch.manual_seed(seed)
    x = torch.randn(64, 6, dtype=torch.float64)
    labels = x[:, :3].argmax(1)
    labels = torch.where(torch.rand(64) < 0.1, torch.randint(0, 3, (64,)), labels)
    target = (x[:, :1] * x[:, 1:2]).sin() + 0.5 * x[:, 2:3] + 0.1 * torch.randn(64, 1).double()
    if kind == "relu classifier":
        return trained(Net(mlp((6, 16, 3), nn.ReLU), classifying, (x, labels)), 150)
    if kind == "tanh classifier":
        return trained(Net(mlp((6, 10, 8, 3), nn.Tanh), classifying, (x, labels)), 150)
    if kind == "relu regression":
        return trained(Net(mlp((6, 12, 6, 1), nn.ReLU), regressing, (x, target)), 300)
    if kind == "tanh regression":
        return trained(Net(mlp((6, 12, 1), nn.Tanh), regressing, (x, target)), 300)
    if kind == "small regression":
        line = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
        net = Net(mlp((1, 8, 1), nn.Tanh), regressing, (line, (2 * line).sin()))
        return trained(net, 400)
    line = torch.linspace(-1, 1, 32, dtype=torch.float64)[:, None]
    return polished(trained(Net(mlp((1, 10, 10, 1), nn.Tanh), physics, (line,)), 100), 200)


KINDS = (
    "relu classifier",
    "tanh classifier",
    "relu regression",
    "tanh regression",
    "small regression",
    "stiff",
)


class Landscape:
    """Losses and gradients of a net by offsets in the coordinates u = delta / c of a ball."""

    def __init__(self, net: Net, probe: landscape.Probe, scale: Tensor) -> None:
        self._net = net
        self._probe = probe
        self.scale = scale
        self._weights = probe.weights()
        self.base = float(self.loss(torch.zeros_like(scale)))

    def loss(self, u: Tensor) -> Tensor:
        """L(w + c u)."""
        named = self._probe.space.split(self._weights + self.scale * u)

        def model(x: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(self._net.model, dict(named), (x,))
            return found

        return self._net.loss(model, self._net.batch)  # type: ignore[arg-type]

    def falling(self, u: Array, sign: float) -> tuple[float, Array]:
        """The rise times -sign with its gradient, for a minimiser."""
        point = torch.from_numpy(u).clone().requires_grad_()
        loss = self.loss(point)
        (gradient,) = torch.autograd.grad(loss, point)
        return -sign * (float(loss.detach()) - self.base), -sign * gradient.numpy()


def starts(here: Landscape, rho: float, norm: str, count: int, seed: int) -> list[Array]:
    """The points that a long search begins at."""
    zero = torch.zeros_like(here.scale)
    gradient = torch.func.grad(here.loss)(zero)
    matrix = torch.func.hessian(here.loss)(zero)
    vectors = torch.linalg.eigh((matrix + matrix.T) / 2).eigenvectors
    lines = [gradient, *vectors.T[:3], *vectors.T[-3:]]
    rng = np.random.default_rng(seed)
    found: list[Array] = [zero.numpy()]
    for line in lines:
        ends = line.sign() if norm == "linf" else line / line.norm().clamp_min(1e-300)
        found += [rho * ends.numpy(), -rho * ends.numpy()]
    free = (here.scale > 0).numpy()
    for place in range(count):
        draw = rng.normal(size=len(zero)) * free
        unit = np.sign(draw) if norm == "linf" else draw / np.linalg.norm(draw)
        found.append(rho * unit * (1.0 if place % 2 else rng.uniform()))
    return found


def reference(
    here: Landscape, rho: float, norm: str, sign: float, *, count: int, seed: int
) -> float:
    """The largest rise (or fall) that long searches find."""
    best = 0.0
    for start in starts(here, rho, norm, count, seed):
        if norm == "linf":
            found = minimize(
                here.falling,
                start,
                args=(sign,),
                jac=True,
                method="L-BFGS-B",
                bounds=[(-rho, rho)] * len(start),
                options={"maxiter": ITERATIONS, "maxcor": 20},
            )
        else:

            def inside(z: Array) -> tuple[float, Array]:
                length = float(np.linalg.norm(z))
                if length <= rho:
                    return here.falling(z, sign)
                value, slope = here.falling(z * rho / length, sign)
                unit = z / length
                return value, (slope - unit * (unit @ slope)) * rho / length

            found = minimize(
                inside,
                start,
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": ITERATIONS, "maxcor": 20},
            )
        if np.isfinite(found.fun):
            best = max(best, -float(found.fun))
    return best


def measured(probe: landscape.Probe, title: str, sign: float, rho: float) -> dict[str, Any]:
    """What the toolkit's search finds, at its defaults."""
    geometry, _, norm = title.partition("-")
    name = "max-sharpness" if sign > 0 else "min-sharpness"
    start = time.perf_counter()
    found = landscape.measures.get(
        name, rho=rho, norm=norm, geometry=geometry, m=None, points=None
    ).compute(probe)
    return {
        "value": found.value,
        "interval": list(found.interval),
        "status": found.status.value,
        "message": found.message,
        "gradients": found.cost.gradients,
        "forwards": found.cost.forwards,
        "seconds": time.perf_counter() - start,
        "diagnostics": found.diagnostics,
    }


def cases(kinds: list[str], seeds: list[int], known: dict[str, float], count: int) -> list[Any]:
    """Every case, with its reference from ``known`` where it is there."""
    found = []
    for kind in kinds:
        for seed in seeds:
            net = made(kind, seed)

            def objective(model: nn.Module, batch: Any, net: Net = net) -> Tensor:
                return net.loss(model, batch)[None]

            probe = landscape.Probe(net.model, objective, [net.batch], products="loop")
            for title, radii in RADII.items():
                geometry, _, norm = title.partition("-")
                scale = as_geometry(geometry).ball(probe.weights(), probe.space, norm).scale  # type: ignore[arg-type]
                here = Landscape(net, probe, scale)
                for direction, lengths in radii.items():
                    sign = 1.0 if direction == "up" else -1.0
                    for rho in lengths:
                        name = f"{kind}, seed {seed}, {title}, {direction}, rho={rho:g}"
                        if name not in known:
                            known[name] = reference(here, rho, norm, sign, count=count, seed=seed)
                        own = measured(probe, title, sign, rho)
                        long = max(known[name], own["value"])
                        found.append(
                            {
                                "case": name,
                                "net": kind,
                                "ball": title,
                                "direction": direction,
                                "rho": rho,
                                "train_loss": here.base,
                                "reference": long,
                                "share": own["value"] / long if long > 0 else 1.0,
                                "held": own["interval"][0] * 0.999
                                <= long
                                <= own["interval"][1] * 1.001 + 1e-12,
                                **own,
                            }
                        )
            console.print(f"{kind}, seed {seed}: {len(found)} cases")
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over some cases."""
    ok = [case for case in found if case["status"] == "ok"]
    short = [case for case in found if case["share"] < REACHED]
    told = [case for case in short if case["status"] != "ok" or case["held"]]
    shares = [case["share"] for case in found]
    return {
        "cases": len(found),
        "median_share": float(np.median(shares)),
        "lowest_tenth": float(np.quantile(shares, 0.1)),
        "lowest_share": min(shares),
        "reached": float(np.mean([share >= REACHED for share in shares])),
        "ok": len(ok),
        "ok_reached": float(np.mean([case["share"] >= REACHED for case in ok])) if ok else None,
        "ok_held": float(np.mean([case["held"] for case in ok])) if ok else None,
        "short": len(short),
        "short_told": len(told) / len(short) if short else None,
        "mean_gradients": float(np.mean([case["gradients"] for case in found])),
    }


def shown(name: str, part: dict[str, Any]) -> list[str]:
    """A row of the table."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{share:.0%}"

    return [
        name,
        str(part["cases"]),
        f"{part['median_share']:.4f}",
        f"{part['lowest_tenth']:.3f}",
        f"{part['lowest_share']:.3f}",
        str(part["ok"]),
        percent(part["ok_reached"]),
        percent(part["ok_held"]),
        str(part["short"]),
        percent(part["short_told"]),
        f"{part['mean_gradients']:.1f}",
    ]


def main() -> None:
    """Runs the study and writes its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=RECORDS / "searches.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22])
    parser.add_argument("--nets", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--starts", type=int, default=12, help="random starts of the long searches")
    parser.add_argument("--references", type=Path, help="a record to take long searches from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, float] = {}
    if options.references and options.references.exists():
        known = json.loads(options.references.read_text(encoding="utf-8"))["references"]
    found = cases(options.nets, options.seeds, known, options.starts)
    groups = {
        **{kind: [case for case in found if case["net"] == kind] for kind in options.nets},
        **{
            f"{title}, {direction}": [
                case for case in found if (case["ball"], case["direction"]) == (title, direction)
            ]
            for title, radii in RADII.items()
            for direction in radii
        },
        "all": found,
    }
    results = {name: summary(group) for name, group in groups.items() if group}
    rows = table(
        "Searches in balls", "", "cases", "median", "10 %", "lowest", "ok", "ok ≥ 95 %",
        "ok held", "short", "short told", "gradients",
    )  # fmt: skip
    for name, part in results.items():
        rows.add_row(*shown(name, part))
    console.print(rows)
    whole = results["all"]
    write_record(
        options.out,
        {
            "targets": {
                name: {
                    "least": REACHED,
                    "found": whole[name],
                    "met": whole[name] is None or whole[name] >= REACHED,
                }
                for name in ("ok_reached", "short_told")
            },
            "summary": results,
            "references": known,
            "cases": found,
        },
    )


if __name__ == "__main__":
    main()
