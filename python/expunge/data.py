"""The current data D': X as it was handed over, never copied or changed, under an overlay of corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import Blocks, Float, as_indices

Index = NDArray[np.int64]


class Touched:
    """The rows that one request touches: what they were and what they are (E2)."""

    def __init__(self) -> None:
        self.rows: dict[int, None] = {}  # in the order of the arrays below
        self.before: list[tuple[NDArray[Any], Float, Float]] = []
        self.values_changed = False
        self.added: list[Index] = []
        self.revoked: list[int] = []


class CorrectedData:
    """Rows, targets and weights of D', by row number.

    A row number is a position in the X that was handed over; added rows continue the count. Rows whose
    values were corrected, and added rows, live in an overlay of full width; their weight in the base is 0.
    Memory: the overlay, and one target, weight and flag for each row.

    Parameters
    ----------
    X : (n, width) array, held by reference
    y : (n,) array
        Encoded targets.
    s : (n,) array or None
        Weights.
    names : column names, or None
    classes : bool
        Whether y holds classes 0 and 1, both of which must keep weight.
    """

    def __init__(
        self, X: NDArray[Any], y: Float, s: Float | None, names: Sequence[str] | None, *, classes: bool
    ) -> None:
        n, width = X.shape
        self.X = X
        self.y = y.copy()
        self.s = np.ones(n) if s is None else s.copy()
        self.weighted = s is not None
        self.names = None if names is None else list(names)
        self.classes = classes
        self.live = np.ones(n, dtype=bool)
        self.kept = np.ones(width, dtype=bool)
        self.slot: dict[int, int] = {}  # row number -> overlay slot
        self.overlay_X = np.empty((0, width), dtype=X.dtype)
        self.overlay_y = np.empty(0)
        self.overlay_s = np.empty(0)
        self.counts = self._count(self.y, self.s)
        self._undo: list[Callable[[], None]] = []
        self._touched = Touched()

    # --- what the data are now

    @property
    def n_rows(self) -> int:
        """Row numbers given out so far, removed rows included."""
        return self.live.size

    def columns(self) -> Index:
        """Surviving columns."""
        return np.flatnonzero(self.kept)

    def surviving_names(self) -> list[str] | None:
        """Their names."""
        return None if self.names is None else [self.names[j] for j in self.columns()]

    def blocks(self) -> Blocks:
        """D' as the core takes it: the base, with weight 0 where the overlay or nothing stands instead."""
        base: Blocks = [(self.X, self.y, self.s)]
        used = len(self.slot)
        if used:
            base.append((self.overlay_X[:used], self.overlay_y[:used], self.overlay_s[:used]))
        return base

    def get(self, rows: Index) -> tuple[NDArray[Any], Float, Float]:
        """Copies of rows: X (m, width), y (m,), s (m,)."""
        slots = self._slots(rows)
        moved = slots >= 0
        base = np.where(moved, 0, rows)
        X, y, s = np.ascontiguousarray(self.X[base]), self.y[base], self.s[base]
        if moved.any():
            there = slots[moved]
            X[moved], y[moved], s[moved] = self.overlay_X[there], self.overlay_y[there], self.overlay_s[there]
        return X, y, s

    def current(self) -> tuple[NDArray[Any], Float, Float | None]:
        """Copies of all live rows in the order of their numbers, surviving columns only."""
        X, y, s = self.get(np.flatnonzero(self.live))
        return np.ascontiguousarray(X[:, self.kept]), y, s if self.weighted else None

    def live_rows(self, given: Any) -> Index:
        """Row numbers from a request, all of them still in the data."""
        rows = as_indices(given, self.n_rows, "row")
        gone = ~self.live[rows]
        if gone.any():
            raise ValueError(f"row {rows[gone][0]} was removed before: it is no longer in the data")
        return rows

    def surviving_columns(self, given: Any) -> Index:
        """Positions in the X that was handed over, from positions or names, none of them revoked."""
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, slice) and any(isinstance(name, str) for name in np.ravel(names)):
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
            raise ValueError(f"unknown column {unknown[0]!r}: the columns are {', '.join(self.names[:20])}")
        return as_indices([position[name] for name in names], self.kept.size, "column")

    def _column_text(self, j: int) -> str:
        return repr(self.names[j]) if self.names is not None else str(j)

    def _slots(self, rows: Index) -> Index:
        if not self.slot:
            return np.full(rows.size, -1)
        return np.fromiter((self.slot.get(row, -1) for row in rows.tolist()), np.int64, rows.size)

    def _count(self, y: Float, s: Float) -> NDArray[np.int64]:
        """Rows of positive weight: of class 0 and 1, or all of them in the first place."""
        weight = s > 0
        ones = int(np.count_nonzero(weight & (y == 1.0))) if self.classes else 0
        return np.array([np.count_nonzero(weight) - ones, ones])

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

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Also done if the transaction fails."""
        self._undo.append(undo)

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
        slots = self._slots(rows)
        for array, at, chosen in (
            (getattr(self, attribute), rows, slots < 0),
            (getattr(self, "overlay_" + attribute), slots, slots >= 0),
        ):
            index = at[chosen]
            if index.size:
                self._undo.append(partial(array.__setitem__, index, array[index]))
                array[index] = np.broadcast_to(values, rows.shape)[chosen]

    def _append(self, X: NDArray[Any], y: Float, s: Float, rows: Index) -> None:
        """New overlay slots for rows; capacity doubles, so that a stream of rows stays linear."""
        used, wanted = len(self.slot), len(self.slot) + rows.size
        arrays = {"overlay_X": X, "overlay_y": y, "overlay_s": s}
        if wanted > self.overlay_y.size:
            for name in arrays:
                old = getattr(self, name)
                self._undo.append(partial(setattr, self, name, old))
                grown = np.empty((max(wanted, 2 * used), *old.shape[1:]), dtype=old.dtype)
                grown[:used] = old[:used]
                setattr(self, name, grown)
        for name, values in arrays.items():
            getattr(self, name)[used:wanted] = values

        def forget() -> None:
            for row in rows.tolist():
                self.slot.pop(row, None)

        self._undo.append(forget)
        self.slot.update(zip(rows.tolist(), range(used, wanted), strict=True))

    def remove(self, rows: Index) -> None:
        """Rows leave: s -> 0."""
        self._touch(rows)
        self._undo.append(lambda: self.live.__setitem__(rows, True))
        self.live[rows] = False
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
        X[:, columns] = values
        slots = self._slots(rows)
        moved = slots >= 0
        if moved.any():
            overlay, index = self.overlay_X, slots[moved]
            old = overlay[index]
            self._undo.append(lambda: overlay.__setitem__(index, old))
            overlay[index] = X[moved]
        base = ~moved
        if base.any():
            self._write("s", rows[base], 0.0)
            self._append(X[base], y[base], s[base], rows[base])

    def add(self, X: NDArray[Any], y: Float, s: Float | None) -> None:
        """New rows X (m, surviving columns), y (m,), s (m,)."""
        rows = np.arange(self.n_rows, self.n_rows + X.shape[0])
        full = np.zeros((X.shape[0], self.kept.size), dtype=self.X.dtype)
        full[:, self.kept] = X
        live, weighted = self.live, self.weighted
        self._append(full, y, np.ones(rows.size) if s is None else s, rows)
        if rows.size:
            self._touched.added.append(rows)

        def shrink() -> None:
            self.live, self.weighted = live, weighted

        self._undo.append(shrink)
        self.live = np.append(live, np.ones(rows.size, dtype=bool))
        self.weighted = weighted or s is not None

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        if columns.size and np.count_nonzero(self.kept) == columns.size:
            raise ValueError("every remaining column would be revoked: a model needs at least one")
        self._undo.append(lambda: self.kept.__setitem__(columns, True))
        self.kept[columns] = False
        self._touched.revoked.extend(columns.tolist())

    # --- what one request came to

    def finish(self) -> tuple[Blocks | None, Blocks | None]:
        """Touched rows before and after, of full width; raises if too little would be left.

        Unless values changed, both sides hold the same array X.
        """
        touched = self._touched
        before: Blocks | None = None
        after: Blocks | None = None
        change = np.zeros(2, dtype=np.int64)
        if touched.rows:
            X, y, s = (np.concatenate(parts) for parts in zip(*touched.before, strict=True))
            before = [(X, y, s)]
            now_X, now_y, now_s = self.get(np.fromiter(touched.rows, np.int64, len(touched.rows)))
            after = [(now_X if touched.values_changed else X, now_y, now_s)]
            change += self._count(now_y, now_s) - self._count(y, s)
        if touched.added:
            X, y, s = self.get(np.concatenate(touched.added))
            after = [*(after or []), (X, y, s)]
            change += self._count(y, s)
        old, counts = self.counts, self.counts + change
        if counts.sum() == 0:
            raise ValueError("no row of positive weight would be left")
        if self.classes and counts.min() == 0:
            raise ValueError("no row of positive weight would be left of one of the two classes")
        self._undo.append(lambda: setattr(self, "counts", old))
        self.counts = counts
        return before, after

    def rows_with_values_in(self, columns: Sequence[int]) -> NDArray[np.bool_]:
        """(n_rows,) which rows in the data hold anything but 0 in some of these columns."""
        found = np.zeros(self.n_rows, dtype=bool)
        base = self.X.shape[0]
        for j in columns:
            found[:base] |= self.X[:, j] != 0
        moved = np.fromiter(self.slot, np.int64, len(self.slot))  # in the order of their slots
        found[moved] = (self.overlay_X[: moved.size, list(columns)] != 0).any(axis=1)
        return found & self.live
