"""Columns far from 0, as time stamps and numbers of customers are: what they are moved by (E43).

With a free intercept the minimiser does not depend on where the columns have their zero: theta over x and
theta over x - c predict the same, and penalty and noise are on the coefficients alone. Rounding does: of a
column of mean 1e8 and spread 1 no digit is left in the Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._arrays import Float, Index, with_own_indices
from .rows import take

SAMPLED, SAMPLED_VALUES = 128, 2**17  # rows that are looked at, about; of wide X fewer
FAR = 64.0  # times its spread, and times 1: a column further from 0 is moved
LOW, HIGH = 0.05, 0.95  # the spread is between these quantiles: a few rows may hold anything

Free = Callable[[Index], NDArray[np.bool_]]  # which of these columns hold no 0


def sampled(n: int, width: int) -> slice:
    """Which of n rows are looked at: evenly spaced, so that it depends on nothing but their order."""
    m = min(SAMPLED, max(16, SAMPLED_VALUES // max(width, 1)))
    return slice(0, n, max(1, n // m))


def shift_of(X: Any) -> Float | None:
    """The c of these rows (d,), or None where no column is far from 0."""
    rows = sampled(*X.shape)
    sample = take(X, np.arange(X.shape[0])[rows]) if sparse.issparse(X) else X[rows]
    return shift_of_sample(sample, lambda columns: free_of_zeros([X], columns))


def centre_of(X: Any, shift: Float | None) -> Float | None:
    """A point (d,) amid the rows less their shift, which moves with them; None for a sparse X."""
    if sparse.issparse(X) or not X.shape[0]:
        return None
    sample = X[sampled(*X.shape)].astype(np.float64)
    with np.errstate(all="ignore"):
        centre: Float = np.mean(sample if shift is None else sample - shift, axis=0)
    return centre if np.isfinite(centre).all() else None


def shift_of_sample(X: Any, free: Free) -> Float | None:
    """The c (d,) of the rows of which these are a sample.

    Their median, to as many digits as the spread allows: a few rows do not move it. For columns of a sparse
    X only if they hold no 0, as x - c is not 0 there.
    """
    m, d = X.shape
    columns = np.arange(d)
    if sparse.issparse(X):
        columns = columns[np.bincount(X.indices, minlength=d) == m]
        X = X[:, columns].data.reshape(m, columns.size)  # each row has one entry in each
    often = np.count_nonzero(np.abs(X) > FAR, axis=0) * 2 >= m  # or the median is not far
    if m == 0 or not often.any():
        return None
    columns, X = columns[often], X[:, often]
    ranks = [round(q * (m - 1)) for q in (LOW, 0.5, HIGH)]
    with np.errstate(all="ignore"):
        low, middle, high = np.partition(X.astype(np.float64), sorted(set(ranks)), axis=0)[ranks]
        spread = high - low
        far = np.abs(middle) > FAR * np.maximum(spread, 1.0)  # not where there is NaN
    if not far.any():
        return None
    far[far] = free(columns[far])
    unit = np.exp2(np.ceil(np.log2(np.where(spread[far] > 0.0, spread[far], 1.0))))
    coarse = np.where(spread[far] > 0.0, np.rint(middle[far] / unit) * unit, middle[far])
    c = np.zeros(d)
    c[columns[far]] = coarse
    return c if c.any() and np.isfinite(c).all() else None


def same_shift(one: Float | None, other: Float | None) -> bool:
    """Whether they are the same."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def spread(shift: Float | None, kept: NDArray[np.bool_]) -> Float | None:
    """Over all columns, from that of those that are kept."""
    if shift is None:
        return None
    wide = np.zeros(kept.size)
    wide[kept] = shift
    return wide


def free_of_zeros(panels: Iterable[Any], columns: Index) -> NDArray[np.bool_]:
    """Which of these columns hold no 0 in some matrices of one kind; dense ones are not looked at."""
    zeros = np.zeros(columns.size, dtype=np.int64)
    for X in panels:
        if not sparse.issparse(X):
            break
        held = np.array(X.indices[: X.indptr[-1]])[X.data[: X.indptr[-1]] != 0]
        zeros += X.shape[0] - np.bincount(held, minlength=X.shape[1])[columns]
    free: NDArray[np.bool_] = zeros == 0
    return free


def with_stored(X: Any, shift: Float | None) -> Any:
    """A matrix in which every row stores an entry, perhaps 0, in each column that is moved."""
    if shift is None or not sparse.issparse(X):
        return X
    n, columns = X.shape[0], np.flatnonzero(shift)
    there = with_own_indices(X)[:, columns]
    absent = np.ones((n, columns.size), dtype=bool)
    absent[np.repeat(np.arange(n), np.diff(there.indptr)), there.indices] = False
    rows, position = np.nonzero(absent)
    if not rows.size:
        return X
    parts = (
        np.concatenate([X.data, np.zeros(rows.size, dtype=X.dtype)]),
        (
            np.concatenate([np.repeat(np.arange(n), np.diff(X.indptr)), rows]),
            np.concatenate([X.indices, columns[position]]),
        ),
    )
    stored = sparse.coo_array(parts, shape=X.shape).tocsr()
    stored.sort_indices()
    return stored
