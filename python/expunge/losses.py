"""The registry of losses: a loss is three scalar functions of (y, eta) and a few constants (E1, E34)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, sqrt
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

__all__ = ["LOSSES", "Loss", "get_loss", "loss_of_power", "moved", "tweedie"]

Array = NDArray[np.float64]
Elementwise = Callable[[Any, Any], Array]  # (y, eta) -> array of their broadcast shape


@dataclass(frozen=True)
class Loss:
    """A loss l(y, eta) of a linear predictor eta, convex in eta (E1).

    Attributes
    ----------
    name : str
        Key in `LOSSES`, and the name of the compiled loss.
    target_domain : str
        The targets the loss is defined for, in words.
    remedy : str
        The advice that ends the message of `check_targets`.
    contains : callable
        ``contains(y)`` is True where a target lies in the domain; elementwise.
    value, d1, d2 : callable
        l and its first two derivatives in eta, as elementwise functions of (y, eta). At any eta they are
        numbers, or infinite where the true ones are out of range.
    max_d2, max_d3 : float
        The largest d2, and the largest absolute third derivative, over all eta.
    remainder : float
        The largest |d3| / d2, at most 1: bounds rest on it (E34). Infinite where d2 jumps (E36).
    curvature_of_targets : bool
        Whether d2 depends on y. Then a corrected label changes the Hessian, too, and none is formed without
        targets; else labels leave it as it is (E6).
    between : (float, float)
        With a free intercept there is a minimiser iff a row of positive weight has y above the first, and one
        below the second.
    power : float or None
        Of a Tweedie loss.
    d1_rounding : callable
        ``d1_rounding(r, eta_rounding, y)`` bounds the error of r = d1 where eta has the error eta_rounding
        (E19). Both are in units of the roundoff; elementwise. r may be far from the true d1: see `moved`.

    Examples
    --------
    >>> from expunge.losses import LOSSES
    >>> LOSSES["logistic"].d1([0, 1], [0.0, 0.0]).tolist()
    [0.5, -0.5]
    """

    name: str
    target_domain: str
    remedy: str
    contains: Callable[[Array], NDArray[np.bool_]]
    value: Elementwise
    d1: Elementwise
    d2: Elementwise
    max_d2: float
    max_d3: float
    d1_rounding: Callable[[Array, Array, Array], Array]
    remainder: float = 1.0
    curvature_of_targets: bool = False
    between: tuple[float, float] = (-inf, inf)
    power: float | None = None

    def check_targets(self, y: ArrayLike) -> None:
        """Refuse targets that the loss is not defined for.

        Parameters
        ----------
        y : array_like, shape (n,)

        Raises
        ------
        ValueError
            If an entry of y lies outside of `target_domain`. The message names the first one and a fix.

        Examples
        --------
        >>> from expunge.losses import LOSSES
        >>> LOSSES["logistic"].check_targets([0, 1, 1])
        """
        y = np.asarray(y, dtype=np.float64)
        if y.size == 1 and self.contains(y.item()):  # a tenth of the time that an array of one takes
            return
        inside = self.contains(y)
        if y.size and not inside.item(first := inside.argmin()):
            raise ValueError(
                f"y[{first}] is {y[first]}, but the {self.name} loss expects targets in "
                f"{self.target_domain}: {self.remedy}"
            )


def moved(slope: Any, steepest: float, range: float, eta_rounding: Any) -> Array:
    """How far d1 may be from its value at another eta (E19), in units of the roundoff.

    Parameters
    ----------
    slope : array_like
        Bound on d2 at the computed eta. At a distance t from it, d2 is at most e^t times as large.
    steepest : float
        Bound on d2 at any eta.
    range : float
        The largest value of d1 minus the smallest.
    eta_rounding : array_like
        Bound on the distance of the other eta, in units of the roundoff.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> from expunge.losses import moved
    >>> float(moved(0.125, 0.25, 1.0, 8.0)), float(moved(0.0, 0.25, 1.0, 2.0**54))
    (1.0000000000000009, 4503599627370496.0)
    """
    u, lost = 2.0**-53, 2.0**-1018  # `lost` covers underflow: a few 2^-1074, in units of u
    most = (1.0 + 2.0**-20) * range / u  # a little above the range: sums of bounds are rounded, too
    eta_rounding = np.asarray(eta_rounding, dtype=np.float64)
    t = u * eta_rounding
    small = np.minimum(t, 1.0)  # e^t - 1 <= t (1 + t) up to t = 1; above that, slope says nothing
    grown = np.where(t <= 1.0, np.minimum(slope * (1.0 + small), steepest), steepest)
    by: Array = np.fmin(grown * eta_rounding, most) + lost  # NaN becomes `most`
    return by


def _squared_value(y: ArrayLike, eta: ArrayLike) -> Array:
    return 0.5 * np.square(_squared_d1(y, eta))


def _squared_d1(y: ArrayLike, eta: ArrayLike) -> Array:
    return np.subtract(eta, np.asarray(y, dtype=np.float64))  # in eta's precision, if that is higher


def _squared_d2(y: ArrayLike, eta: ArrayLike) -> Array:
    return np.ones_like(eta, dtype=np.float64)


def _sign(y: ArrayLike) -> Array:
    """+1 for class 0, -1 for class 1. Where sign * eta > 0 the class is predicted wrongly."""
    return 1.0 - 2.0 * np.asarray(y, dtype=np.float64)


def _logistic_value(y: ArrayLike, eta: ArrayLike) -> Array:
    z = np.multiply(_sign(y), eta)
    value: Array = np.maximum(z, 0.0) + np.log1p(np.exp(-np.abs(z)))  # log(1 + exp(z)), which may overflow
    return value


def _logistic_d1(y: ArrayLike, eta: ArrayLike) -> Array:
    sign = _sign(y)
    d1: Array = sign * expit(np.multiply(sign, eta))  # for y = 1 -sigma(-eta), as sigma(eta) - 1 cancels
    return d1


def _logistic_d2(y: ArrayLike, eta: ArrayLike) -> Array:
    eta = np.asarray(eta, dtype=np.float64)
    d2: Array = expit(eta) * expit(-eta)
    return d2


def _fractional_value(y: ArrayLike, eta: ArrayLike) -> Array:
    rest = np.where(np.greater(eta, 0.0), np.subtract(1.0, y), np.negative(y))
    value: Array = np.add(rest * eta, np.log1p(np.exp(-np.abs(eta))))
    return value


def _fractional_d1(y: ArrayLike, eta: ArrayLike) -> Array:
    e, above = np.exp(-np.abs(eta)), np.greater(eta, 0.0)
    d1 = np.subtract(1.0, y) * np.where(above, 1.0, e) - np.multiply(y, np.where(above, e, 1.0))
    quotient: Array = np.divide(d1, 1.0 + e)
    return quotient


def _fractional_rounding(r: Array, eta_rounding: Array, y: Array) -> Array:
    most = np.abs(r) + np.minimum(y, 1.0 - y)  # sigma or 1 - sigma, and so d2, is at most that
    return moved(most, 0.25, 1.0, eta_rounding) + 12.0 * most


def _short_of(y: ArrayLike, eta: ArrayLike) -> Array:
    """By how much a margin is short of 1."""
    short: Array = np.maximum(1.0 + np.multiply(_sign(y), eta), 0.0)
    return short


def _exp(eta: ArrayLike) -> Array:
    with np.errstate(over="ignore", under="ignore"):  # infinite above 709.8
        result: Array = np.exp(np.add(eta, 0.0))
    return result


def _poisson_value(y: ArrayLike, eta: ArrayLike) -> Array:
    return _exp(eta) - np.multiply(y, eta)


def _poisson_d1(y: ArrayLike, eta: ArrayLike) -> Array:
    return np.subtract(_exp(eta), y)


def _poisson_d2(y: ArrayLike, eta: ArrayLike) -> Array:
    return _exp(eta)


def _poisson_rounding(r: Array, eta_rounding: Array, y: Array) -> Array:
    most = np.abs(r) + y  # d2
    return moved(most, inf, inf, eta_rounding) + 4.0 * most


@cache
def tweedie(power: float) -> Loss:
    """The loss of a mean e^eta and a variance that is a power p of it, 1 < p <= 2; 2 is gamma regression.

    Half its deviance but for what depends on y alone: with a = 2 - p and b = p - 1, A = e^(a eta) and
    B = y e^(-b eta), it is A/a + B/b, d1 = A - B and d2 = aA + bB.

    Parameters
    ----------
    power : float

    Returns
    -------
    Loss

    Examples
    --------
    >>> from expunge.losses import tweedie
    >>> tweedie(1.5).name, tweedie(1.5).remainder
    ('tweedie(1.5)', 0.5)
    """
    power = float(power)
    if not 1.0 < power <= 2.0:
        raise ValueError(f"the power of a Tweedie loss must be above 1 and at most 2, got {power}")
    a, b = 2.0 - power, power - 1.0

    def parts(y: ArrayLike, eta: ArrayLike) -> tuple[Array, Array]:
        y = np.asarray(y, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return _exp(np.multiply(a, eta)), np.where(y > 0.0, y * _exp(np.multiply(-b, eta)), 0.0)

    def value(y: ArrayLike, eta: ArrayLike) -> Array:
        A, B = parts(y, eta)
        with np.errstate(over="ignore"):
            return np.add(A / a if a > 0.0 else eta, B / b)

    def d1(y: ArrayLike, eta: ArrayLike) -> Array:
        A, B = parts(y, eta)
        return A - B

    def d2(y: ArrayLike, eta: ArrayLike) -> Array:
        A, B = parts(y, eta)
        return a * A + b * B

    def d1_rounding(r: Array, eta_rounding: Array, y: Array) -> Array:
        least = b + a * y  # no less than y^a, which the smaller of A and B is at most
        most = np.abs(r) + least
        return moved(most, inf, inf, 2.0 * eta_rounding) + 8.0 * (most + least)

    return Loss(
        name=f"tweedie({power!r})",
        target_domain="[0, inf)" if a > 0.0 else "(0, inf)",
        remedy="remove rows of negative targets"
        if a > 0.0
        else "remove rows of targets that are not above 0",
        contains=lambda y: ((y >= 0.0) if a > 0.0 else (y > 0.0)) & np.isfinite(y),
        value=value,
        d1=d1,
        d2=d2,
        max_d2=inf,
        max_d3=inf,
        d1_rounding=d1_rounding,
        remainder=max(a, b),
        curvature_of_targets=True,
        between=(0.0 if a > 0.0 else -inf, inf),
        power=power,
    )


# Of a Tweedie loss, which has a power, two are here to be known by name; `get_loss` gives any.
LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            name="squared",
            target_domain="real",
            remedy="replace NaN and infinite targets, or remove their rows",
            contains=np.isfinite,
            value=_squared_value,
            d1=_squared_d1,
            d2=_squared_d2,
            max_d2=1.0,
            max_d3=0.0,
            d1_rounding=lambda r, eta_rounding, y: eta_rounding + np.abs(y),
            remainder=0.0,
        ),
        Loss(
            name="logistic",
            target_domain="{0, 1}",
            remedy="encode the two classes as 0 and 1",
            contains=lambda y: (y == 0.0) | (y == 1.0),
            value=_logistic_value,
            d1=_logistic_d1,
            d2=_logistic_d2,
            max_d2=0.25,
            max_d3=1.0 / (6.0 * sqrt(3.0)),  # at eta = +-log(2 + sqrt 3)
            # d2 <= |r| <= 1
            d1_rounding=lambda r, eta_rounding, y: moved(np.abs(r), 0.25, 1.0, eta_rounding),
            between=(0.0, 1.0),
        ),
        Loss(
            name="fractional",
            target_domain="[0, 1]",
            remedy="divide counts by their totals, and let weights be the totals",
            contains=lambda y: (y >= 0.0) & (y <= 1.0),
            value=_fractional_value,
            d1=_fractional_d1,
            d2=_logistic_d2,
            max_d2=0.25,
            max_d3=1.0 / (6.0 * sqrt(3.0)),
            d1_rounding=_fractional_rounding,
            between=(0.0, 1.0),
        ),
        Loss(
            name="poisson",
            target_domain="[0, inf)",
            remedy="counts and rates are not negative",
            contains=lambda y: (y >= 0.0) & np.isfinite(y),
            value=_poisson_value,
            d1=_poisson_d1,
            d2=_poisson_d2,
            max_d2=inf,
            max_d3=inf,
            d1_rounding=_poisson_rounding,
            between=(0.0, inf),
        ),
        tweedie(1.5),
        tweedie(2.0),
        Loss(
            name="squared_hinge",
            target_domain="{0, 1}",
            remedy="encode the two classes as 0 and 1",
            contains=lambda y: (y == 0.0) | (y == 1.0),
            value=lambda y, eta: np.square(_short_of(y, eta)),
            d1=lambda y, eta: 2.0 * _sign(y) * _short_of(y, eta),
            d2=lambda y, eta: np.where(_short_of(y, eta) > 0.0, 2.0, 0.0),
            max_d2=2.0,
            max_d3=inf,
            d1_rounding=lambda r, eta_rounding, y: 2.0 * eta_rounding + 2.0 * np.abs(r),
            remainder=inf,
            curvature_of_targets=True,
            between=(0.0, 1.0),
        ),
    )
}
_TWEEDIE = re.compile(r"tweedie\((1\.\d+|2|2\.0)\)")


def loss_of_power(power: Any) -> str:
    """The name of the loss whose variance is that power of the mean e^eta.

    Parameters
    ----------
    power : float
        From 1 to 2.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        No number, or a power whose loss is not convex in eta; 0, which is Ridge.

    Examples
    --------
    >>> from expunge.losses import loss_of_power
    >>> loss_of_power(1), loss_of_power(1.5)
    ('poisson', 'tweedie(1.5)')
    """
    if not isinstance(power, Real) or isinstance(power, bool):
        raise TypeError(f"power must be a number, got {power!r}")
    power = float(power)
    if power == 0.0:
        raise ValueError("power=0 is least squares: fit Ridge")
    if not 1.0 <= power <= 2.0:
        raise ValueError(
            f"power={power:g} is not supported: with means exp(eta) its loss is not convex, or there is no "
            "such distribution. Pass one from 1 to 2, or fit Ridge"
        )
    return "poisson" if power == 1.0 else tweedie(power).name


def get_loss(name: str) -> Loss:
    """The loss of that name.

    Parameters
    ----------
    name : str
        A Tweedie loss has its power in it.

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If there is none. The message lists the known names.

    Examples
    --------
    >>> from expunge.losses import get_loss
    >>> get_loss("squared").max_d2
    1.0
    """
    if name in LOSSES:
        return LOSSES[name]
    if (found := _TWEEDIE.fullmatch(name)) is not None and (power := float(found[1])) > 1.0:
        return tweedie(power)
    raise ValueError(
        f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}, or tweedie(power), 1 < power <= 2"
    )
