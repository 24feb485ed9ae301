"""The overlay: rows that were added, or whose values were corrected."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..atomic import Change


class Growing:
    """An array that grows at its end; capacity doubles, so that a stream of rows stays linear."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._memory = values
        self._size: int = values.shape[0]

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """What it holds; a view, until it grows."""
        return self._memory[: self._size]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        chosen: NDArray[Any] = self.values[index]
        return chosen

    def __setitem__(self, index: Any, values: Any) -> None:
        self.values[index] = values

    def append(self, values: NDArray[Any]) -> None:
        """Values join at the end."""
        wanted = self._size + values.shape[0]
        if wanted > self._memory.shape[0]:
            grown = np.empty((max(wanted, 2 * self._size), *values.shape[1:]), dtype=self._memory.dtype)
            grown[: self._size] = self.values
            self._memory = grown
        self._memory[self._size : wanted] = values
        self._size = wanted

    def as_is(self) -> Change:
        """What to assign to make it what it is now: what was appended since leaves."""
        return self, "_size", self._size


class DenseRows:
    """Rows of an overlay over a dense X."""

    def __init__(self, like: NDArray[Any]) -> None:
        self._X = Growing(np.empty((0, like.shape[1]), dtype=like.dtype))

    def __len__(self) -> int:
        return len(self._X)

    def matrix(self) -> NDArray[Any]:
        """(m, width), not a copy."""
        return self._X.values

    def append(self, X: NDArray[Any]) -> None:
        """Rows join at the end."""
        self._X.append(X)

    def as_is(self) -> list[Change]:
        """What to assign to make them what they are now: rows appended since leave."""
        return [self._X.as_is()]


class SparseRows:
    """Rows of an overlay over a CSR X."""

    def __init__(self, like: Any) -> None:
        self._width = like.shape[1]
        index = np.int32 if self._width <= np.iinfo(np.int32).max else np.int64
        self._data = Growing(np.empty(0, dtype=like.dtype))
        self._indices = Growing(np.empty(0, dtype=index))
        self._indptr = Growing(np.zeros(1, dtype=index))

    def __len__(self) -> int:
        return len(self._indptr) - 1

    def matrix(self) -> Any:
        """(m, width) CSR, not a copy."""
        parts = (self._data.values, self._indices.values, self._indptr.values)
        return sparse.csr_array(parts, shape=(len(self), self._width))

    def append(self, X: Any) -> None:
        """Rows join at the end."""
        end = int(self._indptr[-1])
        if end + X.nnz > np.iinfo(self._indptr.values.dtype).max:
            raise ValueError("more entries were corrected or added than their indices can count")
        self._data.append(X.data)
        self._indices.append(X.indices)
        self._indptr.append(X.indptr[1:] + end)

    def as_is(self) -> list[Change]:
        """What to assign to make them what they are now: rows appended since leave."""
        return [part.as_is() for part in (self._data, self._indices, self._indptr)]


def overlay_of(X: Any) -> DenseRows | SparseRows:
    """An empty overlay over X."""
    return SparseRows(X) if sparse.issparse(X) else DenseRows(X)
