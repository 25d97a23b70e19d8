"""Loss-landscape and sharpness analysis: every number with its error and its cost."""

from landscape import measures, viz
from landscape.auditing import audit
from landscape.measures import Measure
from landscape.orbits import SymmetryCheck, symmetry_check
from landscape.probing import Block, CallableObjective, Factor, Objective, ParamSpace, Probe
from landscape.results import Cost, Estimate, Result, Status, Store, Table
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
    "measures",
    "symmetry_check",
    "viz",
]
