"""Directions in which losses curve up most, from differences of gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.evidence.climbing import EvaluateRows
from landscape.geometry import Ball

# Length of the differences, in units of the ball: what counts is the curvature on its scale.
_DIFFERENCE = 0.05
# Vectors that keep less than this share of their length were in the space already.
_EXHAUSTED = 1e-6


def curved_directions(
    evaluate: EvaluateRows, ball: Ball, rho: float, *, base: Tensor, first: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Ritz vectors of K Hessians, by Lanczos with full orthogonalisation.

    Products are (s(h v) - s(0)) / h for slopes s in the coordinates of the ball.

    Args:
        evaluate: Losses and gradients at offsets, of some of the rows.
        ball: Gives the coordinates.
        rho: Radius that h is a share of.
        base: Gradients at the centre, (K, P).
        first: Vectors of length one that the Krylov spaces begin with, in coordinates, (K, P).
        steps: Products, at least 1.

    Returns:
        Curvatures, descending, (K, steps) float64, and directions of length one in coordinates,
        (K, steps, P); curvature and direction are 0 where a space is exhausted.
    """
    rows, slopes = torch.arange(len(base)), ball.slopes(base)
    reach = _DIFFERENCE * ball.extent(rho)
    basis: list[Tensor] = [first]
    images: list[Tensor] = []
    while True:
        gradients = evaluate(ball.offsets(reach * basis[-1]), True, rows)[1]
        image = (ball.slopes(gradients) - slopes) / reach
        images.append(torch.nan_to_num(image, 0.0, 0.0, 0.0))
        if len(images) == steps:
            break
        rest = images[-1]
        for vector in [*basis, *basis]:  # twice is enough
            rest = rest - (rest * vector).sum(1, keepdim=True) * vector
        exhausted = lengths(rest) <= _EXHAUSTED * lengths(images[-1])
        basis.append(torch.where(exhausted, 0, unit(rest)))
    space = torch.stack(basis, 1)  # (K, steps, P)
    inner = (space @ torch.stack(images, 2)).double()
    values, vectors = torch.linalg.eigh((inner + inner.mT) / 2)
    directions = vectors.flip(2).mT.to(space.dtype) @ space
    return values.flip(1).cpu(), directions


def lengths(rows: Tensor) -> Tensor:
    """Euclidean length of each row, in float64, (K, 1)."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
    return found


def unit(rows: Tensor) -> Tensor:
    """Rows of length one; zero where they are zero."""
    found = lengths(rows)
    return rows / torch.where(found > 0, found, 1).to(rows.dtype)
