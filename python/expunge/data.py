"""The current data D': X as it was handed over, never copied or changed, under an overlay of corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from . import _core
from ._arrays import Blocks, Float, as_indices, stack

Index = NDArray[np.int64]


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

    def truncate(self, size: int) -> None:
        """What was appended since leaves."""
        self._size = size


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

    def truncate(self, size: int) -> None:
        """Rows appended since leave."""
        self._X.truncate(size)


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

    def truncate(self, size: int) -> None:
        """Rows appended since leave."""
        self._indptr.truncate(size + 1)
        self._data.truncate(int(self._indptr[-1]))
        self._indices.truncate(int(self._indptr[-1]))


class Touched:
    """The rows that one request touches: what they were and what they are (E2)."""

    def __init__(self) -> None:
        self.rows: dict[int, None] = {}  # in the order of the arrays below
        self.before: list[tuple[Any, Float, Float]] = []
        self.values_changed = False
        self.added: list[Index] = []
        self.revoked: list[int] = []
        self.revoked_rows: list[Index] = []  # that hold anything but 0 in a revoked column


class Data:
    """What a model's data are beside their rows: columns, names, classes; and one request at a time.

    Parameters
    ----------
    width : int
        Columns of the X that was handed over.
    names : their names, or None; None also for a name that is not kept
    classes : bool
        Whether targets are classes 0 and 1, both of which must keep weight.
    """

    def __init__(self, width: int, names: Sequence[str | None] | None, *, classes: bool) -> None:
        self.names: list[str | None] | None = None if names is None else list(names)
        self.classes = classes
        self.kept = np.ones(width, dtype=bool)
        self.stored: Index | None = None  # which columns rows are stored with; None: all
        self._undo: list[Callable[[], None]] = []
        self._touched = Touched()

    # --- columns

    @property
    def n_columns(self) -> int:
        """How many columns survive."""
        return int(np.count_nonzero(self.kept))

    def columns(self) -> Index:
        """Surviving columns."""
        return np.flatnonzero(self.kept)

    def surviving_names(self) -> list[str] | None:
        """Their names."""
        return None if self.names is None else [str(self.names[j]) for j in self.columns()]

    def stored_columns(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """A mask over all columns as one over those that are stored, as the core takes it: None for all."""
        chosen = mask if self.stored is None else mask[self.stored]
        return None if chosen.all() else chosen

    def _position(self, columns: Index) -> Index:
        """Where columns are stored."""
        return columns if self.stored is None else np.searchsorted(self.stored, columns)

    def surviving_columns(self, given: Any) -> Index:
        """Positions in the X that was handed over, from positions or names, none of them revoked."""
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, slice) and _holds_names(names):
            columns = self._named(names)
        else:
            columns = as_indices(given, self.kept.size, "column")
        gone = ~self.kept[columns]
        if gone.any():
            raise ValueError(f"column {self._column_text(columns[gone][0])} was revoked before")
        return columns

    def _named(self, names: Any) -> Index:
        if self.names is None:
            raise ValueError("columns have no names here: X was not a frame, so give positions")
        position = {name: j for j, name in enumerate(self.names)}
        if np.ndim(names) != 1 or not all(isinstance(name, str) for name in names):
            raise ValueError("columns must be names or positions, not a mix")
        unknown = [name for name in names if name not in position]
        if unknown:
            known = [name for name in self.names if name is not None][:20]
            raise ValueError(f"unknown column {unknown[0]!r}: the columns are {', '.join(known)}")
        return as_indices([position[name] for name in names], self.kept.size, "column")

    def _column_text(self, j: int) -> str:
        name = None if self.names is None else self.names[j]
        return str(j) if name is None else repr(name)

    def _widened(self, X: Any) -> Any:
        """X (m, surviving columns) as the overlay stores it."""
        chosen = self.stored_columns(self.kept)
        if chosen is None:
            return X
        shape = (X.shape[0], chosen.size)
        columns = np.flatnonzero(chosen)
        if sparse.issparse(X):
            parts = (X.data, columns[X.indices].astype(X.indices.dtype, copy=False), X.indptr)
            return sparse.csr_array(parts, shape=shape)
        wide = np.zeros(shape, dtype=X.dtype)
        wide[:, columns] = X
        return wide

    # --- how many rows

    def _count(self, y: Float, s: Float) -> NDArray[np.int64]:
        """Rows of positive weight: of class 0 and 1, or all of them in the first place."""
        if s.size == 1:
            counts = [int(s[0] > 0.0), 0]
            return np.array(counts[::-1] if self.classes and y[0] == 1.0 else counts)
        weight = s > 0
        ones = int(np.count_nonzero(weight & (y == 1.0))) if self.classes else 0
        return np.array([np.count_nonzero(weight) - ones, ones])

    def _check_enough(self, counts: NDArray[np.int64]) -> None:
        if counts.sum() == 0:
            raise ValueError("no row of positive weight would be left")
        if self.classes and counts.min() == 0:
            raise ValueError("no row of positive weight would be left of one of the two classes")

    # --- one request: edits that are undone unless all of it succeeds

    @contextmanager
    def transaction(self) -> Iterator[Touched]:
        """Edits made inside stay only if the block ends without an exception."""
        self._undo, self._touched = [], Touched()
        try:
            yield self._touched
        except BaseException:
            while self._undo:
                self._undo.pop()()
            raise
        finally:
            self._undo, self._touched = [], Touched()

    def committed(self) -> dict[str, Any]:
        """What to assign to this object, together with all else that a request changes, to make it stay."""
        return {"_undo": []}

    def _set(self, array: Any, index: Any, values: Any) -> None:
        old = array[index]
        self._undo.append(partial(array.__setitem__, index, old))
        array[index] = values


class CorrectedData(Data):
    """Rows, targets and weights of D', by row number.

    A row number is a position in the X that was handed over; added rows continue the count. Rows whose
    values were corrected, and added rows, live in an overlay; their weight in the base is 0. Memory: the
    overlay, and one target, weight, flag and overlay position for each row; with `column_index` also one
    integer for each stored entry. A sparse X is copied once revoked columns hold most of its entries: without
    them.

    Parameters
    ----------
    X : (n, width) array or CSR matrix, held by reference
    y : (n,) array
        Encoded targets.
    s : (n,) array or None
        Weights.
    names : column names, or None
    classes : bool
        Whether y holds classes 0 and 1, both of which must keep weight.
    column_index : bool
        Whether to keep, for a sparse X, which rows each column has entries in.
    """

    def __init__(
        self,
        X: Any,
        y: Float,
        s: Float | None,
        names: Sequence[str | None] | None,
        *,
        classes: bool,
        column_index: bool = False,
    ) -> None:
        n, width = X.shape
        super().__init__(width, names, classes=classes)
        self.X = X
        self.y = y.copy()
        self.s = np.ones(n) if s is None else s.copy()
        self.weighted = s is not None
        self.live = Growing(np.ones(n, dtype=bool))
        self.slot = Growing(np.full(n, -1))  # position in the overlay, or -1
        self.overlay_X = _overlay(X)
        self.overlay_y = Growing(np.empty(0))
        self.overlay_s = Growing(np.empty(0))
        self.counts = self._count(self.y, self.s)
        self.largest_norm = _core.largest_norm(X)
        self._index = _column_index(X) if column_index and sparse.issparse(X) else None
        self._replaced = 0  # overlay rows that were corrected again
        self._revoked_entries = 0  # of a sparse X

    @classmethod
    def from_numbered(
        cls,
        numbered: tuple[Index, Any, Float, Float],
        n_rows: int,
        kept: NDArray[np.bool_],
        names: Sequence[str | None] | None,
        *,
        classes: bool,
        weighted: bool,
        column_index: bool = False,
    ) -> Self:
        """The data that gave `numbered()`, of `n_rows` row numbers, all others removed.

        `kept` and `names` are over all columns that were ever handed over.
        """
        numbers, X, y, s = numbered
        targets, weights = np.zeros(n_rows), np.zeros(n_rows)
        targets[numbers], weights[numbers] = y, s
        spread = _spread(X, numbers, n_rows)
        data = cls(spread, targets, weights, None, classes=classes, column_index=column_index)
        data.live[:] = False
        data.live[numbers] = True
        data.kept, data.stored = kept.copy(), np.flatnonzero(kept)
        data.names = None if names is None else list(names)
        data.weighted = weighted
        return data

    # --- what the data are now

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of X and of all that is added to it."""
        dtype: np.dtype[Any] = self.X.dtype
        return dtype

    @property
    def is_sparse(self) -> bool:
        """Whether rows are CSR."""
        return bool(sparse.issparse(self.X))

    @property
    def n_rows(self) -> int:
        """Row numbers given out so far, removed rows included."""
        return len(self.live)

    def blocks(self) -> Blocks:
        """D' as the core takes it: the base, with weight 0 where the overlay or nothing stands instead."""
        base: Blocks = [(self.X, self.y, self.s)]
        if len(self.overlay_X):
            base.append((self.overlay_X.matrix(), self.overlay_y.values, self.overlay_s.values))
        return base

    def get(self, rows: Index) -> tuple[Any, Float, Float]:
        """Copies of rows: X (m, stored columns), y (m,), s (m,)."""
        slots = self.slot[rows]
        moved = slots >= 0
        if not moved.any():
            return _take(self.X, rows), self.y[rows], self.s[rows]
        there, here = slots[moved], rows[~moved]
        X = stack([_take(self.overlay_X.matrix(), there), _take(self.X, here)])
        order = np.argsort(np.concatenate([np.flatnonzero(moved), np.flatnonzero(~moved)]))
        y = np.concatenate([self.overlay_y[there], self.y[here]])
        s = np.concatenate([self.overlay_s[there], self.s[here]])
        return _take(X, order), y[order], s[order]

    def current(self) -> tuple[Any, Float, Float | None]:
        """Copies of all live rows in the order of their numbers, surviving columns only."""
        X, y, s = self.get(np.flatnonzero(self.live.values))
        columns = self.stored_columns(self.kept)
        if columns is not None:
            X = X[:, columns] if sparse.issparse(X) else np.ascontiguousarray(X[:, columns])
        return X, y, s if self.weighted else None

    def numbered(self) -> tuple[Index, Any, Float, Float]:
        """Of all live rows: numbers (m,), ascending, X (m, surviving columns), y (m,), s (m,), as copies."""
        X, y, s = self.current()
        return np.flatnonzero(self.live.values), X, y, np.ones(y.size) if s is None else s

    def live_rows(self, given: Any) -> Index:
        """Row numbers from a request, all of them still in the data."""
        rows = as_indices(given, self.n_rows, "row")
        gone = ~self.live[rows]
        if gone.any():
            raise ValueError(f"row {rows[gone][0]} was removed before: it is no longer in the data")
        return rows

    # --- the edits of a request

    def _touch(self, rows: Index) -> None:
        first_added = int(self._touched.added[0][0]) if self._touched.added else self.n_rows
        seen = self._touched.rows
        new = np.array(
            [row for row in rows.tolist() if row < first_added and row not in seen], dtype=np.int64
        )
        if new.size:
            self._touched.before.append(self.get(new))
            self._touched.rows.update(dict.fromkeys(new.tolist()))

    def _write(self, attribute: str, rows: Index, values: Any) -> None:
        """Targets (`y`) or weights (`s`) of rows, wherever they live."""
        slots = self.slot[rows]
        for array, at, chosen in (
            (getattr(self, attribute), rows, slots < 0),
            (getattr(self, "overlay_" + attribute), slots, slots >= 0),
        ):
            index = at[chosen]
            if index.size:
                self._set(array, index, np.broadcast_to(values, rows.shape)[chosen])

    def _now(self, attribute: str, rows: Index) -> Float:
        """Targets or weights of rows, wherever they live."""
        values: Float = getattr(self, attribute)[np.minimum(rows, self.X.shape[0] - 1)]
        slots = self.slot[rows]
        moved = slots >= 0
        if moved.any():
            values[moved] = getattr(self, "overlay_" + attribute)[slots[moved]]
        return values

    def _append(self, X: Any, y: Float, s: Float) -> Index:
        """New slots of the overlay."""
        used = len(self.overlay_X)
        for array, values in ((self.overlay_X, X), (self.overlay_y, y), (self.overlay_s, s)):
            self._undo.append(partial(array.truncate, used))
            array.append(values)
        if y.size:
            self.largest_norm = max(self.largest_norm, _core.largest_norm(X))
        return np.arange(used, used + y.size)

    def remove(self, rows: Index) -> None:
        """Rows leave: s -> 0."""
        self._touch(rows)
        self._set(self.live, rows, False)
        self._write("s", rows, 0.0)

    def set_targets(self, rows: Index, y: Float) -> None:
        """Targets of rows become y, (m,) or a scalar."""
        self._touch(rows)
        self._write("y", rows, y)

    def set_values(self, rows: Index, columns: Index, values: NDArray[Any]) -> None:
        """Cells of rows x columns become values (m, k), in the dtype of X."""
        self._touch(rows)
        self._touched.values_changed = True
        X, y, s = self.get(rows)
        X = _with_cells(X, self._position(columns), values)
        self._write("s", rows, 0.0)
        self._undo.append(partial(setattr, self, "_replaced", self._replaced))
        self._replaced += int(np.count_nonzero(self.slot[rows] >= 0))
        self._set(self.slot, rows, self._append(X, y, s))

    def add(self, X: Any, y: Float, s: Float | None) -> None:
        """New rows X (m, surviving columns), y (m,), s (m,)."""
        rows = np.arange(self.n_rows, self.n_rows + X.shape[0])
        slots = self._append(self._widened(X), y, np.ones(rows.size) if s is None else s)
        for array, values in ((self.slot, slots), (self.live, np.ones(rows.size, dtype=bool))):
            self._undo.append(partial(array.truncate, len(array)))
            array.append(values)
        self._undo.append(partial(setattr, self, "weighted", self.weighted))
        self.weighted = self.weighted or s is not None
        if rows.size:
            self._touched.added.append(rows)

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        if columns.size and self.n_columns == columns.size:
            raise ValueError("every remaining column would be revoked: a model needs at least one")
        found, entries = self._rows_with_values_in(columns)
        self._touched.revoked_rows.append(found)
        self._undo.append(partial(setattr, self, "_revoked_entries", self._revoked_entries))
        self._revoked_entries += entries
        self._set(self.kept, columns, False)
        self._touched.revoked.extend(columns.tolist())

    # --- what one request came to

    def finish(self) -> tuple[Blocks | None, Blocks | None]:
        """Touched rows before and after, over the stored columns; raises if too little would be left.

        Unless values changed, both sides hold the same array X.
        """
        touched = self._touched
        before: Blocks | None = None
        after: Blocks | None = None
        change = np.zeros(2, dtype=np.int64)
        if touched.rows:
            Xs, ys, ss = zip(*touched.before, strict=True)
            X, y, s = stack(Xs), np.concatenate(ys), np.concatenate(ss)
            before = [(X, y, s)]
            rows = np.fromiter(touched.rows, np.int64, len(touched.rows))
            if touched.values_changed:
                X, now_y, now_s = self.get(rows)
            else:
                now_y, now_s = self._now("y", rows), self._now("s", rows)
            after = [(X, now_y, now_s)]
            change += self._count(now_y, now_s) - self._count(y, s)
        if touched.added:
            X, y, s = self.get(np.concatenate(touched.added))
            after = [*(after or []), (X, y, s)]
            change += self._count(y, s)
        old, counts = self.counts, self.counts + change
        self._check_enough(counts)
        self._undo.append(lambda: setattr(self, "counts", old))
        self.counts = counts
        return before, after

    def _rows_with_values_in(self, columns: Index) -> tuple[Index, int]:
        """Rows now in the data that are not 0 in all of these columns; how many entries of X these hold."""
        at = self._position(columns)
        base = np.zeros(self.X.shape[0], dtype=bool)
        entries = 0
        if self._index is not None:
            indices, indptr = self._index
            for j in at:
                base[indices[indptr[j] : indptr[j + 1]]] = True
                entries += int(indptr[j + 1] - indptr[j])
        else:
            base, entries = _rows_with_values(self.X, at)
        base &= self.live[: base.size]
        if not len(self.overlay_X):
            return np.flatnonzero(base), entries
        moved = np.flatnonzero(self.slot.values >= 0)
        base[moved[moved < base.size]] = False
        found, _ = _rows_with_values(_take(self.overlay_X.matrix(), self.slot[moved]), at)
        moved = moved[found & self.live[moved]]
        return np.union1d(np.flatnonzero(base), moved), entries

    # --- memory that nothing needs any more

    def compact(self) -> None:
        """Leaves out overlay rows corrected again, and revoked columns of a sparse X, where they are most.

        The data stay what they are.
        """
        few_columns = sparse.issparse(self.X) and 2 * self._revoked_entries > self.X.nnz
        if not few_columns and 2 * self._replaced <= len(self.overlay_X):
            return
        moved = np.flatnonzero(self.slot.values >= 0)
        slots = self.slot[moved]
        X, overlay = self.X, _take(self.overlay_X.matrix(), slots)
        columns = self.stored_columns(self.kept) if few_columns else None
        changed: dict[str, Any] = {}
        if columns is not None:
            X, overlay = X[:, columns], overlay[:, columns]
            changed.update(X=X, stored=np.flatnonzero(self.kept), _revoked_entries=0)
            if self._index is not None:
                changed.update(_index=_column_index(X))
        rows = _overlay(X)
        rows.append(overlay)
        slot = self.slot.values.copy()
        slot[moved] = np.arange(moved.size)
        changed.update(
            overlay_X=rows,
            overlay_y=Growing(self.overlay_y[slots]),
            overlay_s=Growing(self.overlay_s[slots]),
            slot=Growing(slot),
            _replaced=0,
        )
        self.__dict__.update(changed)  # all at once: an interrupt finds the data before or after


