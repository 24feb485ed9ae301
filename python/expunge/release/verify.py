"""Bounds of the distance from the minimiser, and the intercept for released coefficients (E10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, inf, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq

from .. import _core
from .._arrays import Float
from ..errors import CertificateError
from ..losses import Loss
from ..multinomial import probabilities, residuals
from ..problem import Problem, split
from .certificate import FLOORS

REAL = np.longdouble  # 64 bits of digits on x86, 113 or 53 elsewhere: the floor says which
UNIT = float(np.finfo(REAL).eps) / 2  # its unit roundoff
TOGETHER = 256  # rows that are summed before they join the total
MOST_STEPS = 1000  # to the best intercepts of classes; a dozen is usual
NEAR = 1e-3  # of such a step: the slope then falls with each, until rounding is all of it


def default_tolerance(rows: int, parameters: int) -> float:
    """What a profile residual may be where nobody said: public, as it depends on how large D' is alone.

    It is 1e-8, or if more `FLOORS` times the floor of `measure` for rows no longer than 4 sqrt(p), columns
    and derivatives of the loss of mean square 1, and predictors whose terms add up to 16 at most.
    """
    additions = rows / TOGETHER + TOGETHER + 4.0 * parameters + 64.0
    return max(1e-8, 4.0 * FLOORS * UNIT * rows * parameters * additions)


def norm_factor(largest_norm: float, fit_intercept: bool, outputs: int = 1) -> float:
    """The largest profile residual for a whole gradient of norm 1 (E10, E31)."""
    return hypot(1.0, max(1, outputs - 1) * largest_norm) if fit_intercept else 1.0


def profile_residual(gradient: Float, largest_norm: float, fit_intercept: bool, outputs: int = 1) -> float:
    """``|dJ/dcoef| + max |x| |dJ/dintercept|`` (E10), this sum's own rounding counted.

    Of K classes the intercepts' part is ``max |x| sqrt((K - 2) |g_0|_1^2 + |g_0|^2)`` (E31).
    """
    rounding = 1.0 + 2.0 * (gradient.size + 8) * 2.0**-53
    if not fit_intercept:
        return float(np.linalg.norm(gradient)) * rounding
    if outputs > 1:
        coef, g_0 = split(gradient, True, outputs)
        flow = hypot(sqrt(outputs - 2) * float(np.abs(g_0).sum()), float(np.linalg.norm(g_0)))
        return (float(np.linalg.norm(coef)) + largest_norm * flow) * rounding
    return (float(np.linalg.norm(gradient[:-1])) + largest_norm * abs(float(gradient[-1]))) * rounding


@dataclass(frozen=True)
class Measured:
    """Parameters with what their profile residual is at most: functions of these and of the data as they are.

    Not of what the data were: rows come one after the other in the order of their numbers, without those that
    left, and so does the largest norm. What left neither moves a bit nor widens a bound.
    """

    theta: Float
    residual: float  # as computed
    floor: float  # bound of its rounding error (E19)
    largest_norm: float  # of a row
    distance: float = inf  # E24, where it was asked for; R and its floor may be those of rows that left

    @property
    def bound(self) -> float:
        """At most this is alpha times how far the coefficients are from the minimum's, rounding included."""
        return min(self.residual + self.floor, self.distance)


def measure(
    panels: Iterable[tuple[Any, Float, Float]],
    theta: Float,
    problem: Problem,
    columns: NDArray[np.bool_],
    shift: Float | None = None,
) -> Measured:
    """The profile residual (E10) at theta (p,) and its floor (E19), of rows that come panel by panel.

    Theta and norms are over x - shift. `columns` is a mask of all that were ever handed over; rows hold these
    alone. Sums are in long double, which leaves 2^-11 of their rounding where it has 64 bits: in doubles many
    rows put the floor above the tolerances that people ask for.
    """
    (coef, intercept), loss = problem.split(theta.astype(REAL)), problem.row_loss
    of_each = intercept if intercept.size else REAL(0.0)
    sums = np.zeros((3, theta.size), dtype=REAL)  # of the gradient, of sizes of its terms, of errors in d1
    blocks, largest_norm = 0, 0.0
    for X, y, s in panels:
        largest_norm = max(largest_norm, _core.largest_norm(X if (s > 0).all() else X[s > 0], shift))
        for first in range(0, y.size, TOGETHER):
            rows = slice(first, first + TOGETHER)
            A = _less(X[rows].astype(REAL), shift)
            size, entries = abs(_less(X[rows].astype(np.float64), shift)), _entries(A) + problem.fit_intercept
            d1 = loss.d1(y[rows], _times(A, coef) + of_each)
            spread = _times(size, np.float64(abs(coef))) + np.float64(abs(of_each))
            error = _errors(loss, entries, spread, np.float64(d1), y[rows])
            terms = (s[rows] * d1.T).T
            weights = terms, np.float64(abs(terms)), (s[rows] * error.T).T
            for total, M, v in zip(sums, (A, size, size), weights, strict=True):
                total += problem.joined(_transposed(M, v), v.sum(axis=0))
            blocks += 1
    pull = problem.penalty(int(np.count_nonzero(columns))) * theta.astype(REAL)
    noise = problem.noise_on(columns)
    total, size, lost = sums
    rounding = (TOGETHER + blocks + 7) * size + lost + 4 * (abs(pull) + abs(noise))
    of = largest_norm, problem.fit_intercept, problem.outputs
    factor = norm_factor(*of)
    return Measured(
        theta,
        profile_residual((total + pull + noise).astype(np.float64), *of),
        factor * UNIT * (1.0 + 1e-6) * float(np.linalg.norm(rounding)),
        largest_norm,
    )


