"""Rényi sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from landscape.evidence import Spectrum
from landscape.linalg import SpectralSum, sample_deviations, standard_error, student_quantile
from landscape.measures.base import CostClass
from landscape.measures.spectral import SpectralMeasure, with_rounding
from landscape.results import Estimate, Status

# An interval wider than this many nats says little about an entropy.
_WIDE = 1.0


@dataclass(frozen=True, kw_only=True)
class RenyiSharpness(SpectralMeasure):
    """Negative Rényi entropy of the normalised absolute spectrum.

    -H_alpha = 1 / (alpha - 1) * log( sum_i |lambda_i|^alpha / (sum_i |lambda_i|)^alpha ), in nats,
    between -log P (flat: all eigenvalues equal) and 0 (sharp: one eigenvalue carries all). The
    limits alpha = 1 (Shannon) and infinity (log of the largest share) are included. It does not
    see the magnitude of the curvature: H and c H have the same value.

    The interval combines the sampling error over probes with the quadrature error of |lambda|^alpha
    at zero (``diagnostics``); for alpha = 2 the numerator needs no quadrature.

    Notes:
        1. The published code takes tr H with signs in the denominator, which diverges for alpha
           near 1 as soon as one eigenvalue is negative; here both sums have |lambda|.
        2. Its fixed 15 Lanczos steps leave a bias of up to a nat at alpha = 0.5, which no spread
           over probes shows.

    Args:
        alpha: Order, positive; fix it before looking at the generalisation gap.
        normalized: Divide by log P, so that sizes can be compared; the range is then [-1, 0].
    """

    name: ClassVar[str] = "renyi-sharpness"
    meaning: ClassVar[str] = "How much the curvature concentrates on few directions (0 = on one)."
    formula: ClassVar[str] = "−H_α = 1/(α−1) · log( Σ|λᵢ|^α / (Σ|λᵢ|)^α )"
    source: ClassVar[str] = "Zhang et al., Rényi Sharpness, arXiv 2510.07758"
    cost_class: ClassVar[CostClass] = "medium"
    invariances: ClassVar[tuple[str, ...]] = ("loss", "permutation")
    logarithmic: ClassVar[bool] = True
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"alpha": 0.5},
        {"alpha": 1.5},
        {"alpha": 2.0},
    )

    alpha: float = 0.5
    normalized: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")

    def of_spectrum(self, spectrum: Spectrum) -> Estimate:
        """-H_alpha by the ratio of two spectral sums read from the same probes."""
        total = spectrum.absolute_sum(lambda values: values)
        if not total.value > 0:
            return Estimate.without_value(
                Status.UNDEFINED, "the spectrum is zero, so its normalised form does not exist"
            )
        entropy, errors = self._entropy(spectrum, total)
        most = math.log(spectrum.size)
        entropy = min(max(entropy, 0.0), most)
        unit = most if self.normalized and most else 1.0
        sampling, degrees = errors.sampling(spectrum)
        half = math.hypot(sampling * student_quantile(degrees), errors.quadrature)
        half += errors.rounding
        low, high = max(-entropy - half, -most), min(-entropy + half, 0.0)
        estimate = Estimate(
            value=-entropy / unit,
            stderr=sampling / unit,
            interval=(low / unit, high / unit),
            status=Status.UNCERTAIN if high - low > _WIDE else Status.OK,
            diagnostics={
                "quadrature_error": errors.quadrature / unit,
                "rounding_error": errors.rounding / unit,
                "entropy": entropy,
            },
        )
        # An entropy is a logarithm: two digits are of the sums behind it.
        return with_rounding(estimate, errors.rounding, 1.0)

    def _entropy(self, spectrum: Spectrum, total: SpectralSum) -> tuple[float, _Errors]:
        """H_alpha and its first-order errors."""
        alpha, b = self.alpha, total.value
        share, share_error = total.samples / b, total.quadrature_error / b
        share_moved = total.rounding_error / b
        if math.isinf(alpha):
            largest = float(np.abs(spectrum.values).max())
            own = max(spectrum.rounding.largest, spectrum.rounding.smallest) * spectrum.unit
            return math.log(b / largest), _Errors(
                samples=share,
                function=lambda values: values / b,
                quadrature=share_error,
                rounding=share_moved + own / largest,
            )
        if alpha == 1:
            plogp = spectrum.absolute_sum(lambda values: _x_log_x(values / b))
            entropy = -plogp.value
            return entropy, _Errors(
                samples=(1 - entropy) * share - plogp.samples,
                function=lambda values: (1 - entropy) * values / b - _x_log_x(values / b),
                quadrature=math.hypot((1 - entropy) * share_error, plogp.quadrature_error),
                rounding=abs(1 - entropy) * share_moved + plogp.rounding_error,
            )
        # In units of b, so that no power over- or underflows: the ratio is free of scale.
        power = spectrum.absolute_sum(lambda values: (values / b) ** alpha)
        a, da, qa = power.value, power.samples, power.quadrature_error
        factor = 1 / (1 - alpha)
        # Near alpha = 1 the errors of both sums are nearly one and cancel: that of the sum of
        # p^alpha - p, p = |lambda| / b, is then the smaller of two valid ones.
        excess = spectrum.absolute_sum(lambda values: (values / b) ** alpha - values / b)
        quadrature = min(
            math.hypot(qa / a, alpha * share_error),
            math.hypot(excess.quadrature_error / a, (1 / a - alpha) * share_error),
        )
        rounding = min(
            power.rounding_error / a + alpha * share_moved,
            excess.rounding_error / a + abs(1 / a - alpha) * share_moved,
        )
        return (
            factor * math.log(a) if a > 0 else math.log(b / float(np.abs(spectrum.values).max())),
            _Errors(
                samples=factor * (da / a - alpha * share),
                function=lambda values: factor * ((values / b) ** alpha / a - alpha * values / b),
                quadrature=abs(factor) * quadrature,
                rounding=abs(factor) * rounding,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class _Errors:
    """Errors to first order.

    Args:
        samples: Deviation that each probe adds to the entropy.
        function: What every eigenvalue adds to it, of |lambda|.
        quadrature: Half-width of the quadrature error.
        rounding: Half-width of what rounding may have moved.
    """

    samples: NDArray[np.float64]
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    quadrature: float
    rounding: float

    def sampling(self, spectrum: Spectrum) -> tuple[float, float]:
        """Standard error and its degrees of freedom."""
        if len(self.samples) < 2:
            return 0.0, 1.0
        return standard_error(self.samples, sample_deviations(spectrum.chains, self.function))


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    product: NDArray[np.float64] = values * np.log(np.where(values > 0, values, 1.0))
    return product