class DetachedData(Data):
    """What is left of D' without its rows: their number, dtype and kind, and the columns' names.

    Rows come with a request, by value, and are gone when it ends. Names of revoked columns are not kept.

    Parameters
    ----------
    kept : (width,) bool array
        Which columns of the X that was handed over survive.
    names : their names, or None
    counts : (2,) array
        Rows of positive weight: of class 0 and 1, or all of them in the first place.
    dtype : float32 or float64
    is_sparse : bool
    classes : bool
        Whether targets are classes 0 and 1, both of which must keep weight.
    weighted : bool
        Whether weights were ever given.
    """

    def __init__(
        self,
        kept: NDArray[np.bool_],
        names: Sequence[str | None] | None,
        counts: NDArray[np.int64],
        *,
        dtype: np.dtype[Any],
        is_sparse: bool,
        classes: bool,
        weighted: bool,
    ) -> None:
        super().__init__(kept.size, names, classes=classes)
        self.kept = kept.copy()
        self.counts = counts.copy()
        self.dtype = dtype
        self.is_sparse = is_sparse
        self.weighted = weighted
        self._rows: list[tuple[Any, Float, Float, Float, Float]] = []  # X, y and s before, y and s after
        self.rows_touched = 0
        self.__dict__.update(self._kept_columns())

    def _kept_columns(self) -> dict[str, Any]:
        """What follows from which columns are kept: rows come with these, and others have no name."""
        columns = np.flatnonzero(self.kept)
        names = self.names
        if names is not None:
            names = [name if here else None for name, here in zip(names, self.kept, strict=True)]
        return {"stored": columns, "names": names}

    def committed(self) -> dict[str, Any]:
        """See Data."""
        return {**super().committed(), **self._kept_columns()}

    @contextmanager
    def transaction(self) -> Iterator[Touched]:
        """See Data; whatever happens, no row is kept."""
        self._rows, self.rows_touched = [], 0
        try:
            with super().transaction() as touched:
                yield touched
        finally:
            self._rows = []

    def replace(
        self, before: tuple[Any, Float, Float | None] | None, after: tuple[Any, Float, Float | None] | None
    ) -> None:
        """Rows X (m, surviving columns), y (m,), s (m,) leave, and others join.

        A row is kept once, with its weight on either side, 0 where it is not there. So all rows of a request
        are one matrix, and where targets change H does not (E6).
        """
        sides = [side for side in (before, after) if side is not None]
        self._undo.append(partial(setattr, self, "weighted", self.weighted))
        self.weighted = self.weighted or any(s is not None for _, _, s in sides)
        self.rows_touched += max(y.size for _, y, _ in sides)
        if before is not None and after is not None and _equal(before[0], after[0]):
            X, y, s = before
            _, now_y, now_s = after
            self._rows.append((self._widened(X), y, _or_ones(s, y), now_y, _or_ones(now_s, y)))
            return
        for side in sides:
            X, y, given = side
            s, nothing = _or_ones(given, y), np.zeros(y.size)
            weights = (s, nothing) if side is before else (nothing, s)
            self._rows.append((self._widened(X), y, weights[0], y, weights[1]))

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        if columns.size and self.n_columns == columns.size:
            raise ValueError("every remaining column would be revoked: a model needs at least one")
        self._set(self.kept, columns, False)
        self._touched.revoked.extend(columns.tolist())

    def finish(self) -> tuple[Blocks | None, Blocks | None]:
        """Rows of the request before and after, over the columns at its start, sharing one X.

        Raises if more rows leave than there are, or too few are left.
        """
        if not self._rows:
            return None, None
        Xs, *columns = zip(*self._rows, strict=True)
        X = stack(Xs)
        y, s, now_y, now_s = (np.concatenate(column) for column in columns)
        counts = self.counts + self._count(now_y, now_s) - self._count(y, s)
        if counts.min() < 0:
            raise ValueError(
                "more rows would leave than there are"
                + (" of one of the two classes" if self.classes else "")
                + f" ({self.counts[np.argmin(counts)]}): were all of them in the data?"
            )
        self._check_enough(counts)
        self._undo.append(partial(setattr, self, "counts", self.counts))
        self.counts = counts
        return [(X, y, s)], [(X, now_y, now_s)]


