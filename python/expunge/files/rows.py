"""The rows that go into a file, and what must hold of them when they come out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import _core
from .._arrays import Float, as_matrix, as_targets, as_weights
from ..engine.rows import StreamedCsr
from ..engine.solver import quarter_of_memory
from ..problem import Problem
from .entries import Entries


def entries_of(numbers: NDArray[np.int64], X: Any, y: Any, s: Any, n_rows: int) -> dict[str, Any]:
    """The rows that are left, and how many numbers were given out."""
    entries: dict[str, Any] = {"rows.count": n_rows, "rows.numbers": numbers}
    if isinstance(X, StreamedCsr):
        entries |= {f"rows.X.{part}": getattr(X, part) for part in ("data", "indices", "indptr")}
    else:
        entries["rows.X"] = X
    return entries | {"rows.y": y, "rows.s": s}


def read_rows(
    entries: Entries, problem: Problem, d: int, dtype: np.dtype[Any], is_sparse: bool
) -> tuple[NDArray[np.int64], Any, Float, Float, int]:
    """Row numbers, X, y, s and how many numbers were given out; ValueError where they are no such rows."""
    count = entries.count("rows.count")
    numbers = entries.array("rows.numbers", "i", None).astype(np.int64, copy=False)
    n = numbers.size
    if n and (numbers[0] < 0 or numbers[-1] >= count or (numbers[1:] <= numbers[:-1]).any()):
        raise ValueError("rows.numbers do not ascend below rows.count")
    if 8 * (count - n) > quarter_of_memory():  # rows that are gone have a place too
        raise ValueError(f"rows.count is {count}, of which {n} rows are left: more than fit into memory")
    X: Any = _csr(entries, n, d) if is_sparse else entries.array("rows.X", "f", n, d, finite=False)
    if X.dtype != dtype:
        raise ValueError(f"rows.X has dtype {X.dtype}, expected {dtype}")
    X = as_matrix(X, "rows.X")
    y = as_targets(entries.floats("rows.y", n), problem.row_loss, n)
    if problem.classes is not None and n and y.max() >= len(problem.classes):
        raise ValueError("rows.y holds numbers of no class")
    s = as_weights(entries.floats("rows.s", n), n)
    assert s is not None
    return numbers, X, y, s, count


def _csr(entries: Entries, n: int, d: int) -> Any:
    """A canonical CSR matrix; its indices are checked here."""
    indptr = entries.array("rows.X.indptr", "i", n + 1)
    size = int(indptr[-1])
    if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
        raise ValueError("rows.X.indptr does not ascend from 0")
    indices = entries.array("rows.X.indices", "i", size)
    data = entries.array("rows.X.data", "f", size, finite=False)
    if not {indices.dtype, indptr.dtype} <= {np.dtype(np.int32), np.dtype(np.int64)}:
        raise ValueError(f"rows.X.indices has dtype {indices.dtype}, rows.X.indptr {indptr.dtype}")
    if size and (indices.min() < 0 or indices.max() >= d):
        raise ValueError(f"rows.X.indices are not all from 0 to {d - 1}")
    X = sparse.csr_array((data, indices, indptr), shape=(n, d))
    if not _core.is_canonical(X):
        raise ValueError("rows.X.indices do not ascend in each row")
    return X
