"""Norms of the weight matrices, and of how far they are from the initial ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from landscape.geometry.folding import Folding, find_folding, plain_copy
from landscape.probing import Probe

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LayerNormsRequest:
    """Squared norms of every probed parameter of two or more dimensions, as a matrix.

    The kernel of a convolution is the matrix (out, in * kernel entries).

    Args:
        fold: Fold batch norms into the layers before them first, where that is possible. The
            initial weights are folded with the statistics of a new batch norm.
    """

    fold: bool = True

    def compute(self, probe: Probe) -> LayerNorms:
        """Exact norms, in double precision; the folding is checked on the first batch."""
        folding = find_folding(probe) if self.fold else Folding()
        model = plain_copy(probe)
        folding.apply(model)
        start = None
        if probe.initial is not None:
            start = plain_copy(probe, probe.initial)
            folding.apply(start, untrained=True)
        names, norms, distances = [], [], []
        for name, matrix in _matrices(probe, model):
            names.append(name)
            norms.append(_squared_norms(matrix))
            if start is not None:
                distances.append(_squared_norms(matrix - _matrix(start, name)))
        found = np.array(norms).reshape(-1, 2)
        moved = np.array(distances).reshape(-1, 2)
        return LayerNorms(
            names=tuple(names),
            frobenius=found[:, 0],
            spectral=found[:, 1],
            frobenius_distance=moved[:, 0],
            spectral_distance=moved[:, 1],
            folding=folding,
        )


@dataclass(frozen=True, kw_only=True)
class LayerNorms:
    """Squared norms of d weight matrices W and of W - W0.

    Args:
        names: Names of the parameters.
        frobenius: ||W||_F^2, (d,).
        spectral: ||W||_2^2, the largest squared singular value, (d,).
        frobenius_distance: ||W - W0||_F^2, (d,), empty without initial weights.
        spectral_distance: ||W - W0||_2^2, (d,), empty without initial weights.
        folding: Which batch norms are part of the matrices.
    """

    names: tuple[str, ...]
    frobenius: Array
    spectral: Array
    frobenius_distance: Array
    spectral_distance: Array
    folding: Folding


def _matrices(probe: Probe, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        owner, _, own = name.rpartition(".")
        behind = f"{owner}.parametrizations.{own}.".removeprefix(".")
        probed = any(one == name or one.startswith(behind) for one in probe.space.names)
        if probed and parameter.dim() >= 2 and parameter.numel():
            yield name, _matrix(model, name)


def _matrix(model: nn.Module, name: str) -> Tensor:
    weight = model.get_parameter(name).double()
    if isinstance(model.get_submodule(name.rpartition(".")[0]), _ConvTransposeNd):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def _squared_norms(matrix: Tensor) -> tuple[float, float]:
    """Of Frobenius and of the spectrum; the largest eigenvalue of the smaller Gram matrix."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = wide @ wide.T
    squared = float(gram.trace())
    if not torch.isfinite(gram).all():
        return squared, float("nan")
    return squared, float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0))
