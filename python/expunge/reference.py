"""NumPy twins of the compiled kernels: the executable specification.

Dense, in float64, as short as their equations, and unchecked: `expunge.kernels` has the same names and
signatures, checks its arguments and is fast. Sums over rows are sums, never means (E1). With
``fit_intercept=True`` a row x becomes (x, 1), theta ends with the intercept, and p = d + 1; otherwise p = d.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf

from .errors import NotPositiveDefiniteError
from .losses import get_loss

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

Array = NDArray[np.float64]
Rows = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]  # (X, y) or (X, y, sample_weight)

PANEL = 256  # rows summed at a time by the compiled kernels
UNIT_ROUNDOFF = 2.0**-53


def _float(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _design(X: ArrayLike, fit_intercept: bool) -> Array:
    """X (n, d) with a last column of ones for the intercept: (n, p)."""
    X = _float(X)
    return np.column_stack([X, np.ones(len(X))]) if fit_intercept else X


def _penalty(alpha: ArrayLike, d: int, fit_intercept: bool) -> Array:
    """The diagonal of Lambda, or b (p,): alpha for each coefficient, 0 for the intercept."""
    penalty = np.broadcast_to(_float(alpha), (d,))
    return np.append(penalty, 0.0) if fit_intercept else penalty


def _weights(sample_weight: ArrayLike | None, n: int) -> Array:
    return np.ones(n) if sample_weight is None else _float(sample_weight)


def _norm(v: Array) -> float:
    """Of numbers whose squares vanish, too."""
    norm = float(np.linalg.norm(v))
    if norm > 1e-140 or not np.any(v):
        return norm
    size = np.max(np.abs(v))
    return float(size * np.linalg.norm(v / size))


def gram(X: ArrayLike, w: ArrayLike) -> Array:
    """X' diag(w) X, the weighted Gram matrix.

    Parameters
    ----------
    X : array_like, shape (n, d)
    w : array_like, shape (n,)
        Weights of any sign: a negative one takes its row out.

    Returns
    -------
    ndarray, shape (d, d)

    Examples
    --------
    >>> from expunge import reference
    >>> reference.gram([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]).tolist()
    [[-8.0, -10.0], [-10.0, -12.0]]
    """
    X, w = _float(X), _float(w)
    return X.T @ (w[:, None] * X)


def hessian(
    X: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> Array:
    """Hessian of the objective J (E1): the sum of s d2 x x' over the rows, plus Lambda.

    It takes no targets, because d2 does not depend on them (E6).

    Parameters
    ----------
    X : array_like, shape (n, d)
    theta : array_like, shape (p,)
        Parameters, the intercept last.
    alpha : float or array_like, shape (d,)
        L2 penalty of each coefficient, at least 0, on the scale of the SUM of losses.
    loss : str
        A key of `expunge.losses.LOSSES`.
    sample_weight : array_like, shape (n,), optional
        Weight s of each row, at least 0; ones by default.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.

    Returns
    -------
    ndarray, shape (p, p)

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> reference.hessian([[1.0], [2.0]], [0.0], alpha=1.0, loss="squared").tolist()
    [[6.0]]
    """
    A, theta = _design(X, fit_intercept), _float(theta)
    s = _weights(sample_weight, len(A))
    A, s = A[s > 0.0], s[s > 0.0]  # whatever overflows in the others
    eta = A @ theta
    d2 = get_loss(loss).d2(0.0, eta)  # whatever y (E6)
    return gram(A, s * d2) + np.diag(_penalty(alpha, np.shape(X)[1], fit_intercept))


def gradient(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> Array:
    """Gradient of the objective J (E1): the sum of s d1 x over the rows, plus Lambda theta.

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        Targets, in the domain of the loss.
    theta : array_like, shape (p,)
        Parameters, the intercept last.
    alpha : float or array_like, shape (d,)
        L2 penalty of each coefficient, at least 0, on the scale of the SUM of losses.
    loss : str
        A key of `expunge.losses.LOSSES`.
    sample_weight : array_like, shape (n,), optional
        Weight s of each row, at least 0; ones by default.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.
    noise : array_like, shape (d,), optional
        The b of E1: b'theta joins J.

    Returns
    -------
    ndarray, shape (p,)

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> reference.gradient([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0).tolist()
    [-0.5]
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


def loss_and_gradient(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> tuple[float, Array]:
    """The objective J (E1) and its gradient, from one pass over the rows.

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        Targets, in the domain of the loss.
    theta : array_like, shape (p,)
        Parameters, the intercept last.
    alpha : float or array_like, shape (d,)
        L2 penalty of each coefficient, at least 0, on the scale of the SUM of losses.
    loss : str
        A key of `expunge.losses.LOSSES`.
    sample_weight : array_like, shape (n,), optional
        Weight s of each row, at least 0; ones by default.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.
    noise : array_like, shape (d,), optional
        The b of E1: b'theta joins J.

    Returns
    -------
    value : float
        J(theta), penalty included.
    gradient : ndarray, shape (p,)

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> value, gradient = reference.loss_and_gradient([[1.0]], [3.0], [1.0], alpha=2.0, loss="squared")
    >>> value, gradient.tolist()
    (3.0, [0.0])
    """
    A, y, theta = _design(X, fit_intercept), _float(y), _float(theta)
    s, penalty = _weights(sample_weight, len(A)), _penalty(alpha, np.shape(X)[1], fit_intercept)
    A, y, s = A[s > 0.0], y[s > 0.0], s[s > 0.0]  # whatever overflows in the others
    f, eta = get_loss(loss), A @ theta
    b = _penalty(0.0 if noise is None else noise, np.shape(X)[1], fit_intercept)
    value = s @ f.value(y, eta) + 0.5 * theta @ (penalty * theta) + b @ theta
    return float(value), A.T @ (s * f.d1(y, eta)) + penalty * theta + b


def loss_gradient_and_hessian(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> tuple[float, Array, Array]:
    """J, its gradient and its Hessian (E1). Parameters and errors as in :func:`loss_and_gradient`.

    Returns
    -------
    value : float
    gradient : ndarray, shape (p,)
    hessian : ndarray, shape (p, p)

    Examples
    --------
    >>> from expunge import reference
    >>> value, g, H = reference.loss_gradient_and_hessian([[1.0]], [3.0], [1.0], alpha=2.0, loss="squared")
    >>> value, g.tolist(), H.tolist()
    (3.0, [0.0], [[3.0]])
    """
    rows = {"alpha": alpha, "loss": loss, "sample_weight": sample_weight, "fit_intercept": fit_intercept}
    value, gradient = loss_and_gradient(X, y, theta, noise=noise, **rows)  # type: ignore[arg-type]
    return value, gradient, hessian(X, theta, **rows)  # type: ignore[arg-type]


def hvp(
    X: ArrayLike,
    theta: ArrayLike,
    v: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
) -> Array:
    """Hessian-vector product H v of the objective J (E1), without forming H.

    Parameters
    ----------
    X : array_like, shape (n, d)
    theta : array_like, shape (p,)
        Parameters at which H is taken, the intercept last.
    v : array_like, shape (p,)
    alpha : float or array_like, shape (d,)
        L2 penalty of each coefficient, at least 0, on the scale of the SUM of losses.
    loss : str
        A key of `expunge.losses.LOSSES`.
    sample_weight : array_like, shape (n,), optional
        Weight s of each row, at least 0; ones by default.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.

    Returns
    -------
    ndarray, shape (p,)

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> reference.hvp([[1.0], [2.0]], [0.0], [10.0], alpha=1.0, loss="squared").tolist()
    [60.0]
    """
    A, theta, v = _design(X, fit_intercept), _float(theta), _float(v)
    s, penalty = _weights(sample_weight, len(A)), _penalty(alpha, np.shape(X)[1], fit_intercept)
    A, s = A[s > 0.0], s[s > 0.0]  # whatever overflows in the others
    d2 = get_loss(loss).d2(0.0, A @ theta)  # whatever y (E6)
    product: Array = A.T @ (s * d2 * (A @ v)) + penalty * v
    return product


def gradient_difference(
    before: Rows | None,
    after: Rows | None,
    theta: ArrayLike,
    *,
    loss: str = "logistic",
    fit_intercept: bool = False,
) -> Array:
    """What a request adds to the gradient of J at theta (E3), from the touched rows alone.

    The sum of s d1 x over the rows `after`, minus the same sum over the rows `before`.

    Parameters
    ----------
    before, after : tuple (X, y) or (X, y, sample_weight), or None
        The touched rows as they were and as they become; X (m, d), y (m,), sample_weight (m,).
        None stands for no rows: ``after=None`` removes, ``before=None`` adds. Row counts may differ.
    theta : array_like, shape (p,)
        Parameters, the intercept last.
    loss : str
        A key of `expunge.losses.LOSSES`.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.

    Returns
    -------
    ndarray, shape (p,)

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> X = [[1.0, 2.0]]
    >>> reference.gradient_difference((X, [0]), (X, [1]), [0.3, 0.4]).tolist()
    [-1.0, -2.0]
    """
    difference = np.zeros(np.shape(theta))
    for sign, rows in ((-1.0, before), (1.0, after)):
        if rows is not None:
            X, y, *weights = rows
            A = _design(X, fit_intercept)
            s = _weights(weights[0] if weights else None, len(A))
            difference += sign * A.T @ (s * get_loss(loss).d1(_float(y), A @ _float(theta)))
    return difference


def rounding_floor(
    X: ArrayLike,
    y: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    noise: ArrayLike | None = None,
) -> float:
    """Bound on the rounding error of a computed gradient of J (E19), in Euclidean norm.

    A residual below it means nothing: no solver can be asked for less.

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        Targets, in the domain of the loss.
    theta : array_like, shape (p,)
        Parameters, the intercept last.
    alpha : float or array_like, shape (d,)
        L2 penalty of each coefficient, at least 0, on the scale of the SUM of losses.
    loss : str
        A key of `expunge.losses.LOSSES`.
    sample_weight : array_like, shape (n,), optional
        Weight s of each row, at least 0; ones by default.
    fit_intercept : bool
        Whether theta ends with an unpenalised intercept.
    noise : array_like, shape (d,), optional
        The b of E1: b'theta joins J.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the loss is unknown.

    Examples
    --------
    >>> from expunge import reference
    >>> reference.rounding_floor([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0) < 1e-13
    True
    """
    A, y, theta = _design(X, fit_intercept), _float(y), _float(theta)
    n, p = A.shape
    s, penalty = _weights(sample_weight, n), _penalty(alpha, np.shape(X)[1], fit_intercept)
    counted = s > 0.0  # a row of weight 0 is not there, whatever overflows in it
    A, y, s = A[counted], y[counted], s[counted]
    r = get_loss(loss).d1(y, A @ theta)
    additions = min(n, PANEL) + -(-n // PANEL) + 3  # within a panel, across panels, the product s r x
    eta_rounding = (p + 2) * (np.abs(A) @ np.abs(theta))
    rows = s * (additions * np.abs(r) + get_loss(loss).d1_rounding(r, eta_rounding, y))
    b = _penalty(0.0 if noise is None else noise, np.shape(X)[1], fit_intercept)
    floor = _norm(UNIT_ROUNDOFF * (np.abs(A).T @ rows)) + 4.0 * UNIT_ROUNDOFF * np.linalg.norm(
        np.abs(penalty * theta) + np.abs(b)
    )
    return np.inf if np.isnan(floor) else float(floor)


class CholeskyFactor:
    """Lower triangular L with L L' = H: factored once, solved with many times.

    Parameters
    ----------
    H : array_like, shape (p, p)
        Symmetric positive definite; only the lower triangle is read.

    Raises
    ------
    NotPositiveDefiniteError
        If H is not positive definite; names the pivot, counted from 0, at which the factorisation stopped.

    Examples
    --------
    >>> from expunge import reference
    >>> factor = reference.CholeskyFactor([[4.0, 0.0], [0.0, 9.0]])
    >>> factor.solve([8.0, 9.0]).tolist()
    [2.0, 1.0]
    >>> factor.delete(0)
    >>> factor.lower.tolist()
    [[3.0]]
    """

    def __init__(self, H: ArrayLike) -> None:
        lower, info = dpotrf(_float(H), lower=1, clean=1)
        if info:
            raise NotPositiveDefiniteError(
                f"Hessian is not positive definite (pivot {info - 1}): raise alpha above 0"
            )
        self._lower: Array = lower

    @property
    def lower(self) -> Array:
        """A copy of L: (p, p)."""
        return self._lower.copy()

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return self._lower.shape[0], self._lower.shape[1]

    def solve(self, b: ArrayLike) -> Array:
        """H^-1 b.

        Parameters
        ----------
        b : array_like, shape (p,) or (p, k)
            One right-hand side, or k of them as columns.

        Returns
        -------
        ndarray, shape of b

        Raises
        ------
        ValueError
            If the first length of b is not p; names both shapes.

        Examples
        --------
        >>> from expunge import reference
        >>> reference.CholeskyFactor([[4.0]]).solve([8.0]).tolist()
        [2.0]
        """
        solution: Array = cho_solve((self._lower, True), _float(b))
        return solution

    def update(self, V: ArrayLike) -> None:
        """H becomes H + V V' (E22), in place, factored anew.

        Parameters
        ----------
        V : array_like, shape (p,) or (p, k)

        Examples
        --------
        >>> from expunge import reference
        >>> factor = reference.CholeskyFactor([[9.0]])
        >>> factor.update([4.0])
        >>> factor.lower.tolist()
        [[5.0]]
        """
        V = _float(V).reshape(len(self._lower), -1)
        self._lower = CholeskyFactor(self._lower @ self._lower.T + V @ V.T).lower

    def downdate(self, V: ArrayLike) -> None:
        """H becomes H - V V' (E22), in place, factored anew.

        Parameters
        ----------
        V : array_like, shape (p,) or (p, k)

        Raises
        ------
        NotPositiveDefiniteError
            If an eigenvalue of I - V' H^-1 V is not above 1e-8; the factor is unchanged.

        Examples
        --------
        >>> from expunge import reference
        >>> factor = reference.CholeskyFactor([[25.0]])
        >>> factor.downdate([4.0])
        >>> factor.lower.tolist()
        [[3.0]]
        """
        V = _float(V).reshape(len(self._lower), -1)
        k = V.shape[1]
        left = min(np.linalg.eigvalsh(np.eye(k) - V.T @ self.solve(V)), default=1.0)
        if not left > 1e-8:
            name = "1 - v^T H^-1 v" if k == 1 else "smallest eigenvalue of I - V^T H^-1 V"
            raise NotPositiveDefiniteError(
                f"the factor would lose positive definiteness ({name} = {left:.6g}): "
                "factor the changed matrix anew, or check that these rows were in it"
            )
        self._lower = CholeskyFactor(self._lower @ self._lower.T - V @ V.T).lower

    def append(self, h: ArrayLike) -> None:
        """H gets one more row and column at its end (E22), in place, factored anew.

        Parameters
        ----------
        h : array_like, shape (p + 1,)
            The new row of H, the diagonal entry last.

        Raises
        ------
        NotPositiveDefiniteError
            If H would not be positive definite; the factor is unchanged.

        Examples
        --------
        >>> from expunge import reference
        >>> factor = reference.CholeskyFactor([[4.0]])
        >>> factor.append([2.0, 10.0])
        >>> factor.lower.tolist()
        [[2.0, 0.0], [1.0, 3.0]]
        """
        h, p = _float(h), len(self._lower)
        H = np.empty((p + 1, p + 1))
        H[:p, :p], H[p], H[:, p] = self._lower @ self._lower.T, h, h
        self._lower = CholeskyFactor(H).lower

    def delete(self, i: int) -> None:
        """Remove coordinate i, in place: L becomes the factor of H without row and column i.

        With column i gone, its part v below the diagonal is owed to the trailing block:
        L33' L33'^T = L33 L33^T + v v^T, a rank-1 update by rotations, which cannot fail.

        Parameters
        ----------
        i : int
            0 <= i < p.

        Raises
        ------
        IndexError
            If i is out of range; the factor is unchanged.

        Examples
        --------
        >>> from expunge import reference
        >>> factor = reference.CholeskyFactor([[1.0, 0.0], [0.0, 4.0]])
        >>> factor.delete(1)
        >>> factor.shape
        (1, 1)
        """
        p = len(self._lower)
        if not 0 <= i < p:
            raise IndexError(f"index {i} is out of range for a factor of size {p}")
        v = self._lower[i + 1 :, i].copy()
        lower = np.delete(np.delete(self._lower, i, axis=0), i, axis=1)
        trailing = lower[i:, i:]
        for k in range(len(v)):
            diagonal = np.hypot(trailing[k, k], v[k])
            c, s = trailing[k, k] / diagonal, v[k] / diagonal
            column, rest = trailing[k:, k].copy(), v[k:].copy()
            trailing[k:, k] = c * column + s * rest
            v[k:] = c * rest - s * column
        self._lower = lower


class AnchoredStatistics:
    """Gradient and Hessian of the current data at a fixed anchor, edited by rows that come and go (E8).

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
    theta : array_like, shape (p,)
        The anchor.
    alpha : array_like, scalar or shape (d,)
    loss : str
    sample_weight : array_like, shape (n,), optional
    fit_intercept : bool

    Examples
    --------
    >>> from expunge import reference
    >>> X, y = [[1.0], [2.0]], [1.0, 2.0]
    >>> statistics = reference.AnchoredStatistics(X, y, [0.0], alpha=1.0, loss="squared")
    >>> statistics.subtract([[2.0]], [2.0])
    >>> statistics.theta().round(9).tolist(), statistics.residual_bound()
    ([0.5], 0.0)
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        theta: ArrayLike,
        *,
        alpha: ArrayLike,
        loss: str = "logistic",
        sample_weight: ArrayLike | None = None,
        fit_intercept: bool = False,
    ) -> None:
        self.anchor = _float(theta)
        self._loss, self._fit_intercept = loss, fit_intercept
        self.penalty = _penalty(alpha, _float(X).shape[1], fit_intercept)
        self.gradient = self.penalty * self.anchor
        self.hessian = np.diag(self.penalty)
        self.longest, self.rows = 0.0, 0
        self.add(X, y, sample_weight)

    def add(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Rows X (m, d), y (m,), sample_weight (m,) join."""
        self._edit(1.0, X, y, sample_weight)

    def subtract(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Rows X (m, d), y (m,), sample_weight (m,) leave."""
        self._edit(-1.0, X, y, sample_weight)

    def _edit(self, sign: float, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> None:
        A, target = _design(X, self._fit_intercept), _float(y)
        s, loss, eta = _weights(sample_weight, len(A)), get_loss(self._loss), A @ self.anchor
        self.gradient = self.gradient + sign * (A.T @ (s * loss.d1(target, eta)))
        self.hessian = self.hessian + sign * gram(A, s * loss.d2(target, eta))
        self.longest = max(self.longest, float(np.linalg.norm(A, axis=1).max(initial=0.0)))
        self.rows += int(sign) * int(np.count_nonzero(s > 0))

    def merge(self, other: AnchoredStatistics) -> AnchoredStatistics:
        """Statistics of both data together, at the same anchor: the penalty is counted once."""
        merged = object.__new__(type(self))
        vars(merged).update(vars(self))
        merged.gradient = self.gradient + other.gradient - self.penalty * self.anchor
        merged.hessian = self.hessian + other.hessian - np.diag(self.penalty)
        merged.longest, merged.rows = max(self.longest, other.longest), self.rows + other.rows
        return merged

    def theta(self) -> Array:
        """``theta_a - H_a^-1 g_a`` (p,), E9."""
        return self.anchor - CholeskyFactor(self.hessian).solve(self.gradient)

    def residual_bound(self) -> float:
        """``R psi(rho) / rho^2 q``, E10 without its terms of rounding."""
        if get_loss(self._loss).max_d3 == 0:
            return 0.0
        delta = self.theta() - self.anchor
        rho = self.longest * float(np.linalg.norm(delta))
        ratio = 0.5 if rho < 1e-8 else (np.expm1(rho) - rho) / rho**2
        q = float(delta @ (self.hessian @ delta) - delta @ (self.penalty * delta))
        return float(self.longest * ratio * q)


# --- noise (E42), in integers: twins of cpp/src/gaussian.cpp, digit for digit, which kernels.py does not have

BASE = 2**32


class Digits:
    """A stream of digits to the base 2**32, from fill(n), which gives n random bytes."""

    def __init__(self, fill: Callable[[int], bytes]) -> None:
        self._fill = fill
        self._left: list[int] = []

    def draw(self) -> int:
        """The next one."""
        if not self._left:
            self._left = np.frombuffer(self._fill(1 << 14), dtype=np.uint32)[::-1].tolist()
        return self._left.pop()

    def below(self, m: int) -> int:
        """One of 0 to m - 1, all as likely."""
        while (drawn := self.draw()) >= BASE - BASE % m:
            pass
        return drawn % m


class Uniform:
    """A uniform real number in (0, 1), whose digits are drawn when they are asked for."""

    def __init__(self, source: Digits) -> None:
        self._source = source
        self._digits: list[int] = []

    def digit(self, j: int) -> int:
        """Digit j = 0, 1, ..., of weight 2**-32(j + 1)."""
        while len(self._digits) <= j:
            self._digits.append(self._source.draw())
        return self._digits[j]

    def first(self, n: int, skipped: int = 0, complement: bool = False) -> int:
        """As many digits as one integer: of this number, or of 1 minus it."""
        number = 0
        for j in range(skipped, skipped + n):
            number = number * BASE + (BASE - 1 - self.digit(j) if complement else self.digit(j))
        return number

    def __lt__(self, other: Uniform) -> bool:
        j = 0
        while (mine := self.digit(j)) == (its := other.digit(j)):
            j += 1
        return mine < its


def _run(source: Digits, last: Uniform, goes_on: Callable[[], bool]) -> bool:
    """Whether a descending run of uniform numbers below `last` has an even length."""
    length = 0
    while (drawn := Uniform(source)) < last and goes_on():
        last, length = drawn, length + 1
    return length % 2 == 0


def _half_an_exponent(source: Digits) -> bool:
    """True with probability exp(-1/2)."""
    first = Uniform(source)
    return first.digit(0) >= BASE // 2 or not _run(source, first, lambda: True)


def _accepts_whole(source: Digits, k: int) -> bool:
    """True with probability exp(-k(k - 1)/2)."""
    return all(_half_an_exponent(source) for _ in range(k * (k - 1)))


def _accepts(source: Digits, k: int, x: Uniform) -> bool:
    """True with probability exp(-x(2k + x)/(2k + 2))."""

    def goes_on() -> bool:  # with probability (2k + x)/(2k + 2)
        part = source.below(2 * k + 2)
        return part < 2 * k or (part == 2 * k and Uniform(source) < x)

    return _run(source, x, goes_on)


def draw_normal(source: Digits) -> tuple[bool, int, Uniform]:
    """A normal deviate by Karney's Algorithm N: whether it is negative, k and x of its size k + x."""
    while True:
        k = 0
        while _half_an_exponent(source):
            k += 1
        if not _accepts_whole(source, k):
            continue
        x = Uniform(source)
        if all(_accepts(source, k, x) for _ in range(k + 1)):
            negative = source.draw() >= BASE // 2
            x.digit(2)
            return negative, k, x


def floor_of_sum(at: Fraction, R: int, x: Uniform, skipped: int = 0, complement: bool = False) -> int:
    """floor(at + R w), at >= 0, w the digits of x behind some, or of 1 - x. It draws as few as will do."""
    n, unit = 1, BASE
    while True:
        low = int(at * unit) + R * x.first(n, skipped, complement)  # later digits add less than R + 1
        if low // unit == (low + R) // unit:
            return low // unit
        n, unit = n + 1, unit * BASE


def _magnitude(theta: float, exponent: int) -> Fraction:
    return abs(Fraction(theta)) / Fraction(2) ** exponent


def add_normal(theta: ArrayLike, R: int, exponent: int, fill: Callable[[int], bytes]) -> NDArray[np.int64]:
    """theta/2**exponent + R N (d,), rounded to integers; +-2**62 where theta is too large."""
    source, K = Digits(fill), []
    for value in _float(theta).tolist():
        negative, k, x = draw_normal(source)
        at, sign = _magnitude(value, exponent), -1 if value < 0 else 1
        down = negative != (value < 0)  # beside |theta|
        if at >= 2**62:
            K.append(sign * 2**62)
            continue
        beside = floor_of_sum(at + Fraction(1, 2), R, x, 0, down)
        K.append(sign * (beside + R * (-(k + 1) if down else k)))
    return np.array(K, dtype=np.int64)


def normal(size: int, R: int, fill: Callable[[int], bytes]) -> NDArray[np.int64]:
    """2**32 R N (size,), rounded to integers."""
    source, K = Digits(fill), []
    for _ in range(size):
        down, k, x = draw_normal(source)
        low = floor_of_sum(Fraction(1, 2), R, x, 1, down)
        K.append(R * ((-(k + 1) if down else k) * BASE + x.first(1, 0, down)) + low)
    return np.array(K, dtype=np.int64)


def round_with_offset(
    theta: ArrayLike, R: int, exponent: int, fill: Callable[[int], bytes]
) -> NDArray[np.int64]:
    """R (c + 1/2) - R u (d,), rounded, with c = floor(theta/(2**exponent R) + u) and u uniform (E17)."""
    source, K = Digits(fill), []
    for value in _float(theta).tolist():
        u = Uniform(source)
        u.digit(2)
        at, sign = _magnitude(value, exponent), -1 if value < 0 else 1
        offset = floor_of_sum(Fraction(1, 2), R, u)
        if at >= 2**62:
            K.append(sign * 2**62)
            continue
        # below 0, floor(-a + u) is -floor(a + (1 - u)), but with probability 0
        cell = floor_of_sum(at, R, u, 0, value < 0) // R
        K.append(R * sign * cell + R // 2 - offset)
    return np.array(K, dtype=np.int64)