def _less(A: Any, shift: Float | None) -> Any:
    """A, which may be overwritten, less a shift of its columns."""
    if shift is not None and sparse.issparse(A):
        A.data -= shift[A.indices]
    elif shift is not None:
        A -= shift
    return A


def _errors(loss: Loss, entries: Any, spread: Any, d1: Any, y: Float) -> Any:
    """Bounds of the error of d1 (m,), or (m, K) of K predictors, in units of the roundoff (E19, E32)."""
    if d1.ndim == 2:
        return (loss.max_d2 * (entries + 5) * spread.max(axis=1))[:, None] + (d1.shape[1] + 10.0) * abs(d1)
    if isfinite(loss.max_d2):
        return loss.max_d2 * (entries + 5) * spread + 8.0 * abs(d1)
    return loss.d1_rounding(d1, (entries + 5) * spread, y)


def _times(A: Any, v: Any) -> Any:
    """A v, each row by itself: bits of BLAS's product would depend on its threads. Of v (K, d) (m, K)."""
    if v.ndim == 2:
        return np.stack([_times(A, of_one) for of_one in v], axis=1)
    return A @ v if sparse.issparse(A) else np.sum(A * v, axis=1)


def _transposed(A: Any, v: Any) -> Any:
    """A^T v, row by row; of v (m, K) (K, d)."""
    if v.ndim == 2:
        return np.stack([_transposed(A, of_one) for of_one in v.T])
    return A.T @ v if sparse.issparse(A) else np.sum(A * v[:, None], axis=0)


def _entries(A: Any) -> Any:
    """How many entries each row stores."""
    return np.diff(A.indptr) if sparse.issparse(A) else A.shape[1]


def best_intercept(panels: Iterable[tuple[Any, Float, Float]], coef: Float, loss: Loss) -> float | Float:
    """The intercept that minimises J for these coefficients; of K classes (K,), which add up to 0.

    A function of them and of the rows alone, bit for bit: rows in the order of their numbers, panel by panel,
    from the same start. (The old intercept would remember rows that are gone.)
    """
    parts = [(_products(X, coef), y, s) for X, y, s in panels]
    eta, y, s = (np.concatenate(column) for column in zip(*parts, strict=True))
    if coef.ndim == 2:
        return _best_intercepts(eta, y, s)

    def slope(intercept: float) -> float:  # of J; it increases
        return float(np.sum(s * loss.d1(y, eta + intercept)))  # s @ d1 would depend on BLAS's threads

    low, high = -1.0, 1.0
    while slope(low) > 0.0 and isfinite(low):
        low *= 2.0
    while slope(high) < 0.0 and isfinite(high):
        high *= 2.0
    if not (isfinite(low) and isfinite(high)):
        raise CertificateError(
            "no intercept was found in the range of floating point: scale the columns of X"
        )
    closest = {"xtol": 4 * np.finfo(float).tiny, "rtol": 4 * np.finfo(float).eps, "maxiter": 10_000}
    return float(brentq(slope, low, high, **closest))


def _best_intercepts(eta: Float, y: Float, s: Float) -> Float:
    """The same of K predictors (n, K): damped Newton steps from 0, until rounding ends them.

    A step p is taken ``log(1 + range(p)) / range(p)`` of the way: J then falls wherever it begins, as
    curvature grows by at most e^range (E30).
    """
    K, least, far = eta.shape[1], inf, inf
    best = here = np.zeros(K)
    for _ in range(MOST_STEPS):
        p = probabilities(eta + here)
        slope = np.sum(s[:, None] * residuals(y, eta + here), axis=0)
        size = float(np.abs(slope).sum())
        if size < least:
            best, least = here, size
        elif far < NEAR:
            break
        H = np.empty((K, K))
        for k in range(K):
            H[k] = -np.sum((s * p[:, k])[:, None] * p, axis=0)
            H[k, k] = 0.0
            H[k, k] = -H[k].sum()
        H += max(float(np.trace(H)), np.finfo(float).tiny) / K**2  # along the constant; the slope is not
        step = -np.linalg.solve(H, slope)
        far = float(np.ptp(step))
        if not isfinite(far):
            raise CertificateError(
                "no intercepts were found in the range of floating point: scale the columns of X"
            )
        here = here + step * (np.log1p(far) / far if far > 0.0 else 1.0)
        here = here - here.sum() / K
    return best


def _products(X: Any, coef: Float) -> Float:
    """X @ coef, row by row: the bits of a BLAS product depend on its threads and on the other rows.

    Of coef (K, d) (n, K).
    """
    if coef.ndim == 2:
        return np.stack([_products(X, of_one) for of_one in coef], axis=1)
    by_row = sparse.issparse(X)  # entry by entry
    products: Float = X @ coef if by_row else np.sum(X * coef, axis=1, dtype=np.float64)
    return products
