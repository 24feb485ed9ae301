"""Bounds of the distance from the minimiser, and the intercept for released coefficients (E10)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, isfinite
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

    @property
    def bound(self) -> float:
        """A bound of the profile residual, rounding included."""
        return self.residual + self.floor


def measure(
    panels: Iterable[tuple[Any, Float, Float]],
    theta: Float,
    problem: Problem,
    columns: NDArray[np.bool_],
    shift: Float | None = None,
) -> Measured:
    """The profile residual (E10) at theta (p,) and its floor (E19), of rows that come panel by panel.

    Theta and norms are over x - shift.

    `columns` is a mask of all that were ever handed over; rows hold these alone.

    What the panels add up to is compensated, so that each term goes through two more roundings, and not
    through one more for each panel.
    """
    total, lost, size = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    floor = largest_norm = 0.0
    for X, y, s in panels:
        rows = problem.objective([(X, y, s)], columns, penalised=False, noisy=False, shift=shift)
        g = rows.evaluate(theta).gradient
        floor += rows.rounding_floor(theta)
        largest_norm = max(largest_norm, _core.largest_norm(X if (s > 0).all() else X[s > 0], shift))
        size += np.abs(g)
        total, before = total + g, total
        from_g = total - before
        lost += (before - (total - from_g)) + (g - from_g)
    pull, noise = problem.penalty(int(np.count_nonzero(columns))) * theta, problem.noise_on(columns)
    gradient = total + lost + (pull + noise)
    added = np.linalg.norm(size) + np.linalg.norm(np.abs(pull) + np.abs(noise))
    floor += 4.0 * 2.0**-53 * float(added)
    fit_intercept = problem.fit_intercept
    return Measured(
        theta,
        profile_residual(gradient, largest_norm, fit_intercept),
        norm_factor(largest_norm, fit_intercept) * floor,
        largest_norm,
    )


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
