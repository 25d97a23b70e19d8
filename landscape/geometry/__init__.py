"""Geometries of the parameter space: norms, balls, directions, samples."""

from landscape.geometry.ball import Ball, L2Ball, LinfBall
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

__all__ = [
    "GEOMETRIES",
    "Ball",
    "Elementwise",
    "Euclidean",
    "Filterwise",
    "Geometry",
    "L2Ball",
    "LinfBall",
    "Norm",
    "as_geometry",
    "checked_norm",
]
