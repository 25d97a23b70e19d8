"""The methods paragraph: what was computed, from what, with which settings."""

from __future__ import annotations

from landscape.correlation.cleaning import Population
from landscape.correlation.options import Options

COMPARISON = (
    "p-values are adjusted over the measures by Holm's and by Benjamini and Hochberg's procedure. "
    "Differences of tau between two measures keep its signs, so that they also tell a measure from "
    "its negative; they use the models that have both, the same resamples for both, Student's "
    "t and Holm's procedure over all pairs."
)


def methods_text(target: str, population: Population, options: Options) -> str:
    """A paragraph for a paper.

    Args:
        target: The column correlated with.
        population: What was used.
        options: The settings.

    Returns:
        Sentences on counts, definitions and settings.
    """
    sentences = [
        _counts(target, population),
        _intervals(options),
        _permutations(options),
        COMPARISON,
    ]
    if population.levels:
        sentences.append(_axis_statistics(options))
    if population.given:
        names = ", ".join(population.given)
        sentences.append(
            f"Partial tau given {names} is tau-b of the residuals of normal scores after "
            "least-squares regression on natural cubic splines of the normal scores of the given "
            "column."
        )
    sentences.append(
        f"Controls are an oracle (the target plus normal noise of {options.oracle_noise:g} of its "
        "standard deviation), a random measure and, where known, the parameter count."
    )
    return " ".join(sentences)


def _counts(target: str, population: Population) -> str:
    return (
        f"The population holds {len(population.target)} models in {population.configurations} "
        f"configurations{_axes(population)}; values are averaged over the models of a "
        f"configuration. Rank correlation of each measure with {target} is Kendall's tau-b over "
        "configurations; positive means that a larger measure goes with a larger target. "
        "Models without a measure are left out for that measure, and the target is averaged over "
        "the others. Values within 1e-12 of each other count as ties."
    )


def _intervals(options: Options) -> str:
    return (
        f"Intervals ({100 * options.confidence:g} %) of tau, Spearman's rho and partial tau come "
        f"from {options.bootstraps} bootstrap resamples of the configurations (seed "
        f"{options.seed}): percentiles, scaled by the jackknife's standard error and widened by a "
        "Poisson limit where few pairs are against the order (tau), or centred on Fisher's scale "
        "(rho)."
    )


def _axes(population: Population) -> str:
    if not population.levels:
        return ""
    parts = [f"{name} ({len(labels)} values)" for name, labels in population.labels.items()]
    return f" of {', '.join(parts)}"


def _permutations(options: Options) -> str:
    if options.strata:
        strata = ", ".join(options.strata)
        return (
            f"p-values are two-sided, from {options.permutations} permutations of the target "
            f"within the strata of {strata}."
        )
    return (
        "p-values are two-sided under permutations of the target: exact up to 33 configurations "
        f"without ties, {options.permutations} random permutations with ties (more where p is "
        "small), and the normal law with Kendall's variance for ties beyond."
    )


def _axis_statistics(options: Options) -> str:
    weights = "all pairs of models weighing the same"
    if options.test_examples is not None:
        weights = (
            f"pairs weighted by a Hoeffding bound for {options.test_examples} test examples where "
            "the target is an accuracy"
        )
    environments = "pairs of configurations that differ in exactly one hyper-parameter"
    if options.environment == "values":
        environments = (
            "each of all pairs of configurations that differ in one hyper-parameter alone, by two "
            "given values, at a given value of one other"
        )
    return (
        "Granulated tau (Psi; Jiang et al. 2020) is the mean over hyper-parameters of the mean "
        "tau-a among configurations that differ in that hyper-parameter alone; its intervals come "
        "from a variance that allows for pairs which share a configuration, within and across "
        "axes. The conditional mutual information score "
        "(Jiang et al. 2020) is the minimum over sets of at most two hyper-parameters of the "
        "normalised information between the orders of measure and target. Sign-errors (Dziugaite "
        "et al. 2020) are taken over environments "
        f"({environments}) of an effective size of {options.effective_size:g} or more, with "
        f"{weights}."
    )
