"""Measures: small functions of the evidence that a probe gives, one per file."""

from landscape.geometry import TRANSFORMATIONS
from landscape.measures.adaptive_average_sharpness import AdaptiveAverageSharpness
from landscape.measures.adaptive_sharpness import AdaptiveSharpness
from landscape.measures.average_sharpness import AverageSharpness
from landscape.measures.base import DeclinedError, Measure, evidence_key
from landscape.measures.baselines import GradientNorm, ParameterNorm, TrainLoss
from landscape.measures.bilateral_sharpness import BilateralSharpness
from landscape.measures.critical_sharpness import CriticalSharpness
from landscape.measures.effective_dimension import EffectiveDimension
from landscape.measures.fisher_rao_norm import FisherRaoNorm
from landscape.measures.fisher_trace import FisherTrace
from landscape.measures.friendly_gap import FriendlyGap
from landscape.measures.geodesic_average_sharpness import GeodesicAverageSharpness
from landscape.measures.geodesic_sharpness import GeodesicSharpness
from landscape.measures.gradient_covariance_trace import GradientCovarianceTrace
from landscape.measures.hessian_eigenvalues import HessianBottomEigenvalue, HessianTopEigenvalue
from landscape.measures.hessian_frobenius import HessianFrobenius
from landscape.measures.hessian_spectral_density import HessianSpectralDensity
from landscape.measures.hessian_trace import HessianTrace
from landscape.measures.inverse_margin import InverseMargin
from landscape.measures.keskar_sharpness import KeskarSharpness
from landscape.measures.local_entropy import LocalEntropy
from landscape.measures.local_learning_coefficient import LocalLearningCoefficient
from landscape.measures.low_pass_sharpness import LowPassSharpness
from landscape.measures.max_sharpness import MaxSharpness
from landscape.measures.micro_batch_gap import MicroBatchGap
from landscape.measures.min_sharpness import MinSharpness
from landscape.measures.minimum_sharpness import MinimumSharpness
from landscape.measures.momentum_gap import MomentumGap
from landscape.measures.noise_stability import NoiseStability
from landscape.measures.norm_distances import FrobeniusDistance, ParameterDistance, SpectralDistance
from landscape.measures.norm_products import (
    LogFrobeniusProduct,
    LogFrobeniusSum,
    LogSpectralProduct,
    LogSpectralSum,
)
from landscape.measures.norm_ratios import FrobeniusOverSpectral, SpectralInitial, SpectralOrigin
from landscape.measures.pac_bayes_bound import PacBayesInitial, PacBayesOrigin
from landscape.measures.pac_bayes_flatness import PacBayesFlatness
from landscape.measures.parameter_count import ParameterCount
from landscape.measures.path_norm import PathNorm
from landscape.measures.presets import PRESETS, resolve
from landscape.measures.registry import Asked, UnknownMeasureError, available, get
from landscape.measures.relative_flatness import RelativeFlatness
from landscape.measures.renyi_sharpness import RenyiSharpness
from landscape.measures.sam_gap import SamGap
from landscape.measures.sparse_gap import SparseGap
from landscape.measures.spectral import SpectralMeasure
from landscape.measures.tilted_sharpness import TiltedSharpness

__all__ = [
    "PRESETS",
    "TRANSFORMATIONS",
    "AdaptiveAverageSharpness",
    "AdaptiveSharpness",
    "Asked",
    "AverageSharpness",
    "BilateralSharpness",
    "CriticalSharpness",
    "DeclinedError",
    "EffectiveDimension",
    "FisherRaoNorm",
    "FisherTrace",
    "FriendlyGap",
    "FrobeniusDistance",
    "FrobeniusOverSpectral",
    "GeodesicAverageSharpness",
    "GeodesicSharpness",
    "GradientCovarianceTrace",
    "GradientNorm",
    "HessianBottomEigenvalue",
    "HessianFrobenius",
    "HessianSpectralDensity",
    "HessianTopEigenvalue",
    "HessianTrace",
    "InverseMargin",
    "KeskarSharpness",
    "LocalEntropy",
    "LocalLearningCoefficient",
    "LogFrobeniusProduct",
    "LogFrobeniusSum",
    "LogSpectralProduct",
    "LogSpectralSum",
    "LowPassSharpness",
    "MaxSharpness",
    "Measure",
    "MicroBatchGap",
    "MinSharpness",
    "MinimumSharpness",
    "MomentumGap",
    "NoiseStability",
    "PacBayesFlatness",
    "PacBayesInitial",
    "PacBayesOrigin",
    "ParameterCount",
    "ParameterDistance",
    "ParameterNorm",
    "PathNorm",
    "RelativeFlatness",
    "RenyiSharpness",
    "SamGap",
    "SparseGap",
    "SpectralDistance",
    "SpectralInitial",
    "SpectralMeasure",
    "SpectralOrigin",
    "TiltedSharpness",
    "TrainLoss",
    "UnknownMeasureError",
    "available",
    "evidence_key",
    "get",
    "resolve",
]
