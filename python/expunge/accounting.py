"""What a shift hidden in Gaussian noise amounts to in (ε, δ), and back (E14, E15).

Everywhere `mu` is the ratio of a shift to the standard deviation of the noise that hides it. The inverses
err to the safe side, rounding included: :func:`mu` is never above the truth, :func:`epsilon` never below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from numbers import Real
from typing import Any

from scipy.special import erfcx, ndtr

from ._numbers import as_number

__all__ = ["compose", "delta", "epsilon", "guo_mu", "log_delta", "mu"]

ROUNDOFF = 2.0**-53


def _as_epsilon(value: Any) -> float:
    return as_number(value, "epsilon")


def _as_delta(value: Any) -> float:
    return as_number(value, "delta", above=0.0, below=1.0)


def _as_mu(value: Any, name: str = "mu") -> float:
    if not (isinstance(value, Real) and float(value) >= 0):
        raise ValueError(f"{name} must be a number >= 0, got {value!r}")
    return float(value)


def _tail(x: float) -> float:
    """R(x) = Φ(−x) exp(x²/2)."""
    return 0.5 * float(erfcx(x / math.sqrt(2)))


def _tail_descent(x: float) -> float:
    """−R′(x) = 1/√(2π) − x R(x), for x ≥ −1."""
    if x < 50:
        return 1 / math.sqrt(2 * math.pi) - x * _tail(x)
    y = 1 / (x * x)  # the two terms agree in more than three digits from here on: the asymptotic series
    return y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y * (1 - 9 * y * (1 - 11 * y))))) / math.sqrt(2 * math.pi)


def _profile(epsilon: float, mu: float) -> tuple[float, float]:
    """Logarithm of δ(ε, μ), and a bound of its rounding error.

    δ = exp(−near²/2) (R(near) − R(far)), which takes no exponential of ε and no logarithm of a difference of
    two probabilities. What digits could still cancel is said at each of the four forms.
    """
    if mu == 0 or mu == math.inf:
        return (-math.inf if mu == 0 else 0.0), 0.0
    middle = epsilon / mu
    near, far = middle - mu / 2, middle + mu / 2  # −a and −b of E14
    # near is off by up to 2u far, and log δ falls by at most |near| + 2 for each unit of it; as much again is
    # for the rounding of near²; the 1e4 is for the digits, at most four, that cancel below.
    rounding = 1e4 * ROUNDOFF + 4 * ROUNDOFF * far * (abs(near) + 2)
    if near >= 1e10:  # the rest of log δ is below the rounding of this
        return -0.5 * near * near, rounding
    if mu < 0.01 * max(1.0, near):
        # R(near) and R(far) agree in two digits or more, in all of them at μ = 1e-16. Their difference is the
        # integral of −R′, by Gauss's rule with three points: good to (μ / max(1, near))⁶ / 400.
        aside = math.sqrt(0.6) * (mu / 2)
        mean = (
            5 * _tail_descent(middle - aside) + 8 * _tail_descent(middle) + 5 * _tail_descent(middle + aside)
        ) / 18
        return math.log(mu) + math.log(mean) - 0.5 * near * near, rounding
    if near > 0:
        return math.log(_tail(near) - _tail(far)) - 0.5 * near * near, rounding
    # δ is 0.004 or more: 1 − δ, a sum, keeps the digits of a δ near 1
    return math.log1p(-float(ndtr(near)) - math.exp(-0.5 * near * near) * _tail(far)), rounding


def _holds(epsilon: float, mu: float, log_of_delta: float) -> bool:
    """Whether μ is (ε, δ) for certain."""
    value, rounding = _profile(epsilon, mu)
    return value == -math.inf or value + rounding <= log_of_delta


def log_delta(epsilon: float, mu: float) -> float:
    """Logarithm of :func:`delta`, also where δ itself is below the smallest float.

    Parameters
    ----------
    epsilon : float, at least 0
    mu : float, at least 0
        May be infinite.

    Returns
    -------
    float
        log δ of E14, 0 or less; −inf where mu is 0 or the logarithm is below the lowest float.

    Raises
    ------
    ValueError
        If a number is not in its range.

    Examples
    --------
    >>> from expunge.accounting import log_delta
    >>> round(log_delta(1.0, 0.01), 3)
    -5014.235
    """
    return _profile(_as_epsilon(epsilon), _as_mu(mu))[0]


def delta(epsilon: float, mu: float) -> float:
    """The least δ for which a shift of `mu` standard deviations of Gaussian noise is (ε, δ).

    Parameters
    ----------
    epsilon : float, at least 0
    mu : float, at least 0
        Length of the shift over the standard deviation of the noise. May be infinite.

    Returns
    -------
    float
        δ(ε) of E14, the analytic Gaussian mechanism of Balle and Wang: 0 at mu = 0, and it grows to 1.
        Relative error at most 1e-11 where ε ≤ 50 and δ ≥ 1e-300.

    Raises
    ------
    ValueError
        If a number is not in its range.

    See Also
    --------
    log_delta : for δ below 1e-300.

    Examples
    --------
    >>> from expunge.accounting import delta
    >>> round(delta(1.0, 1.0), 6)
    0.126937
    """
    return math.exp(log_delta(epsilon, mu))


def mu(epsilon: float, delta: float) -> float:
    """The greatest shift, in standard deviations of the noise, that is (ε, δ).

    Parameters
    ----------
    epsilon : float, at least 0
    delta : float, above 0 and below 1

    Returns
    -------
    float
        μ* with δ(ε, μ*) = δ (E14), rounding errors taken off: never above the truth. A shift of length β
        needs noise of standard deviation β / μ*.

    Raises
    ------
    ValueError
        If a number is not in its range.

    Examples
    --------
    >>> from expunge.accounting import mu
    >>> round(mu(1.0, 1e-5), 6)
    0.268051
    """
    return _greatest(_as_epsilon(epsilon), _as_delta(delta))


@lru_cache
def _greatest(epsilon: float, delta: float) -> float:
    target = math.log(delta)
    low, high = delta, 1.0  # δ(ε, μ) ≤ δ(0, μ) < μ/2
    while _holds(epsilon, high, target):
        low, high = high, 2 * high
    while low < (middle := math.sqrt(low) * math.sqrt(high)) < high:
        if _holds(epsilon, middle, target):
            low = middle
        else:
            high = middle
    return low


def epsilon(delta: float, mu: float) -> float:
    """The least ε at which a shift of `mu` standard deviations of Gaussian noise is (ε, δ).

    Parameters
    ----------
    delta : float, above 0 and below 1
    mu : float, at least 0
        May be infinite.

    Returns
    -------
    float
        ε ≥ 0 with δ(ε, μ) = δ (E14), rounding errors added: never below the truth. 0 where mu is (0, δ),
        infinite where no float is enough.

    Raises
    ------
    ValueError
        If a number is not in its range.

    Examples
    --------
    >>> from expunge.accounting import compose, epsilon, mu
    >>> ten_releases = compose([mu(1.0, 1e-5)] * 10)
    >>> round(epsilon(1e-5, ten_releases), 3)
    3.619
    """
    delta, mu = _as_delta(delta), _as_mu(mu)
    target = math.log(delta)
    if _holds(0.0, mu, target):
        return 0.0
    low, high = 0.0, mu * (1 + mu)
    while high < math.inf and not _holds(high, mu, target):
        low, high = high, 2 * high
    while low < (middle := low + (high - low) / 2) < high:
        if _holds(middle, mu, target):
            high = middle
        else:
            low = middle
    return high


def guo_mu(epsilon: float, delta: float) -> float:
    """The greatest ratio of residual to objective noise, β/σ, that the theorem of Guo et al. lets be (ε, δ).

    Parameters
    ----------
    epsilon : float, above 0 and below 1
        The theorem is proved for no other.
    delta : float, above 0 and below 1

    Returns
    -------
    float
        ε / √(2 ln(1.5/δ)) of E15; always below :func:`mu`.

    Raises
    ------
    ValueError
        If a number is not in its range.

    Examples
    --------
    >>> from expunge.accounting import guo_mu, mu
    >>> round(1 / guo_mu(0.1, 1e-5), 2), round(1 / mu(0.1, 1e-5), 2)
    (48.82, 30.75)
    """
    epsilon, delta = _as_epsilon(epsilon), _as_delta(delta)
    if not 0 < epsilon < 1:
        raise ValueError(
            f"the theorem of Guo et al. is proved for 0 < epsilon < 1 only, got {epsilon!r}: "
            'use mechanism="output", which holds at every epsilon'
        )
    return epsilon / math.sqrt(2 * (math.log(1.5) - math.log(delta)))


def compose(mus: Iterable[float]) -> float:
    """The one `mu` that stands for several releases, each of which may depend on those before.

    Parameters
    ----------
    mus : iterable of float, each at least 0
        Ratio of shift to noise of each release, whose noise is fresh.

    Returns
    -------
    float
        √(Σ μ²), by the composition theorem of Gaussian differential privacy of Dong, Roth and Su (E14); 0 of
        nothing.

    Raises
    ------
    ValueError
        If a number is not in its range; names its place.

    Examples
    --------
    >>> from expunge.accounting import compose
    >>> compose([0.3, 0.4])
    0.5
    """
    return math.hypot(*(_as_mu(value, f"mus[{i}]") for i, value in enumerate(mus)))
