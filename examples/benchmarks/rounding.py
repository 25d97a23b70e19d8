"""Whether intervals in float32 hold what float64 finds, on nets trained to losses of 1 to 1e-8.

Small nets are trained in float64, by cross-entropy and by mean squared error with targets of scale
1, 1e3 and 1e6 (there the loss is a share of the squared scale). At each level of the loss the
weights are cast to float32; the case is a float32 probe on them, and the truth what a float64 probe
with the same weights finds: for spectral measures from the dense matrix, for a search the value of
the same search.

A column says in how many cases the interval held the truth, and the median over the cases of its
half-width over the needed one: the 90 % quantile of the errors over the seeds of a kind and level,
relative to the truth, since any narrower interval would miss more. Also given are the ratio to the
error of each case itself, and the share held without the cases that say that they are uncertain.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RECORDS, console, table, write_record
from torch import Tensor, nn
from torch.nn import functional

import landscape

KINDS = {"cross-entropy": 1.0, "mse 1": 1.0, "mse 1e3": 1e3, "mse 1e6": 1e6}
LEVELS = (1.0, 1e-1, 1e-2, 1e-4, 1e-6, 1e-8)
MEASURES = {
    "largest eigenvalue": "hessian-top-eigenvalue",
    "trace": "hessian-trace",
    "Frobenius norm": "hessian-frobenius",
    "gradient norm": "gradient-norm",
    "train loss": "train-loss",
    "max-sharpness": "max-sharpness",
}
_STEPS = 1500

Data = tuple[Tensor, Tensor]


def made(kind: str, seed: int) -> tuple[nn.Module, Data]:
    """A net in float64 with its data, targets of mean squared error in units of their scale."""
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(48, 4, generator=source, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        outputs = 2 if kind == "cross-entropy" else 1
        layers = (nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, outputs))
        model = nn.Sequential(*layers).double()
        teacher = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    if kind == "cross-entropy":
        return model, (inputs, (inputs[:, 0] + 0.3 * inputs[:, 1] > 0).long())
    targets = teacher(inputs).detach()
    return model, (inputs, (targets - targets.mean()) / targets.std())


def classifying(model: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[float]:
    """Steps of L-BFGS on the cross-entropy, each with the loss before it."""
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=1,
        history_size=30,
        line_search_fn="strong_wolfe",
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    for _ in range(_STEPS):
        with torch.no_grad():
            loss = float(functional.cross_entropy(model(inputs), targets))
        yield loss
        optimizer.step(closure)


def fitting(model: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[float]:
    """Steps of Levenberg and Marquardt on the squared error, each with the loss before it."""
    parameters = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]

    def residuals(flat: Tensor) -> Tensor:
        pieces = flat.split([each.numel() for each in parameters])
        point = {n: x.view_as(p) for n, x, p in zip(names, pieces, parameters, strict=True)}
        return (torch.func.functional_call(model, point, (inputs,)) - targets).squeeze(1)

    point = nn.utils.parameters_to_vector(parameters).detach()
    damping = 1e-2
    for _ in range(_STEPS):
        found = residuals(point)
        yield float(found.square().mean())
        jacobian = torch.func.jacrev(residuals)(point)
        gram = jacobian @ jacobian.T + damping * torch.eye(len(found), dtype=point.dtype)
        trial = point - jacobian.T @ torch.linalg.solve(gram, found)
        better = bool(residuals(trial).norm() < found.norm())
        damping = max(damping / 3, 1e-12) if better else damping * 4
        if better:
            point = trial
            nn.utils.vector_to_parameters(point, parameters)


def checkpoints(kind: str, seed: int) -> Iterator[tuple[float, nn.Module, Data]]:
    """The net where its loss first falls below each level that it reaches, in float32."""
    model, (inputs, targets) = made(kind, seed)
    steps = classifying if kind == "cross-entropy" else fitting
    left = list(LEVELS)
    for loss in steps(model, inputs, targets):
        reached = [level for level in left if loss <= level]
        left = left[len(reached) :]
        for level in reached[-1:]:
            scaled = copy.deepcopy(model)
            with torch.no_grad():
                for parameter in scaled[2].parameters():
                    parameter.mul_(KINDS[kind])
            classes = kind == "cross-entropy"
            data = (inputs.float(), targets if classes else (KINDS[kind] * targets).float())
            yield level, scaled.float(), data
        if not left:
            return


def probe_of(kind: str, model: nn.Module, data: Data, dtype: torch.dtype) -> landscape.Probe:
    """A probe with the weights as they are in float32."""
    objective = "cross_entropy" if kind == "cross-entropy" else "mse"
    return landscape.Probe(model, objective, [data], dtype=dtype)


def truths(probe: landscape.Probe, names: list[str]) -> dict[str, float]:
    """Every quantity in float64."""
    matrix = probe.hvp(torch.eye(probe.size, dtype=torch.float64))
    found = {
        "largest eigenvalue": float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]),
        "trace": float(matrix.trace()),
        "Frobenius norm": float(matrix.norm()),
    }
    for name in names:
        if name not in found:
            found[name] = landscape.measures.get(MEASURES[name]).compute(probe).value
    return found


def cases(kind: str, seeds: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """One row a checkpoint and quantity."""
    for seed in range(seeds):
        for level, model, data in checkpoints(kind, seed):
            exact = truths(probe_of(kind, model, data, torch.float64), names)
            probe = probe_of(kind, model, data, torch.float32)
            for name in names:
                result = landscape.measures.get(MEASURES[name]).compute(probe, seed)
                low, high = result.interval
                yield {
                    "kind": kind,
                    "level": level,
                    "seed": seed,
                    "quantity": name,
                    "truth": exact[name],
                    "value": result.value,
                    "interval": [low, high],
                    "status": result.status.value,
                    "held": bool(low <= exact[name] <= high),
                }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Share held and widths, by quantity."""
    needed = defaultdict(list)
    for row in rows:
        error = abs(row["value"] - row["truth"]) / (abs(row["truth"]) or 1.0)
        needed[row["quantity"], row["kind"], row["level"]].append(error)
    found = {}
    for name in dict.fromkeys(row["quantity"] for row in rows):
        mine = [row for row in rows if row["quantity"] == name]
        sure = [row for row in mine if row["status"] == "ok"]
        found[name] = {"all": _share(mine, needed), "ok": _share(sure, needed) if sure else None}
    return found


