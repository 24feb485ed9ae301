"""Bounds of the distance from the minimiser, and the intercept for released coefficients (E10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq

from .. import _core
from .._arrays import Float
from ..errors import CertificateError
from ..losses import Loss
from ..problem import Problem
from .certificate import FLOORS

REAL = np.longdouble  # 64 bits of digits on x86, 113 or 53 elsewhere: the floor says which
UNIT = float(np.finfo(REAL).eps) / 2  # its unit roundoff
TOGETHER = 256  # rows that are summed before they join the total


def default_tolerance(rows: int, parameters: int) -> float:
    """What a profile residual may be where nobody said: public, as it depends on how large D' is alone.

    It is 1e-8, or if more `FLOORS` times the floor of `measure` for rows no longer than 4 sqrt(p), columns
    and derivatives of the loss of mean square 1, and predictors whose terms add up to 16 at most.
    """
    additions = rows / TOGETHER + TOGETHER + 4.0 * parameters + 64.0
    return max(1e-8, 4.0 * FLOORS * UNIT * rows * parameters * additions)


def norm_factor(largest_norm: float, fit_intercept: bool) -> float:
    """The largest profile residual for a whole gradient of norm 1 (E10)."""
    return hypot(1.0, largest_norm) if fit_intercept else 1.0


def profile_residual(gradient: Float, largest_norm: float, fit_intercept: bool) -> float:
    """``|dJ/dcoef| + max |x| |dJ/dintercept|`` (E10), this sum's own rounding counted."""
    rounding = 1.0 + 2.0 * (gradient.size + 8) * 2.0**-53
    if not fit_intercept:
        return float(np.linalg.norm(gradient)) * rounding
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
    sums = np.zeros((3, theta.size), dtype=REAL)  # of the gradient, of sizes of its terms, of errors in d1
    blocks, largest_norm = 0, 0.0
    for X, y, s in panels:
        largest_norm = max(largest_norm, _core.largest_norm(X if (s > 0).all() else X[s > 0], shift))
        for first in range(0, y.size, TOGETHER):
            rows = slice(first, first + TOGETHER)
            A = _less(X[rows].astype(REAL), shift)
            size, entries = abs(_less(X[rows].astype(np.float64), shift)), _entries(A) + problem.fit_intercept
            d1 = loss.d1(y[rows], _times(A, coef) + intercept.sum())
            spread = _times(size, np.float64(abs(coef))) + float(abs(intercept).sum())
            if isfinite(loss.max_d2):
                error = loss.max_d2 * (entries + 5) * spread + 8.0 * np.float64(abs(d1))
            else:
                error = loss.d1_rounding(d1.astype(np.float64), (entries + 5) * spread, y[rows])
            terms = s[rows] * d1
            weights = terms, np.float64(abs(terms)), s[rows] * error
            for total, M, v in zip(sums, (A, size, size), weights, strict=True):
                total += problem.joined(_transposed(M, v), v.sum())
            blocks += 1
    pull = problem.penalty(int(np.count_nonzero(columns))) * theta.astype(REAL)
    noise = problem.noise_on(columns)
    total, size, lost = sums
    rounding = (TOGETHER + blocks + 7) * size + lost + 4 * (abs(pull) + abs(noise))
    factor = norm_factor(largest_norm, problem.fit_intercept)
    return Measured(
        theta,
        profile_residual((total + pull + noise).astype(np.float64), largest_norm, problem.fit_intercept),
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


def _times(A: Any, v: Any) -> Any:
    """A v, each row by itself: bits of BLAS's product would depend on its threads."""
    return A @ v if sparse.issparse(A) else np.sum(A * v, axis=1)


def _transposed(A: Any, v: Any) -> Any:
    """A^T v, row by row."""
    return A.T @ v if sparse.issparse(A) else np.sum(A * v[:, None], axis=0)


def _entries(A: Any) -> Any:
    """How many entries each row stores."""
    return np.diff(A.indptr) if sparse.issparse(A) else A.shape[1]


def best_intercept(panels: Iterable[tuple[Any, Float, Float]], coef: Float, loss: Loss) -> float:
    """The intercept that minimises J for these coefficients.

    A function of them and of the rows alone, bit for bit: rows in the order of their numbers, panel by panel,
    from the same start. (The old intercept would remember rows that are gone.)
    """
    parts = [(_products(X, coef), y, s) for X, y, s in panels]
    eta, y, s = (np.concatenate(column) for column in zip(*parts, strict=True))

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


def _products(X: Any, coef: Float) -> Float:
    """X @ coef, row by row: the bits of a BLAS product depend on its threads and on the other rows."""
    by_row = sparse.issparse(X)  # entry by entry
    products: Float = X @ coef if by_row else np.sum(X * coef, axis=1, dtype=np.float64)
    return products
