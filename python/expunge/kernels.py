"""The compiled kernels on arrays. Each has a NumPy twin of the same name in :mod:`expunge.reference`.

Everything is on the sum scale of E1, ``J(theta) = sum_i s_i loss(y_i, eta_i) + 1/2 sum_j alpha_j theta_j**2``
with ``eta = X @ theta``; with ``fit_intercept`` theta has one more coordinate, the last, which is the
unpenalised intercept. `X` may be float32 or float64, in C or F order or canonical CSR; it is neither copied
nor changed. Arithmetic is float64 and the GIL is released.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._arrays import (
    Float,
    as_matrix,
    as_real,
    as_vector,
    in_order,
    require_finite,
)
from ._numbers import as_flag
from ._parameters import documented
from .losses import get_loss
from .problem import Problem, as_block, as_objective
from .statistics import AnchoredStatistics

__all__ = [
    "AnchoredStatistics",
    "CholeskyFactor",
    "gradient",
    "gradient_difference",
    "gram",
    "hessian",
    "hvp",
    "loss_and_gradient",
    "loss_gradient_and_hessian",
    "rounding_floor",
]

Rows = tuple[Any, ArrayLike] | tuple[Any, ArrayLike, ArrayLike | None]


def _explain(g: Float, *Xs: Any) -> None:
    """Raises if X is why g is not finite. A finite g clears X, because every entry of X enters g."""
    if not _core.is_finite(g):
        for X in Xs:
            as_matrix(X)


@documented
def loss_and_gradient(
    X: Any,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> tuple[float, Float]:
    """J and its gradient in one pass over X (E1).

    Returns
    -------
    value : float
    gradient : (p,) array

    Raises
    ------
    ValueError
        Shapes that do not match, NaN or infinity, negative weights or alpha, y outside the loss's domain.

    Examples
    --------
    >>> value, g = loss_and_gradient([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0)
    >>> round(value, 6), g
    (1.386294, array([-0.5]))
    """

    def evaluate(canonical: bool) -> _core.Evaluation:
        J, at = as_objective(
            X,
            y,
            sample_weight,
            theta,
            alpha=alpha,
            loss=loss,
            fit_intercept=fit_intercept,
            noise=noise,
            finite=False,
            canonical=canonical,
        )
        return J.evaluate(at)

    at = in_order(evaluate)
    g = at.gradient
    _explain(g, X)
    return at.value, g


@documented
def gradient(
    X: Any,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> Float:
    """Gradient of J (E1), summed by panels of 256 rows (E19).

    Errors as in :func:`loss_and_gradient`.

    Returns
    -------
    (p,) array

    Examples
    --------
    >>> gradient([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0)
    array([-0.5])
    """
    return loss_and_gradient(
        X,
        y,
        theta,
        alpha=alpha,
        loss=loss,
        sample_weight=sample_weight,
        fit_intercept=fit_intercept,
        noise=noise,
    )[1]


@documented
def hessian(
    X: Any,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    y: ArrayLike | None = None,
) -> Float:
    """Hessian of J (E1): ``X.T @ diag(s d2) @ X + diag(alpha)``.

    It depends on y for a Tweedie loss alone, which asks for y. Errors as in :func:`loss_and_gradient`.

    Returns
    -------
    (p, p) array
        Full and symmetric.

    Examples
    --------
    >>> hessian([[1.0], [2.0]], [0.0], alpha=1.0)
    array([[2.25]])
    """
    J, theta = as_objective(
        X, y, sample_weight, theta, alpha=alpha, loss=loss, fit_intercept=fit_intercept, curvature=True
    )
    return J.hessian(theta)


@documented
def loss_gradient_and_hessian(
    X: Any,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> tuple[float, Float, Float]:
    """J, its gradient and its Hessian (E1): what a Newton step needs, in one pass over dense X.

    CSR takes the passes of both kernels.

    Errors as in :func:`loss_and_gradient`.

    Returns
    -------
    value : float
    gradient : (p,) array
    hessian : (p, p) array
        Full and symmetric.

    Examples
    --------
    >>> value, g, H = loss_gradient_and_hessian([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0)
    >>> round(value, 6), g, H
    (1.386294, array([-0.5]), array([[2.25]]))
    """
    J, theta = as_objective(
        X,
        y,
        sample_weight,
        theta,
        alpha=alpha,
        loss=loss,
        fit_intercept=fit_intercept,
        noise=noise,
        finite=False,
    )
    at, H = J.evaluate_with_hessian(theta)
    g = at.gradient
    _explain(g, X)
    return at.value, g, H


@documented
def hvp(
    X: Any,
    theta: ArrayLike,
    v: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    y: ArrayLike | None = None,
) -> Float:
    """Hessian of J at theta, times v, without forming it (E1).

    It depends on y for a Tweedie loss alone, which asks for y. Errors as in :func:`loss_and_gradient`.

    Returns
    -------
    (p,) array

    Examples
    --------
    >>> hvp([[1.0], [2.0]], [0.0], [2.0], alpha=1.0)
    array([4.5])
    """

    def multiply(canonical: bool) -> Float:
        J, at = as_objective(
            X,
            y,
            sample_weight,
            theta,
            alpha=alpha,
            loss=loss,
            fit_intercept=fit_intercept,
            finite=False,
            canonical=canonical,
            curvature=True,
        )
        return J.hvp(at, as_vector(v, "v", at.size, match=" to match X"))

    product = in_order(multiply)
    _explain(product, X)
    return product


@documented
def rounding_floor(
    X: Any,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> float:
    """Bound on the rounding error of :func:`gradient` in Euclidean norm (E19).

    A residual below it cannot be told from 0. Errors as in :func:`loss_and_gradient`.

    Returns
    -------
    float

    Examples
    --------
    >>> 0 < rounding_floor([[1.0], [2.0]], [0, 1], [0.5], alpha=1.0) < 1e-12
    True
    """
    J, theta = as_objective(
        X, y, sample_weight, theta, alpha=alpha, loss=loss, fit_intercept=fit_intercept, noise=noise
    )
    return J.rounding_floor(theta)


@documented
def gradient_difference(
    before: Rows | None,
    after: Rows | None,
    theta: ArrayLike,
    *,
    loss: str = "logistic",
    fit_intercept: bool = False,
) -> Float:
    """Gradient of the rows after a correction minus that of the rows before (E3).

    Only the touched rows are read, O(md). The penalty is the same on both sides and does not enter.

    Returns
    -------
    (p,) array

    Raises
    ------
    ValueError
        As :func:`loss_and_gradient`.

    Examples
    --------
    >>> X = np.array([[1.0, 2.0]])
    >>> gradient_difference((X, [0]), (X, [1]), [0.3, -0.1])
    array([-1., -2.])
    """
    chosen, fit_intercept = get_loss(loss), as_flag(fit_intercept, "fit_intercept")
    plain = _core.gradient_difference(before, after, theta, loss, fit_intercept)
    if plain is not None:
        return plain
    # Some input has to be converted, or is wrong.
    at = as_vector(theta, "theta", np.size(theta))
    objectives: list[_core.Objective | None] = []
    given: list[Any] = []
    for side in (before, after):
        if side is None:
            objectives.append(None)
            continue
        if not isinstance(side, tuple) or len(side) not in (2, 3):
            raise ValueError("before and after are tuples (X, y) or (X, y, sample_weight), or None")
        if not given or side[0] is not given[-1]:  # the very same X is converted once, and stays the same
            X = as_matrix(side[0], finite=False)
            given.append(side[0])
            if at.size != X.shape[1] + fit_intercept:
                as_vector(at, "theta", X.shape[1] + fit_intercept, match=" to match X")
        block = as_block(X, side[1], side[2] if len(side) == 3 else None, chosen)
        columns = np.ones(X.shape[1], dtype=bool)
        objectives.append(Problem(loss, 0.0, fit_intercept).objective([block], columns))
    g = _core.difference(objectives[0], objectives[1], at).gradient
    _explain(g, *given)
    return g


@documented
def gram(X: Any, w: ArrayLike) -> Float:
    """Weighted Gram matrix ``X.T @ diag(w) @ X``.

    Returns
    -------
    (d, d) array
        Full and symmetric.

    Raises
    ------
    ValueError
        Shapes that do not match, NaN or infinity.

    Examples
    --------
    >>> gram([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0])
    array([[ -8., -10.],
           [-10., -12.]])
    """
    X = as_matrix(X, finite=False)
    w = as_vector(w, "w", X.shape[0], match=" to match X")
    if not w.all() or X.shape[0] < X.shape[1]:  # a row of weight 0 is not read
        return _core.gram(as_matrix(X), w)
    G = _core.gram(X, w)
    _explain(np.diagonal(G).copy(), X)
    return G


@documented
class CholeskyFactor:
    """H = L L^T, factored once, solved many times and edited with H (E22).

    An edit that raises has changed nothing. Edits are not safe beside another thread's use of the factor.

    Raises
    ------
    ValueError
        H not square, NaN or infinity.
    NotPositiveDefiniteError
        Names the first pivot that is not positive.

    Examples
    --------
    >>> factor = CholeskyFactor([[4.0, 2.0], [2.0, 3.0]])
    >>> factor.solve([8.0, 8.0])
    array([1., 2.])
    >>> factor.update([1.0, 0.0])
    >>> factor.solve([9.0, 8.0])
    array([1., 2.])
    >>> factor.delete(0)
    >>> factor.solve([3.0])
    array([1.])
    """

    def __init__(self, H: ArrayLike) -> None:
        matrix = as_real(H, "H")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"H has shape {matrix.shape}, expected a square matrix")
        if not _core.is_finite(matrix):
            raise ValueError("H contains NaN or infinity")
        self._factor = _core.CholeskyFactor(matrix)

    def solve(self, b: ArrayLike) -> Float:
        """H^-1 b by two triangular solves.

        Parameters
        ----------
        b : (p,) or (p, k) array

        Returns
        -------
        array of the shape of b

        Raises
        ------
        ValueError
            Shapes that do not match, NaN or infinity.
        """
        b = as_real(b, "b")
        if not _core.is_finite(b):
            raise ValueError("b contains NaN or infinity")
        return self._factor.solve(b)

    def update(self, V: ArrayLike) -> None:
        """H becomes H + V V^T, in place, by plane rotations (E22).

        Parameters
        ----------
        V : (p,) or (p, k) array
            A row of the data that comes in, times the root of its weight; or k of them as columns.

        Raises
        ------
        ValueError
            Shapes that do not match, NaN or infinity.

        Examples
        --------
        >>> factor = CholeskyFactor([[9.0]])
        >>> factor.update([4.0])
        >>> factor.lower
        array([[5.]])
        """
        self._factor.update(self._columns(V))

    def downdate(self, V: ArrayLike) -> None:
        """H becomes H - V V^T, in place, by hyperbolic rotations in Chambers' order (E22).

        Where ``1 - v^T H^-1 v`` is 10^-k, k digits are lost.

        Parameters
        ----------
        V : (p,) or (p, k) array
            A row of the data that goes, times the root of its weight; or k of them as columns.

        Raises
        ------
        ValueError
            Shapes that do not match, NaN or infinity.
        NotPositiveDefiniteError
            ``1 - v^T H^-1 v``, or for k columns an eigenvalue of ``I - V^T H^-1 V``, is not above 1e-8:
            rounding alone would be left of H along v.

        Examples
        --------
        >>> factor = CholeskyFactor([[25.0]])
        >>> factor.downdate([4.0])
        >>> factor.lower
        array([[3.]])
        """
        self._factor.downdate(self._columns(V))

    def append(self, h: ArrayLike) -> None:
        """H gets one more row and column at its end, in place, by one triangular solve (E22).

        :meth:`delete` of the last index takes it back.

        Parameters
        ----------
        h : (p + 1,) array
            The new row of H, the diagonal entry last.

        Raises
        ------
        ValueError
            Shapes that do not match, NaN or infinity.
        NotPositiveDefiniteError
            The new pivot is not positive by more than its rounding.

        Examples
        --------
        >>> factor = CholeskyFactor([[4.0]])
        >>> factor.append([2.0, 10.0])
        >>> factor.lower
        array([[2., 0.],
               [1., 3.]])
        """
        self._factor.append(as_vector(h, "h", self._factor.shape[0] + 1))

    def _columns(self, V: ArrayLike) -> Float:
        array = as_real(V, "V")
        require_finite(array, "V")
        return array

    def delete(self, i: int) -> None:
        """Removes row and column i of H, in place: a rank-1 update of the trailing block of L.

        Raises
        ------
        IndexError
            i outside [0, p); the factor stays as it was.
        """
        self._factor.delete(i)

    @property
    def lower(self) -> Float:
        """L (p, p), a copy, zero above the diagonal."""
        return self._factor.lower

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return self._factor.shape
