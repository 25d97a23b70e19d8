"""Geometries of the parameter space: norms, balls, directions, samples."""

from landscape.geometry.attention import Attention, find_attention, find_pairs
from landscape.geometry.ball import Ball, Face, L2Ball, LinfBall, RoundBall
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
from landscape.geometry.symmetries import (
    TRANSFORMATIONS,
    Symmetry,
    Transformed,
    find_symmetries,
    scaled_loss,
    transform,
)
from landscape.geometry.verification import Change, Verifier, log_uniform, on_flat

__all__ = [
    "GEOMETRIES",
    "TRANSFORMATIONS",
    "Attention",
    "Ball",
    "Change",
    "Elementwise",
    "Euclidean",
    "Face",
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
    "Symmetry",
    "Transformed",
    "Verifier",
    "as_geometry",
    "checked_norm",
    "find_attention",
    "find_pairs",
    "find_symmetries",
    "log_uniform",
    "on_flat",
    "scaled_loss",
    "transform",
]
