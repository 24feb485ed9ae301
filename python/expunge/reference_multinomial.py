"""NumPy twins of the multinomial loss (E28 to E32): the executable specification, dense and in float64.

`theta` is (K, p), a row for each class. With ``fit_intercept=True`` a row x becomes (x, 1), theta's rows end
with the intercepts, and p = d + 1; otherwise p = d. `y` (n,) holds numbers of classes, 0 to K - 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .multinomial import probabilities, residuals, values
from .reference import _design, _float, _norm, _penalty, _weights

__all__ = [
    "gradient",
    "hessian",
    "hvp",
    "loss_and_gradient",
    "pairs",
    "profile_bound",
    "residual_bound",
    "rounding_floor",
    "slopes",
]

Array = NDArray[np.float64]
UNIT_ROUNDOFF = 2.0**-53


def slopes(y: ArrayLike, eta: ArrayLike) -> tuple[Array, Array, Array]:
    """The loss (n,) of predictors eta (n, K), its gradient r = p - e_y (n, K), and p (n, K).

    ``r_y`` is minus the sum of the other probabilities, since p - 1 loses their digits.

    Examples
    --------
    >>> value, r, p = slopes([0], [[0.0, 0.0]])
    >>> value.round(6).tolist(), r.tolist(), p.tolist()
    ([0.693147], [[-0.5, 0.5]], [[0.5, 0.5]])
    """
    eta = _float(eta)
    return values(y, eta), residuals(y, eta), probabilities(eta)


def pairs(p: Array) -> Array:
    """Hessians of rows, diag(p) - p p' (n, K, K), from products of two probabilities: no 1 - p cancels.

    Examples
    --------
    >>> pairs(np.array([[0.5, 0.5]])).tolist()
    [[[0.25, -0.25], [-0.25, 0.25]]]
    """
    W: Array = -p[:, :, None] * p[:, None, :]
    k = np.arange(p.shape[1])
    W[:, k, k] = 0.0
    W[:, k, k] = -W.sum(axis=2)
    return W


def loss_and_gradient(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> tuple[float, Array]:
    """J and its gradient (K, p), E28.

    Examples
    --------
    >>> value, g = loss_and_gradient([[1.0]], [2], [[0.0], [0.0], [0.0]], alpha=1.0)
    >>> round(value, 6), g.round(6).tolist()
    (1.098612, [[0.333333], [0.333333], [-0.666667]])
    """
    A, theta = _design(X, fit_intercept), _float(theta)
    s = _weights(sample_weight, len(A))
    penalty = _penalty(alpha, np.shape(X)[1], fit_intercept)
    value, r, _ = slopes(y, A @ theta.T)
    return float(s @ value) + 0.5 * float(np.sum(penalty * theta**2)), (
        s[:, None] * r
    ).T @ A + penalty * theta


def gradient(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> Array:
    """The gradient (K, p) alone.

    Examples
    --------
    >>> gradient([[1.0]], [0], [[0.0], [0.0]], alpha=1.0).tolist()
    [[-0.5], [0.5]]
    """
    return loss_and_gradient(
        X, y, theta, alpha=alpha, sample_weight=sample_weight, fit_intercept=fit_intercept
    )[1]


def hessian(
    X: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> Array:
    """The Hessian (K p, K p), the sum of s W x x' over rows and a penalty for each class.

    Examples
    --------
    >>> hessian([[2.0]], [[0.0], [0.0]], alpha=1.0).tolist()
    [[2.0, -1.0], [-1.0, 2.0]]
    """
    A, theta = _design(X, fit_intercept), _float(theta)
    s = _weights(sample_weight, len(A))
    W = s[:, None, None] * pairs(slopes(np.zeros(len(A)), A @ theta.T)[2])
    blocks = np.einsum("ikl,ia,ib->kalb", W, A, A)
    penalty = np.tile(_penalty(alpha, np.shape(X)[1], fit_intercept), len(theta))
    H: Array = blocks.reshape(theta.size, theta.size) + np.diag(penalty)
    return H


def hvp(
    X: ArrayLike,
    theta: ArrayLike,
    v: ArrayLike,
    *,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> Array:
    """The Hessian times v (K, p), (K, p).

    Examples
    --------
    >>> hvp([[2.0]], [[0.0], [0.0]], [[1.0], [0.0]], alpha=1.0).tolist()
    [[2.0], [-1.0]]
    """
    A, theta, v = _design(X, fit_intercept), _float(theta), _float(v)
    s = _weights(sample_weight, len(A))
    W = pairs(slopes(np.zeros(len(A)), A @ theta.T)[2])
    product = s[:, None] * np.einsum("ikl,il->ik", W, A @ v.T)
    result: Array = product.T @ A + _penalty(alpha, np.shape(X)[1], fit_intercept) * v
    return result


def residual_bound(R: float, delta: ArrayLike, q: float) -> float:
    """E30: the gradient after a step delta (K, p) from an anchor, q = delta' (H_a - Lambda) delta.

    No row is longer than R. Without its terms of rounding.

    Examples
    --------
    >>> residual_bound(1.0, [[0.0], [0.0]], 0.0)
    0.0
    """
    delta = _float(delta)
    rho = R * float(np.max(np.linalg.norm(delta[:, None, :] - delta[None, :, :], axis=2)))
    ratio = 0.5 if rho == 0.0 else (np.expm1(rho) - rho) / rho**2
    return float(np.sqrt(2.0) * R * ratio * q)


def profile_bound(g: ArrayLike, R_0: float) -> float:
    """E31: the gradient of the coefficients at best intercepts, from g (K, d + 1), intercepts last.

    No row, without the 1, is longer than R_0.

    Examples
    --------
    >>> profile_bound([[3.0, 0.0], [4.0, 0.0]], 2.0)
    5.0
    """
    g = _float(g)
    of_coefficients, of_intercepts = g[:, :-1], g[:, -1]
    currents = np.sqrt((len(g) - 2) * np.abs(of_intercepts).sum() ** 2 + of_intercepts @ of_intercepts)
    return float(np.linalg.norm(of_coefficients) + R_0 * currents)


def rounding_floor(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> float:
    """Bound on the rounding error of the compiled gradient (E32), of dense rows.

    Examples
    --------
    >>> 0 < rounding_floor([[1.0]], [0], [[0.0], [1.0]], alpha=1.0) < 1e-13
    True
    """
    A, theta = _design(X, fit_intercept), _float(theta)
    n, (K, _) = len(A), theta.shape
    s, d = _weights(sample_weight, n), np.shape(X)[1]
    r = np.abs(slopes(y, A @ theta.T)[1])
    eta = (d + 2.0 + fit_intercept) * np.max(np.abs(A) @ np.abs(theta).T, axis=1)
    t = np.minimum(2.0 * UNIT_ROUNDOFF * eta, 1.0)[:, None]
    moved = np.minimum(np.minimum(r * (1.0 + t), 0.25) * 2.0 * eta[:, None], 1.0 / UNIT_ROUNDOFF)
    additions = min(n, 256) + np.ceil(n / 256) + 3.0
    error = s[:, None] * ((additions + K + 10.0) * r + moved)
    pull = 4.0 * UNIT_ROUNDOFF * _norm((_penalty(alpha, d, fit_intercept) * theta).ravel())
    return UNIT_ROUNDOFF * _norm((error.T @ np.abs(A)).ravel()) + pull
