"""Geometries of the parameter space: norms, balls, directions, samples."""

from landscape.geometry.attention import Attention, find_attention
from landscape.geometry.ball import Ball, L2Ball, LinfBall, RoundBall
from landscape.geometry.geometry import (
    GEOMETRIES,
    Elementwise,
    Euclidean,
    Filterwise,
    Geometry,
    Norm,
    Quotient,
    as_geometry,
    checked_norm,
)
from landscape.geometry.quotient import Metric, Pair, QuotientBall

__all__ = [
    "GEOMETRIES",
    "Attention",
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
    "Quotient",
    "QuotientBall",
    "RoundBall",
    "as_geometry",
    "checked_norm",
    "find_attention",
]
