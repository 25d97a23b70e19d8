"""A quadratic model of K losses from the slopes at points visited, and its maximum in a ball."""

from __future__ import annotations

import torch
from torch import Tensor

# Points in the model: enough for the convergence of conjugate gradients; more did no better on
# trained nets, where slopes of distant points tell of another quadratic.
_WINDOW = 3
# Directions that differ by less than this share of the longest are one direction.
_DISTINCT = 1e-5
_HALVINGS = 60


class SecantModel:
    """L(u) = L(0) + s_0 u + u H u / 2 on the span of the last points, H from their slopes.

    Differences of slopes are products with the Hessian, H u_i = s_i - s_0, exactly so on a
    quadratic. Its maximum over the span and the ball is then what a Krylov method of as many
    products finds, where steps along the slope alone converge like a power iteration.

    Args:
        base: Slopes at the centre of the ball, in coordinates where the ball is round, (K, P).
    """

    def __init__(self, base: Tensor) -> None:
        self._base = base
        self._points: list[Tensor] = []
        self._changes: list[Tensor] = []

    def add(self, points: Tensor, slopes: Tensor) -> None:
        """Takes in K points with their slopes, (K, P) both; the oldest ones drop out.

        Rows with a slope that is not finite take in nothing.
        """
        changes = slopes - self._base
        told = _dot(changes, changes).isfinite()[:, None]
        if not told.all():
            points, changes = torch.where(told, points, 0), torch.where(told, changes, 0)
        self._points = [*self._points, points][-_WINDOW:]
        self._changes = [*self._changes, changes][-_WINDOW:]

    def maximum(self, rho: float) -> tuple[Tensor, Tensor]:
        """The model's best points with |u| <= rho and its slopes there, (K, P) both."""
        gram = _products(self._points, self._points)
        curvature = _products(self._points, self._changes)
        slope = _products(self._points, [self._base])[:, :, 0]
        # Offsets beyond the range of the precision have no model.
        gram, curvature, slope = (
            torch.nan_to_num(part, 0.0, 0.0, 0.0) for part in (gram, curvature, slope)
        )
        values, vectors = torch.linalg.eigh(gram)
        kept = values > _DISTINCT * values[:, -1:].clamp_min(torch.finfo(torch.float64).tiny)
        scale = torch.where(kept, values.clamp_min(1e-300).rsqrt(), 0)
        basis = vectors * scale[:, None, :]  # coefficients of orthonormal combinations
        inner = basis.mT @ ((curvature + curvature.mT) / 2) @ basis
        reduced = (basis.mT @ slope[:, :, None])[:, :, 0]
        place = _trust_region(inner, reduced, kept, rho)
        weights = (basis @ place[:, :, None])[:, :, 0]
        best, change = torch.zeros_like(self._base), torch.zeros_like(self._base)
        for column, (point, moved) in enumerate(zip(self._points, self._changes, strict=True)):
            weight = weights[:, column : column + 1].to(best.dtype)
            best.addcmul_(weight, point)
            change.addcmul_(weight, moved)
        return best, change.add_(self._base)


def _products(rows: list[Tensor], columns: list[Tensor]) -> Tensor:
    """Inner products of K vectors each, (K, rows, columns) float64."""
    return torch.stack(
        [torch.stack([_dot(row, column) for column in columns], 1) for row in rows],
        1,
    ).double()


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.bmm(left[:, None, :], right[:, :, None])[:, 0, 0]


def _trust_region(curvature: Tensor, slope: Tensor, kept: Tensor, rho: float) -> Tensor:
    """Argmax of s x + x B x / 2 over |x| <= rho, (K, m), on the dimensions kept."""
    size = curvature.abs().amax((1, 2)) + slope.norm(dim=1) / rho + torch.finfo(slope.dtype).tiny
    # What is not kept curves down so much that no maximum lies there.
    drop = torch.diag_embed((~kept) * size[:, None] * -4)
    values, vectors = torch.linalg.eigh(curvature + drop)
    along = (vectors.mT @ slope[:, :, None])[:, :, 0]
    top = values[:, -1:].clamp_min(0)
    low, high = torch.zeros_like(top), slope.norm(dim=1, keepdim=True) / rho
    for _ in range(_HALVINGS):
        shift = (low + high) / 2
        far = (along / (top + shift - values).clamp_min(1e-300)).norm(dim=1, keepdim=True) > rho
        low, high = torch.where(far, shift, low), torch.where(far, high, shift)
    gaps = top + high - values
    place = torch.where(gaps > 0, along / gaps.clamp_min(1e-300), 0)
    # Without slope along the top eigenvector the boundary is reached along it, if it curves up.
    short = (rho**2 - (place[:, :-1] ** 2).sum(1)).clamp_min(0).sqrt()
    sign = torch.where(along[:, -1] < 0, -1.0, 1.0)
    place[:, -1] = torch.where(values[:, -1] > 0, sign * short, place[:, -1])
    found: Tensor = (vectors @ place[:, :, None])[:, :, 0]
    return found
