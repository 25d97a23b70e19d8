"""Frobenius norms in units of the spectral norm, and the spectral bounds made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.evidence.layer_norms import LayerNorms
from landscape.measures.norms import LayerNormMeasure, UndefinedError


@dataclass(frozen=True, kw_only=True)
class FrobeniusOverSpectral(LayerNormMeasure):
    """sum_i ||W_i||_F^2 / ||W_i||_2^2, the sum of the stable ranks of the weight matrices.

    Example:
        >>> import landscape
        >>> landscape.measures.get("frobenius-over-spectral").formula
        'Σ ‖Wᵢ‖_F² / ‖Wᵢ‖₂²'
    """

    name: ClassVar[str] = "frobenius-over-spectral"
    meaning: ClassVar[str] = "Sum of the stable ranks of the weight matrices."
    formula: ClassVar[str] = "Σ ‖Wᵢ‖_F² / ‖Wᵢ‖₂²"
    source: ClassVar[str] = "Neyshabur et al. 2018; Jiang et al. 2020, appendix (prod-of-spec)"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "norm", "loss", "permutation")

    def shares(self, norms: LayerNorms) -> Any:
        """The stable rank of each matrix."""
        return norms.frobenius / norms.spectral

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:  # noqa: ARG002
        """Their sum."""
        return float(self.shares(norms).sum())


@dataclass(frozen=True, kw_only=True)
class SpectralOrigin(LayerNormMeasure):
    """log(prod_i ||W_i||_2^2 sum_i ||W_i||_F^2 / ||W_i||_2^2 / gamma^2).

    gamma is the 10th percentile of the margins over the data; it must be positive.

    Example:
        >>> import landscape
        >>> landscape.measures.get("spectral-origin").invariances
        ('layer', 'loss', 'permutation')
    """

    name: ClassVar[str] = "spectral-origin"
    meaning: ClassVar[str] = "Main term of the spectral margin bound around zero, as a logarithm."
    formula: ClassVar[str] = "log (Π ‖Wᵢ‖₂² Σ ‖Wᵢ‖_F²/‖Wᵢ‖₂² / γ²)"
    source: ClassVar[str] = "Jiang et al. 2020, appendix (spec-orig-main)"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "loss", "permutation")
    logarithmic: ClassVar[bool] = True
    with_margin: ClassVar[bool] = True

    def shares(self, norms: LayerNorms) -> Any:
        """The stable rank of each matrix."""
        return norms.frobenius / norms.spectral

    def of_norms(self, norms: LayerNorms, log_margin: float) -> float:
        """Product and sum over the margin."""
        total = float(self.shares(norms).sum())
        if total == 0:
            raise UndefinedError("the weights are the initial ones")
        return float(np.log(norms.spectral).sum()) + math.log(total) - 2 * log_margin


@dataclass(frozen=True, kw_only=True)
class SpectralInitial(SpectralOrigin):
    """log(prod_i ||W_i||_2^2 sum_i ||W_i - W0_i||_F^2 / ||W_i||_2^2 / gamma^2).

    gamma is the 10th percentile of the margins over the data; it must be positive. Batch norms
    are folded into the initial weights with mean 0 and variance 1, as they are in a new model.
    Unchanged by rescaling of layers only if the initial weights are rescaled with the others.

    Example:
        >>> import landscape
        >>> landscape.measures.get("spectral-initial", fold=False).label
        'spectral-initial[fold=False]'
    """

    name: ClassVar[str] = "spectral-initial"
    meaning: ClassVar[str] = "Main term of the spectral margin bound around the initial weights."
    formula: ClassVar[str] = "log (Π ‖Wᵢ‖₂² Σ ‖Wᵢ−W⁰ᵢ‖_F²/‖Wᵢ‖₂² / γ²)"
    source: ClassVar[str] = "Bartlett et al. 2017; Jiang et al. 2020, appendix (spec-init-main)"
    with_initial: ClassVar[bool] = True

    def shares(self, norms: LayerNorms) -> Any:
        """The squared distance of each matrix in units of its squared norm."""
        return norms.frobenius_distance / norms.spectral
