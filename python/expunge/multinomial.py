"""The loss of several classes, and what follows from it: the executable specification of E28 to E33.

Functions are dense and short, as those of :mod:`expunge.reference`. With K classes theta (K p,) holds that of
each class, one after the other: its coefficients (d,) and, with an intercept, that. y are numbers of classes.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from .losses import Loss

Array = NDArray[np.float64]


def probabilities(eta: ArrayLike) -> Array:
    """P (n, K) of predictors (n, K).

    Examples
    --------
    >>> probabilities([[0.0, 0.0], [800.0, 0.0]]).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    p: Array = softmax(np.asarray(eta), axis=1)
    return p


def values(y: ArrayLike, eta: ArrayLike) -> Array:
    """``lse(eta) - eta_y`` (n,), without a difference of large numbers (E28).

    Examples
    --------
    >>> values([0, 1], [[800.0, 0.0], [800.0, 0.0]]).tolist()
    [0.0, 800.0]
    """
    eta, rows = np.asarray(eta), np.arange(np.shape(eta)[0])
    own = eta[rows, np.asarray(y, dtype=np.intp)]
    largest = eta.max(axis=1)
    others = np.exp(eta - largest[:, None])
    others[rows, eta.argmax(axis=1)] = 0.0  # log1p keeps the digits of what is left beside the largest
    value: Array = (largest - own) + np.log1p(others.sum(axis=1))
    return value


def residuals(y: ArrayLike, eta: ArrayLike) -> Array:
    """``p - e_y`` (n, K), the derivatives in the predictors; of y the sum over the others (E28).

    Examples
    --------
    >>> bool(residuals([0], [[100.0, 0.0]])[0, 0] == -residuals([0], [[100.0, 0.0]])[0, 1])
    True
    """
    r = probabilities(eta)
    rows, at = np.arange(r.shape[0]), np.asarray(y, dtype=np.intp)
    r[rows, at] = 0.0
    r[rows, at] = -r.sum(axis=1)
    return r


def _spread(y: ArrayLike, eta: ArrayLike) -> Array:
    """``p_k (1 - p_k)`` (n, K) by pairs, 1 - p being the sum of the others."""
    p = probabilities(eta)
    return np.column_stack([p[:, k] * np.delete(p, k, axis=1).sum(axis=1) for k in range(p.shape[1])])


def _rounding(r: Any, eta_rounding: Any, y: Any) -> Array:
    """E32, but for additions of r: each in units of the roundoff."""
    size = np.abs(r)
    classes = size.shape[-1]
    error: Array = 2.0 * np.minimum(0.25, size) * eta_rounding + (classes + 10) * size
    return error


# Of a row with K predictors: value (n,), d1 and d2 (n, K), d2 the diagonal of W. Not in the registry, whose
# losses are functions of one predictor.
SOFTMAX = Loss(
    name="softmax",
    target_domain="{0, 1, ...}",
    remedy="encode classes as numbers from 0 on",
    contains=lambda y: (np.asarray(y) >= 0.0) & (np.asarray(y) == np.floor(y)),
    value=values,
    d1=residuals,
    d2=_spread,
    max_d2=0.5,  # the largest eigenvalue of W
    max_d3=sqrt(6.0) / 9.0,  # the Lipschitz constant of W
    d1_rounding=_rounding,
)
