"""The two closed-form updates of Warnecke et al. (NDSS 2023), on arrays.

`g` is the gradient of the corrected objective at theta: the old gradient plus the gradient difference
(E3, :func:`expunge.kernels.gradient_difference`). At an optimum the old gradient is 0.
"""

from __future__ import annotations

from numbers import Real
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Float, as_vector
from .kernels import CholeskyFactor
from .losses import Loss

__all__ = ["first_order_update", "safe_tau", "second_order_update"]


class Factor(Protocol):
    """Anything that solves with H."""

    def solve(self, b: Float, /) -> Float:
        """H^-1 b."""


def first_order_update(theta: ArrayLike, g: ArrayLike, tau: float) -> Float:
    """``theta - tau g`` (E4).

    Parameters
    ----------
    theta, g : (p,) arrays
    tau : float
        Step size > 0; :func:`safe_tau` gives one that never overshoots.

    Returns
    -------
    (p,) array

    Raises
    ------
    ValueError
        tau not positive and finite, shapes that do not match, NaN or infinity.

    Examples
    --------
    >>> first_order_update([1.0, 2.0], [10.0, -10.0], 0.1)
    array([0., 3.])
    """
    if not (isinstance(tau, Real) and 0 < float(tau) < np.inf):
        raise ValueError(f"tau must be positive and finite, got {tau!r}")
    theta = as_vector(theta, "theta", np.size(theta))
    return theta - float(tau) * as_vector(g, "g", theta.size, match=" to match theta")


def second_order_update(theta: ArrayLike, g: ArrayLike, H_or_factor: ArrayLike | Factor) -> Float:
    """``theta - H^-1 g`` (E5).

    With H of the corrected data this is one Newton step on the corrected objective, exact for the squared
    loss; with H of the original data it is the influence function.

    Parameters
    ----------
    theta, g : (p,) arrays
    H_or_factor : (p, p) array, or an object with ``solve(b)``
        A matrix is factored by Cholesky; pass a :class:`expunge.kernels.CholeskyFactor` to factor once and
        update many times.

    Returns
    -------
    (p,) array

    Raises
    ------
    ValueError
        Shapes that do not match, NaN or infinity.
    NotPositiveDefiniteError
        A matrix without a Cholesky factor.

    Examples
    --------
    >>> second_order_update([1.0, 2.0], [8.0, 4.0], [[4.0, 0.0], [0.0, 1.0]])
    array([-1., -2.])
    """
    theta = as_vector(theta, "theta", np.size(theta))
    g = as_vector(g, "g", theta.size, match=" to match theta")
    factor = H_or_factor if hasattr(H_or_factor, "solve") else CholeskyFactor(H_or_factor)
    return theta - factor.solve(g)


def gram_norm_bound(gram: Float) -> float:
    """Upper bound of the spectral norm of a symmetric matrix: min of its Frobenius and 1-norms (E4)."""
    return float(min(np.linalg.norm(gram), np.abs(gram).sum(axis=0).max(initial=0.0)))


def local_tau(gram_norm: float, alpha: ArrayLike, reach: float) -> float:
    """Step size of E34 where d2 has no bound: the largest with ``tau L (e^a - 1)/a <= 1``, ``a = tau reach``.

    Parameters
    ----------
    gram_norm : float
        Upper bound of the spectral norm of the data's part of the Hessian at theta; L is that and max(alpha).
    alpha : float or array
    reach : float
        At least ``c |x| |g|`` of every row, c the largest |d3| / d2 and x extended by 1 with an intercept.

    Returns
    -------
    float
        With tau at most this, the residual shrinks by ``1 - tau min(alpha)`` or more.

    Examples
    --------
    >>> local_tau(3.0, 1.0, 0.0)
    0.25
    >>> round(local_tau(3.0, 1.0, 4.0), 6)
    0.173287
    """
    L = float(np.max(alpha)) + gram_norm
    return float(np.log1p(reach / L)) / reach if reach > 0.0 else 1.0 / L


def safe_tau(gram_norm: float, alpha: ArrayLike, loss: Loss) -> float:
    """Step size ``1 / L`` of E4, ``L = max(alpha) + max_d2 |S^1/2 X|^2``.

    Parameters
    ----------
    gram_norm : float
        Upper bound of the spectral norm of ``X.T @ diag(s) @ X``, X extended by 1 with an intercept.
    alpha : float or array
    loss : Loss

    Returns
    -------
    float
        With tau at most this, the residual shrinks by ``1 - tau min(alpha)`` or more.

    Examples
    --------
    >>> from expunge.losses import LOSSES
    >>> safe_tau(12.0, 1.0, LOSSES["logistic"])
    0.25
    """
    return 1.0 / (float(np.max(alpha)) + loss.max_d2 * gram_norm)
