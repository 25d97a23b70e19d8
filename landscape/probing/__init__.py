"""The probe and what it is made of: objective, batches, parameter space, products."""

from landscape.probing.blocks import Block, Factor
from landscape.probing.callable_objective import CallableObjective
from landscape.probing.entries import Entries
from landscape.probing.graphs import Operator
from landscape.probing.named_objectives import OBJECTIVES, as_objective
from landscape.probing.normalised_logits import NormalisedLogits
from landscape.probing.objective import NotApplicableError, Objective, Terms
from landscape.probing.operator import CurvatureOperator
from landscape.probing.parts import NoTermsError, Parts, Products
from landscape.probing.probe import Probe
from landscape.probing.requests import Evidence
from landscape.probing.scratch import Metric, PointStatistics, Scratch
from landscape.probing.snapshot import BatchNormMode
from landscape.probing.space import ParamSpace
from landscape.probing.supervised import (
    BinaryCrossEntropy,
    CrossEntropy,
    MeanSquaredError,
    Supervised,
)
from landscape.probing.token_objectives import CausalLM, MaskedLM, Seq2Seq, TokenObjective
from landscape.probing.unwrapping import copy_module
from landscape.probing.weight_decay import WeightDecay

__all__ = [
    "OBJECTIVES",
    "BatchNormMode",
    "BinaryCrossEntropy",
    "Block",
    "CallableObjective",
    "CausalLM",
    "CrossEntropy",
    "CurvatureOperator",
    "Entries",
    "Evidence",
    "Factor",
    "MaskedLM",
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
    "Seq2Seq",
    "Supervised",
    "Terms",
    "TokenObjective",
    "WeightDecay",
    "as_objective",
    "copy_module",
]
