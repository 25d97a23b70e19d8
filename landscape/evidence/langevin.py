"""Langevin chains around a checkpoint: draws of the loss from its tempered local posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscape.evidence.planning import share
from landscape.probing import Parts, Probe
from landscape.probing.objective import checked_number
from landscape.results import Cost

Array = NDArray[np.float64]
Temperature = Literal["dataset", "batch"]

# Share of accepted proposals that the step is tuned to: for a plain chain few steps that could be
# told from an exact chain's; for an exact chain more than is best for Gaussians (0.574, Roberts &
# Rosenthal 1998), with which chains stick where the loss steepens.
_TARGET = {False: 0.9, True: 0.8}
# Every so many draws of a plain chain a step is checked: would it be accepted?
_CHECKED = 10
# Share of the mean rise that the step of a plain chain may add to it, as far as tuning can tell.
_BIAS = 0.05
_SHRINK, _TRIES = 4.0, 60


@dataclass(frozen=True, kw_only=True)
class LangevinRequest:
    """Stochastic-gradient Langevin chains in p(v) ~ exp(-nbeta L(w + v) - gamma/2 ||v||^2).

    v' = v - eps/2 (nbeta grad L_B(w + v) + gamma v) + sqrt(eps) N(0, I), all chains from v = 0, a
    part B of the data at random for every chain and step (Welling & Teh 2011; Lau et al. 2023,
    section 4.4). With ``adjusted`` all of the data, and each step accepted or rejected (MALA,
    Roberts & Tweedie 1996), so that the step does not bias the draws.

    Args:
        nbeta: Inverse temperature of the mean loss; None takes that of ``temperature``.
        temperature: "dataset" is n / log n with n the loss terms used, "batch" the same of one
            part.
        localisation: gamma.
        step: eps; None tunes it in the first half of the burn-in: of plain chains 9 in 10 steps
            would be accepted and their bias is about 5 % at most, of exact ones 8 in 10 are.
        draws: Draws a chain, one a step.
        burn_in: Steps before them.
        chains: Number of chains.
        batch: Examples a part; None takes all of the data.
        points: Use only the first so many examples; None uses all.
        adjusted: Whether steps are accepted or rejected.
        seed: Of noise and parts; drawn on the device.
    """

    nbeta: float | None = None
    temperature: Temperature = "dataset"
    localisation: float = 100.0
    step: float | None = None
    draws: int = 500
    burn_in: int = 500
    chains: int = 4
    batch: int | None = 100
    points: int | None = None
    adjusted: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature not in get_args(Temperature):
            raise ValueError(
                f"temperature must be one of {get_args(Temperature)}, got {self.temperature!r}"
            )
        for name in ("nbeta", "step"):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"{name} must be positive and finite, or None, got {number}")
        if not 0 <= self.localisation < math.inf:
            raise ValueError(f"localisation must be finite and >= 0, got {self.localisation}")
        if self.chains < 2 or self.draws < 1 or self.burn_in < 0:
            raise ValueError(
                "at least 2 chains, 1 draw and 0 steps of burn_in are needed, got "
                f"{self.chains}, {self.draws}, {self.burn_in}"
            )
        if any(number is not None and number < 1 for number in (self.batch, self.points)):
            raise ValueError(
                f"batch and points must be positive or None, got {self.batch} and {self.points}"
            )

    def planned(self, probe: Probe) -> Cost:
        """What it will cost about: a gradient a step, two where the first half of them tunes."""
        steps = self.draws + self.burn_in * (1.5 if self.step is None else 1)
        part = share(probe, None if self.adjusted else self.batch)
        return Cost(gradients=self.chains * steps * part)

    def compute(self, probe: Probe) -> LangevinDraws:
        """Two gradients of a part for each step that tunes, one for the others."""
        parts = probe.parts(None if self.adjusted else self.batch, self.points)
        base = parts.base_losses()
        counts = torch.tensor(parts.counts, dtype=torch.float64)
        terms = checked_number(float(counts.sum()))
        if self.temperature == "batch" and self.adjusted:  # B of a part that no step takes
            told = probe.parts(self.batch, self.points).counts[0]
        else:
            told = terms if self.temperature == "dataset" else parts.counts[0]
        nbeta = self.nbeta or tempered(told)
        potential = _Potential(parts, base, counts / counts.mean(), nbeta, self.localisation)
        return _Run(self, probe, potential).draws()


@dataclass(frozen=True, kw_only=True)
class LangevinDraws:
    """Losses along the chains.

    Args:
        nbeta: Inverse temperature.
        terms: Loss terms used, n.
        terms_per_part: Loss terms of the (first) part of a step.
        step: eps of the draws.
        rises: L_B(w + v) - L_B(w) at every draw, of the part of the step, (chains, draws). The
            difference on one part has the mean of that of all data, and less variance than L_B.
        burnt: The same along the burn-in, (chains, burn_in).
        acceptance: Share of draws' steps accepted, or of those checked that would be.
        step_bias: About how much the finite step and the choice of parts raise nbeta times the
            mean rise; exact on a quadratic with all of the data in every step, 0 for exact chains.
        distances: ||v|| at every draw, (chains, draws).
        failed_at: Step at which a chain left the finite numbers, from 0 at the first draw,
            negative in the burn-in; None if none did.
        precision: Relative rounding of a loss.
        base: L(w).
        cut_as_asked: Whether the batches could be cut to ``batch`` examples.
    """

    nbeta: float
    terms: float
    terms_per_part: float
    step: float
    rises: Array
    burnt: Array
    acceptance: float
    step_bias: float
    distances: Array
    failed_at: int | None
    precision: float
    base: float
    cut_as_asked: bool


def tempered(terms: float) -> float:
    """N beta = n / log n (Watanabe 2013), n below e."""
    return terms / max(math.log(terms), 1.0)


@dataclass(frozen=True)
class _Potential:
    """U(v) = nbeta c_B (L_B(w + v) - L_B(w)) + gamma/2 ||v||^2, c_B the share of the terms."""

    parts: Parts
    base: Tensor
    shares: Tensor
    nbeta: float
    gamma: float

    def at(self, points: Tensor, which: list[int]) -> _Place:
        losses, gradients = self.parts.losses_and_gradients(points, which)
        rises = self.shares[which] * (losses - self.base[which])
        slopes = gradients * (self.nbeta * self.shares[which]).to(gradients)[:, None]
        return _Place(points, rises.to(points.device), slopes, slopes + self.gamma * points)


@dataclass(frozen=True)
class _Place:
    """Where the chains are: points, rises of the loss, gradients of its part of U, and of U."""

    points: Tensor
    rises: Tensor
    slopes: Tensor
    forces: Tensor

    def bias(self) -> float:
        """How much nbeta L is raised by each unit of the step: 1/8 <grad nbeta L_B, grad U_B>."""
        return float((self.slopes * self.forces).sum(1, dtype=torch.float64).mean()) / 8

    def where(self, chosen: Tensor, other: _Place) -> _Place:
        rows = chosen[:, None]
        return _Place(
            torch.where(rows, self.points, other.points),
            torch.where(chosen, self.rises, other.rises),
            torch.where(rows, self.slopes, other.slopes),
            torch.where(rows, self.forces, other.forces),
        )


class _Tuner:
    """Fits the step to a share of accepted steps, then cuts it where it would bias the draws."""

    def __init__(self, request: LangevinRequest, step: float) -> None:
        self.step, self.target = step, _TARGET[request.adjusted]
        self.left = self.steps = request.burn_in // 2 if request.step is None else 0
        self.adjusted = request.adjusted
        self.seen: list[tuple[float, float, float]] = []  # log step, nbeta times rise, bias

    @property
    def on(self) -> bool:
        return self.left > 0

    def learn(self, chance: float | None, rise: float, place: _Place) -> None:
        """Takes in one step of the chains."""
        if not self.on or chance is None:
            return
        self.seen.append((math.log(self.step), rise, place.bias()))
        self.left -= 1
        # Robbins & Monro 1951: the gain dies out.
        self.step *= math.exp((chance - self.target) * 2 / len(self.seen) ** 0.6)
        if len(self.seen) == self.steps:
            late = np.mean(self.seen[self.steps // 2 :], axis=0)
            self.step = math.exp(late[0])
            if not self.adjusted and late[1] > 0 and late[2] > 0:
                self.step = min(self.step, _BIAS * float(late[1] / late[2]))


class _Run:
    """The chains in lockstep."""

    def __init__(self, request: LangevinRequest, probe: Probe, potential: _Potential) -> None:
        self.request, self.probe, self.potential = request, probe, potential
        self.noise = torch.Generator(probe.device).manual_seed(request.seed)
        self.chance = torch.Generator().manual_seed(request.seed)

    def draws(self) -> LangevinDraws:
        asked, potential = self.request, self.potential
        points = self.probe.weights().new_zeros(asked.chains, self.probe.size)
        tuner = _Tuner(asked, self._first_step(points) if asked.step is None else asked.step)
        rises = np.zeros((asked.chains, asked.burn_in + asked.draws))
        chances: list[float] = []
        distances = np.zeros((asked.chains, asked.draws))
        biases: list[float] = []
        failed, place = None, None
        for index in range(rises.shape[1]):
            drawing = index - asked.burn_in
            which = self._which()
            if place is None or not asked.adjusted:
                place = potential.at(points, which)
            rises[:, index] = place.rises.cpu().numpy()
            if not np.isfinite(rises[:, index]).all():
                failed = drawing
                break
            if drawing >= 0:
                distances[:, drawing] = points.norm(dim=1).cpu().numpy()
                biases.append(place.bias())
            checked = drawing >= 0 and drawing % _CHECKED == 0
            place, chance = self._moved(
                place, which, tuner.step, exact=asked.adjusted or tuner.on, checked=checked
            )
            points = place.points
            tuner.learn(chance, potential.nbeta * float(np.mean(rises[:, index])), place)
            if drawing >= 0 and chance is not None:
                chances.append(chance)
        return LangevinDraws(
            nbeta=potential.nbeta,
            terms=sum(potential.parts.counts),
            terms_per_part=potential.parts.counts[0],
            step=tuner.step,
            rises=rises[:, asked.burn_in :],
            burnt=rises[:, : asked.burn_in],
            acceptance=_mean(chances),
            step_bias=0.0 if asked.adjusted else tuner.step * _mean(biases),
            distances=distances,
            failed_at=failed,
            precision=torch.finfo(points.dtype).eps,
            base=float((potential.base * potential.shares).mean()),
            cut_as_asked=potential.parts.as_asked,
        )

    def _moved(
        self, place: _Place, which: list[int], step: float, *, exact: bool, checked: bool
    ) -> tuple[_Place, float | None]:
        """Where the chains are next, and the mean chance that the step is accepted, if known."""
        proposal = self._proposal(place, step)
        if not (exact or checked):
            return replace(place, points=proposal), None
        there = self.potential.at(proposal, which)
        chances = self._chances(place, there, step)
        if exact:
            uniform = torch.rand(len(chances), generator=self.chance, dtype=torch.float64)
            there = there.where(uniform.to(chances) < chances, place)
        return there, float(chances.mean())

    def _first_step(self, points: Tensor) -> float:
        """The largest power of 1/4 of the prior's own step that would likely be accepted."""
        step, which = 1 / (self.request.localisation or 1.0), self._which()
        start = self.potential.at(points, which)
        for _ in range(_TRIES):
            there = self.potential.at(self._proposal(start, step), which)
            if float(self._chances(start, there, step).mean()) > 0.5:
                break
            step /= _SHRINK
        return step

    def _which(self) -> list[int]:
        """A part for every chain: drawn, so that the part of a step knows nothing of the point."""
        places: list[int] = torch.randint(
            len(self.potential.parts), (self.request.chains,), generator=self.chance
        ).tolist()
        return places

    def _proposal(self, place: _Place, step: float) -> Tensor:
        noise = torch.empty_like(place.points).normal_(generator=self.noise)
        return place.points - step / 2 * place.forces + math.sqrt(step) * noise

    def _chances(self, here: _Place, there: _Place, step: float) -> Tensor:
        """Metropolis-Hastings chances, (chains,) float64; 0 where something is not finite."""

        def dot(one: Tensor, other: Tensor) -> Tensor:
            return (one * other).sum(1, dtype=torch.float64)

        moved = there.points - here.points
        rise = self.potential.nbeta * (there.rises - here.rises)
        rise += self.potential.gamma / 2 * dot(moved, here.points + there.points)
        back = dot(moved, here.forces + there.forces) / 2
        back -= step / 8 * dot(there.forces - here.forces, there.forces + here.forces)
        # log q(here | there) - log q(there | here), written out so that nothing large cancels.
        return (back - rise).exp().clamp(max=1).nan_to_num(0.0)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
