"""Geometries of the parameter space: norms, balls, directions, samples."""

from landscape.geometry.ball import Ball, L2Ball, LinfBall, RoundBall
from landscape.geometry.geometry import (
    GEOMETRIES,
    Elementwise,
    Euclidean,
    Filterwise,
    Geometry,
    Norm,
    as_geometry,
    checked_norm,
)
from landscape.geometry.quotient import Metric, Pair, QuotientBall

__all__ = [
    "GEOMETRIES",
    "Ball",
    "Elementwise",
    "Euclidean",
    "Filterwise",
    "Geometry",
    "L2Ball",
    "LinfBall",
    "Metric",
    "Norm",
    "Pair",
    "QuotientBall",
    "RoundBall",
    "as_geometry",
    "checked_norm",
]
