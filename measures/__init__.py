"""Measures: small functions of the evidence that a probe gives, one per file."""

from landscape.measures.base import TRANSFORMATIONS, DeclinedError, Measure, evidence_key
from landscape.measures.baselines import GradientNorm, ParameterNorm, TrainLoss
from landscape.measures.effective_dimension import EffectiveDimension
from landscape.measures.hessian_eigenvalues import HessianBottomEigenvalue, HessianTopEigenvalue
from landscape.measures.hessian_frobenius import HessianFrobenius
from landscape.measures.hessian_spectral_density import HessianSpectralDensity
from landscape.measures.hessian_trace import HessianTrace
from landscape.measures.presets import PRESETS, resolve
from landscape.measures.registry import UnknownMeasureError, available, get
from landscape.measures.renyi_sharpness import RenyiSharpness
from landscape.measures.spectral import SpectralMeasure

__all__ = [
    "PRESETS",
    "TRANSFORMATIONS",
    "DeclinedError",
    "EffectiveDimension",
    "GradientNorm",
    "HessianBottomEigenvalue",
    "HessianFrobenius",
    "HessianSpectralDensity",
    "HessianTopEigenvalue",
    "HessianTrace",
    "Measure",
    "ParameterNorm",
    "RenyiSharpness",
    "SpectralMeasure",
    "TrainLoss",
    "UnknownMeasureError",
    "available",
    "evidence_key",
    "get",
    "resolve",
]
