"""Estimators of a trace from products alone, each with a standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from landscape.linalg.operator import SymmetricOperator, project_out, rademacher
from landscape.linalg.scaling import Rescaled

Array = NDArray[np.float64]

# More degrees of freedom than these make no difference to a quantile.
_MOST_DEGREES = 1e4
# An interval that reaches over e^50 says nothing; its end should be finite all the same.
_LARGEST_EXPONENT = 50.0


@dataclass(frozen=True, kw_only=True)
class SampleMean:
    """An exact part plus the mean of independent samples, with a Student-t interval.

    Args:
        value: Estimate.
        stderr: Standard error; 0 if there is nothing random in the value.
        degrees: Degrees of freedom of the standard error.
        products: Matrix-vector products spent.
        exact: The part of the value that is known exactly.
        positive: Whether what is added to it is a mean of non-negative samples. Such samples are
            skewed, and an interval symmetric in their logarithm covers better.
        rounding: What the rounding of the products may have moved the value by; widens the
            interval on both sides.
    """

    value: float
    stderr: float
    degrees: float
    products: int = 0
    exact: float = 0.0
    positive: bool = False
    rounding: float = 0.0

    @classmethod
    def of(
        cls,
        samples: Array,
        *,
        exact: float = 0.0,
        products: int = 0,
        positive: bool = False,
        deviations: Array | None = None,
    ) -> SampleMean:
        """Mean of at least two samples, plus an exact part.

        Args:
            samples: Independent samples.
            exact: The exact part.
            products: Matrix-vector products spent.
            positive: Whether the samples are non-negative.
            deviations: For each sample an estimate of the standard deviation of one, of a source
                of its own; see ``standard_error``.

        Returns:
            The mean.
        """
        error, degrees = standard_error(samples, deviations)
        return cls(
            value=exact + float(np.mean(samples)),
            stderr=error,
            degrees=degrees,
            products=products,
            exact=exact,
            positive=positive,
        )

    @classmethod
    def of_parts(
        cls,
        exact: float,
        samples: Array,
        deviations: Array | None = None,
        *,
        positive: bool = False,
    ) -> SampleMean:
        """An exact part plus the mean of any number of samples, none included."""
        if not len(samples):
            return cls(value=exact, stderr=0.0, degrees=1, exact=exact)
        return cls.of(samples, exact=exact, positive=positive, deviations=deviations)

    def scaled(self, factor: float) -> SampleMean:
        """The mean of samples that are ``factor`` times as large."""
        return replace(
            self,
            value=self.value * factor,
            stderr=self.stderr * factor,
            exact=self.exact * factor,
            rounding=self.rounding * factor,
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided Student-t interval, widened by the rounding."""
        half = self.stderr * student_quantile(self.degrees, level)
        mean = self.value - self.exact
        low, high = self.value - half, self.value + half
        if self.positive and mean > 0:
            ratio = math.exp(min(half / mean, _LARGEST_EXPONENT))
            low, high = self.exact + mean / ratio, self.exact + mean * ratio
        return low - self.rounding, high + self.rounding


def standard_error(samples: Array, deviations: Array | None = None) -> tuple[float, float]:
    """Standard error of the mean of N samples, and its degrees of freedom.

    The sample variance has N - 1 degrees of freedom: by chance it is far too small in some of all
    seeds where N is small. On the sphere of radius sqrt(n) a quadratic form v^T B v has the
    variance 2 E ||B v - (v^T B v / n) v||^2, so every product tells it once more. Where many
    eigenvalues have a share in it, that is nearly the same for all v. Both are pooled with their
    degrees of freedom as weights; those of the second follow from its own scatter (Satterthwaite
    1946).

    Args:
        samples: (N,), at least two.
        deviations: sqrt(2) ||B v - (v^T B v / n) v|| of each sample, (N,); None where unknown.

    Returns:
        Standard error and degrees of freedom.

    Example:
        >>> import numpy as np
        >>> standard_error(np.array([1.0, 1.0, 4.0]))
        (1.0, 2.0)
    """
    count = len(samples)
    size = float(np.abs(samples).max()) or 1.0
    variance, degrees = float(np.var(samples / size, ddof=1)), float(count - 1)
    if deviations is not None:
        told = np.square(deviations / size)
        mean, scatter = float(told.mean()), float(np.var(told, ddof=1)) / count
        weight = min(2 * mean**2 / scatter, _MOST_DEGREES) if scatter > 0 else _MOST_DEGREES
        variance = (degrees * variance + weight * mean) / (degrees + weight)
        degrees = max(degrees, weight)  # not their sum: both come from the same vectors
    return size * math.sqrt(variance / count), degrees


def student_quantile(degrees: float, level: float = 0.95) -> float:
    """How many standard errors a two-sided interval reaches to each side."""
    return float(stats.t.ppf(0.5 + level / 2, max(degrees, 1)))


def hutchinson(
    operator: SymmetricOperator, matvecs: int, *, generator: torch.Generator
) -> SampleMean:
    """Hutchinson's estimator: mean of v^T A v over Rademacher v (Hutchinson 1990).

    Variance 2 (||A||_F^2 - sum_i A_ii^2) / matvecs. The number of probes is fixed in advance: a
    running mean that stops moving says nothing about its error.

    Args:
        operator: Symmetric operator.
        matvecs: Products to spend, at least 2.
        generator: Source of the probes (CPU).

    Returns:
        Trace with its standard error.

    Raises:
        ValueError: If ``matvecs`` is below 2.

    Example:
        >>> import torch
        >>> from landscape.linalg import MatrixOperator, hutchinson
        >>> hutchinson(MatrixOperator(torch.eye(5)), 4, generator=torch.Generator()).value
        5.0
    """
    _require(matvecs, 2, "hutchinson")
    scaled = Rescaled(operator)
    probes = rademacher(matvecs, operator, generator)
    samples = _float64((probes * scaled.matmat(probes)).sum(1))
    return SampleMean.of(samples * scaled.unit, products=scaled.products)


