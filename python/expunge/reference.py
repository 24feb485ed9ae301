"""NumPy twins of the compiled kernels: the executable specification.

A twin is dense, in float64, as short as its equation, and checks nothing. :mod:`expunge.kernels` has the same
names and signatures, checks its arguments and is fast. Sums over rows are sums, never means
(E1). With ``fit_intercept=True`` a row x becomes (x, 1), theta ends with the intercept, and p = d + 1;
otherwise p = d.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf

from ._parameters import documented
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

SUMMED_TOGETHER = 256  # rows of a panel of the compiled kernels
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


@documented
def gram(X: ArrayLike, w: ArrayLike) -> Array:
    """X' diag(w) X, the weighted Gram matrix.

    Returns
    -------
    ndarray, shape (d, d)

    Examples
    --------
    >>> gram([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0]).tolist()
    [[-8.0, -10.0], [-10.0, -12.0]]
    """
    X, w = _float(X), _float(w)
    return X.T @ (w[:, None] * X)


@documented
def hessian(
    X: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    y: ArrayLike | None = None,
) -> Array:
    """Hessian of J (E1): the sum of s d2 x x' over the rows, plus Lambda.

    d2 depends on y for a Tweedie loss alone.

    Returns
    -------
    ndarray, shape (p, p)

    Examples
    --------
    >>> hessian([[1.0], [2.0]], [0.0], alpha=1.0, loss="squared").tolist()
    [[6.0]]
    """
    A, theta = _design(X, fit_intercept), _float(theta)
    s = _weights(sample_weight, len(A))
    target = np.zeros(len(A)) if y is None else _float(y)
    A, target, s = A[s > 0.0], target[s > 0.0], s[s > 0.0]  # whatever overflows in the others
    d2 = get_loss(loss).d2(target, A @ theta)
    return gram(A, s * d2) + np.diag(_penalty(alpha, np.shape(X)[1], fit_intercept))


@documented
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
    """Gradient of J (E1): the sum of s d1 x over the rows, plus Lambda theta and b.

    Returns
    -------
    ndarray, shape (p,)

    Examples
    --------
    >>> gradient([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0).tolist()
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


@documented
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
    """J and its gradient (E1).

    Returns
    -------
    value : float
        J(theta), penalty included.
    gradient : ndarray, shape (p,)

    Examples
    --------
    >>> value, gradient = loss_and_gradient([[1.0]], [3.0], [1.0], alpha=2.0, loss="squared")
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


@documented
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
    """J, its gradient and its Hessian (E1).

    Returns
    -------
    value : float
    gradient : ndarray, shape (p,)
    hessian : ndarray, shape (p, p)

    Examples
    --------
    >>> value, g, H = loss_gradient_and_hessian([[1.0]], [3.0], [1.0], alpha=2.0, loss="squared")
    >>> value, g.tolist(), H.tolist()
    (3.0, [0.0], [[3.0]])
    """
    rows = {"alpha": alpha, "loss": loss, "sample_weight": sample_weight, "fit_intercept": fit_intercept}
    value, gradient = loss_and_gradient(X, y, theta, noise=noise, **rows)  # type: ignore[arg-type]
    return value, gradient, hessian(X, theta, y=y, **rows)  # type: ignore[arg-type]


@documented
def hvp(
    X: ArrayLike,
    theta: ArrayLike,
    v: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    y: ArrayLike | None = None,
) -> Array:
    """Hessian of J, times v (E1). It depends on y for a Tweedie loss alone.

    Returns
    -------
    ndarray, shape (p,)

    Examples
    --------
    >>> hvp([[1.0], [2.0]], [0.0], [10.0], alpha=1.0, loss="squared").tolist()
    [60.0]
    """
    A, theta, v = _design(X, fit_intercept), _float(theta), _float(v)
    s, penalty = _weights(sample_weight, len(A)), _penalty(alpha, np.shape(X)[1], fit_intercept)
    target = np.zeros(len(A)) if y is None else _float(y)
    A, target, s = A[s > 0.0], target[s > 0.0], s[s > 0.0]  # whatever overflows in the others
    d2 = get_loss(loss).d2(target, A @ theta)
    product: Array = A.T @ (s * d2 * (A @ v)) + penalty * v
    return product


@documented
def gradient_difference(
    before: Rows | None,
    after: Rows | None,
    theta: ArrayLike,
    *,
    loss: str = "logistic",
    fit_intercept: bool = False,
) -> Array:
    """The sum of s d1 x over the rows `after`, minus the same sum over the rows `before` (E3).

    Returns
    -------
    ndarray, shape (p,)

    Examples
    --------
    >>> X = [[1.0, 2.0]]
    >>> gradient_difference((X, [0]), (X, [1]), [0.3, 0.4]).tolist()
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


@documented
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
    """Bound on the rounding error of a computed gradient of J, in Euclidean norm (E19).

    Returns
    -------
    float

    Examples
    --------
    >>> rounding_floor([[1.0], [2.0]], [0, 1], [0.0], alpha=1.0) < 1e-13
    True
    """
    A, y, theta = _design(X, fit_intercept), _float(y), _float(theta)
    n, p = A.shape
    s, penalty = _weights(sample_weight, n), _penalty(alpha, np.shape(X)[1], fit_intercept)
    counted = s > 0.0  # a row of weight 0 is not there, whatever overflows in it
    A, y, s = A[counted], y[counted], s[counted]
    r = get_loss(loss).d1(y, A @ theta)
    # Within a panel, across panels, and the product s r x.
    additions = min(n, SUMMED_TOGETHER) + -(-n // SUMMED_TOGETHER) + 3
    eta_rounding = (p + 2) * (np.abs(A) @ np.abs(theta))
    rows = s * (additions * np.abs(r) + get_loss(loss).d1_rounding(r, eta_rounding, y))
    b = _penalty(0.0 if noise is None else noise, np.shape(X)[1], fit_intercept)
    floor = _norm(UNIT_ROUNDOFF * (np.abs(A).T @ rows)) + 4.0 * UNIT_ROUNDOFF * np.linalg.norm(
        np.abs(penalty * theta) + np.abs(b)
    )
    return np.inf if np.isnan(floor) else float(floor)


@documented
class CholeskyFactor:
    """Lower triangular L with L L' = H; every edit factors H anew (E22), but :meth:`delete`.

    Examples
    --------
    >>> factor = CholeskyFactor([[4.0, 0.0], [0.0, 9.0]])
    >>> factor.solve([8.0, 9.0]).tolist()
    [2.0, 1.0]
    >>> factor.delete(0)
    >>> factor.lower.tolist()
    [[3.0]]
    """

    def __init__(self, H: ArrayLike) -> None:
        H = _float(H)
        lower, info = dpotrf(H, lower=1, clean=1)
        if info:
            cause = (
                "columns of X depend on each other, or their sizes are too far apart for float64. Drop or "
                "scale them, or strengthen the penalty"
                if np.isfinite(H[info - 1, info - 1])
                else "squares of X overflow. Scale its columns"
            )
            raise NotPositiveDefiniteError(f"Hessian is not positive definite (pivot {info - 1}): {cause}")
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
        """H^-1 b, for b (p,) or (p, k)."""
        solution: Array = cho_solve((self._lower, True), _float(b))
        return solution

    def update(self, V: ArrayLike) -> None:
        """H becomes H + V V', for V (p,) or (p, k)."""
        V = _float(V).reshape(len(self._lower), -1)
        self._lower = CholeskyFactor(self._lower @ self._lower.T + V @ V.T).lower

    def downdate(self, V: ArrayLike) -> None:
        """H becomes H - V V', for V (p,) or (p, k), unless an eigenvalue of I - V' H^-1 V is 1e-8 or less."""
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
        """H gets one more row and column at its end: h (p + 1,), the diagonal entry last."""
        h, p = _float(h), len(self._lower)
        H = np.empty((p + 1, p + 1))
        H[:p, :p], H[p], H[:, p] = self._lower @ self._lower.T, h, h
        self._lower = CholeskyFactor(H).lower

    def delete(self, i: int) -> None:
        """H loses row and column i.

        Column i of L had a part v below the diagonal. The trailing block takes it over:
        L33' L33'^T = L33 L33^T + v v^T, a rank-1 update by rotations, which cannot fail.
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


@documented
class AnchoredStatistics:
    """Gradient and Hessian of the current data at an anchor, edited by rows that come and go (E8).

    Examples
    --------
    >>> X, y = [[1.0], [2.0]], [1.0, 2.0]
    >>> statistics = AnchoredStatistics(X, y, [0.0], alpha=1.0, loss="squared")
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
        R = get_loss(self._loss).remainder * self.longest  # E34
        rho = R * float(np.linalg.norm(delta))
        ratio = _psi_ratio(rho)
        q = float(delta @ (self.hessian @ delta) - delta @ (self.penalty * delta))
        return float(R * ratio * q)


def _psi_ratio(rho: float) -> float:
    """psi(rho) / rho^2, psi(rho) = e^rho - 1 - rho."""
    return 0.5 if rho < 1e-8 else float((np.expm1(rho) - rho) / rho**2)


def chord_step(
    X: ArrayLike,
    y: ArrayLike,
    anchor: ArrayLike,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str = "logistic",
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = False,
    delta: ArrayLike | None = None,
) -> tuple[Array, float, float, float]:
    """A step from theta with the Hessian of another anchor, and what is proven of its end (E24, E26).

    delta: any step, by default ``-H_a^-1 g_b``.

    Returns
    -------
    theta + delta (p,), bounds of its residual, of its distance in standard errors (E41), and of the distance
    of its coefficients, times the least penalty (E24), without terms of rounding; infinite where nothing is
    proven.

    Examples
    --------
    >>> theta, residual, *_ = chord_step([[1.0], [2.0]], [0.0, 1.0], [0.2], [0.25], alpha=1.0)
    >>> bool(abs(gradient([[1.0], [2.0]], [0.0, 1.0], theta, alpha=1.0)[0]) <= residual)
    True
    """
    A, a, b, of = _design(X, fit_intercept), _float(anchor), _float(theta), get_loss(loss)
    s, penalty = _weights(sample_weight, len(A)), _penalty(alpha, np.shape(X)[1], fit_intercept)
    A, target, s = A[s > 0.0], _float(y)[s > 0.0], s[s > 0.0]
    d2_a, d2_b = of.d2(target, A @ a), of.d2(target, A @ b)
    g = A.T @ (s * of.d1(target, A @ b)) + penalty * b
    G = gram(A, s * d2_a)
    H = CholeskyFactor(G + np.diag(penalty))
    step = -H.solve(g) if delta is None else _float(delta)
    left = g + G @ step + penalty * step
    if not (d2_a > 0.0).all():
        return b + step, np.inf, np.inf, np.inf
    kappa = float(np.abs(d2_b / d2_a - 1.0).max(initial=0.0))
    squares = float((s * (d2_b - d2_a) ** 2 / d2_a).sum())
    R = float(np.linalg.norm(A, axis=1).max(initial=0.0)) if of.max_d3 > 0.0 else 0.0
    q, d = max(0.0, float(step @ G @ step)), len(step) - fit_intercept
    c = of.remainder  # E34
    ratio = c * _psi_ratio(c * R * float(np.linalg.norm(step)))
    residual = R * (np.sqrt(squares * q) + (1.0 + kappa) * ratio * q)
    residual += float(np.linalg.norm(left))
    longest = float(np.sqrt(max(0.0, R * R - fit_intercept)))  # without the 1 of the intercept
    rho = longest * float(np.linalg.norm(step[:d])) + float(np.abs(step[d:]).sum()) if R > 0.0 else 0.0
    rho *= c
    ratio = _psi_ratio(rho)
    if not kappa < 1.0:
        return b + step, residual, np.inf, np.inf
    far = float(np.exp(0.5 * rho) / np.sqrt(1.0 - kappa))  # H is at least H_a / far^2
    r = c * far * float(np.sqrt(np.max((A.T * H.solve(A.T)).sum(axis=0), initial=0.0)))
    w = (kappa + (1.0 + kappa) * rho * ratio) * float(np.sqrt(q))
    v = float(np.sqrt(max(0.0, float(left @ H.solve(left)))))
    nu = far * (w + v)
    if of.max_d3 == 0.0:
        return b + step, residual, nu, _coefficients(H, penalty, far, w, v)
    if not r * nu < 1.0:
        return b + step, residual, np.inf, np.inf
    rho_star = -float(np.log1p(-r * nu))  # no predictor is further from that at the minimum
    far *= float(np.exp(0.5 * rho_star))
    return b + step, residual, rho_star / r, _coefficients(H, penalty, far, w, v)


def _coefficients(H: CholeskyFactor, penalty: Array, far: float, w: float, v: float) -> float:
    """E24, H being at least 1 / far^2 of this one on the way to the minimum."""
    d = int(np.count_nonzero(penalty))
    root = np.sqrt(penalty[:d])
    S = np.linalg.inv(H.solve(np.eye(len(penalty)))[:d, :d])
    mu = max(1.0, float(np.linalg.eigvalsh(S / np.outer(root, root))[0]) / far**2)
    of_rows = 0.5 if mu < 2.0 else np.sqrt(1.0 / mu - 1.0 / mu**2)
    return float(root.min() * far * (of_rows * w + v / np.sqrt(mu)))
