"""The current data D': X as it was handed over, never copied or changed, under an overlay of corrections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from . import _core
from ._arrays import Blocks, Float, as_indices, stack
from .archive import Streamed
from .atomic import Change, assign_all

Index = NDArray[np.int64]

PANEL, PANEL_BYTES = 4096, 2**20  # rows, and what their values take
_CHANGED = (
    "the indices of X point outside of it: X was changed after it was handed over, and has to stay as it was"
)


class StreamedCsr(NamedTuple):
    """A CSR matrix that is written piece by piece."""

    data: Streamed
    indices: Streamed
    indptr: NDArray[Any]


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


class Touched:
    """What one request touches (E2), and what to assign to undo it."""

    rows: _core.TouchedRows  # before and after
    columns: NDArray[np.bool_]  # before the request revoked any

    def __init__(self, data: Data | None) -> None:
        self.undo: list[Change] = [] if data is None else [(data, "_touched", NOTHING)]
        self.revoked: list[int] = []
        self.revoked_rows: list[Index] = []  # that hold anything but 0 in a revoked column


NOTHING = Touched(None)  # between requests


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
        self.changed = True  # since X was handed over
        self.names: list[str | None] | None = None if names is None else list(names)
        self.classes = classes
        self.kept = np.ones(width, dtype=bool)  # replaced, never changed
        self.stored: Index | None = None  # which columns rows are stored with; None: all
        self._last_mask: tuple[Any, NDArray[np.bool_] | None] = (None, None)
        self._touched = NOTHING

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
        key, seen = self._last_mask
        if mask is not key:
            chosen = mask if self.stored is None else mask[self.stored]
            seen = None if chosen.all() else chosen
            self._last_mask = mask, seen
        return seen

    def _position(self, columns: Index) -> Index:
        """Where columns are stored."""
        return columns if self.stored is None else np.searchsorted(self.stored, columns)

    def surviving_columns(self, given: Any) -> Index:
        """Positions in the X that was handed over, from positions or names, none of them revoked."""
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, slice | int) and _holds_names(names):
            columns = self._named(names)
        else:
            columns, names = as_indices(given, self.kept.size, "column"), None
        gone = np.flatnonzero(~self.kept[columns])
        if gone.size:  # said as it was asked: the name of a revoked column is not told
            asked = columns[gone[0]] if names is None else repr(names[gone[0]])
            raise ValueError(f"column {asked} was revoked before")
        return columns

    def _named(self, names: Any) -> Index:
        if self.names is None:
            raise ValueError("columns have no names here: X was not a frame, so give positions")
        position = {name: j for j, name in enumerate(self.names)}
        if np.ndim(names) != 1 or not all(isinstance(name, str) for name in names):
            raise ValueError("columns must be names or positions, not a mix")
        unknown = [name for name in names if name not in position]
        if unknown:
            known = (self.surviving_names() or [])[:20]
            raise ValueError(f"unknown column {unknown[0]!r}: the columns are {', '.join(known)}")
        return as_indices([position[name] for name in names], self.kept.size, "column")

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

    # --- one request: edits that are undone unless all of it succeeds

    def _before(self, *names: str) -> None:
        """These attributes are about to change."""
        self._touched.undo.extend([(self, name, getattr(self, name)) for name in names])

    def begin(self) -> None:
        """A request begins: edits made from here on are undone by `rollback`, unless they are committed."""
        self._touched = Touched(self)

    def _check_not_all(self, columns: Index) -> None:
        if columns.size and self.n_columns == columns.size:
            raise ValueError("every remaining column would be revoked: a model needs at least one")

    def _drop(self, columns: Index) -> None:
        self._before("kept")
        self.kept = self.kept.copy()
        self.kept[columns] = False
        self._touched.revoked.extend(columns.tolist())

    def rollback(self) -> None:
        """Undoes the edits since `begin`; where that was interrupted, once more. Else does nothing."""
        if self._touched.undo:
            assign_all(self._touched.undo[::-1])  # the first values last

    def committed(self) -> list[tuple[Data, str, Any]]:
        """What to assign, together with all else that a request changes, to make its edits stay."""
        return [(self, "_touched", NOTHING)]


class CorrectedData(Data):
    """Rows, targets and weights of D', by row number.

    A row number is a position in the X that was handed over; added rows continue the count. Rows whose
    values were corrected, and added rows, live in an overlay; their weight in the base is 0. Memory: the
    overlay, and one target, weight and place for each row; with `column_index` also one integer for each
    stored entry. A sparse X is copied once revoked columns hold most of its entries: without them.

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
        self.register = _core.RowRegister(y, np.ones(n) if s is None else s, classes)
        self.weighted = s is not None
        self.overlay_X = _overlay(X)
        self.largest_norm = _core.largest_norm(X)  # that any row ever had
        self.changed = False  # since X was handed over
        self._index = _column_index(X) if column_index and sparse.issparse(X) else None
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
        """The data with these numbers (m,), ascending, of `n_rows`, X, y and s; all others are removed.

        `kept` and `names` are over all columns that were ever handed over.
        """
        numbers, X, y, s = numbered
        data = cls(X, y, s, None, classes=classes, column_index=column_index)
        data.register = _core.RowRegister(y, s, classes, numbers, n_rows)
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
        return self.register.row_count

    def blocks(self) -> Blocks:
        """D' as the core takes it: the base, with weight 0 where the overlay or nothing stands instead."""
        blocks: Blocks = [(self.X, *self.register.base)]
        if len(self.overlay_X):
            blocks.append((self.overlay_X.matrix(), *self.register.overlay))
        return blocks

    def get(self, rows: Index) -> tuple[Any, Float, Float]:
        """Copies of rows of the data: X (m, stored columns), y (m,), s (m,)."""
        places, y, s = self.register.of(rows)
        return self._rows_at(places), y, s

    def _rows_at(self, places: Index, columns: NDArray[np.bool_] | None = None) -> Any:
        """A copy of the rows at these places, over the stored columns or those of a mask."""
        n = self.X.shape[0]
        base = places < n
        if base.all():
            return _take(self.X, places, columns)
        overlay = self.overlay_X.matrix()
        if not base.any():
            return _take(overlay, places - n, columns)
        X = stack([_take(self.X, places[base], columns), _take(overlay, places[~base] - n, columns)])
        return _take(X, np.argsort(np.concatenate([np.flatnonzero(base), np.flatnonzero(~base)])))

    def current(self) -> tuple[Any, Float, Float | None]:
        """Copies of all rows in the order of their numbers, surviving columns only."""
        X, y, s = self._current(self.register.live())
        return X, y, s if self.weighted else None

    def _current(self, rows: Index) -> tuple[Any, Float, Float]:
        """Copies of rows X (m, surviving columns), y (m,), s (m,)."""
        places, y, s = self.register.of(rows)
        return self._rows_at(places, self.stored_columns(self.kept)), y, s

    def panels(self) -> Iterator[tuple[Any, Float, Float]]:
        """What `current` gives, some rows at a time: how many depends on what the data are now alone.

        (A release is computed panel by panel, and must not tell by its last bits what was revoked.)
        """
        for rows in self._cut(self.register.live()):
            yield self._current(rows)

    def _cut(self, rows: Index) -> Iterator[Index]:
        """Rows, PANEL at a time, or of a wide dense X as few as fill PANEL_BYTES."""
        height = PANEL
        if not self.is_sparse:
            height = max(
                1, min(PANEL, PANEL_BYTES // (8 * self.n_columns))
            )  # whatever the dtype was once for
        return (rows[first : first + height] for first in range(0, rows.size, height))

    def _cut_fine(self, rows: Index) -> Iterator[Index]:
        """The same, with as many rows of a sparse X as fill PANEL_BYTES."""
        for panel in self._cut(rows):
            if not self.is_sparse:
                yield panel
                continue
            entry = self.dtype.itemsize + self.X.indices.itemsize
            filled = np.cumsum(self._entries(panel)) * entry // PANEL_BYTES
            yield from np.split(panel, np.flatnonzero(np.diff(filled)) + 1)

    def _entries(self, rows: Index) -> Index:
        """(m,) how many entries each of these rows of a sparse X has, over the stored columns."""
        places, n = self.register.of(rows)[0], self.X.shape[0]
        base, counts = places < n, np.empty(rows.size, dtype=np.int64)
        for here, X, at in ((base, self.X, places), (~base, self.overlay_X.matrix(), places - n)):
            indptr: NDArray[Any] = X.indptr  # type: ignore[union-attr]
            counts[here] = indptr[at[here] + 1] - indptr[at[here]]
        return counts

    def current_norm(self) -> float:
        """The largest norm of a row as the data are now."""
        if not self.changed:
            return self.largest_norm
        return max((_core.largest_norm(X) for X, _, _ in self.panels()), default=0.0)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of positive weight: of class 0 and 1, or all of them in the first place."""
        return np.array(self.register.counts)

    def streamed(self) -> tuple[Index, Streamed | StreamedCsr, Streamed, Streamed]:
        """Of all rows: numbers (m,), ascending, X (m, surviving columns), y (m,), s (m,).

        Of X, y and s only a panel is there at a time, once it is asked for; until then nothing may change.
        """
        live = self.register.live()

        def column(which: int) -> Streamed:
            panels = range(0, live.size, PANEL)
            return Streamed(
                np.dtype(np.float64),
                live.shape,
                lambda: (self.register.of(live[first : first + PANEL])[which] for first in panels),
            )

        def panels() -> Iterator[Any]:
            columns = self.stored_columns(self.kept)
            return (self._rows_at(self.register.of(rows)[0], columns) for rows in self._cut_fine(live))

        y, s = column(1), column(2)
        if not self.is_sparse:
            return live, Streamed(self.dtype, (live.size, self.n_columns), panels), y, s
        indptr, at = np.zeros(live.size + 1, dtype=np.int64), 0
        index: np.dtype[Any] = np.dtype(np.int32)
        for X in panels():
            m = X.shape[0]
            indptr[at + 1 : at + m + 1] = indptr[at] + X.indptr[1:]
            at, index = at + m, np.promote_types(index, X.indices.dtype)
        size = int(indptr[-1])
        if size > np.iinfo(index).max:
            index = np.dtype(np.int64)
        return (
            live,
            StreamedCsr(
                Streamed(self.dtype, (size,), lambda: (X.data for X in panels())),
                Streamed(index, (size,), lambda: (X.indices.astype(index, copy=False) for X in panels())),
                indptr.astype(index, copy=False),
            ),
            y,
            s,
        )

    def rows(self, given: Any) -> Index:
        """Row numbers from a request. Whether they are in the data still is seen where they are edited."""
        return as_indices(given, self.register.row_count, "row")

    # --- the edits of a request

    def begin(self) -> None:
        """See Data."""
        self.register.begin()  # first: an interrupt between the two must not undo the request before
        self._touched = Touched(self)

    def rollback(self) -> None:
        """See Data."""
        if self._touched is not NOTHING:
            self.register.rollback()  # which may be done twice
            super().rollback()

    def _append(self, X: Any) -> None:
        """Values join the overlay."""
        self._before("largest_norm")
        self._touched.undo.extend(self.overlay_X.as_is())
        self.overlay_X.append(X)
        self.largest_norm = max(self.largest_norm, _core.largest_norm(X))

    def remove(self, rows: Index) -> None:
        """Rows leave: s -> 0."""
        self.register.remove(rows)

    def set_targets(self, rows: Index, y: Float) -> None:
        """Targets of rows become y, (m,)."""
        self.register.set_targets(rows, y)

    def set_values(self, rows: Index, columns: Index, values: NDArray[Any]) -> None:
        """Cells of rows x columns become values (m, k), in the dtype of X."""
        self.register.require(rows)
        X, _, _ = self.get(rows)
        self._append(_with_cells(X, self._position(columns), values))
        self.register.relocate(rows)

    def add(self, X: Any, y: Float, s: Float | None) -> None:
        """New rows X (m, surviving columns), y (m,), s (m,)."""
        self._append(self._widened(X))
        self.register.add(y, np.ones(y.size) if s is None else s)
        if s is not None and not self.weighted:
            self._before("weighted")
            self.weighted = True

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        self._check_not_all(columns)
        found, entries = self._rows_with_values_in(columns)
        self._touched.revoked_rows.append(found)
        self._before("_revoked_entries")
        self._revoked_entries += entries
        self._drop(columns)

    # --- what one request came to

    def finish(self) -> Touched:
        """All that the request touched; raises if too little would be left."""
        if not self.changed:
            self._before("changed")
            self.changed = True
        touched = self._touched
        touched.columns = self.kept
        if touched.revoked:
            touched.columns = self.kept.copy()
            touched.columns[touched.revoked] = True
        columns = self.stored_columns(touched.columns)
        touched.rows = self.register.change(self.X, self.overlay_X.matrix, self._rows_at, columns)
        return touched

    def _rows_with_values_in(self, columns: Index) -> tuple[Index, int]:
        """Rows now in the data that are not 0 in all of these columns; how many entries of X these hold."""
        at = self._position(columns)
        found = np.zeros(self.X.shape[0], dtype=bool)
        entries = 0
        if self._index is not None:
            indices, indptr = self._index
            for j in at:
                found[indices[indptr[j] : indptr[j + 1]]] = True
                entries += int(indptr[j + 1] - indptr[j])
        else:
            found, entries = _rows_with_values(self.X, at)
        if len(self.overlay_X):
            found = np.append(found, _rows_with_values(self.overlay_X.matrix(), at)[0])
        live = self.register.live()
        return live[found[self.register.of(live)[0]]], entries

    # --- memory that nothing needs any more

    def compact(self) -> None:
        """Leaves out overlay rows that are no more, and revoked columns of a sparse X, where they are most.

        The data stay what they are.
        """
        if not self._revoked_entries and not self.register.abandoned_places:
            return
        few_columns = (
            self._revoked_entries > 0 and sparse.issparse(self.X) and 2 * self._revoked_entries > self.X.nnz
        )
        if not few_columns and 2 * self.register.abandoned_places <= len(self.overlay_X):
            return
        register, places = self.register.compacted()
        X, overlay = self.X, _take(self.overlay_X.matrix(), places - self.X.shape[0])
        columns = self.stored_columns(self.kept) if few_columns else None
        changed: dict[str, Any] = {}
        if columns is not None:
            _core.is_canonical(X)  # raises where others wrote to it: SciPy trusts its indices
            parts = (X.data[: X.indptr[-1]], X.indices[: X.indptr[-1]], X.indptr)
            X = sparse.csr_array(parts, shape=X.shape)[:, columns]
            overlay = overlay[:, columns]
            changed.update(X=X, stored=np.flatnonzero(self.kept), _revoked_entries=0)
            changed.update(_last_mask=(None, None))
            if self._index is not None:
                changed.update(_index=_column_index(X))
        rows = _overlay(X)
        rows.append(overlay)
        changed.update(overlay_X=rows, register=register)
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
        for owner, name, value in self._kept_columns():
            setattr(owner, name, value)

    def _kept_columns(self) -> list[tuple[Data, str, Any]]:
        """What follows from which columns are kept: rows come with these, and others have no name."""
        columns = np.flatnonzero(self.kept)
        names = self.names
        if names is not None:
            names = [name if here else None for name, here in zip(names, self.kept, strict=True)]
        return [(self, "stored", columns), (self, "names", names), (self, "_last_mask", (None, None))]

    def begin(self) -> None:
        """See Data."""
        super().begin()
        self._touched.undo.extend([(self, "_rows", []), (self, "rows_touched", 0)])  # no row is kept
        self._before("weighted", "counts")
        self._rows, self.rows_touched = [], 0

    def committed(self) -> list[tuple[Data, str, Any]]:
        """See Data."""
        return [*super().committed(), (self, "_rows", []), *self._kept_columns()]

    def replace(
        self, before: tuple[Any, Float, Float | None] | None, after: tuple[Any, Float, Float | None] | None
    ) -> None:
        """Rows X (m, surviving columns), y (m,), s (m,) leave, and others join.

        A row is kept once, with its weight on either side, 0 where it is not there. So all rows of a request
        are one matrix, and where targets change H does not (E6).
        """
        sides = [side for side in (before, after) if side is not None]
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
        self._check_not_all(columns)
        self._drop(columns)

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


def _take(X: Any, rows: Index, columns: NDArray[np.bool_] | None = None) -> Any:
    """A copy of rows of X, of all columns or those of a mask, in C order or CSR.

    What SciPy trusts is looked at: others may have written to it.
    """
    if not sparse.issparse(X):
        return np.ascontiguousarray(X[rows] if columns is None else X[np.ix_(rows, columns)])
    first, stop = X.indptr[rows], X.indptr[rows + 1]
    if rows.size and (
        first.min() < 0 or (first > stop).any() or stop.max() > min(X.indices.size, X.data.size)
    ):
        raise ValueError(_CHANGED)
    taken = X[rows]
    _core.is_canonical(taken)  # raises
    return taken if columns is None else taken[:, columns]


def _holds_names(given: Any) -> bool:
    """Whether any of these columns is given by name."""
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        return False
    return any(isinstance(name, str) for name in np.ravel(given))
