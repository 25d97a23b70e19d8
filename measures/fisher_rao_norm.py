"""Fisher-Rao norm of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from landscape.evidence import ExampleGradients
from landscape.measures.fisher import FisherMeasure
from landscape.measures.neighbourhood import of_values
from landscape.results import Estimate


@dataclass(frozen=True, kw_only=True)
class FisherRaoNorm(FisherMeasure):
    """||w||_FR = sqrt(w' F w) = sqrt(mean_i <g_i, w>^2), g_i the gradient of example i.

    Unchanged by every linear change of the parameters that leaves the function the same. For a
    bias-free homogeneous net of L layers it is L sqrt(mean <dl/dz, z>^2), z the outputs.

    Args:
        kind: "empirical" takes the targets of the data, "model" draws them from the model.

    Example:
        >>> import landscape
        >>> landscape.measures.get("fisher-rao-norm").invariances
        ('layer', 'neuron', 'norm', 'attention', 'permutation')
    """

    name: ClassVar[str] = "fisher-rao-norm"
    meaning: ClassVar[str] = "Length of the weights as the Fisher information measures it."
    formula: ClassVar[str] = "(wᵀ F w)^½"
    source: ClassVar[str] = "Liang et al. 2019, def. 2"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "attention", "permutation")

    def of_gradients(self, gradients: ExampleGradients) -> Estimate:
        """Root of the mean square, its error by the delta method."""
        squared = of_values(gradients.along**2, least=0.0, what="examples")
        value = math.sqrt(squared.value)
        low, high = squared.interval
        return replace(
            squared,
            value=value,
            stderr=squared.stderr / (2 * value) if value > 0 else 0.0,
            interval=(math.sqrt(max(low, 0.0)), math.sqrt(high)),
        )
