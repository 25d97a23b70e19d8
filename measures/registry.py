"""Names of measures: the built-in ones, and third parties' by entry point."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import metadata
from typing import Any, TypeAlias

from landscape.measures.adaptive_average_sharpness import AdaptiveAverageSharpness
from landscape.measures.adaptive_sharpness import AdaptiveSharpness
from landscape.measures.average_sharpness import AverageSharpness
from landscape.measures.base import Measure
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
from landscape.measures.relative_flatness import RelativeFlatness
from landscape.measures.renyi_sharpness import RenyiSharpness
from landscape.measures.sam_gap import SamGap
from landscape.measures.sparse_gap import SparseGap
from landscape.measures.tilted_sharpness import TiltedSharpness

#: Entry-point group in which other distributions register measures.
ENTRY_POINTS = "landscape.measures"

_BUILT_IN: tuple[type[Measure], ...] = (
    TrainLoss,
    GradientNorm,
    ParameterNorm,
    ParameterCount,
    HessianTopEigenvalue,
    HessianBottomEigenvalue,
    HessianTrace,
    HessianFrobenius,
    HessianSpectralDensity,
    EffectiveDimension,
    RenyiSharpness,
    MaxSharpness,
    MinSharpness,
    BilateralSharpness,
    AdaptiveSharpness,
    GeodesicSharpness,
    KeskarSharpness,
    MinimumSharpness,
    RelativeFlatness,
    AverageSharpness,
    AdaptiveAverageSharpness,
    GeodesicAverageSharpness,
    TiltedSharpness,
    NoiseStability,
    LowPassSharpness,
    LocalEntropy,
    LocalLearningCoefficient,
    PacBayesFlatness,
    SamGap,
    FriendlyGap,
    MomentumGap,
    SparseGap,
    MicroBatchGap,
    CriticalSharpness,
    FisherTrace,
    FisherRaoNorm,
    GradientCovarianceTrace,
    InverseMargin,
    LogSpectralProduct,
    LogSpectralSum,
    LogFrobeniusProduct,
    LogFrobeniusSum,
    FrobeniusOverSpectral,
    SpectralOrigin,
    SpectralInitial,
    PathNorm,
    ParameterDistance,
    FrobeniusDistance,
    SpectralDistance,
    PacBayesOrigin,
    PacBayesInitial,
)


class UnknownMeasureError(ValueError):
    """A name that no measure has."""


def available() -> dict[str, type[Measure]]:
    """All measures by name, built-in ones first.

    Returns:
        Name to class; ``cost_class``, ``meaning`` and ``invariances`` are class attributes.

    Raises:
        TypeError: If an entry point does not give a Measure class.
        ValueError: If two measures have one name.
    """
    found: dict[str, type[Measure]] = {measure.name: measure for measure in _BUILT_IN}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        measure = entry.load()
        if not (isinstance(measure, type) and issubclass(measure, Measure)):
            raise TypeError(
                f"entry point {entry.value!r} in group {ENTRY_POINTS!r} must name a subclass of "
                f"landscape.measures.Measure, got {measure!r}"
            )
        if found.get(measure.name, measure) is not measure:
            raise ValueError(
                f"two measures are named {measure.name!r}: {found[measure.name]} and {measure}"
            )
        found[measure.name] = measure
    return found


def get(name: str, **config: Any) -> Measure:
    """A measure by name with some of its fields set.

    Args:
        name: Such as "hessian-trace".
        **config: Fields of the measure.

    Returns:
        The configured measure.

    Raises:
        UnknownMeasureError: If no measure has the name; the closest names are told.
        ValueError: If a field does not exist or has a wrong value.

    Example:
        >>> import landscape
        >>> landscape.measures.get("renyi-sharpness", alpha=2.0).label
        'renyi-sharpness[alpha=2]'
    """
    return _configured(_named(name, available()), config)


def _named(name: str, measures: Mapping[str, type[Measure]]) -> type[Measure]:
    if name not in measures:
        close = difflib.get_close_matches(name, measures, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UnknownMeasureError(
            f"unknown measure {name!r}{hint} All names: {', '.join(measures)}"
            if close
            else f"unknown measure {name!r}; all names: {', '.join(measures)}"
        )
    return measures[name]


def _configured(measure: type[Measure], config: Mapping[str, Any]) -> Measure:
    known = [entry.name for entry in fields(measure) if entry.init]
    wrong = [key for key in config if key not in known]
    if wrong:
        raise ValueError(
            f"{measure.name} has no field {', '.join(wrong)}; its fields are {known or 'none'}"
        )
    return measure(**config)


#: What measures are asked for by: names, Measures, and mappings from names to their fields.
Asked: TypeAlias = str | Measure | Mapping[str, Mapping[str, Any] | None]


def expand(names: Iterable[Asked], **budget: Any) -> list[Measure]:
    """Measures from names and instances; a name stands for all its variants.

    Args:
        names: Names, Measures, or mappings from names to fields of theirs, such as
            ``{"max-sharpness": {"rho": 0.5}}``.
        **budget: Fields set on every named measure that has them.

    Returns:
        The measures in order.

    Raises:
        UnknownMeasureError: If a name is unknown.
        TypeError: If an entry is none of these.
        ValueError: If two entries have the same label, or a field does not exist.
    """
    found: list[Measure] = []
    measures = available()
    for name in names:
        if isinstance(name, Measure):
            found.append(name)
        elif isinstance(name, str):
            kind = _named(name, measures)
            own = {entry.name for entry in fields(kind)}
            settings = {key: value for key, value in budget.items() if key in own}
            found.extend(_configured(kind, {**variant, **settings}) for variant in kind.variants)
        elif isinstance(name, Mapping):
            for own_name, given in name.items():
                found.extend(_variants(own_name, given, measures, budget))
        else:
            raise TypeError(
                f"measures must be names or Measures, got {type(name).__name__}; for example "
                'measures=["hessian-trace"]'
            )
    labels = [measure.label for measure in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} asked for more than once; give each measure once")
    return found


def _variants(
    name: Any, given: Any, measures: Mapping[str, type[Measure]], budget: Mapping[str, Any]
) -> list[Measure]:
    """The variants of a measure with some fields set; those that become equal are one."""
    if not isinstance(name, str) or not isinstance(given, Mapping | None):
        raise TypeError(
            "settings of measures must be fields by name, such as "
            f'{{"max-sharpness": {{"rho": 0.5}}}}; got {name!r}: {given!r}'
        )
    kind = _named(name, measures)
    known = {entry.name for entry in fields(kind)}
    settings = {key: value for key, value in budget.items() if key in known} | dict(given or {})
    made = [_configured(kind, {**variant, **settings}) for variant in kind.variants]
    return list({measure.label: measure for measure in made}.values())
