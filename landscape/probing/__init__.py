"""The probe and what it is made of: objective, batches, parameter space, products."""

from landscape.probing.objective import (
    BinaryCrossEntropy,
    CallableObjective,
    CrossEntropy,
    MeanSquaredError,
    Objective,
    Supervised,
    Terms,
    as_objective,
)
from landscape.probing.operator import CurvatureOperator
from landscape.probing.probe import Probe
from landscape.probing.products import Operator, Products
from landscape.probing.requests import Evidence
from landscape.probing.snapshot import BatchNormMode
from landscape.probing.space import ParamSpace

__all__ = [
    "BatchNormMode",
    "BinaryCrossEntropy",
    "CallableObjective",
    "CrossEntropy",
    "CurvatureOperator",
    "Evidence",
    "MeanSquaredError",
    "Objective",
    "Operator",
    "ParamSpace",
    "Probe",
    "Products",
    "Supervised",
    "Terms",
    "as_objective",
]
