"""The probe and what it is made of: objective, batches, parameter space, products."""

from landscape.probing.blocks import Block, Factor
from landscape.probing.normalised_logits import NormalisedLogits
from landscape.probing.objective import (
    BinaryCrossEntropy,
    CallableObjective,
    CrossEntropy,
    MeanSquaredError,
    NotApplicableError,
    Objective,
    Supervised,
    Terms,
    as_objective,
)
from landscape.probing.operator import CurvatureOperator
from landscape.probing.parts import NoTermsError, Parts, Products
from landscape.probing.probe import Probe
from landscape.probing.products import Operator
from landscape.probing.requests import Evidence
from landscape.probing.scratch import Metric, PointStatistics, Scratch
from landscape.probing.snapshot import BatchNormMode
from landscape.probing.space import ParamSpace

__all__ = [
    "BatchNormMode",
    "BinaryCrossEntropy",
    "Block",
    "CallableObjective",
    "CrossEntropy",
    "CurvatureOperator",
    "Evidence",
    "Factor",
    "MeanSquaredError",
    "Metric",
    "NoTermsError",
    "NormalisedLogits",
    "NotApplicableError",
    "Objective",
    "Operator",
    "ParamSpace",
    "Parts",
    "PointStatistics",
    "Probe",
    "Products",
    "Scratch",
    "Supervised",
    "Terms",
    "as_objective",
]
