"""Presets of measures, ordered by cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.measures.base import Measure
from landscape.measures.registry import Asked, available, expand

_BASELINES = ("train-loss", "gradient-norm", "parameter-norm", "parameter-count")
_SPECTRUM = (
    "hessian-top-eigenvalue",
    "hessian-bottom-eigenvalue",
    "hessian-trace",
    "hessian-frobenius",
    "hessian-spectral-density",
    "effective-dimension",
    "renyi-sharpness",
)
_CHEAP = (
    "average-sharpness",
    "noise-stability",
    "low-pass-sharpness",
    "sam-gap",
    "critical-sharpness",
)
_WORST_CASE = ("max-sharpness", "min-sharpness", "bilateral-sharpness", "adaptive-sharpness")
_NOISE = (
    "average-sharpness",
    "adaptive-average-sharpness",
    "tilted-sharpness",
    "noise-stability",
    "low-pass-sharpness",
)
_ONE_STEP = ("sam-gap", "critical-sharpness")
_RESCALED = ("minimum-sharpness", "relative-flatness")
_GEODESIC = ("geodesic-sharpness", "geodesic-average-sharpness")
_NORMS = (
    "inverse-margin",
    "log-spectral-product",
    "log-frobenius-product",
    "frobenius-over-spectral",
    "path-norm",
)
_INITIAL = ("parameter-distance", "frobenius-distance", "spectral-distance", "spectral-initial")
_BOUNDS = ("pac-bayes-flatness", "pac-bayes-origin", "pac-bayes-initial")
_EXAMPLES = ("fisher-trace", "fisher-rao-norm", "gradient-covariance-trace")

Part = tuple[tuple[str, ...], dict[str, Any]]

#: Names with their budgets. In Hessian products: 90, 300, and 820 for the network and as many
#: (cheaper ones) for every layer's block. In perturbed losses of each noise: 20, 100, and 100 at
#: each of five radii.
PRESETS: dict[str, tuple[Part, ...]] = {
    "quick": (
        (_BASELINES, {}),
        (_SPECTRUM, {"steps": 30, "probes": 5, "probe_steps": 12}),
        (_CHEAP, {"samples": 20}),
    ),
    "standard": (
        (_BASELINES, {}),
        (_SPECTRUM, {}),
        (_RESCALED, {}),
        (_WORST_CASE, {}),
        (_NOISE, {}),
        (_ONE_STEP, {}),
        (_EXAMPLES, {}),
    ),
    "full": (
        (_BASELINES, {}),
        (_SPECTRUM, {"steps": 100, "probes": 12, "probe_steps": 60, "layers": True}),
        ((*_WORST_CASE, "keskar-sharpness"), {"scan": "around", "steps": 50}),
        (
            tuple(name for name in (*_NOISE, "local-entropy") if name != "noise-stability"),
            {"scan": "around"},
        ),
        # Also so small that the loss is quadratic.
        (("noise-stability",), {"scan": (5e-4, 1e-3, 2.5e-3, 5e-3, 0.02, 0.04)}),
        (_GEODESIC, {"scan": "around"}),
        (_RESCALED, {"layers": True}),
        (_NORMS, {}),
        (_INITIAL, {}),
        (_BOUNDS, {}),
        (("local-learning-coefficient",), {}),
        (
            ("sam-gap", "friendly-gap", "momentum-gap", "sparse-gap", "micro-batch-gap"),
            {"scan": "around"},
        ),
        (("critical-sharpness",), {}),
        (_EXAMPLES, {}),
    ),
}


# A Hessian product of a model this large takes the better part of a minute on a CPU.
_LARGE = 20_000_000
_LARGE_SPECTRUM = {"quick": {"steps": 10, "probes": 2, "probe_steps": 4}}


def resolve(
    measures: str | Sequence[Asked] | Mapping[str, Mapping[str, Any] | None], size: int = 0
) -> list[Measure]:
    """The measures of a preset, a name, or a list of names and Measures.

    Args:
        measures: "quick", "standard", "full", names separated by commas, a list of names and
            Measures, or a mapping from names to fields of theirs; lists may hold such mappings, and
            both may be a text of JSON.
        size: Parameters of the model; above 20 million "quick" spends 18 Hessian products.

    Returns:
        Configured measures.

    Raises:
        ValueError: If nothing is asked for, or a name or a field is unknown.
        TypeError: If something else is asked for.
    """
    if isinstance(measures, str) and measures.lstrip().startswith(("{", "[")):
        measures = _parsed(measures)
    if isinstance(measures, str):
        if measures in PRESETS:
            fewer = _LARGE_SPECTRUM.get(measures, {}) if size > _LARGE else {}
            return [
                measure
                for names, budget in PRESETS[measures]
                for measure in expand(names, **{**budget, **(fewer if names is _SPECTRUM else {})})
            ]
        if measures not in available():
            measures = [part.strip() for part in measures.split(",") if part.strip()]
        else:
            measures = [measures]
    if isinstance(measures, Measure):
        measures = [measures]
    if isinstance(measures, Mapping):
        if preset := next((name for name in measures if name in PRESETS), None):
            raise ValueError(
                f"the preset {preset!r} takes no settings; name its measures with theirs, such as "
                '{"max-sharpness": {"rho": 0.5}}'
            )
        measures = [measures]
    found = expand(measures)
    if not found:
        raise ValueError(
            f"no measure asked for; give a preset ({', '.join(PRESETS)}) or names from "
            "landscape.measures.available()"
        )
    return found


def _parsed(text: str) -> Any:
    """A mapping or a list that was given as text, as the command line does."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(
            "measures with settings are given as JSON, such as "
            f'{{"max-sharpness": {{"rho": 0.5}}}}; got {text!r} ({error})'
        ) from error