def hutch_plus_plus(
    operator: SymmetricOperator, matvecs: int, *, generator: torch.Generator
) -> SampleMean:
    """Hutch++: exact on a sketched range, Hutchinson on the rest (Meyer et al. 2021).

    A third of the budget sketches the range, a third evaluates the trace there, a third
    estimates the trace of the remainder; the standard error is that of the last part.

    Args:
        operator: Symmetric operator.
        matvecs: Products to spend, at least 6.
        generator: Source of the probes (CPU).

    Returns:
        Trace with its standard error (0 where the sketch spans the whole space).

    Raises:
        ValueError: If ``matvecs`` is below 6.
    """
    _require(matvecs, 6, "hutch_plus_plus")
    scaled = Rescaled(operator)
    count = min(matvecs // 3, operator.size)
    sketch = scaled.matmat(rademacher(count, operator, generator))
    basis = torch.linalg.qr(sketch.T).Q.T  # (count, P)
    exact = scaled.unit * float((basis * scaled.matmat(basis)).sum(dtype=torch.float64))
    if count == operator.size:
        return SampleMean(value=exact, stderr=0.0, degrees=1, products=scaled.products)
    probes = project_out(rademacher(count, operator, generator), basis)
    samples = _float64((probes * scaled.matmat(probes)).sum(1))
    return SampleMean.of(samples * scaled.unit, exact=exact, products=scaled.products)


def xtrace(operator: SymmetricOperator, matvecs: int, *, generator: torch.Generator) -> SampleMean:
    """XTrace: leave-one-out Hutch++, every probe used for both parts (Epperly et al. 2024).

    Test vectors lie on the sphere of radius sqrt(P); with Q R = A Omega, the i-th estimate
    deflates by the range of all test vectors but the i-th and uses that one as its probe
    (Epperly, Tropp and Webber, "XTrace", SIMAX 2024, section 2.1 with resphering).

    Args:
        operator: Symmetric operator.
        matvecs: Products to spend, at least 6; half of them are test vectors.
        generator: Source of the probes (CPU).

    Returns:
        Trace with its standard error. The leave-one-out estimates are exchangeable, not
        independent, and their spread was found up to a third too small on Hessians of trained
        nets; the standard error is enlarged by 1.5 for that.

    Raises:
        ValueError: If ``matvecs`` is below 6.
    """
    _require(matvecs, 6, "xtrace")
    scaled, size = Rescaled(operator), operator.size
    if matvecs >= size:  # one product for every entry of the diagonal: read the trace off
        identity = torch.eye(size, dtype=operator.dtype, device=operator.device)
        value = float(scaled.matmat(identity).diagonal().sum(dtype=torch.float64))
        return SampleMean(
            value=value * scaled.unit, stderr=0.0, degrees=1, products=scaled.products
        )
    count = matvecs // 2
    draws = torch.randn(count, size, generator=generator, dtype=torch.float64)
    tests = (draws * (size**0.5 / draws.norm(dim=1, keepdim=True))).to(
        dtype=operator.dtype, device=operator.device
    )
    images = scaled.matmat(tests)
    basis, triangle = torch.linalg.qr(images.T)  # (P, k), (k, k)
    inner = scaled.matmat(basis.T)  # (k, P), rows A q
    small = _leave_one_out(
        _float64(triangle),
        _float64(basis.T @ tests.T),
        _float64(inner @ basis),
        _float64(inner @ tests.T),
        size,
    )
    plain = SampleMean.of(small * scaled.unit, products=scaled.products)
    return replace(plain, stderr=1.5 * plain.stderr)


def _leave_one_out(
    triangle: Array,  # R
    tests: Array,  # W = Q^T Omega
    core: Array,  # M = Q^T A Q
    cross: Array,  # T = Q^T A Omega
    size: int,
) -> Array:
    # Column s_i of S is the unit vector orthogonal to all columns of R but the i-th: removing
    # test vector i from the sketch removes exactly the direction Q s_i from the range.
    floor = np.finfo(np.float32).eps * (np.abs(triangle.diagonal()).max() or 1.0)
    # A matrix of rank below k leaves zeros on the diagonal; what lies there maps to zero anyway.
    weak = np.where(np.abs(triangle.diagonal()) < floor, floor, 0.0)
    directions = np.linalg.inv(triangle + np.diag(weak)).T
    directions /= np.linalg.norm(directions, axis=0)
    count = len(triangle)
    estimates = np.empty(count)
    for i in range(count):
        away = directions[:, i]
        # Q_i Q_i^T = Q (I - s s^T) Q^T; the trace of A on it, and what is left of the probe.
        kept = np.trace(core) - away @ core @ away
        inside = tests[:, i] - away * (away @ tests[:, i])
        # probe p = omega - Q inside: p^T A p = omega^T A omega - 2 inside^T Q^T A omega + ...
        # omega^T A omega = (Q R e_i)^T omega because A omega_i lies in the range of Q.
        energy = triangle[:, i] @ tests[:, i] - 2 * inside @ cross[:, i] + inside @ core @ inside
        # Resphering: the probe is rescaled to the norm a sphere draw has in the complement.
        norm = size - inside @ inside
        estimates[i] = kept + (size - count + 1) / norm * energy
    return estimates


def _float64(tensor: Tensor) -> Array:
    array: Array = tensor.double().cpu().numpy()
    return array


def _require(matvecs: int, least: int, name: str) -> None:
    if matvecs < least:
        raise ValueError(f"{name} needs at least {least} products, got matvecs={matvecs}")
