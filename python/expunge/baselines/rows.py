"""Rows of a linear model as a strategy multiplies them, one kind of storage or the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from .._arrays import Float, Index


class Design:
    """Rows (m, p): X less a shift (E43), and a 1 at the intercept; a sparse X stays sparse.

    Parameters
    ----------
    X : (m, d) array or CSR matrix
    shift : (d,) array or None
    fit_intercept : bool
    """

    def __init__(self, X: Any, shift: Float | None, fit_intercept: bool) -> None:
        self._X, self._shift, self._intercept = X, shift, fit_intercept

    def take(self, rows: Index) -> Design:
        """Some of the rows."""
        return Design(self._X[rows], self._shift, self._intercept)

    def times(self, theta: Float) -> Float:
        """Eta (m,)."""
        d = self._X.shape[1]
        eta: Float = self._X @ theta[:d]
        if self._shift is not None:
            eta = eta - self._shift @ theta[:d]
        return eta + theta[d] if self._intercept else eta

    def transposed_times(self, r: Float) -> Float:
        """The sum of rows, r_i times each, (p,)."""
        g: Float = self._X.T @ r
        total = float(r.sum())
        if self._shift is not None:
            g = g - self._shift * total
        return np.append(g, total) if self._intercept else g

    def row(self, i: int) -> Float:
        """One row as an array (p,)."""
        d = self._X.shape[1]
        x = np.zeros(d + int(self._intercept))
        if sparse.issparse(self._X):
            here = slice(self._X.indptr[i], self._X.indptr[i + 1])
            x[self._X.indices[here]] = self._X.data[here]
        else:
            x[:d] = self._X[i]
        if self._shift is not None:
            x[:d] -= self._shift
        x[d:] = 1.0
        return x

    @property
    def size(self) -> int:
        """How many rows."""
        return int(self._X.shape[0])
