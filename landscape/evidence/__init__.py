"""What several measures share, computed once on a probe."""

from landscape.evidence.ascent import Ascent, AscentRequest
from landscape.evidence.example_gradients import ExampleGradients, ExampleGradientsRequest
from landscape.evidence.ggn_diagonal import GgnDiagonal, GgnDiagonalRequest
from landscape.evidence.lanczos_runs import compute_spectrum
from landscape.evidence.langevin import LangevinDraws, LangevinRequest
from landscape.evidence.noise import NoiseLosses, NoiseRequest
from landscape.evidence.parts import BaseParts, PartsRequest
from landscape.evidence.planning import planned
from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.evidence.stepping import (
    AgainstFullGradient,
    AgainstMomentum,
    AlongGradient,
    OnFisherMask,
    Rule,
    StepRequest,
    Steps,
)
from landscape.evidence.trace import TraceRequest

__all__ = [
    "AgainstFullGradient",
    "AgainstMomentum",
    "AlongGradient",
    "Ascent",
    "AscentRequest",
    "BaseParts",
    "ExampleGradients",
    "ExampleGradientsRequest",
    "GgnDiagonal",
    "GgnDiagonalRequest",
    "LangevinDraws",
    "LangevinRequest",
    "NoiseLosses",
    "NoiseRequest",
    "OnFisherMask",
    "PartsRequest",
    "Rule",
    "Spectrum",
    "SpectrumRequest",
    "StepRequest",
    "Steps",
    "TraceRequest",
    "compute_spectrum",
    "planned",
]