def _or_ones(s: Float | None, y: Float) -> Float:
    """Weights, 1 by default."""
    return np.ones(y.size) if s is None else s


def _equal(X: Any, Y: Any) -> bool:
    """Whether two matrices of one kind hold the same numbers."""
    if X is Y:
        return True
    if X.shape != Y.shape:
        return False
    if not sparse.issparse(X):
        return np.array_equal(X, Y)
    return all(np.array_equal(getattr(X, part), getattr(Y, part)) for part in ("indptr", "indices", "data"))


def _spread(X: Any, numbers: Index, n: int) -> Any:
    """X (m, width) as rows `numbers` of n, the others 0."""
    if numbers.size == n:
        return X
    if not sparse.issparse(X):
        spread = np.zeros((n, X.shape[1]), dtype=X.dtype)
        spread[numbers] = X
        return spread
    entries = np.zeros(n + 1, dtype=X.indptr.dtype)
    entries[numbers + 1] = np.diff(X.indptr)
    indptr = np.cumsum(entries, dtype=X.indptr.dtype)
    return sparse.csr_array((X.data, X.indices, indptr), shape=(n, X.shape[1]))


def _overlay(X: Any) -> DenseRows | SparseRows:
    return SparseRows(X) if sparse.issparse(X) else DenseRows(X)


def _column_index(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows of each column's entries, column after column, and where each column begins."""
    pattern = sparse.csr_array((X.data != 0, X.indices, X.indptr), shape=X.shape)
    if not pattern.data.all():
        pattern = pattern.copy()
        pattern.eliminate_zeros()
    by_column = pattern.tocsc()
    return by_column.indices, by_column.indptr


def _rows_with_values(X: Any, columns: Index) -> tuple[NDArray[np.bool_], int]:
    """(n,) which rows of X hold anything but 0 in some of these columns, and how many entries do."""
    if sparse.issparse(X):
        return _core.rows_with_values(X, columns)
    values = np.zeros(X.shape[0], dtype=np.int64)
    for j in columns:
        values += X[:, j] != 0
    return values > 0, int(values.sum())


def _with_cells(X: Any, columns: Index, values: NDArray[Any]) -> Any:
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


def _take(X: Any, rows: Index) -> Any:
    """A copy of rows of X, in C order or CSR."""
    return X[rows] if sparse.issparse(X) else np.ascontiguousarray(X[rows])


def _holds_names(given: Any) -> bool:
    """Whether any of these columns is given by name."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        return False
    return any(isinstance(name, str) for name in np.ravel(given))
