"""The current data D': the X that was handed over, which is neither copied nor changed, and corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import _core
from .._arrays import Blocks, Float, Index, as_indices, stack, with_own_indices
from .._frames import as_frame
from ..class_weights import weighed
from ..errors import AlreadyForgotten
from ..files.archive import Streamed
from .columns import NO_REQUEST, Data, Touched
from .overlay import overlay_of
from .row_names import NO_IDS, Missing, RowNames, Selection
from .rows import (
    StreamedCsr,
    rows_by_column,
    rows_with_values,
    streamed_csr,
    take,
    with_cells,
)
from .selection import ids_of, select
from .shift import centre_of, free_of_zeros, sampled, shift_of_sample, spread, with_stored

COPIED_TOGETHER, PANEL_BYTES = 4096, 2**20  # the most rows of a panel, and the most bytes of their values


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
        Weights of the rows' own.
    names : column names, or None
    classes : int
        How many classes y holds numbers of, each of which must keep weight; 0: it holds none.
    class_weights : (K,) array or None
        What rows of each class count, times their own weight.
    column_index : bool
        Whether to keep, for a sparse X, which rows each column has entries in.
    shift : (width,) array or None
        What is taken off the columns.
    row_names : RowNames or None
        Ids and labels of the rows.
    library : str or None
        Of the frame that X was.
    """

    def __init__(
        self,
        X: Any,
        y: Float,
        s: Float | None,
        names: Sequence[Any] | None,
        *,
        classes: int,
        class_weights: Float | None = None,
        column_index: bool = False,
        shift: Float | None = None,
        row_names: RowNames | None = None,
        library: str | None = None,
    ) -> None:
        n, width = X.shape
        super().__init__(width, names, classes=classes, class_weights=class_weights)
        self.shift = shift
        self.X = X = with_stored(X, shift)
        self.row_names = row_names
        self.library = library
        counted = weighed(class_weights, y, s)
        self.register = _core.RowRegister(y, np.ones(n) if counted is None else counted, classes)
        self.weighted = s is not None
        # Of each row number, where the register's weights are others; None: 1 each. Replaced, never changed.
        self.own = None if class_weights is None or s is None else s.copy()
        self.overlay_X = overlay_of(X)
        centre = centre_of(X, shift) if classes else None
        self.ball, self.largest_norm = _around(None if centre is None else _core.Ball(centre), X, shift)
        self.changed = False  # since X was handed over
        self._loose = False  # whether norm and ball are perhaps those of what has left
        self._index = rows_by_column(X) if column_index and sparse.issparse(X) else None
        self._revoked_entries = 0  # of a sparse X

    @classmethod
    def from_numbered(
        cls,
        numbered: tuple[Index, Any, Float, Float],
        n_rows: int,
        kept: NDArray[np.bool_],
        names: Sequence[Any] | None,
        *,
        classes: int,
        weighted: bool,
        class_weights: Float | None = None,
        column_index: bool = False,
        shift: Float | None = None,
        row_names: RowNames | None = None,
        library: str | None = None,
    ) -> Self:
        """The data with these numbers (m,), ascending, of `n_rows`, X, y and own s; all others are removed.

        `kept` and `names` are over all columns that were ever handed over, `shift` over those of X.
        """
        numbers, X, y, s = numbered
        how: dict[str, Any] = {"column_index": column_index, "row_names": row_names, "library": library}
        data = cls(X, y, s, None, classes=classes, class_weights=class_weights, shift=shift, **how)
        data.shift = spread(shift, kept)
        data.register = _core.RowRegister(y, data.register.base[1], classes, numbers, n_rows)
        data.own = None
        if class_weights is not None and weighted:
            data.own = np.zeros(n_rows)
            data.own[numbers] = s
        data.kept, data.stored = kept.copy(), np.flatnonzero(kept)
        data.names = None if names is None else list(names)
        data.weighted = weighted
        return data

    # --- what the data are now

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of X, and of all that is added to it."""
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
        """D' as the core takes it: base and overlay. A row of the base that left or moved has weight 0."""
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
            return take(self.X, places, columns)
        overlay = self.overlay_X.matrix()
        if not base.any():
            return take(overlay, places - n, columns)
        X = stack([take(self.X, places[base], columns), take(overlay, places[~base] - n, columns)])
        return take(X, np.argsort(np.concatenate([np.flatnonzero(base), np.flatnonzero(~base)])))

    def current(self) -> tuple[Any, Float, Float | None]:
        """Copies of all rows in the order of their numbers, surviving columns only; what they count."""
        X, y, s = self._current(self.register.live())
        return X, y, None if self.class_weights is None and not self.weighted else s

    def own_weights(self, rows: Index) -> Float:
        """Weights (m,) of rows of the data without those of their classes."""
        if self.class_weights is None:
            return self.register.of(rows)[2]
        return np.ones(len(rows)) if self.own is None else self.own[rows]

    def _current(self, rows: Index) -> tuple[Any, Float, Float]:
        """Copies of rows X (m, surviving columns), y (m,), s (m,)."""
        places, y, s = self.register.of(rows)
        return self._rows_at(places, self.stored_columns(self.kept)), y, s

    def panels(self) -> Iterator[tuple[Any, Float, Float]]:
        """The rows of `current`, some at a time. How many depends on the current data alone.

        (A release is computed panel by panel, and must not tell by its last bits what was revoked.)
        """
        for rows in self._cut(self.register.live()):
            yield self._current(rows)

    def _cut(self, rows: Index) -> Iterator[Index]:
        """Rows, COPIED_TOGETHER at a time, or of a wide dense X as few as fill PANEL_BYTES."""
        height = COPIED_TOGETHER
        if not self.is_sparse:
            values = 8 * self.n_columns  # in float64, whatever the dtype is
            height = max(1, min(COPIED_TOGETHER, PANEL_BYTES // values))
        return (rows[first : first + height] for first in range(0, rows.size, height))

    def _cut_fine(self, rows: Index) -> Iterator[Index]:
        """The same; of a sparse X, as many rows as fill PANEL_BYTES."""
        for panel in self._cut(rows):
            if not self.is_sparse:
                yield panel
                continue
            entry = self.dtype.itemsize + self.X.indices.itemsize
            filled = np.cumsum(self._entries(panel)) * entry // PANEL_BYTES
            yield from np.split(panel, np.flatnonzero(np.diff(filled)) + 1)

    def _entries(self, rows: Index) -> Index:
        """How many entries each of these rows (m,) of a sparse X has, over the stored columns."""
        places, n = self.register.of(rows)[0], self.X.shape[0]
        base, counts = places < n, np.empty(rows.size, dtype=np.int64)
        for here, X, at in ((base, self.X, places), (~base, self.overlay_X.matrix(), places - n)):
            indptr: NDArray[Any] = X.indptr  # type: ignore[union-attr]
            counts[here] = indptr[at[here] + 1] - indptr[at[here]]
        return counts

    def current_norm(self, shift: Float | None) -> float:
        """The largest norm of a row as the data are now, less a shift of the surviving columns."""
        if not self.changed:
            return self.largest_norm
        return max((_core.largest_norm(X, shift) for X, _, _ in self.panels()), default=0.0)

    def less(self, shift: Float | None) -> Self:
        """The same data, to be read only, with another shift (d,) of the surviving columns."""
        data = copy(self)
        data.shift = spread(shift, self.kept)
        data.largest_norm, data.ball = data.current_norm(shift), None
        return data

    def current_shift(self) -> Float | None:
        """What would be taken off the surviving columns (d,), were it chosen from the data of now."""
        live = self.register.live()
        rows = live[sampled(live.size, self.n_columns)].copy()
        panels = (X for X, _, _ in self.panels())
        return shift_of_sample(self._current(rows)[0], lambda columns: free_of_zeros(panels, columns))

    @property
    def weight(self) -> float:
        """The sum of the weights."""
        return float(self.register.of(self.register.live())[2].sum())

    @property
    def weighted_rows(self) -> int:
        """How many rows have a positive weight."""
        return self.register.weighted_rows

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of positive weight: of each class, or of two places all of them in the first."""
        return self.register.counts

    def streamed(self) -> tuple[Index, Streamed | StreamedCsr, Streamed, Streamed]:
        """Of all rows: numbers (m,), ascending, X (m, surviving columns), y (m,), s (m,) of their own.

        Of X, y and s only a panel is there at a time, once it is asked for; until then nothing may change.
        """
        live = self.register.live()

        def column(of: Callable[[Index], Float]) -> Streamed:
            firsts = range(0, live.size, COPIED_TOGETHER)
            return Streamed(
                np.dtype(np.float64),
                live.shape,
                lambda: (of(live[first : first + COPIED_TOGETHER]) for first in firsts),
            )

        def panels() -> Iterator[Any]:
            columns = self.stored_columns(self.kept)
            return (self._rows_at(self.register.of(rows)[0], columns) for rows in self._cut_fine(live))

        y, s = column(lambda rows: self.register.of(rows)[1]), column(self.own_weights)
        if not self.is_sparse:
            return live, Streamed(self.dtype, (live.size, self.n_columns), panels), y, s
        return live, streamed_csr(panels, live.size, self.dtype), y, s

    # --- what rows are called

    def ids(self) -> list[Any]:
        """Of all rows, in the order of their numbers."""
        return ids_of(self.row_names).of(self.register.live())

    def is_forgotten(self, name: Any) -> bool:
        """Whether rows had this id, and all of them have left."""
        ids_of(self.row_names)
        assert self.row_names is not None
        return self.row_names.is_forgotten(name, self.register)

    def drop_tombstones(self) -> None:
        """Nothing is known any more of ids and labels whose rows have left."""
        if self.row_names is not None:
            self.row_names.drop_tombstones(self.register)

    def as_frame(self, X: Any) -> Any:
        """The current rows as a frame of the library that X came from."""
        if self.library is None:
            raise ValueError("as_frame=True, but X was no frame: these rows are an array")
        labels = None if self.row_names is None else self.row_names.labels
        index = None if labels is None else labels.shown(self.register.live())
        return as_frame(X, self.library, self.surviving_names(), index)

    def numbered(self, kind: str) -> Self:
        """These data: their rows have numbers, which a request may name."""
        return self

    def by_value(self) -> NoReturn:
        """TypeError."""
        raise TypeError(
            "rows have numbers here, and Edit names none: use RemoveRows, AddRows, CorrectLabels or "
            "CorrectValues, or detach the Unlearner first"
        )

    def rows(self, given: Any) -> Index:
        """Row numbers from a request. The edit checks whether they are still in the data."""
        return as_indices(given, self.register.row_count, "row")

    def select(self, rows: Any, ids: Any, labels: Any, missing: Missing) -> Selection:
        """Rows from a request that names them by number, id or label; see :mod:`.selection`."""
        return select(self.row_names, self.register, rows, ids, labels, missing)

    # --- the edits of a request

    def begin(self) -> None:
        """See Data."""
        self.register.begin()  # first: otherwise an interrupt in between would undo the previous request
        self._touched = Touched(self)

    def rollback(self) -> None:
        """See Data."""
        if self._touched is not NO_REQUEST:
            self.register.rollback()  # a second one changes nothing
            super().rollback()
        if self.row_names is not None:
            self.forget()

    def forget(self) -> None:
        """Names of rows that left in granted requests are forgotten, also where that was interrupted."""
        names = self.row_names
        if names is not None and names.left and self._touched is NO_REQUEST:
            names.forget(self.register)

    def _append(self, X: Any) -> None:
        """Values join the overlay."""
        self._before("largest_norm", "ball")
        self._touched.undo.extend(self.overlay_X.as_is())
        X, shift = with_stored(X, self.stored_shift), self.stored_shift
        self.overlay_X.append(X)
        self.ball, norm = _around(self.ball, X, shift, self.stored_columns(self.kept))
        self.largest_norm = max(self.largest_norm, norm)

    def remove(self, rows: Index) -> None:
        """Rows leave: s -> 0."""
        try:
            self.register.remove(rows)
        except ValueError as error:
            raise self._gone(rows, error) from None
        self._left(rows)

    def _left(self, rows: Index) -> None:
        names = self.row_names
        if names is not None:
            self._touched.undo.append((names, "left", names.left))
            names.left = [*names.left, rows]

    def _gone(self, rows: Index, error: ValueError) -> ValueError:
        """What to raise where rows cannot be edited: AlreadyForgotten where some left before."""
        gone = rows[self.register.of(rows)[0] < 0].tolist()
        return AlreadyForgotten(gone, "row") if gone else error

    def set_targets(self, rows: Index, y: Float) -> None:
        """Targets of rows become y, (m,), and their weights those of the new classes."""
        try:
            self.register.set_targets(rows, y, self._relabelled(rows, y))
        except ValueError as error:
            raise self._gone(rows, error) from None

    def _relabelled(self, rows: list[int] | Index, y: list[float] | Float) -> Float | None:
        """What rows count with these targets; None where that does not change."""
        if self.class_weights is None:
            return None
        return weighed(self.class_weights, np.asarray(y), None if self.own is None else self.own[rows])

    def set_values(self, rows: Index, columns: Index, values: NDArray[Any]) -> None:
        """Cells of rows x columns become values (m, k), in the dtype of X."""
        try:
            self.register.require(rows)
        except ValueError as error:
            raise self._gone(rows, error) from None
        X, _, _ = self.get(rows)
        self._append(with_cells(X, self._position(columns), values))
        self.register.relocate(rows)

    def add(self, X: Any, y: Float, s: Float | None, ids: list[Any] | None = None, labels: Any = ()) -> range:
        """New rows X (m, surviving columns), y (m,), own s (m,), named so; their numbers."""
        first = self.n_rows
        if self.row_names is not None:
            self._touched.undo.extend(self.row_names.as_is())
            self.row_names.append(y.size, ids, labels, self.register)
        elif ids is not None:
            raise ValueError(NO_IDS)
        self._append(self._widened(X))
        counted = weighed(self.class_weights, y, s)
        self.register.add(y, np.ones(y.size) if counted is None else counted)
        if s is not None and not self.weighted:
            self._before("weighted")
            self.weighted = True
        if self.class_weights is not None and self.weighted:
            self._before("own")
            own = np.ones(first) if self.own is None else self.own
            self.own = np.append(own, np.ones(y.size) if s is None else s)
        return range(first, self.n_rows)

    def revoke(self, columns: Index) -> None:
        """Columns leave (E12)."""
        self._check_not_all(columns)
        found, entries = self._rows_with_values_in(columns)
        self._touched.revoked_rows.append(found)
        self._before("_revoked_entries")
        self._revoked_entries += entries
        self._drop(columns)

    # --- the result of a request

    def finish(self) -> Touched:
        """Ends the edits and returns what they touched; raises if too few rows would be left."""
        self._is_changed()
        touched = self._touched
        touched.columns = self.kept
        if touched.revoked:
            touched.columns = self.kept.copy()
            touched.columns[touched.revoked] = True
        columns = self.stored_columns(touched.columns)
        touched.rows = self.register.change(
            self.X, self.overlay_X.matrix, self._rows_at, columns, self.stored_shift
        )
        return touched

    def _is_changed(self) -> None:
        if not (self.changed and self._loose):
            self._before("changed", "_loose")
            self.changed = self._loose = True

    def measure_rows(self, objective: _core.Objective) -> bool:
        """Finds norm and ball anew, by the rows of now in J, where others had a part; whether it did."""
        if not self._loose:
            return False
        if self._touched is not NO_REQUEST:
            self._before("largest_norm", "ball", "_loose")
        self.largest_norm, radius = objective.lengths()
        self.ball = self.ball and _core.Ball(self.ball.centre, radius)
        self._loose = False
        return True

    def stream(
        self,
        rows: list[int] | Index,
        targets: list[float] | Float,
        ends: list[int],
        statistics: _core.AnchoredStatistics,
        theta: Float,
        limits: tuple[float, float],
        keep_thetas: bool,
    ) -> _core.Streamed:
        """Edits rows for one request after the other; see :mod:`.stream`."""
        self._is_changed()
        done = self.register.stream(
            self.X,
            self.overlay_X.matrix,
            self._rows_at,
            self.stored_columns(self.kept),
            self.stored_shift,
            statistics,
            theta,
            *limits,
            rows,
            targets,
            ends,
            keep_thetas,
            self._relabelled(rows, targets),
        )
        if self.row_names is not None and (count := done[0].shape[1]):
            edited = ends[count - 1]
            self._left(np.array(rows[:edited])[np.isnan(targets[:edited])])
        return done

    def _rows_with_values_in(self, columns: Index) -> tuple[Index, int]:
        """Rows in the data that hold anything but 0 in these columns, and how many entries of sparse X do."""
        at = self._position(columns)
        found, entries = rows_with_values(self.X, at, self._index)
        if len(self.overlay_X):
            found = np.append(found, rows_with_values(self.overlay_X.matrix(), at)[0])
        live = self.register.live()
        return live[found[self.register.of(live)[0]]], entries

    # --- memory that is no longer needed

    def compact(self) -> None:
        """Drops abandoned rows of the overlay, and revoked columns of a sparse X, where they take most of it.

        The data stay what they are.
        """
        if not self._revoked_entries and not self.register.abandoned_places:
            return
        few_columns = (
            self._revoked_entries > 0 and sparse.issparse(self.X) and 2 * self._revoked_entries > self.X.nnz
        )
        if not few_columns and not self.register.wants_compaction:
            return
        register, places = self.register.compacted()
        X, overlay = self.X, take(self.overlay_X.matrix(), places - self.X.shape[0])
        columns = self.stored_columns(self.kept) if few_columns else None
        changed: dict[str, Any] = {}
        if columns is not None:
            parts = (X.data[: X.indptr[-1]], X.indices[: X.indptr[-1]], X.indptr)
            X = with_own_indices(sparse.csr_array(parts, shape=X.shape))[:, columns]
            overlay = overlay[:, columns]
            changed.update(X=X, stored=np.flatnonzero(self.kept), _revoked_entries=0)
            changed.update(_last_mask=(None, None))
            if self._index is not None:
                changed.update(_index=rows_by_column(X))
        rows = overlay_of(X)
        rows.append(overlay)
        changed.update(overlay_X=rows, register=register)
        self.__dict__.update(changed)  # at once: an interrupt finds the data either before or after


def with_ball(data: CorrectedData) -> CorrectedData:
    """The same data: distances are bounded about a point amid the rows, as those of classes are."""
    shift, columns = data.stored_shift, data.stored_columns(data.kept)
    if (centre := centre_of(data.X, shift)) is not None and columns is None:
        data.ball, data.largest_norm = _around(_core.Ball(centre), data.X, shift)
    return data


def without_class(data: CorrectedData, number: int) -> CorrectedData:
    """The data without the rows of a class; `data` stay as they are. Classes above it move down by one."""
    rest, weights = copy(data), data.class_weights
    vars(rest).update(
        register=data.register.without_class(number),
        classes=data.classes - 1,
        class_weights=None if weights is None else np.delete(weights, number),
        changed=True,
        _loose=True,
    )
    return rest


def _around(
    ball: _core.Ball | None, X: Any, shift: Float | None, columns: NDArray[np.bool_] | None = None
) -> tuple[_core.Ball | None, float]:
    """A ball in which these rows lie too, if there is one, and the largest norm of these rows."""
    if ball is None:
        return None, _core.largest_norm(X, shift, columns)
    return ball.around(X, shift, columns)
