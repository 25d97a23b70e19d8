"""Balls around a checkpoint: what "within a distance of" means, entry by entry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

# Bisection halvings: enough for the last bit of a double.
_HALVINGS = 80
# Points are on the boundary from this many roundings of the precision below it.
_NEAR = 64


@dataclass(frozen=True)
class Face:
    """What the boundary of a ball does to an ascent from K points, in coordinates.

    At a maximum nothing is left of the slopes; what is left elsewhere is the slope along the
    boundary.

    Args:
        slopes: What the boundary leaves of the slopes, (K, P).
        multiplier: Lagrange multiplier nu of |u|^2 / 2 where a round boundary holds the point, 0
            elsewhere, (K, 1): along the boundary the loss has the curvature H - nu.
        normals: Unit normals where a round boundary holds the point, 0 elsewhere, (K, P); None in a
            box.
        held: Entries that the sides of a box hold, (K, P) bool; None in a round ball.
    """

    slopes: Tensor
    multiplier: Tensor
    normals: Tensor | None = None
    held: Tensor | None = None

    def along(self, rows: Tensor) -> Tensor:
        """Directions without what leads out of the ball, (K, P)."""
        if self.normals is not None:
            rows = rows - (rows * self.normals).sum(1, keepdim=True) * self.normals
        return rows if self.held is None else torch.where(self.held, 0, rows)


class Ball(ABC):
    """The balls {delta : ||delta / c||_p <= rho} around a checkpoint, all rho at once.

    Entries with c = 0 have no extent: they stay where they are in every direction, projection
    and sample.

    Args:
        scale: c, one non-negative scale per parameter, (P,).
    """

    #: Whether random draws move along with the ball under the symmetries that it does not see.
    draws_move_along: ClassVar[bool] = True

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale
        self.free = int((scale > 0).sum())
        #: Whether c = 1 throughout, so that nothing need be scaled.
        self._even = bool((scale == 1).all())
        self._inverse = torch.where(scale > 0, 1 / scale.clamp_min(_tiny(scale)), 0)

    @abstractmethod
    def norm(self, deltas: Tensor) -> Tensor:  # (K, P) -> (K,)
        """||delta / c||_p, infinite where an entry with c = 0 is not zero."""

    @abstractmethod
    def project(self, deltas: Tensor, rho: Tensor | float) -> Tensor:
        """The point of the ball nearest in the ball's own norm, (K, P)."""

    @abstractmethod
    def project_euclidean(self, deltas: Tensor, rho: float) -> Tensor:
        """The point of the ball nearest in the Euclidean norm, (K, P)."""

    @abstractmethod
    def steepest(self, gradients: Tensor) -> Tensor:
        """Argmax <g, d> over ||d / c||_p <= 1 for each row g; zero where c g is, (K, P)."""

    @abstractmethod
    def dual_norm(self, gradients: Tensor) -> Tensor:
        """Max <g, d> over ||d / c||_p <= 1: the first-order rise per rho, (K,)."""

    @abstractmethod
    def sample_surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Random points with ||d / c||_p = 1, (count, P)."""

    @abstractmethod
    def sample_inside(self, count: int, generator: torch.Generator) -> Tensor:
        """Points uniform in the unit ball, (count, P)."""

    @abstractmethod
    def face(self, points: Tensor, slopes: Tensor, rho: float) -> Face:
        """What holds points of the ball where slopes lead out of it, both in coordinates."""

    @abstractmethod
    def confined(self, points: Tensor, onto: Tensor, rho: float) -> Tensor:
        """Coordinates moved into the ball, and onto a round boundary where ``onto`` (K, 1) is."""

    @abstractmethod
    def edge(self, lines: Tensor, rho: float) -> Tensor:
        """The farthest points of the ball along directions of length one, in coordinates."""

    @abstractmethod
    def extent(self, rho: float) -> float:
        """Distance of its farthest points from the centre, in coordinates."""

    def coordinates(self, deltas: Tensor) -> Tensor:
        """Offsets in units of c, zero where c is, (K, P)."""
        return self._unscaled(deltas)

    def offsets(self, coordinates: Tensor) -> Tensor:
        """The inverse of ``coordinates``, (K, P)."""
        return self._scaled(coordinates)

    def slopes(self, gradients: Tensor) -> Tensor:
        """Gradients by the coordinates, (K, P)."""
        return self._scaled(gradients)

    def gaussian(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws from N(0, diag(c^2)), (count, P)."""
        return self._scaled(self._draw(torch.randn, count, generator))

    def retract(self, deltas: Tensor) -> Tensor:
        """Offsets of the parameters that tangent vectors lead to; the same in a flat geometry."""
        return deltas

    def pull_back(self, deltas: Tensor, gradients: Tensor) -> Tensor:  # noqa: ARG002
        """Gradients by tangent vectors from those by the offsets that they lead to."""
        return gradients

    def bending(self, deltas: Tensor) -> Tensor:
        """Length of what ``retract`` adds, in units of the tangent vector's own, (K,) float64."""
        return torch.zeros(len(deltas), dtype=torch.float64)

    def _draw(self, kind: object, count: int, generator: torch.Generator) -> Tensor:
        # On the CPU and in one precision, so that every device and dtype gets the same numbers.
        draws = kind(count, len(self.scale), generator=generator)  # type: ignore[operator]
        return self._inside(draws.to(device=self.scale.device, dtype=self.scale.dtype))

    def _inside(self, rows: Tensor) -> Tensor:
        """Rows without the entries that have no extent."""
        return rows if self.free == len(self.scale) else rows * (self.scale > 0)

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self._even else rows * self.scale

    def _unscaled(self, rows: Tensor) -> Tensor:
        return rows if self._even else rows * self._inverse

    def _outside(self, deltas: Tensor) -> Tensor:
        """Rows that leave the directions of the ball, (K,) bool."""
        return ((self.scale == 0) & (deltas != 0)).any(1)


