"""Local learning coefficient: how fast the volume of low loss grows around a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from landscape.evidence.langevin import Array, LangevinDraws, LangevinRequest, Temperature
from landscape.linalg.chains import ChainMean, split_rhat
from landscape.measures.base import CostClass, Measure, Requests, checked_count
from landscape.probing import Probe
from landscape.results import Estimate, Status

# Where chains are taken to agree, and independent draws a chain that an error needs (Gelman et al.
# 2013, section 11.5).
_AGREE, _ENOUGH = 1.1, 10
# Distances mix slower than losses in flat directions, which add little; a drift of all of many
# dimensions is far above this.
_SPREADING = 1.5
# A plain chain's steps are coarse where fewer would be accepted, or their bias is a larger share.
_ACCEPTED, _COARSE = 0.4, 0.25
# Share of the coefficient that the localisation may take away.
_DECIDED = 0.1
# An exact chain hardly moves, and its draws may agree because they are all one.
_STUCK = 0.1
_TRACE = 100
_DOWNHILL = (
    "The chains left the basin downhill: the checkpoint is not a minimum at this temperature. "
    "Train on, or raise localisation."
)


@dataclass(frozen=True, kw_only=True)
class LocalLearningCoefficient(Measure):
    """lambda = n beta (E[L(w')] - L(w)), w' ~ exp(-n beta L(w') - gamma/2 ||w' - w||^2).

    Half the number of parameters that the loss sees: P/2 at a regular minimum as gamma -> 0, less
    where the minimum is degenerate. The mean is over the draws of Langevin chains, E[L_B(w') -
    L_B(w)] of the part B of a step, which has the same mean as the loss of all data and less
    variance.

    Notes:
        1. What is estimated is the mean at this temperature and localisation. On a quadratic it is
           1/2 sum_i n beta lambda_i / (n beta lambda_i + gamma), directions flatter than gamma / (n
           beta) count for less; compare checkpoints at equal n beta and gamma.
        2. At multiplicity m it lies below the coefficient by (m - 1) / log(n beta) + ...: for L =
           x^2 y^2 it is 1/2 - 1 / (log(n beta / gamma^2) + 4 log 2 - 0.577...).
        3. Steps and parts that are too coarse raise the value. The estimate of this on a quadratic,
           eps/8 E<n beta g_B, n beta g_B + gamma (w' - w)>, is "step_bias", and widens the interval
           downwards. ``adjusted`` has none.
        4. All chains start at the checkpoint and spread into flat directions in about 2 / (eps
           gamma) steps; "rhat_distance" tells whether they still do, which a loss may hide.
        5. "localisation_share" is -d log lambda / d log gamma, the share that the localisation
           takes away at equal curvatures. Where it is above 0.1 by more than its error, the value
           is uncertain, and "localisation_proposed" is the gamma that would take away about 5 %.
        6. With a fixed step and n beta it is the estimator of Lau et al.

    Args:
        temperature: "dataset" is n beta = n / log n with n the loss terms used, the theory's;
            "batch" is B / log B with B those of a part, as in devinterp, which makes the value
            depend on ``batch``.
        nbeta: n beta itself; None takes that of ``temperature``.
        localisation: gamma; large values keep the chains near.
        step: eps; None tunes it in the first half of the burn-in, to steps of which 9 in 10 would
            be accepted, and whose bias is 5 % at most. Of no effect on what is estimated.
        draws: Draws a chain, one a step.
        burn_in: Steps before them; None takes as many as draws.
        chains: Chains, at least 2.
        batch: Examples a step; None takes all of the data.
        points: Use only the first so many examples; None uses all.
        adjusted: Accept or reject every step by the loss of all the data (MALA).

    Example:
        >>> import landscape
        >>> landscape.measures.get("local-learning-coefficient", temperature="batch").label
        'local-learning-coefficient[temperature=batch]'
    """

    name: ClassVar[str] = "local-learning-coefficient"
    meaning: ClassVar[str] = (
        "Effective number of parameters, halved: how fast the volume of low loss grows."
    )
    formula: ClassVar[str] = "nβ (E L(w′) − L(w)), w′ ~ exp(−nβ L(w′) − γ/2 ‖w′−w‖²)"
    source: ClassVar[str] = "Lau et al. 2023, eq. 12; Watanabe 2013"
    group: ClassVar[str] = "Noise"
    cost_class: ClassVar[CostClass] = "high"
    invariances: ClassVar[tuple[str, ...]] = ("permutation",)
    budget: ClassVar[frozenset[str]] = frozenset({"step", "draws", "burn_in", "chains"})

    temperature: Temperature = "dataset"
    nbeta: float | None = None
    localisation: float = 100.0
    step: float | None = None
    draws: int = 500
    burn_in: int | None = None
    chains: int = 4
    batch: int | None = 100
    points: int | None = None
    adjusted: bool = False

    def __post_init__(self) -> None:
        checked_count(draws=self.draws, chains=self.chains, batch=self.batch, points=self.points)
        self._request(0)  # validates the rest

    def _request(self, seed: int) -> LangevinRequest:
        return LangevinRequest(
            nbeta=self.nbeta,
            temperature=self.temperature,
            localisation=self.localisation,
            step=self.step,
            draws=self.draws,
            burn_in=self.draws if self.burn_in is None else self.burn_in,
            chains=self.chains,
            batch=self.batch,
            points=self.points,
            adjusted=self.adjusted,
            seed=seed,
        )

    def requests(self, probe: Probe, seed: int) -> Requests:
        """The chains."""
        return [(probe, self._request(seed))]

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        """The mean rise times n beta, with the error of correlated draws."""
        drawn = probe.evidence(self._request(seed))
        if drawn.failed_at is not None:
            when = f"draw {drawn.failed_at}" if drawn.failed_at >= 0 else "the burn-in"
            return Estimate.without_value(
                Status.UNDEFINED,
                f"a chain's loss is not finite at {when}, with step {drawn.step:.3g}; reduce step, "
                "or raise localisation",
            )
        mean = ChainMean.of(drawn.nbeta * drawn.rises)
        low, high = mean.interval()
        rounding = drawn.nbeta * drawn.precision * max(1.0, abs(drawn.base))
        interval = (low - max(drawn.step_bias, 0.0) - rounding, high + rounding)
        status, message = self._judged(mean, drawn, interval)
        return Estimate(
            value=mean.value,
            stderr=mean.stderr,
            interval=interval,
            status=status,
            message=message,
            diagnostics=self._told(mean, drawn),
        )

    def _judged(
        self, mean: ChainMean, drawn: LangevinDraws, interval: tuple[float, float]
    ) -> tuple[Status, str]:
        more = "raise draws and burn_in"
        width, bias = interval[1] - interval[0], drawn.step_bias
        coarse = not self.adjusted and drawn.acceptance < _ACCEPTED
        away = split_rhat(drawn.distances)
        spreading = (
            f"The chains still spread, R-hat of the distance = {away:.2f}; {more}, or localisation."
        )
        rough = (
            f"The steps are coarse ({drawn.acceptance:.0%} would be accepted) and may add "
            f"{bias:.3g}; reduce step, or use a larger batch or adjusted=True."
        )
        reasons = (
            (
                math.isnan(mean.rhat),
                Status.NOT_CONVERGED,
                f"With {self.draws} draws it cannot be seen whether the chains agree; {more}.",
            ),
            (
                self.adjusted and drawn.acceptance < _STUCK,
                Status.NOT_CONVERGED,
                f"Only {drawn.acceptance:.0%} of the steps are accepted; reduce step.",
            ),
            (
                interval[1] < 0,
                Status.UNCERTAIN,
                _DOWNHILL,
            ),
            (
                mean.rhat > _AGREE,
                Status.NOT_CONVERGED,
                f"The chains disagree, R-hat = {mean.rhat:.2f}; {more}.",
            ),
            (
                away > _SPREADING,
                Status.NOT_CONVERGED,
                spreading,
            ),
            (
                mean.effective < _ENOUGH * self.chains,
                Status.NOT_CONVERGED,
                f"The draws are worth {mean.effective:.0f} independent ones; {more}.",
            ),
            (
                coarse or bias > _COARSE * abs(mean.value),
                Status.UNCERTAIN,
                rough,
            ),
            (
                self._pull(drawn, mean)[0] - 2 * self._pull(drawn, mean)[1] > _DECIDED,
                Status.UNCERTAIN,
                self._pulled(drawn, mean),
            ),
            (
                width > abs(mean.value),
                Status.UNCERTAIN,
                "The interval is wide for the value; raise draws.",
            ),
        )
        found = next((reason for reason in reasons if reason[0]), (True, Status.OK, ""))
        return found[1:]

    def _pull(self, drawn: LangevinDraws, mean: ChainMean) -> tuple[float, float]:
        """-d log lambda / d log gamma with its standard error over the chains.

        d E[f] / d gamma = -Cov(f, ||v||^2) / 2 under the density that is drawn from. On a quadratic
        of equal curvatures it is gamma / (n beta lambda_i + gamma), the share of the coefficient
        that the localisation takes away.

        Returns:
            The derivative and its error; zeros where the value is not positive.
        """
        if not mean.value > 0:
            return 0.0, 0.0
        rises, squares = drawn.nbeta * drawn.rises, drawn.distances**2
        apart = (rises - rises.mean()) * (squares - squares.mean())
        pulls = self.localisation / 2 * apart.mean(1) / mean.value
        return float(pulls.mean()), float(pulls.std(ddof=1) / len(pulls) ** 0.5)

    def _pulled(self, drawn: LangevinDraws, mean: ChainMean) -> str:
        pull = self._pull(drawn, mean)[0]
        return (
            f"The localisation decides the value: it takes away about {min(pull, 1.0):.0%} of what "
            f"the coefficient would be without it; set localisation={self._proposed(pull):.2g}, "
            "and raise draws and burn_in, since chains that are held less spread more slowly."
        )

    def _proposed(self, pull: float) -> float:
        """The localisation that would take away about 5 % at equal curvatures."""
        return self.localisation * 0.05 * max(1 - pull, 0.05) / max(pull, 0.05)

    def _told(self, mean: ChainMean, drawn: LangevinDraws) -> dict[str, Any]:
        scale, away = drawn.nbeta, split_rhat(drawn.distances)
        return {
            "nbeta": drawn.nbeta,
            "temperature": self.temperature if self.nbeta is None else "given",
            "localisation": self.localisation,
            "step": drawn.step,
            "rhat": None if math.isnan(mean.rhat) else mean.rhat,
            "effective_draws": mean.effective,
            "acceptance": drawn.acceptance,
            "step_bias": drawn.step_bias,
            "per_chain": (scale * drawn.rises.mean(1)).tolist(),
            "negative_share": float((drawn.rises < 0).mean()),
            "distance": float(drawn.distances.mean()),
            "localisation_share": self._pull(drawn, mean)[0],
            "localisation_share_stderr": self._pull(drawn, mean)[1],
            "localisation_proposed": self._proposed(self._pull(drawn, mean)[0]),
            "rhat_distance": None if math.isnan(away) else away,
            "burn_in_trace": _thinned(scale * drawn.burnt),
            "trace": _thinned(scale * drawn.rises),
            "terms_used": drawn.terms,
            "terms_per_part": drawn.terms_per_part,
            "cut_as_asked": drawn.cut_as_asked,
        }


def _thinned(values: Array) -> list[float]:
    """Means over the chains and over up to so many stretches of draws."""
    stretches = np.array_split(values.mean(0), min(_TRACE, values.shape[1]) or 1)
    return [float(stretch.mean()) for stretch in stretches if len(stretch)]
