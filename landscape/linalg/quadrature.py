"""Stochastic Lanczos quadrature: spectral sums with a sampling and a quadrature error.

The sums that matter here are of functions of |lambda|, |lambda|^alpha above all. Such a function
is not smooth at zero, where the bulk of a Hessian's spectrum sits, and a Gauss rule then jumps
with the parity of its number of steps: an even rule of a nearly symmetric spectrum has no node at
zero and overestimates, an odd one has a node there and underestimates. Both are made use of: the
rule of n steps is pushed forward to t = lambda^2, where |lambda|^alpha = t^(alpha / 2) is singular
at the end point only. For 0 < alpha < 2 its even derivatives in t have one sign and its odd ones
the other, so the Gauss rule in t and the Gauss-Radau rule with a node at t = 0 lie on opposite
sides of the true value (Golub and Meurant 2010, section 6), for every vector and number of steps.
A spectrum without negative values has its end point at zero already; there t = lambda.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landscape.linalg.lanczos import Chain
from landscape.linalg.trace import standard_error, student_quantile

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# Where the true value lies between the two rules is extrapolated from shorter rules. Over 14
# spectra (uniform, semicircular, log-uniform over 4 and 8 decades, with atoms at zero, power laws,
# a trained net's), three powers and four lengths the regression places it 0.05 of the bracket too
# low on average; with that added it is off by less than 0.2 of the bracket in all cases
# (docs/benchmarks/calibration.json).
_PLACE_SHIFT = 0.05
_PLACE_ERROR = 0.20
# Of the largest node: how far below zero the node of a Radau rule is put.
_END = 1e-12


@dataclass(frozen=True, kw_only=True)
class SpectralSum:
    """An estimate of tr f(A) with its two kinds of error.

    Args:
        exact: Share of the eigenpairs that are known.
        samples: One estimate of the rest per chain, (N,).
        quadrature_error: Half-width of the systematic error, of all samples alike.
        bracket: Mean lower and upper rule (``exact`` included): bounds of the mean of the
            samples' true values.
        deviations: For each sample what its own rule says of the standard deviation of one, (N,);
            None where nothing is said.
        rounding_error: What the rounding of the products may have moved the value by.
    """

    exact: float
    samples: Array
    quadrature_error: float
    bracket: tuple[float, float]
    deviations: Array | None = None
    rounding_error: float = 0.0

    @property
    def value(self) -> float:
        """The estimate."""
        return self.exact + (float(self.samples.mean()) if len(self.samples) else 0.0)

    @cached_property
    def _sampling(self) -> tuple[float, float]:
        if len(self.samples) < 2:
            return 0.0, 1.0
        return standard_error(self.samples, self.deviations)

    @property
    def stderr(self) -> float:
        """Sampling standard error over chains."""
        return self._sampling[0]

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the standard error."""
        return self._sampling[1]

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Sampling and quadrature error combined in quadrature, and the rounding added."""
        sampling = self.stderr * student_quantile(self.degrees, level)
        half = float(np.hypot(sampling, self.quadrature_error)) + self.rounding_error
        return self.value - half, self.value + half


def absolute_sum(
    chains: Sequence[Chain],
    function: Function,
    *,
    eigenvalues: Array | None = None,
    rounding: float = 0.0,
) -> SpectralSum:
    """Estimates tr f(|A|) from chains and known eigenvalues.

    Whether A has negative eigenvalues is read off both: one that neither has seen counts by its
    sign. Runs of a few steps without known eigenvalues of the lower end may miss it.

    Where the nodes with a share in the sum have converged, as in tight clusters, the plain rule is
    all but exact and is taken instead of the extrapolated one; the smaller error decides.

    Args:
        chains: Lanczos runs on A with the known eigenvectors projected out, started from
            unit-variance random vectors (so that each chain's mass is its share of the dimension).
        function: f on an array of non-negative numbers, such as ``lambda x: x**0.5``.
        eigenvalues: Eigenvalues known from elsewhere, whose vectors the chains exclude.
        rounding: How far the eigenvalues of A may be off by the rounding of its products.

    Returns:
        The sum with its errors.
    """
    known = np.zeros(0) if eigenvalues is None else np.asarray(eigenvalues, dtype=np.float64)
    exact = float(function(np.abs(known)).sum())
    moved = _moved(chains, function, known, rounding)
    if not chains:
        return SpectralSum(
            exact=exact,
            samples=np.zeros(0),
            quadrature_error=0.0,
            bracket=(exact, exact),
            rounding_error=moved,
        )
    unit = _unit(chains, known)
    chains = [chain.scaled(1 / unit) for chain in chains]
    # In units of what f reaches, so that its squares do not underflow either.
    height = max((float(np.abs(function(unit * x)).max()) for x, _ in _nodes(chains)), default=0.0)
    height = math.ldexp(1.0, math.frexp(height)[1]) if 0 < height < math.inf else 1.0

    def scaled(values: Array) -> Array:
        return function(unit * values) / height

    signed = _has_negative(chains, known / unit)
    gauss_rows, radau_rows = zip(
        *(_rules(chain, scaled, signed=signed) for chain in chains), strict=True
    )
    depth = max(len(row) for row in gauss_rows)
    # A chain that broke down early is exact from there on: its last rules stand for longer ones.
    gauss = np.array([np.pad(row, (0, depth - len(row)), mode="edge") for row in gauss_rows])
    radau = np.array([np.pad(row, (0, depth - len(row)), mode="edge") for row in radau_rows])
    place, error = _place(gauss.mean(0), radau.mean(0))
    last = (radau[:, -1], gauss[:, -1])
    bounds = sorted(exact + height * float(rule.mean()) for rule in last)
    samples = last[0] + place * (last[1] - last[0])
    plain = np.array([_plain(chain, scaled) for chain in chains])  # (N, 2)
    if plain[:, 1].mean() < error:
        samples, error = plain[:, 0], float(plain[:, 1].mean())
    return SpectralSum(
        exact=exact,
        samples=height * samples,
        quadrature_error=height * error,
        bracket=(bounds[0], bounds[1]),
        deviations=height * sample_deviations(chains, scaled),
        rounding_error=moved,
    )


def sample_deviations(chains: Sequence[Chain], function: Function) -> Array:
    """For each chain what its own rule says of the standard deviation of v^T f(|A|) v.

    On a sphere the variance is 2 ||f v - (v^T f v / n) v||^2, n = ||v||^2; where the lengths of the
    start vectors scatter, their variance times the squared mean of f is added.

    Args:
        chains: Lanczos runs.
        function: f on an array of non-negative numbers.

    Returns:
        One standard deviation a chain.
    """
    masses = np.array([chain.mass for chain in chains])
    scatter = float(np.var(masses, ddof=1)) if len(masses) > 1 else 0.0
    found = []
    for chain in chains:
        nodes, weights = chain.quadrature()
        values = function(np.abs(nodes))
        mean = float(weights @ values) / (chain.mass or 1.0)
        found.append(2 * float(weights @ (values - mean) ** 2) + scatter * mean**2)
    return np.sqrt(found)


def _nodes(chains: Sequence[Chain]) -> list[tuple[Array, Array]]:
    """Sizes of the nodes and weights of the chains that have any."""
    rules = [chain.quadrature() for chain in chains if chain.mass > 0]
    return [(np.abs(nodes), weights) for nodes, weights in rules]


def _unit(chains: Sequence[Chain], known: Array) -> float:
    """The power of two next to the largest size of node or eigenvalue."""
    sizes = np.concatenate([np.abs(known), *(x for x, _ in _nodes(chains))])
    largest = float(sizes.max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def _plain(chain: Chain, function: Function) -> tuple[float, float]:
    """The Gauss rule in lambda itself and a bound of its error."""
    # v = ||v|| sum_k s_k y_k, and f(A) y_k differs from f(x_k) y_k by what f varies over the
    # residual of y_k: nothing where the run has found an invariant space.
    if chain.mass <= 0:
        return 0.0, 0.0
    nodes, residuals, overlaps = chain.residuals()
    here = function(np.abs(nodes))
    around = [function(np.abs(nodes + side * residuals)) for side in (-1, 1)]
    varied = np.max([np.abs(beside - here) for beside in around], axis=0)
    return chain.mass * float(overlaps**2 @ here), chain.mass * float(overlaps @ varied)


def _moved(chains: Sequence[Chain], function: Function, known: Array, rounding: float) -> float:
    """What the sum may change by where all eigenvalues move by the rounding."""
    if rounding <= 0:
        return 0.0

    def change(values: Array) -> Array:
        here = function(values)
        beside = [function(values + rounding), function(np.maximum(values - rounding, 0.0))]
        found: Array = np.max([np.abs(other - here) for other in beside], axis=0)
        return found

    rest = [float(weights @ change(x)) for x, weights in _nodes(chains)]
    return float(change(np.abs(known)).sum()) + float(np.mean(rest or [0.0]))


def _place(gauss: Array, radau: Array) -> tuple[float, float]:
    """Where between the rules (0: Radau, 1: Gauss) the truth lies, and its error in value."""
    # Both errors decay at the same rate in the length of the rule, so radau = truth - place *
    # width along the lengths: a regression of the longer half gives the place.
    width = gauss - radau
    if len(width) < 4:
        return 0.5, float(abs(width[-1])) / 2
    half = len(width) // 2
    spread = width[half - 1 :] - width[half - 1 :].mean()
    rows = radau[half - 1 :]
    variation = float(spread @ spread)
    if variation <= 1e-24 * float(np.abs(gauss).max()) ** 2:  # exact already
        return 0.5, float(abs(width[-1])) / 2
    slope = -float(spread @ (rows - rows.mean())) / variation
    place = float(np.clip(slope + _PLACE_SHIFT, 0.0, 1.0))
    return place, _PLACE_ERROR * float(abs(width[-1]))


def _has_negative(chains: Sequence[Chain], known: Array) -> bool:
    """Whether a node lies below zero by more than float32 rounding."""
    nodes = np.concatenate([chain.quadrature()[0] for chain in chains if chain.mass > 0] or [known])
    largest = float(np.abs(np.concatenate([nodes, known])).max(initial=0.0))
    return bool(nodes.min(initial=0.0) < -1e-6 * largest)


def _rules(chain: Chain, function: Function, *, signed: bool) -> tuple[Array, Array]:
    """Gauss and Gauss-Radau values in t for 1, 2, ... steps of one chain."""
    # t is lambda^2, or lambda itself where nothing is negative: zero is then an end point already,
    # and all nodes of the run serve instead of half of them.
    if chain.mass <= 0:
        return np.zeros(1), np.zeros(1)
    nodes, weights = chain.quadrature()
    whole = float(weights @ function(np.abs(nodes)))

    def in_t(points: Array) -> Array:
        clipped = np.maximum(points, 0.0)
        return function(np.sqrt(clipped) if signed else clipped)

    if len(nodes) == 1:
        return np.array([whole]), np.array([whole])
    if (
        len(nodes) == 2 and signed and not chain.exact
    ):  # too short for a free node beside the one at 0
        squares = np.array([[weights @ nodes**2 / chain.mass]])
        lowest = chain.mass * float(function(np.zeros(1))[0])
        return np.array([_apply(squares, in_t) * chain.mass]), np.array([lowest])
    # n nodes integrate degree 2 n - 1 in lambda; j free nodes and one at 0 need 2 j in t.
    depth = max((2 * len(nodes) - 1) // (4 if signed else 2), 1)
    points = nodes**2 if signed else np.maximum(nodes, 0.0)
    diagonal, off_diagonal = _jacobi(points, weights, depth)
    gauss, radau = [], []
    for count in range(1, len(diagonal) + 1):
        matrix = np.diag(diagonal[:count])
        matrix += np.diag(off_diagonal[: count - 1], 1) + np.diag(off_diagonal[: count - 1], -1)
        gauss.append(_apply(matrix, in_t) * chain.mass)
        coupling = off_diagonal[count - 1]
        if coupling <= 1e-14 * diagonal[:count].max(initial=1e-300):
            radau.append(gauss[-1])  # the measure has no more points: both rules are exact
            continue
        unit = np.zeros(count)
        unit[-1] = coupling
        bordered = np.zeros((count + 1, count + 1))
        bordered[:count, :count] = matrix
        bordered[count, count - 1] = bordered[count - 1, count] = coupling
        # The last diagonal entry that makes the bordered matrix singular puts a node at 0; or just
        # below, where the rule without it has one at 0 already and the system no solution.
        end = _END * diagonal[:count].max(initial=1e-300)
        shifted = matrix + end * np.eye(count)
        bordered[count, count] = unit @ np.linalg.solve(shifted, unit) - end
        radau.append(_apply(bordered, in_t) * chain.mass)
    if chain.exact:  # its own Gauss rule has no error
        gauss[-1] = radau[-1] = whole
    return np.array(gauss), np.array(radau)


def _apply(matrix: Array, function: Function) -> float:
    points, vectors = np.linalg.eigh(matrix)
    return float(vectors[0] ** 2 @ function(points))


def _jacobi(points: Array, weights: Array, steps: int) -> tuple[Array, Array]:
    """Jacobi matrix of a discrete measure (Stieltjes procedure, re-orthogonalised)."""
    current = np.sqrt(weights / weights.sum())
    basis: list[Array] = []
    diagonal, off_diagonal = np.zeros(steps), np.zeros(steps)
    scale = float(points.max(initial=0.0))
    for step in range(steps):
        basis.append(current)
        image = points * current
        diagonal[step] = current @ image
        for _ in range(2):
            for vector in basis:
                image = image - (vector @ image) * vector
        off_diagonal[step] = np.linalg.norm(image)
        if off_diagonal[step] <= 1e-14 * scale:
            off_diagonal[step] = 0.0
            return diagonal[: step + 1], off_diagonal[: step + 1]
        current = image / off_diagonal[step]
    return diagonal, off_diagonal
