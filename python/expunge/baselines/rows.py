"""Rows of a linear model as a strategy multiplies them, one kind of storage or the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .._arrays import Float, Index


@dataclass(frozen=True)
class Design:
    """Rows (m, p): X less a shift (E43), and a 1 at the intercept; a sparse X stays sparse.

    Of a few rows of a CSR matrix the products are sums over entries, which takes half of SciPy's time.
    """

    size: int
    columns: int
    dense: Any  # X (m, d); None where it is sparse
    entries: tuple[Float, Index, Index] | None  # values, columns and rows of what is stored, row by row
    shift: Float | None  # (d,)
    fit_intercept: bool

    @classmethod
    def of(cls, X: Any, shift: Float | None, fit_intercept: bool) -> Design:
        """The rows of a matrix X (m, d), an array or CSR."""
        m, d = X.shape
        if not sparse.issparse(X):
            return cls(m, d, X, None, shift, fit_intercept)
        rows = np.repeat(np.arange(m), np.diff(X.indptr))
        return cls(m, d, None, (X.data, X.indices, rows), shift, fit_intercept)

    def part(self, first: int, stop: int) -> Design:
        """The rows from `first` to before `stop`; nothing is copied but the rows' numbers."""
        size = min(stop, self.size) - first
        if self.entries is None:
            X = self.dense[first:stop]
            return Design(size, self.columns, X, None, self.shift, self.fit_intercept)
        values, columns, rows = self.entries
        here = slice(*np.searchsorted(rows, [first, stop]))
        entries = values[here], columns[here], rows[here] - first
        return Design(size, self.columns, None, entries, self.shift, self.fit_intercept)

    def times(self, theta: Float) -> Float:
        """Eta (m,)."""
        coef = theta[: self.columns]
        if self.entries is None:
            eta = self.dense @ coef
        else:
            values, columns, rows = self.entries
            eta = _sums(rows, values * coef[columns], self.size)
        if self.shift is not None:
            eta = eta - self.shift @ coef
        if self.fit_intercept:
            eta = eta + theta[self.columns]
        return np.asarray(eta)

    def transposed_times(self, r: Float) -> Float:
        """The sum of rows, r_i times each, (p,)."""
        if self.entries is None:
            g = self.dense.T @ r
        else:
            values, columns, rows = self.entries
            g = _sums(columns, values * r[rows], self.columns)
        total = float(r.sum())
        if self.shift is not None:
            g = g - self.shift * total
        return np.append(g, total) if self.fit_intercept else np.asarray(g)

    def row(self, i: int) -> Float:
        """One row as an array (p,)."""
        return self.part(i, i + 1).transposed_times(np.ones(1))


def _sums(place: Index, values: Float, size: int) -> Float:
    """The sum of the values of each place, (size,)."""
    return np.asarray(np.bincount(place, values, size), dtype=np.float64)
