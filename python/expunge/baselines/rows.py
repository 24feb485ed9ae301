"""Rows of a linear model as a strategy multiplies them, one kind of storage or the other."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from scipy import sparse

from .._arrays import Float, Index

Entries = tuple[Float, Index, Index]  # values, columns and rows of what is stored, row by row


class Design:
    """Rows (m, p): X less a shift (E43), and a 1 at the intercept; a sparse X stays sparse.

    Of a few rows of a CSR matrix the products are sums over entries, which takes a third of SciPy's time.

    Parameters
    ----------
    X : (m, d) array or CSR matrix
    shift : (d,) array or None
    fit_intercept : bool
    """

    def __init__(self, X: Any, shift: Float | None, fit_intercept: bool) -> None:
        self.size, self._d = X.shape
        self._X, self._shift, self._intercept = X, shift, fit_intercept
        self._entries: Entries | None = None
        if sparse.issparse(X):
            self._entries = X.data, X.indices, np.repeat(np.arange(self.size), np.diff(X.indptr))

    def part(self, first: int, stop: int) -> Design:
        """The rows from `first` to before `stop`; nothing is copied but the rows' numbers."""
        part = copy(self)
        part.size = min(stop, self.size) - first
        if self._entries is None:
            part._X = self._X[first:stop]
            return part
        values, columns, rows = self._entries
        here = slice(*np.searchsorted(rows, [first, stop]))
        part._entries = values[here], columns[here], rows[here] - first
        return part

    def times(self, theta: Float) -> Float:
        """Eta (m,)."""
        coef = theta[: self._d]
        if self._entries is None:
            eta = self._X @ coef
        else:
            values, columns, rows = self._entries
            eta = _sums(rows, values * coef[columns], self.size)
        if self._shift is not None:
            eta = eta - self._shift @ coef
        if self._intercept:
            eta = eta + theta[self._d]
        return np.asarray(eta)

    def transposed_times(self, r: Float) -> Float:
        """The sum of rows, r_i times each, (p,)."""
        g: Float
        if self._entries is None:
            g = self._X.T @ r
        else:
            values, columns, rows = self._entries
            g = _sums(columns, values * r[rows], self._d)
        total = float(r.sum())
        if self._shift is not None:
            g = g - self._shift * total
        return np.append(g, total) if self._intercept else g

    def row(self, i: int) -> Float:
        """One row as an array (p,)."""
        return self.part(i, i + 1).transposed_times(np.ones(1))


def _sums(place: Index, values: Float, size: int) -> Float:
    """The sum of the values of each place, (size,)."""
    return np.asarray(np.bincount(place, values, size), dtype=np.float64)
