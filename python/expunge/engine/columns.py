"""What a model's data are beside their rows, and one request to them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Float, Index, as_indices
from .._frames import are_names, named_columns
from ..atomic import Change, assign_all
from .row_names import RowNames
from .rows import widened
from .shift import with_stored


class Touched:
    """What one request touches (E2), and what to assign to undo it."""

    rows: _core.TouchedRows  # before and after
    columns: NDArray[np.bool_]  # before the request revoked any

    def __init__(self, data: Data | None) -> None:
        self.undo: list[Change] = [] if data is None else [(data, "_touched", NO_REQUEST)]
        self.revoked: list[int] = []
        self.revoked_rows: list[Index] = []  # that hold anything but 0 in a revoked column


NO_REQUEST = Touched(None)  # between requests


class Data:
    """What a model's data are beside their rows: columns, names, classes; and one request at a time.

    Parameters
    ----------
    width : int
        Columns of the X that was handed over.
    names : their labels, or None; None also for one that is not kept
    classes : int
        How many classes targets are numbers of, each of which must keep weight; 0: they are none.
    class_weights : (K,) array or None
        What rows of each class count, times their own weight.
    """

    row_names: RowNames | None = None  # where there are rows, and they have ids or labels

    def __init__(
        self,
        width: int,
        names: Sequence[Any] | None,
        *,
        classes: int,
        class_weights: Float | None = None,
    ) -> None:
        self.changed = True  # since X was handed over
        self.names: list[Any] | None = None if names is None else list(names)
        self.classes = classes
        self.class_weights = class_weights
        self.kept = np.ones(width, dtype=bool)  # replaced, never changed
        self.shift: Float | None = None  # what is taken off the columns (width,), for good; None: 0 (E43)
        self.stored: Index | None = None  # which columns rows are stored with; None: all
        self._last_mask: tuple[Any, NDArray[np.bool_] | None] = (None, None)
        self._touched = NO_REQUEST

    # --- columns

    @property
    def n_columns(self) -> int:
        """How many columns survive."""
        return int(np.count_nonzero(self.kept))

    def columns(self) -> Index:
        """Surviving columns."""
        return np.flatnonzero(self.kept)

    def surviving_shift(self) -> Float | None:
        """What is taken off them."""
        return None if self.shift is None else self.shift[self.kept]

    @property
    def stored_shift(self) -> Float | None:
        """What is taken off the columns that are stored."""
        return self.shift if self.shift is None or self.stored is None else self.shift[self.stored]

    def surviving_names(self) -> list[Any] | None:
        """Their labels."""
        return None if self.names is None else [self.names[j] for j in self.columns()]

    def labels_of(self, columns: Index) -> list[Any]:
        """Labels of these columns, which are their positions where X was no frame."""
        return columns.tolist() if self.names is None else [self.names[j] for j in columns]

    def names_of(self, columns: Index) -> list[str] | None:
        """Labels of these columns, where they are text, as names are."""
        names = None if self.names is None else [self.names[j] for j in columns]
        return names if are_names(names) else None

    def stored_columns(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """A mask over all columns as a mask over the stored ones; None, as the core takes it, for all."""
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
        """Positions in the X that was handed over, from positions or labels, none of them revoked."""
        names = named_columns(given, self.names)
        columns = as_indices(given, self.kept.size, "column") if names is None else self._named(names)
        gone = np.flatnonzero(~self.kept[columns])
        if gone.size:  # in the words of the request: it must not tell the name of a revoked column
            asked = columns[gone[0]] if names is None else repr(names[gone[0]])
            raise ValueError(f"column {asked} was revoked before")
        return columns

    def _named(self, names: list[Any]) -> Index:
        if self.names is None:
            raise ValueError("columns have no names here: X was not a frame, so give positions")
        if are_names([name for name in self.names if name is not None]) and not are_names(names):
            raise ValueError("columns must be names or positions, not a mix")
        position = {name: j for j, name in enumerate(self.names) if name is not None}
        unknown = [name for name in names if name not in position]
        if unknown:
            known = ", ".join(map(str, (self.surviving_names() or [])[:20]))
            raise ValueError(f"unknown column {unknown[0]!r}: the columns are {known}")
        return as_indices([position[name] for name in names], self.kept.size, "column")

    def _widened(self, X: Any) -> Any:
        """X (m, surviving columns) as the overlay stores it."""
        chosen = self.stored_columns(self.kept)
        X = X if chosen is None else widened(X, np.flatnonzero(chosen), chosen.size)
        return with_stored(X, self.stored_shift)

    # --- one request: edits that are undone unless all of it succeeds

    def _before(self, *names: str) -> None:
        """Notes these attributes, which are about to change, for `rollback`."""
        self._touched.undo.extend([(self, name, getattr(self, name)) for name in names])

    def undone_with(self, owner: Any, name: str) -> None:
        """Notes an attribute of another, which is about to change with the data, for `rollback`."""
        self._touched.undo.append((owner, name, getattr(owner, name)))

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

    def forget(self) -> None:
        """A request was granted: what is known of rows that left by it goes."""

    def rollback(self) -> None:
        """Undoes the edits since `begin`, if there are any; an interrupted undoing is completed."""
        if self._touched.undo:
            assign_all(self._touched.undo[::-1])  # the first values last

    def committed(self) -> list[tuple[Data, str, Any]]:
        """The assignments that keep the edits, to be made together with all else that a request changes."""
        return [(self, "_touched", NO_REQUEST)]


def counted(classes: int) -> str:
    """A number of classes as messages say it."""
    return "two" if classes == 2 else str(classes)
