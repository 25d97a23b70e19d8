"""The quotient geometry of attention: balls that do not see GL(h) acting on pairs of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from landscape.geometry.ball import RoundBall

Metric = Literal["inv", "mix"]

# Tangent vector, point, inverse Gram matrix and gradient of one matrix of a pair.
_Side = tuple[Tensor, Tensor, Tensor, Tensor]

# A Gram matrix with a larger condition number than this is singular in double precision.
_SINGULAR = 1e12


def checked_metric(metric: str) -> None:
    """Raises ValueError where a metric is unknown."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {get_args(Metric)}, got {metric!r}")


@dataclass(frozen=True)
class Pair:
    """Two matrices that a function sees only through G K^T: (G A^-1, K A^T) gives the same.

    Args:
        name: Where they are in the model.
        left: Places of the entries of G in a flat vector, (n, h) integers.
        right: Those of K, (m, h).
        module: The attention module it belongs to, and
        head: the head, whose pairs move together; None where there are no such heads.
    """

    name: str
    left: Tensor
    right: Tensor
    module: str = ""
    head: int | None = None


class _Stack:
    """Pairs of one shape at a checkpoint, with what the metric needs of them, in float64."""

    def __init__(self, pairs: Sequence[Pair], weights: Tensor, metric: Metric) -> None:
        device = weights.device
        self.left = torch.stack([pair.left for pair in pairs]).to(device)  # (B, n, h)
        self.right = torch.stack([pair.right for pair in pairs]).to(device)  # (B, m, h)
        self.g, self.k = weights[self.left].double(), weights[self.right].double()
        self.gg, self.kk = _gram(self.g), _gram(self.k)  # (B, h, h)
        self.gg_inv, self.kk_inv = torch.linalg.inv(self.gg), torch.linalg.inv(self.kk)
        if metric == "inv":
            on_g, on_k = self.gg_inv, self.kk_inv
            # A = GtG KtK is similar to a symmetric matrix: X with A X + X A = B entry by entry.
            root = torch.linalg.cholesky(self.kk)
            values, vectors = torch.linalg.eigh(root.mT @ self.gg @ root)
            self.to = torch.linalg.solve(root.mT, vectors)  # P in A = P diag P^-1
            self.back = vectors.mT @ root.mT
            self.sums = values[:, :, None] + values[:, None, :]
        else:
            on_g, on_k = self.kk, self.gg
        self.metric = metric
        # <xi, xi> = ||xi_G F_G||^2 + ||xi_K F_K||^2
        self.factor_g, self.factor_k = (torch.linalg.cholesky(on) for on in (on_g, on_k))
        eye = torch.eye(on_g.shape[-1], dtype=on_g.dtype, device=device)
        self.unfactor_g, self.unfactor_k = (
            torch.linalg.solve_triangular(factor, eye, upper=False)
            for factor in (self.factor_g, self.factor_k)
        )
        #: Inverses of the metric.
        self.raise_g: Tensor = self.gg if metric == "inv" else self.kk_inv
        self.raise_k: Tensor = self.kk if metric == "inv" else self.gg_inv

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The two matrices of each pair in each row, (K, B, n, h) and (K, B, m, h) float64."""
        return rows[:, self.left].double(), rows[:, self.right].double()

    def put(self, rows: Tensor, g: Tensor, k: Tensor) -> None:
        """Writes matrices into rows."""
        rows[:, self.left] = g.to(rows.dtype)
        rows[:, self.right] = k.to(rows.dtype)

    def horizontal(self, g: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest tangent vectors that no element of GL(h) makes."""
        if self.metric == "mix":
            shift = (k.mT @ self.k @ self.kk_inv - self.gg_inv @ self.g.mT @ g) / 2
        else:
            right = self.gg @ self.k.mT @ k - g.mT @ self.g @ self.kk
            shift = (self.to @ (self.back @ right @ self.to / self.sums) @ self.back).mT
        return g + self.g @ shift, k - self.k @ shift.mT

    def bend(self, g: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """The Christoffel term Gamma(xi, xi) of the geodesics."""
        if self.metric == "mix":
            inner = k.mT @ self.k
            outer = g.mT @ self.g
            bent_g = g @ ((inner + inner.mT) @ self.kk_inv) - self.g @ (k.mT @ k @ self.kk_inv)
            bent_k = k @ ((outer + outer.mT) @ self.gg_inv) - self.k @ (g.mT @ g @ self.gg_inv)
            return bent_g, bent_k
        return (
            _bend_alone(g, self.g, self.gg_inv),
            _bend_alone(k, self.k, self.kk_inv),
        )

    def unbend(self, g: Tensor, k: Tensor, on_g: Tensor, on_k: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of <(on_g, on_k), Gamma(xi, xi)> by xi."""
        one, two = (g, self.g, self.gg_inv, on_g), (k, self.k, self.kk_inv, on_k)
        if self.metric == "mix":
            return _unbend_coupled(one, two), _unbend_coupled(two, one)
        return _unbend_alone(*one), _unbend_alone(*two)


class QuotientBall(RoundBall):
    """{xi horizontal : ||xi|| <= rho} in an invariant metric on pairs, element-wise elsewhere.

    <xi, xi> = sum over pairs of Tr((G'G)^-1 xi_G' xi_G + (K'K)^-1 xi_K' xi_K) for "inv", of
    Tr(K'K xi_G' xi_G + G'G xi_K' xi_K) for "mix" (da Silva, Dangel and Oore 2025), plus
    ||xi / |w| ||^2 over all other parameters. Points are reached along geodesics, to second order.

    Notes:
        1. The printed projection for "inv" does not give horizontal vectors; with A = G'G K'K and B
           as printed, A X + X A = B and the shift X' does.
        2. Gram matrices are relaxed by a multiple of the identity only where they are singular in
           double precision: that multiple is what breaks the invariance.

    Args:
        weights: The checkpoint, (P,).
        pairs: Disjoint pairs of matrices in it.
        metric: "inv" or "mix".
        second_order: Whether geodesics bend; False goes straight.

    Raises:
        ValueError: If the metric is unknown or pairs overlap.
    """

    #: Coordinates along an orbit differ by rotations, which draws do not follow.
    draws_move_along: ClassVar[bool] = False

    def __init__(
        self,
        weights: Tensor,
        pairs: Sequence[Pair],
        metric: Metric = "mix",
        *,
        second_order: bool = True,
    ) -> None:
        checked_metric(metric)
        scale = weights.abs()
        taken = torch.zeros(len(weights), dtype=torch.long)
        shapes: dict[tuple[int, int, int], list[Pair]] = {}
        for pair in pairs:
            for places in (pair.left, pair.right):
                taken[places.cpu().flatten()] += 1
            shapes.setdefault((*pair.left.shape, len(pair.right)), []).append(pair)
        if (taken > 1).any():
            raise ValueError("pairs overlap; each entry may belong to one matrix only")
        inside = (taken > 0).to(weights.device)
        super().__init__(torch.where(inside, torch.ones_like(scale), scale))
        self._stacks = [_Stack(group, weights, metric) for group in shapes.values()]
        self._second_order = second_order
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def horizontal(self, tangents: Tensor) -> Tensor:
        """Tangent vectors without the part along the orbits, (K, P)."""
        found = tangents * (self.scale > 0)  # a copy
        for stack in self._stacks:
            stack.put(found, *stack.horizontal(*stack.split(tangents)))
        return found

    def coordinates(self, tangents: Tensor) -> Tensor:
        """Coordinates in which the metric is the identity, (K, P)."""
        found = tangents * self._inverse
        for stack in self._stacks:
            g, k = stack.split(tangents)
            stack.put(found, g @ stack.factor_g, k @ stack.factor_k)
        return found

    def offsets(self, coordinates: Tensor) -> Tensor:
        """Tangent vectors of coordinates, (K, P)."""
        found = coordinates * self.scale
        for stack in self._stacks:
            g, k = stack.split(coordinates)
            stack.put(found, g @ stack.unfactor_g, k @ stack.unfactor_k)
        return found

    def confined(self, points: Tensor, onto: Tensor, rho: float) -> Tensor:
        """Horizontal, and scaled to length rho where they are longer or belong to the sphere.

        Where hardly a horizontal direction is left on the sphere, a step is rounding, which may
        lead anywhere.

        Returns:
            Coordinates, (K, P).
        """
        inside = self.coordinates(self.horizontal(self.offsets(points)))
        return super().confined(inside, onto, rho)

    def slopes(self, gradients: Tensor) -> Tensor:
        """Gradients by the coordinates, along horizontal directions only, (K, P)."""
        return self._riemannian(gradients)[1]

    def _riemannian(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """The horizontal part of gradients with the inverse metric applied, and its coordinates."""
        if self._last is None or self._last[0] is not gradients:
            found = gradients * self.scale * self.scale
            for stack in self._stacks:
                g, k = stack.split(gradients)
                stack.put(found, *stack.horizontal(g @ stack.raise_g, k @ stack.raise_k))
            # Kept: a step asks for its direction and for its slopes.
            self._last = (gradients, found, self.coordinates(found))
        return self._last[1:]

    def norm(self, deltas: Tensor) -> Tensor:
        """Length in the metric, (K,)."""
        lengths = self.coordinates(deltas).norm(dim=1)
        return torch.where(self._outside(deltas), torch.inf, lengths)

    def project(self, deltas: Tensor, rho: Tensor | float) -> Tensor:
        """Horizontal part, then radial scaling."""
        inside = self.horizontal(deltas)
        lengths = self.coordinates(inside).norm(dim=1)
        shrink = (rho / lengths.clamp_min(torch.finfo(deltas.dtype).tiny)).clamp_max(1)
        found: Tensor = inside * shrink[:, None]
        return found

    def project_euclidean(self, deltas: Tensor, rho: float) -> Tensor:
        """Not there: the geometry has no Euclidean projection."""
        raise NotImplementedError("a quotient ball is projected on in its own metric only")

    def steepest(self, gradients: Tensor) -> Tensor:
        """The unit horizontal tangent vector of steepest ascent."""
        tangents, coordinates = self._riemannian(gradients)
        return _divided(tangents, coordinates)

    def dual_norm(self, gradients: Tensor) -> Tensor:
        """Length of the Riemannian gradient, (K,)."""
        lengths: Tensor = self.slopes(gradients).norm(dim=1)
        return lengths

    def sample_surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform horizontal directions of length one."""
        draws = self.gaussian(count, generator)
        return _divided(draws, self.coordinates(draws))

    def sample_inside(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform in the unit ball."""
        surface = self.sample_surface(count, generator)
        shares = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        removed = sum(stack.left.shape[0] * stack.left.shape[2] ** 2 for stack in self._stacks)
        radii = shares ** (1 / max(self.free - removed, 1))
        return surface * radii.to(device=surface.device, dtype=surface.dtype)

    def gaussian(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard Gaussian horizontal tangent vectors."""
        return self.horizontal(self.offsets(self._draw(torch.randn, count, generator)))

    def retract(self, deltas: Tensor) -> Tensor:
        """Xi - Gamma(xi, xi) / 2: offsets of the points that geodesics reach, to second order."""
        if not self._second_order:
            return deltas
        found = deltas.clone()
        for stack in self._stacks:
            g, k = stack.split(deltas)
            bent_g, bent_k = stack.bend(g, k)
            stack.put(found, g - bent_g / 2, k - bent_k / 2)
        return found

    def bending(self, deltas: Tensor) -> Tensor:
        """Beyond about 1 the second-order path no longer follows the geodesic."""
        added = self.coordinates(self.retract(deltas) - deltas).norm(dim=1)
        lengths = self.coordinates(deltas).norm(dim=1)
        return torch.where(lengths > 0, added / lengths, 0.0).double().cpu()

    def pull_back(self, deltas: Tensor, gradients: Tensor) -> Tensor:
        """Gradients through the bent paths."""
        if not self._second_order:
            return gradients
        found = gradients.clone()
        for stack in self._stacks:
            on_g, on_k = stack.split(gradients)
            back_g, back_k = stack.unbend(*stack.split(deltas), on_g, on_k)
            stack.put(found, on_g - back_g / 2, on_k - back_k / 2)
        return found


def _divided(tangents: Tensor, coordinates: Tensor) -> Tensor:
    """Tangent vectors of length one; zero where they are zero."""
    lengths = coordinates.norm(dim=1, keepdim=True)
    found: Tensor = tangents / torch.where(lengths > 0, lengths, 1)
    return found


def _gram(matrices: Tensor) -> Tensor:
    """M'M, relaxed where it is singular."""
    gram = matrices.mT @ matrices
    values = torch.linalg.eigvalsh(gram)
    worst = values[:, :1] * _SINGULAR < values[:, -1:]
    relax = torch.where(worst, values[:, -1:] / _SINGULAR * 10, 0.0)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return gram + relax[:, :, None] * eye


def _bend_alone(tangent: Tensor, point: Tensor, inverse: Tensor) -> Tensor:
    cross = tangent.mT @ point
    first = -tangent @ (inverse @ (cross + cross.mT))
    return first + point @ (inverse @ (tangent.mT @ tangent))


def _unbend_alone(tangent: Tensor, point: Tensor, inverse: Tensor, slope: Tensor) -> Tensor:
    """Gradient of <slope, bend> by the tangent."""
    cross, inner = tangent.mT @ point, tangent.mT @ slope
    outer = slope.mT @ point @ inverse
    first = slope @ ((cross + cross.mT) @ inverse) + point @ (inner.mT @ inverse + inverse @ inner)
    return tangent @ (outer + outer.mT) - first


def _unbend_coupled(own: _Side, other: _Side) -> Tensor:
    """Gradient of <slopes, bends> by the tangent of one matrix of a pair."""
    tangent, point, inverse, slope = own
    other_tangent, other_point, other_inverse, other_slope = other
    cross = other_tangent.mT @ other_point
    inner = inverse @ (other_slope.mT @ other_tangent)
    outer = inverse @ (other_slope.mT @ other_point)
    first = slope @ (other_inverse @ (cross + cross.mT)) + point @ (inner + inner.mT)
    return first - tangent @ (outer + outer.mT)
