"""Algorithms on symmetric operators; they know no model."""

from landscape.linalg.density import Density, density
from landscape.linalg.lanczos import Chain, Krylov, krylov, lanczos_chains
from landscape.linalg.operator import (
    MatrixOperator,
    SymmetricOperator,
    project_out,
    rademacher,
)
from landscape.linalg.quadrature import (
    SpectralSum,
    absolute_sum,
    sample_deviations,
)
from landscape.linalg.scaling import Rescaled
from landscape.linalg.trace import (
    SampleMean,
    hutch_plus_plus,
    hutchinson,
    standard_error,
    student_quantile,
    xtrace,
)

__all__ = [
    "Chain",
    "Density",
    "Krylov",
    "MatrixOperator",
    "Rescaled",
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
    "sample_deviations",
    "standard_error",
    "student_quantile",
    "xtrace",
]
