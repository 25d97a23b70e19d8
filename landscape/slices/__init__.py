"""Slices of the landscape: directions, evaluation, refinement, paths, topology."""

from landscape.slices.alignment import Alignment, align, permutable
from landscape.slices.bezier import Bezier, bezier
from landscape.slices.directions import (
    Direction,
    between,
    cosine,
    eigenvectors,
    gradient,
    momentum,
    orthogonalised,
    random,
)
from landscape.slices.evaluation import evaluate_slice, with_trajectory
from landscape.slices.paths import Barrier, barrier, interpolate
from landscape.slices.refinement import Refined, refine
from landscape.slices.rows import SliceMismatchError
from landscape.slices.topology import (
    Topology,
    anisotropy,
    basin,
    convexity,
    persistence,
    topology,
)
from landscape.slices.trajectory import Trajectory, plane, principal_directions, projected

__all__ = [
    "Alignment",
    "Barrier",
    "Bezier",
    "Direction",
    "Refined",
    "SliceMismatchError",
    "Topology",
    "Trajectory",
    "align",
    "anisotropy",
    "barrier",
    "basin",
    "between",
    "bezier",
    "convexity",
    "cosine",
    "eigenvectors",
    "evaluate_slice",
    "gradient",
    "interpolate",
    "momentum",
    "orthogonalised",
    "permutable",
    "persistence",
    "plane",
    "principal_directions",
    "projected",
    "random",
    "refine",
    "topology",
    "with_trajectory",
]
