"""Algorithms on symmetric operators; they know no model."""

from landscape.linalg.lanczos import Chain, Krylov, krylov, lanczos_chains
from landscape.linalg.operator import (
    MatrixOperator,
    SymmetricOperator,
    project_out,
    rademacher,
)
from landscape.linalg.quadrature import SpectralSum, absolute_sum, density
from landscape.linalg.trace import (
    SampleMean,
    hutch_plus_plus,
    hutchinson,
    student_quantile,
    xtrace,
)

__all__ = [
    "Chain",
    "Krylov",
    "MatrixOperator",
    "SampleMean",
    "SpectralSum",
    "SymmetricOperator",
    "absolute_sum",
    "density",
    "hutch_plus_plus",
    "hutchinson",
    "krylov",
    "lanczos_chains",
    "project_out",
    "rademacher",
    "student_quantile",
    "xtrace",
]