def _share(rows: list[dict[str, Any]], needed: Any) -> dict[str, Any]:
    widths, own = [], []
    for row in rows:
        half = (row["interval"][1] - row["interval"][0]) / 2
        errors = needed[row["quantity"], row["kind"], row["level"]]
        least = float(np.quantile(errors, 0.9)) * (abs(row["truth"]) or 1.0)
        widths.append(half / least if least else np.nan)
        error = abs(row["value"] - row["truth"])
        own.append(half / error if error else np.nan)
    return {
        "cases": len(rows),
        "held": float(np.mean([row["held"] for row in rows])),
        "median_width_over_needed": float(np.nanmedian(widths)),
        "median_width_over_own_error": float(np.nanmedian(own)),
    }


def show(found: dict[str, Any]) -> None:
    """Prints one line a quantity."""
    columns = ("cases", "held", "half-width / needed", "half-width / own error")
    rows = table("float32 intervals against float64", "quantity", *columns, "held among ok")
    for name, row in found.items():
        every, sure = row["all"], row["ok"]
        rows.add_row(
            name,
            str(every["cases"]),
            f"{100 * every['held']:.1f} %",
            f"{every['median_width_over_needed']:.2f}",
            f"{every['median_width_over_own_error']:.2f}",
            f"{100 * sure['held']:.1f} % of {sure['cases']}" if sure else "none",
        )
    console.print(rows)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each kind of net")
    parser.add_argument("--quantities", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--out", type=Path, default=RECORDS / "rounding.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        rows.extend(cases(kind, options.seeds, options.quantities))
        console.print(f"{kind}: {time.perf_counter() - start:.0f} s")
    found = summary(rows)
    show(found)
    write_record(
        options.out,
        {
            "what": "float32 intervals against float64 on nets trained to losses of 1 to 1e-8",
            "seeds": options.seeds,
            "levels": LEVELS,
            "summary": found,
            "seconds": time.perf_counter() - start,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
