"""Loss-landscape and sharpness analysis: every number with its error and its cost."""

from landscape import measures, viz
from landscape.auditing import audit
from landscape.measures import Measure
from landscape.probing import CallableObjective, Objective, ParamSpace, Probe
from landscape.results import Cost, Estimate, Result, Status, Store, Table
from landscape.version import __version__

__all__ = [
    "CallableObjective",
    "Cost",
    "Estimate",
    "Measure",
    "Objective",
    "ParamSpace",
    "Probe",
    "Result",
    "Status",
    "Store",
    "Table",
    "__version__",
    "audit",
    "measures",
    "viz",
]
