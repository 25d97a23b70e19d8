"""Loss-landscape and sharpness analysis: every number with its error and its cost."""

from landscape import measures, slices, viz
from landscape.auditing import audit
from landscape.measures import Measure
from landscape.orbits import SymmetryCheck, symmetry_check
from landscape.probing import Block, CallableObjective, Factor, Objective, ParamSpace, Probe
from landscape.results import Cost, Estimate, Result, Status, Store, Table
from landscape.slices import evaluate_slice
from landscape.version import __version__

__all__ = [
    "Block",
    "CallableObjective",
    "Cost",
    "Estimate",
    "Factor",
    "Measure",
    "Objective",
    "ParamSpace",
    "Probe",
    "Result",
    "Status",
    "Store",
    "SymmetryCheck",
    "Table",
    "__version__",
    "audit",
    "evaluate_slice",
    "measures",
    "slices",
    "symmetry_check",
    "viz",
]
