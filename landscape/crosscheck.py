"""The same quantities by another library, side by side with ours."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from landscape.linalg import student_quantile
from landscape.results import Table

_CRITERIA: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "bce": nn.BCEWithLogitsLoss,
}


def cross_check(
    model: nn.Module, objective: str, batches: Sequence[Any], table: Table
) -> list[dict[str, Any]]:
    """Runs PyHessian's top eigenvalue, trace and density beside the results of an audit.

    Args:
        model: In evaluation mode; PyHessian works on it directly, so give a copy of its own.
        objective: Its name; PyHessian knows "cross_entropy", "mse" and "bce".
        batches: Pairs (inputs, targets).
        table: Our results; quantities it lacks are left out.

    Returns:
        One row a quantity: ours with its 95 % interval, the peer's value and the half-width of its
        own error, whether the two intervals meet ("inside"), and a note. A quantity that PyHessian
        cannot give has no value and says why.
    """
    if find_spec("pyhessian") is None:
        return [_row("all", table, "PyHessian is not installed: pip install pyhessian")]
    if objective not in _CRITERIA:
        return [_row("all", table, f"PyHessian has no loss for objective {objective!r}")]
    if not all(isinstance(batch, list | tuple) and len(batch) == 2 for batch in batches):
        return [_row("all", table, "PyHessian takes batches (inputs, targets) only")]
    from pyhessian import hessian

    with warnings.catch_warnings(), torch.random.fork_rng():
        # PyHessian differentiates with backward(create_graph=True), which torch warns about.
        warnings.filterwarnings("ignore", message=".*create_graph=True.*")
        torch.manual_seed(table.provenance.get("seed", 0))
        peer = hessian(
            model,
            _CRITERIA[objective](),
            dataloader=list(batches),
            cuda=next(model.parameters()).is_cuda,
        )
        rows = [
            _attempt("hessian-top-eigenvalue", table, lambda: _top(peer)),
            _attempt("hessian-trace", table, lambda: _trace(peer)),
            _attempt("hessian-spectral-density", table, lambda: _flat_share(peer, table)),
        ]
    for parameter in model.parameters():
        parameter.grad = None  # breaks the reference cycle that create_graph made
    return [row for row in rows if row]


def consistency(table: Table) -> list[dict[str, Any]]:
    """Our own numbers that should agree: the trace as noise sees it, and by Hessian products.

    Args:
        table: Our results.

    Returns:
        One row if both were measured, as those of ``cross_check``; the noise estimate is that of
        the smallest noise scale at which rounding does not hide the curvature.
    """
    noise, trace = "noise-stability", "hessian-trace"
    if not all(name in table and table[name].status.measured for name in (noise, trace)):
        return []
    found = {"at": table[noise].config["sigma"], "interval": table[noise].interval}
    found["value"] = table[noise].value
    least = table[noise].diagnostics.get("regime_from")
    for point in table[noise].diagnostics.get("scan", {}).get("points", []):
        if point["at"] == least:
            found = point
    low, high = found["interval"]
    from_, to = table[trace].interval
    return [
        {
            "quantity": noise,
            "ours": found["value"],
            "low": low,
            "high": high,
            "peer": trace,
            "peer_value": (from_ + to) / 2,
            "peer_error": (to - from_) / 2,
            "inside": low <= to and from_ <= high,
            "note": f"at σ = {found['at']:g}; noise also feels the kinks of ReLU nets",
        }
    ]


def _top(peer: Any) -> _Peer:
    tolerance = 1e-4
    value = float(peer.eigenvalues(maxIter=300, tol=tolerance, top_n=1)[0][0])
    # The change per step is not the error; ten of them is what was seen on digits nets.
    return _Peer(value, 10 * tolerance * abs(value), f"power iteration, tolerance {tolerance:g}")


def _trace(peer: Any) -> _Peer:
    samples = peer.trace()
    return _Peer(
        float(np.mean(samples)),
        _spread(samples),
        f"Hutchinson, stopped after {len(samples)} probes",
    )


def _flat_share(peer: Any, table: Table) -> _Peer:
    """Share of eigenvalues within one percent of the largest, as our density measure has it."""
    known = np.abs(table["hessian-spectral-density"].diagnostics["eigenvalues"])
    with patch.object(sys.modules["pyhessian.hessian"], "torch", _TorchWithEig()):
        nodes, weights = peer.density(iter=60, n_v=3)
    shares = [
        float(np.sum(np.array(weight)[np.abs(node) < 0.01 * known.max()]))
        for node, weight in zip(nodes, weights, strict=True)
    ]
    return _Peer(float(np.mean(shares)), _spread(shares), "share of flat directions, 3 probes")


def _spread(samples: Sequence[float]) -> float:
    """Half-width of the peer's own 95 % interval, which it does not report."""
    if len(samples) < 2:
        return 0.0
    error = float(np.std(samples, ddof=1) / np.sqrt(len(samples)))
    return student_quantile(len(samples) - 1) * error


class _TorchWithEig:
    """torch as PyHessian 0.1 knew it: with ``torch.eig``, removed in torch 2."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def eig(matrix: Tensor, eigenvectors: bool = True) -> tuple[Tensor, Tensor]:  # noqa: ARG004
        """Eigenvalues as (real, imaginary) columns, and eigenvectors, of a symmetric matrix."""
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


@dataclass(frozen=True)
class _Peer:
    """The peer's value, half-width of its own error, and how it was found."""

    value: float
    error: float
    note: str


def _attempt(name: str, table: Table, call: Callable[[], _Peer]) -> dict[str, Any] | None:
    if name not in table or not table[name].status.measured:
        return None
    try:
        return _row(name, table, call())
    except Exception as error:  # noqa: BLE001 - a failing peer is reported, not raised
        return _row(name, table, f"PyHessian failed: {type(error).__name__}: {error}")


def _row(name: str, table: Table, peer: _Peer | str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "quantity": name,
        "ours": None,
        "low": None,
        "high": None,
        "peer": "PyHessian",
    }
    found |= {"peer_value": None, "peer_error": None, "inside": None, "note": peer}
    if name in table:
        found["ours"] = table[name].value
        found["low"], found["high"] = table[name].interval
    if isinstance(peer, _Peer):
        low, high = table[name].interval
        found |= {"peer_value": peer.value, "peer_error": peer.error, "note": peer.note}
        found["inside"] = low - peer.error <= peer.value <= high + peer.error
    return found
