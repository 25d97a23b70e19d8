"""Products and means of the norms of the weight matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.evidence.layer_norms import LayerNorms
from landscape.measures.norms import OverMarginMeasure


@dataclass(frozen=True, kw_only=True)
class LogSpectralProduct(OverMarginMeasure):
    """log prod_i ||W_i||_2^2, with ``over_margin`` less 2 log gamma.

    gamma is the 10th percentile of the margins over the data. Not positive, it gives no value,
    where the published code takes its absolute value.

    Example:
        >>> import landscape
        >>> landscape.measures.get("log-spectral-product", over_margin=True).label
        'log-spectral-product[over_margin=True]'
    """

    name: ClassVar[str] = "log-spectral-product"
    meaning: ClassVar[str] = "Logarithm of the squared Lipschitz bound of the layers together."
    formula: ClassVar[str] = "log Π ‖Wᵢ‖₂² (/γ²)"
    source: ClassVar[str] = "Bartlett et al. 2017; Jiang et al. 2020, appendix (prod-of-spec)"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "loss", "permutation")
    logarithmic: ClassVar[bool] = True

    def shares(self, norms: LayerNorms) -> Any:
        """Logarithm of each squared norm."""
        return np.log(norms.spectral)

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:
        """Their sum."""
        return float(self.shares(norms).sum()) - 2 * log_margin


@dataclass(frozen=True, kw_only=True)
class LogFrobeniusProduct(LogSpectralProduct):
    """log prod_i ||W_i||_F^2, with ``over_margin`` less 2 log gamma.

    Example:
        >>> import landscape
        >>> landscape.measures.get("log-frobenius-product").logarithmic
        True
    """

    name: ClassVar[str] = "log-frobenius-product"
    meaning: ClassVar[str] = "Logarithm of the product of the layers' squared sizes."
    formula: ClassVar[str] = "log Π ‖Wᵢ‖_F² (/γ²)"
    source: ClassVar[str] = "Neyshabur et al. 2015; Jiang et al. 2020, appendix (prod-of-fro)"

    def shares(self, norms: LayerNorms) -> Any:
        """Logarithm of each squared norm."""
        return np.log(norms.frobenius)


@dataclass(frozen=True, kw_only=True)
class LogSpectralSum(LogSpectralProduct):
    """log(d (prod_i ||W_i||_2^2 (/ gamma^2))^(1/d)) for d weight matrices.

    The least sum of squared norms that rescaling of layers can reach.

    Example:
        >>> import landscape
        >>> landscape.measures.get("log-spectral-sum").formula
        'log d + (1/d) log Π ‖Wᵢ‖₂² (/γ²)'
    """

    name: ClassVar[str] = "log-spectral-sum"
    meaning: ClassVar[str] = "Logarithm of the least sum of squared spectral norms."
    formula: ClassVar[str] = "log d + (1/d) log Π ‖Wᵢ‖₂² (/γ²)"

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:
        """The mean logarithm and that of the depth."""
        depth = len(norms.names)
        return math.log(depth) + super().of_norms(norms, log_margin) / depth


@dataclass(frozen=True, kw_only=True)
class LogFrobeniusSum(LogFrobeniusProduct):
    """log(d (prod_i ||W_i||_F^2 (/ gamma^2))^(1/d)) for d weight matrices.

    Example:
        >>> import landscape
        >>> landscape.measures.get("log-frobenius-sum", adjusted=True).label
        'log-frobenius-sum[adjusted=True]'
    """

    name: ClassVar[str] = "log-frobenius-sum"
    meaning: ClassVar[str] = "Logarithm of the least sum of squared Frobenius norms."
    formula: ClassVar[str] = "log d + (1/d) log Π ‖Wᵢ‖_F² (/γ²)"

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:
        """The mean logarithm and that of the depth."""
        depth = len(norms.names)
        return math.log(depth) + super().of_norms(norms, log_margin) / depth
