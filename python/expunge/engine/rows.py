"""Operations on rows of either kind, dense or CSR."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import _core
from .._arrays import Index, with_own_indices
from ..files.archive import Streamed

_CHANGED = (
    "the indices of X point outside of it: X was changed after it was handed over, and has to stay as it was"
)

TOGETHER = 4096  # dense rows that are looked at at a time


class StreamedCsr(NamedTuple):
    """A CSR matrix that is written piece by piece."""

    data: Streamed
    indices: Streamed
    indptr: NDArray[Any]


def streamed_csr(panels: Callable[[], Iterable[Any]], n: int, dtype: np.dtype[Any]) -> StreamedCsr:
    """CSR panels, n rows in all, as one matrix to be written piece by piece; reads the panels three times."""
    indptr, at = np.zeros(n + 1, dtype=np.int64), 0
    index: np.dtype[Any] = np.dtype(np.int32)
    for X in panels():
        m = X.shape[0]
        indptr[at + 1 : at + m + 1] = indptr[at] + X.indptr[1:]
        at, index = at + m, np.promote_types(index, X.indices.dtype)
    size = int(indptr[-1])
    if size > np.iinfo(index).max:
        index = np.dtype(np.int64)
    return StreamedCsr(
        Streamed(dtype, (size,), lambda: (X.data for X in panels())),
        Streamed(index, (size,), lambda: (X.indices.astype(index, copy=False) for X in panels())),
        indptr.astype(index, copy=False),
    )


def widened(X: Any, columns: Index, width: int) -> Any:
    """X (m, k) widened to (m, width): its k columns at these positions, zeros elsewhere."""
    shape = (X.shape[0], width)
    if sparse.issparse(X):
        parts = (X.data, columns[X.indices].astype(X.indices.dtype, copy=False), X.indptr)
        return sparse.csr_array(parts, shape=shape)
    wide = np.zeros(shape, dtype=X.dtype)
    wide[:, columns] = X
    return wide


def equal(X: Any, Y: Any) -> bool:
    """Whether two matrices of one kind hold the same numbers."""
    if X is Y:
        return True
    if X.shape != Y.shape:
        return False
    if not sparse.issparse(X):
        return np.array_equal(X, Y)
    return all(np.array_equal(getattr(X, part), getattr(Y, part)) for part in ("indptr", "indices", "data"))


def rows_by_column(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows of each column's entries, column after column, and where each column begins."""
    X = with_own_indices(X)
    pattern = sparse.csr_array((X.data != 0, X.indices, X.indptr), shape=X.shape)
    if not pattern.data.all():
        pattern = pattern.copy()
        pattern.eliminate_zeros()
    by_column = pattern.tocsc()
    return by_column.indices, by_column.indptr


def rows_with_values(
    X: Any, columns: Index, index: tuple[Index, Index] | None = None
) -> tuple[NDArray[np.bool_], int]:
    """Which rows (n,) of X hold anything but 0 in these columns, and how many entries of a sparse X do.

    `index`: see :func:`rows_by_column`.
    """
    found = np.zeros(X.shape[0], dtype=bool)
    if index is not None:
        indices, indptr = index
        for j in columns:
            found[indices[indptr[j] : indptr[j + 1]]] = True
        return found, int((indptr[columns + 1] - indptr[columns]).sum())
    if sparse.issparse(X):
        return _core.rows_with_values(X, columns)
    for begin in range(0, X.shape[0], TOGETHER):
        rows, holds = X[begin : begin + TOGETHER], found[begin : begin + TOGETHER]
        for some in (columns[:1], columns):  # often one column tells
            holds[:] = (rows[:, some] != 0).any(axis=1)
            if holds.all():
                break
    return found, 0


def with_cells(X: Any, columns: Index, values: NDArray[Any]) -> Any:
    """X (m, width), which may be overwritten, with `values` (m, k) in these columns; zeros are not stored."""
    if not sparse.issparse(X):
        X[:, columns] = values
        return X
    replaced = np.zeros(X.shape[1], dtype=bool)
    replaced[columns] = True
    stay = ~replaced[X.indices]
    rows = np.repeat(np.arange(X.shape[0]), np.diff(X.indptr))[stay]
    new_rows, position = np.nonzero(values)
    entries = np.concatenate([X.data[stay], values[new_rows, position]])
    where = (
        np.concatenate([rows, new_rows]),
        np.concatenate([X.indices[stay], columns[position]]),
    )
    return sparse.coo_array((entries, where), shape=X.shape).tocsr()


def take(X: Any, rows: Index, columns: NDArray[np.bool_] | None = None) -> Any:
    """A copy of rows of X, of all columns or those of a mask, in C order or CSR.

    Others may write to X at any time: its indices are copied, looked at and only then used.
    """
    if not sparse.issparse(X):
        return np.ascontiguousarray(X[rows] if columns is None else X[np.ix_(rows, columns)])
    first, stop = X.indptr[rows], X.indptr[rows + 1]
    if rows.size and (
        first.min() < 0 or (first > stop).any() or stop.max() > min(X.indices.size, X.data.size)
    ):
        raise ValueError(_CHANGED)
    indptr = np.zeros(rows.size + 1, dtype=np.int64)
    np.cumsum(stop - first, out=indptr[1:])
    entries = np.repeat(first - indptr[:-1], stop - first) + np.arange(indptr[-1])
    index = X.indices.dtype if indptr[-1] <= np.iinfo(X.indices.dtype).max else np.dtype(np.int64)
    parts = X.data[entries], X.indices[entries].astype(index, copy=False), indptr.astype(index)
    taken = sparse.csr_array(parts, shape=(rows.size, X.shape[1]))
    _core.is_canonical(taken)  # raises
    return taken if columns is None else taken[:, columns]
