"""Loss-landscape and sharpness analysis: every number with its error and its cost."""

from landscape import callbacks, measures, slices, viz
from landscape.auditing import audit
from landscape.correlation import Correlations, correlate
from landscape.measures import Measure
from landscape.orbits import SymmetryCheck, symmetry_check
from landscape.probing import (
    Block,
    CallableObjective,
    Entries,
    Factor,
    Objective,
    ParamSpace,
    Probe,
    WeightDecay,
)
from landscape.results import Cost, Estimate, Result, Status, Store, Table
from landscape.slices import evaluate_slice
from landscape.tasks import Opened, Settings, Task, open_task
from landscape.version import __version__

__all__ = [
    "Block",
    "CallableObjective",
    "Correlations",
    "Cost",
    "Entries",
    "Estimate",
    "Factor",
    "Measure",
    "Objective",
    "Opened",
    "ParamSpace",
    "Probe",
    "Result",
    "Settings",
    "Status",
    "Store",
    "SymmetryCheck",
    "Table",
    "Task",
    "WeightDecay",
    "__version__",
    "audit",
    "callbacks",
    "correlate",
    "evaluate_slice",
    "measures",
    "open_task",
    "slices",
    "symmetry_check",
    "viz",
]
