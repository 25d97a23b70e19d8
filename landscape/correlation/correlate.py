"""Rank correlation of measures with a target over a population of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscape.correlation.along_axes import granulated_frames, sign_error_frames
from landscape.correlation.averages import Averages, averages
from landscape.correlation.bootstrap import (
    resampled_spearman,
    resampled_where_defined,
    resamples,
    spearman,
    spearman_interval,
    tau_interval,
)
from landscape.correlation.cleaning import Population, clean
from landscape.correlation.columns import GIVEN
from landscape.correlation.comparison import Samples, between, differences
from landscape.correlation.controls import controls
from landscape.correlation.correlations import Correlations
from landscape.correlation.kendall import Array, Weights, complete, tau_a, tau_b
from landscape.correlation.methods_text import methods_text
from landscape.correlation.mutual_information import Conditions, cmi_score
from landscape.correlation.noting import bounded, measure_note, population_notes
from landscape.correlation.options import Options
from landscape.correlation.partial import partial_columns
from landscape.correlation.permutation import benjamini_hochberg, holm, needed, p_value
from landscape.correlation.resampled_kendall import resampled_tau_b

COUNTS = ("control", "models", "configurations", "missing")
RANKS = (
    *("tau", "tau_low", "tau_high", "tau_a", "spearman", "spearman_low", "spearman_high"),
    *("p", "p_holm", "p_bh"),
)
ALONG_AXES = (
    *("psi", "psi_low", "psi_high", "cmi", "cmi_given"),
    *("sign_error_mean", "sign_error_p90", "sign_error_max", "environments"),
)


def correlate(
    frame: pd.DataFrame,
    target: str = "gap_accuracy",
    hyperparameters: Sequence[str] | None = None,
    *,
    measures: Sequence[str] | None = None,
    given: Sequence[str] = GIVEN,
    seeds: str | None = None,
    compare: Sequence[str] | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Correlations:
    """Says how measures rank the models of a population, against how a target ranks them.

    Models that differ in the seed alone are one configuration and are averaged first; intervals
    and p-values count configurations. Per measure: Kendall's tau-b and tau-a, Spearman's rho,
    granulated tau Psi, the conditional mutual information score, robust sign-errors over
    environments, and partial tau given other columns. Signs are kept and nothing is judged.

    Sources: Kendall, "A new measure of rank correlation", Biometrika 1938; "The treatment of ties
    in ranking problems", Biometrika 1945; Jiang et al., "Fantastic generalization measures and
    where to find them", ICLR 2020; Dziugaite et al., "In search of robust measures of
    generalization", NeurIPS 2020.

    Args:
        frame: One row a model, from a sweep or any other table. It is not changed.
        target: Column to correlate with.
        hyperparameters: Columns that make a configuration; None takes ``hp.*`` but the seed.
        measures: Columns to correlate; None takes every numeric column that has no other role and
            is no metric of training.
        given: Columns that partial tau is given, one by one, and together if several.
        seeds: Column that tells repetitions apart; None takes ``hp.seed`` or ``seed``.
        compare: Measures whose correlations, with their signs, are compared with each other; None
            compares all. Fewer lose less to the adjustment for many pairs, and take less time
            where measures lack different models: then every pair is resampled anew.
        options: Settings.

    Returns:
        Frames, notes and a methods paragraph.

    Raises:
        ValueError: Where columns are missing, doubled or not numeric, or rows are too few.

    Example:
        >>> import pandas as pd
        >>> import landscape
        >>> grid = [(lr, width) for lr in (1, 2, 3) for width in (8, 16, 32, 64)]
        >>> frame = pd.DataFrame(grid, columns=["hp.lr", "hp.width"])
        >>> frame["sharpness"] = 1.0 / frame["hp.lr"] + frame["hp.width"]
        >>> frame["gap_accuracy"] = frame["sharpness"] ** 2
        >>> landscape.correlate(frame).table.loc["sharpness", ["tau", "psi"]].tolist()
        [1.0, 1.0]
    """
    population = clean(
        frame, target, hyperparameters, measures, given, seeds=seeds, options=options
    )
    runs = population.measures | controls(population, options)
    averaged = averages(population, runs)
    weights = resamples(population.configurations, options.bootstraps, options.seed)
    strata = _strata(population, options)
    resampled = {
        name: resampled_where_defined(resampled_tau_b, one.mean, one.aim, weights)
        for name, one in averaged.items()
    }
    conditions = Conditions(population.levels, population.configurations)
    most = needed(len(population.measures), options.confidence)
    rows = [
        {
            "measure": name,
            "control": name not in population.measures,
            "models": int(np.isfinite(values).sum()),
            "configurations": int(np.isfinite(averaged[name].mean).sum()),
            "missing": int((~np.isfinite(values)).sum()),
            **_ranks(averaged[name], resampled[name], weights, options),
            "p": _p_value(averaged[name], strata, options, most),
            **_cmi(averaged[name], conditions),
        }
        for name, values in runs.items()
    ]
    table = pd.DataFrame(rows).set_index("measure")
    granulated, psi = granulated_frames(population, averaged, options)
    accuracy = bounded(target, population.target)
    errors = sign_error_frames(population, runs, options, accuracy)
    options = replace(options, environment=errors.kind)
    partial, functions = partial_columns(averaged, list(population.given), weights, options)
    table = table.join([psi, errors.summary, partial])
    tested = table["p"].where(~table["control"]).to_numpy(dtype=np.float64)
    table["p_holm"], table["p_bh"] = holm(tested), benjamini_hochberg(tested)
    table["note"] = [
        measure_note(name, table.loc[name], averaged[name], functions) for name in table.index
    ]
    own = list(population.measures)
    compared = own if compare is None else _compared(compare, own)
    return Correlations(
        table=table[_order(partial)],
        granulated=granulated,
        sign_errors=errors.frame,
        between=between(population, averaged),
        differences=differences(
            compared, Samples(population, averaged, resampled, weights), options.confidence
        ),
        frame=population.frame,
        target=target,
        hyperparameters=tuple(population.levels),
        settings=_settings(target, population, options, errors.environments),
        notes=population_notes(target, population, table, conditions, options, errors),
        methods=methods_text(target, population, options),
    )


def _ranks(one: Averages, resampled: Array, weights: Weights, options: Options) -> dict[str, float]:
    mean, aim = one.mean, one.aim
    rows = complete(mean, aim)
    tau, rho = tau_b(mean, aim), spearman(mean, aim)
    low, high = tau_interval(mean[rows], aim[rows], resampled, options.confidence)
    rhos = resampled_where_defined(resampled_spearman, mean, aim, weights)
    reached = low if tau > 0 else high
    rho_low, rho_high = spearman_interval(
        rho, tau, rhos, count=int(rows.sum()), reached=reached, confidence=options.confidence
    )
    return {
        "tau": tau,
        "tau_low": low,
        "tau_high": high,
        "tau_a": tau_a(mean, aim),
        "spearman": rho,
        "spearman_low": rho_low,
        "spearman_high": rho_high,
    }


def _p_value(one: Averages, strata: NDArray[np.int64] | None, options: Options, most: int) -> float:
    return p_value(one.mean, one.aim, strata, options.permutations, options.seed, most=most)


def _cmi(one: Averages, conditions: Conditions) -> dict[str, Any]:
    score, given = cmi_score(one.mean, one.aim, conditions)
    return {"cmi": score, "cmi_given": given}


def _strata(population: Population, options: Options) -> NDArray[np.int64] | None:
    unknown = sorted(set(options.strata) - set(population.levels))
    if unknown:
        known = ", ".join(population.levels) or "none"
        raise ValueError(f"strata must be hyper-parameters ({known}), got {', '.join(unknown)}")
    if not options.strata:
        return None
    codes = np.stack([population.levels[name] for name in options.strata], axis=1)
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _compared(compare: Sequence[str], own: Sequence[str]) -> list[str]:
    if isinstance(compare, str):
        raise TypeError(f"compare must be a list of measures, got {compare!r}")
    if unknown := [name for name in compare if name not in own]:
        raise ValueError(f"compare names {unknown[0]!r}, which is none of the measures")
    return list(dict.fromkeys(compare))


def _order(partial: pd.DataFrame) -> list[str]:
    return [*COUNTS, *RANKS, *ALONG_AXES, *partial.columns, "note"]


def _settings(
    target: str, population: Population, options: Options, environments: int
) -> dict[str, Any]:
    return {
        **asdict(options),
        "strata": list(options.strata),
        "target": target,
        "hyperparameters": list(population.levels),
        "given": list(population.given),
        "measures": list(population.measures),
        "models": len(population.target),
        "configurations": population.configurations,
        "environments": environments,
    }
