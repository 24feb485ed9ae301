"""The registry of losses: a loss is three scalar functions of (y, eta) and two constants (E1)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

__all__ = ["LOSSES", "Loss", "get_loss", "moved"]

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
        l and its first two derivatives in eta, as elementwise functions of (y, eta). None of them may
        overflow at any eta. d2 must not depend on y, because Hessians are formed without targets (E6).
    max_d2, max_d3 : float
        The largest d2, and the largest absolute third derivative, over all eta.
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
        ),
    )
}


def get_loss(name: str) -> Loss:
    """The loss of that name.

    Parameters
    ----------
    name : str

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
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