class RoundBall(Ball):
    """Balls of a norm with an inner product: round in the coordinates."""

    def face(self, points: Tensor, slopes: Tensor, rho: float) -> Face:
        """The sphere holds points on it whose slope points outwards."""
        lengths = _length(points)[:, None]
        outward = (points * slopes).sum(1, keepdim=True)
        near = 1 - _NEAR * torch.finfo(points.dtype).eps
        on = (lengths >= near * rho) & (outward > 0)
        units = torch.where(on, points / _safe(lengths).to(points.dtype), 0)
        push = (units * slopes).sum(1, keepdim=True)
        return Face(slopes - push * units, torch.where(on, push / rho, 0), normals=units)

    def confined(self, points: Tensor, onto: Tensor, rho: float) -> Tensor:
        """Scaled to length rho where they are longer or belong to the sphere."""
        factor = rho / _safe(_length(points)[:, None])
        factor = torch.where(onto, factor, factor.clamp_max(1))
        return points * factor.to(points.dtype)

    def edge(self, lines: Tensor, rho: float) -> Tensor:
        """Rho times the direction."""
        return rho * lines

    def extent(self, rho: float) -> float:
        """The radius."""
        return rho


class L2Ball(RoundBall):
    """sum_i (delta_i / c_i)^2 <= rho^2: an ellipsoid, a sphere for c = 1."""

    def norm(self, deltas: Tensor) -> Tensor:
        """||delta / c||_2."""
        norms = _length(self._unscaled(deltas))
        return torch.where(self._outside(deltas), torch.inf, norms)

    def project(self, deltas: Tensor, rho: Tensor | float) -> Tensor:
        """Radial scaling, the nearest point in the norm ||. / c||_2."""
        inside = self._inside(deltas)
        norms = _length(self._unscaled(inside))
        shrink = (rho / norms.clamp_min(_tiny(deltas))).clamp_max(1)
        return inside * shrink.to(deltas.dtype)[:, None]

    def project_euclidean(self, deltas: Tensor, rho: float) -> Tensor:
        """delta_i = z_i c_i^2 / (c_i^2 + nu), nu the root of the norm's equation by bisection."""
        squares = self.scale.double() ** 2
        inside = (deltas * (self.scale > 0)).double()
        norms = _length(inside * self._inverse)
        low = torch.zeros(len(deltas), 1, dtype=torch.float64, device=deltas.device)
        # sum (z c / (c^2 + nu))^2 <= (||z c|| / nu)^2, so that the root lies below this.
        high = (_length(inside * self.scale) / rho)[:, None]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            shrunk = inside * self.scale / (squares + middle).clamp_min(_tiny(inside))
            beyond = (_length(shrunk) > rho)[:, None]
            low, high = torch.where(beyond, middle, low), torch.where(beyond, high, middle)
        projected = inside * squares / (squares + high).clamp_min(_tiny(inside))
        return torch.where((norms > rho)[:, None], projected, inside).to(deltas.dtype)

    def steepest(self, gradients: Tensor) -> Tensor:
        """c^2 g / ||c g||_2."""
        # Scaled by the length first: squares of tiny scales would vanish.
        scaled = gradients / _safe(self.dual_norm(gradients))[:, None].to(gradients.dtype)
        return self._scaled(self._scaled(scaled))

    def dual_norm(self, gradients: Tensor) -> Tensor:
        """||c g||_2."""
        return _length(self._scaled(gradients))

    def sample_surface(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform on the unit sphere of delta / c."""
        draws = self._draw(torch.randn, count, generator)
        return self._scaled(draws / _safe(_length(draws))[:, None].to(draws.dtype))

    def sample_inside(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform in the ellipsoid: a direction times U^(1/n), n the free entries."""
        surface = self.sample_surface(count, generator)
        shares = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        radii = shares ** (1 / max(self.free, 1))
        return surface * radii.to(device=surface.device, dtype=surface.dtype)


class LinfBall(Ball):
    """|delta_i| <= rho c_i for every i: a box."""

    def face(self, points: Tensor, slopes: Tensor, rho: float) -> Face:
        """Sides hold the entries that touch them and whose slopes point outwards."""
        near = 1 - _NEAR * torch.finfo(points.dtype).eps
        held = (points.abs() >= near * rho) & (points * slopes > 0)
        return Face(torch.where(held, 0, slopes), slopes.new_zeros(len(slopes), 1), held=held)

    def confined(self, points: Tensor, onto: Tensor, rho: float) -> Tensor:  # noqa: ARG002
        """Clipped."""
        return points.clamp(-rho, rho)

    def edge(self, lines: Tensor, rho: float) -> Tensor:
        """The corner of the same signs."""
        return rho * lines.sign()

    def extent(self, rho: float) -> float:
        """The distance of a corner, rho sqrt(n) for n entries that may move."""
        return float(rho * max(self.free, 1) ** 0.5)

    def norm(self, deltas: Tensor) -> Tensor:
        """max_i |delta_i| / c_i."""
        norms = (deltas.abs() * self._inverse).amax(1)
        return torch.where(self._outside(deltas), torch.inf, norms)

    def project(self, deltas: Tensor, rho: Tensor | float) -> Tensor:
        """Clipping, the nearest point in every norm that is a sum over entries."""
        if isinstance(rho, Tensor):
            rho = rho[:, None].to(deltas.dtype)
        limits = self.scale * rho
        return deltas.clamp(-limits, limits)

    def project_euclidean(self, deltas: Tensor, rho: float) -> Tensor:
        """Clipping."""
        return self.project(deltas, rho)

    def steepest(self, gradients: Tensor) -> Tensor:
        """C sign(g)."""
        return gradients.sign() * self.scale

    def dual_norm(self, gradients: Tensor) -> Tensor:
        """||c g||_1."""
        return (gradients * self.scale).abs().sum(1, dtype=torch.float64)

    def sample_surface(self, count: int, generator: torch.Generator) -> Tensor:
        """A uniform point of the box, blown up to touch its surface."""
        draws = self._draw(_uniform, count, generator)
        return draws / _safe(draws.abs().amax(1))[:, None] * self.scale

    def sample_inside(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform in the box."""
        return self._draw(_uniform, count, generator) * self.scale


def _uniform(count: int, size: int, *, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, size, generator=generator) - 1


def _length(rows: Tensor) -> Tensor:
    """Euclidean length of each row, in float64, where no square vanishes or overflows."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return lengths


def _safe(lengths: Tensor) -> Tensor:
    """Lengths with zero replaced by one, for rows that are zero throughout."""
    return torch.where(lengths > 0, lengths, 1)


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
