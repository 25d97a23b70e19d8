"""Path norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from landscape.evidence.path_norm import PathNormRequest
from landscape.measures.base import DeclinedError, Requests
from landscape.measures.norms import NormMeasure, UndefinedError, margins_request, positive_margin
from landscape.probing import Probe


@dataclass(frozen=True, kw_only=True)
class PathNorm(NormMeasure):
    """sum over paths of prod of squared weights = f_{w^2}(1), with ``over_margin`` / gamma^2.

    The outputs, summed, of the net with squared parameters on inputs of ones, after batch norms
    are folded into the layers before them; paths start at the inputs and at the biases. gamma is
    the 10th percentile of the margins over the data; it must be positive.

    Notes:
        1. All parameters of the model count, whichever are probed.
        2. Where the net with squared weights is not positively homogeneous (layer norm,
           attention, GELU, tanh, a batch norm that cannot be folded) its outputs are no sum over
           paths, and there is no value. The published code computes a number there too.
        3. With max pooling only the largest partial sum of a window counts.

    Args:
        over_margin: Divide by the squared margin.

    Example:
        >>> import landscape
        >>> landscape.measures.get("path-norm").label
        'path-norm'
    """

    name: ClassVar[str] = "path-norm"
    meaning: ClassVar[str] = "Squared weights multiplied along every path and added up."
    formula: ClassVar[str] = "Σ_paths Π wₑ² (/γ²)"
    source: ClassVar[str] = "Neyshabur et al. 2015; Jiang et al. 2020, appendix (path-norm)"
    invariances: ClassVar[tuple[str, ...]] = ("layer", "neuron", "norm", "loss", "permutation")
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"over_margin": False},
        {"over_margin": True},
    )

    over_margin: bool = False

    def requests(self, probe: Probe, seed: int) -> Requests:  # noqa: ARG002
        """The sum over paths, and margins where they are in the formula."""
        found: list[Any] = [(probe, PathNormRequest())]
        if self.over_margin:
            found.append((probe, margins_request(probe)))
        return found

    def value(self, probe: Probe) -> tuple[float, dict[str, Any]]:
        """The sum, over the squared margin if asked for; declines where there is none."""
        found = probe.evidence(PathNormRequest())
        if found.reason:
            raise DeclinedError(f"the model has no path norm: {found.reason}")
        if not math.isfinite(found.value):
            raise UndefinedError(f"the sum over paths overflows {probe.dtype}; use torch.float64")
        diagnostics: dict[str, Any] = {"folded": found.folding.pairs}
        value = found.value
        if self.over_margin:
            diagnostics["margin"] = positive_margin(probe)
            value /= diagnostics["margin"] ** 2
        return value, diagnostics
