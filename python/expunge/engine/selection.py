"""Which rows a request names, by number, label or id, and in which order it brings values for them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from .._arrays import Index, as_indices, require_unmasked
from .._frames import in_columns, in_order, index_of, is_frame, is_index, is_series, truth_of
from .row_names import NO_IDS, NOBODY, Missing, Names, RowNames, Selection, names_given

_NUMBERS = (int, slice, list, range, np.ndarray)  # what names rows by number


def select(
    names: RowNames | None,
    register: _core.RowRegister,
    rows: Any,
    ids: Any,
    labels: Any,
    missing: Missing,
) -> Selection:
    """The rows that a request names by exactly one of these.

    Raises
    ------
    ValueError, TypeError
        None or several of them; something that names no rows; ids or labels where there are none.
    UnknownId, AlreadyForgotten
        See RowNames.find. What is named by number is looked at where it is edited.
    """
    if type(rows) in _NUMBERS and ids is None is labels and missing == "raise":  # the usual case
        return Selection(as_indices(rows, register.row_count, "row"))
    if missing not in ("raise", "ignore"):
        raise ValueError(f"unknown missing {missing!r}: choose raise or ignore")
    if sum(given is not None for given in (rows, ids, labels)) != 1:
        raise TypeError(
            "rows must be integers, a mask, an Index or a Series, unless ids or labels are given: say in one "
            "way which rows"
        )
    if ids is not None:
        return _named(ids_of(names), names, ids, "ids", register, missing)
    if labels is not None:
        return _named(_of_labels(names, "labels are given"), names, labels, "labels", register, missing)
    if is_index(rows):
        return _named(_of_labels(names, "rows are given by an Index"), names, rows, "rows", register, missing)
    if is_series(rows):
        by_label = _of_labels(names, "rows are given by a Series")
        mask = truth_of(rows)
        if mask is None:
            return _named(by_label, names, rows, "rows", register, missing)
        return _masked(by_label, names, mask, rows.index, register, missing)
    if is_frame(rows):
        raise TypeError("rows are given by a frame: pass its index, frame.index, for these labels")
    return _numbered(as_indices(rows, register.row_count, "row"), register, missing)


def _numbered(rows: Index, register: _core.RowRegister, missing: Missing) -> Selection:
    if missing == "raise":
        return Selection(rows)
    here = register.of(rows)[0] >= 0
    return Selection(rows[here], None, np.flatnonzero(here), rows)


def _named(
    kind: Names,
    names: RowNames | None,
    given: Any,
    what: str,
    register: _core.RowRegister,
    missing: Missing,
) -> Selection:
    assert names is not None
    return names.find(kind, names_given(given, what), register, missing)


def ids_of(names: RowNames | None) -> Names:
    """Those of the rows; ValueError where they have none."""
    if names is None or names.ids is None:
        raise ValueError(NO_IDS)
    return names.ids


def _of_labels(names: RowNames | None, how: str) -> Names:
    if names is None or names.labels is None:
        raise ValueError(
            f"{how}, but rows have no labels here, as X was no frame with an index: pass row numbers, or "
            "make the Unlearner of a frame, or with ids="
        )
    return names.labels


def _masked(
    kind: Names,
    names: RowNames | None,
    mask: NDArray[np.bool_],
    index: Any,
    register: _core.RowRegister,
    missing: Missing,
) -> Selection:
    """Rows whose labels a mask says True for, whatever its order."""
    assert names is not None
    wanted = list(dict.fromkeys(index[mask].tolist()))
    unwanted = set(index[~mask].tolist())
    if not unwanted.intersection(wanted):
        return _without_names(names.find(kind, wanted, register, missing))
    labels = index.tolist()  # some label has both
    if len(labels) > len(kind) or any(kind[i] not in (label, NOBODY) for i, label in enumerate(labels)):
        label = next(label for label in wanted if label in unwanted)
        raise ValueError(
            f"the mask says both True and False of rows labelled {label!r}, and is not in the order of the "
            "rows of X: pass row numbers, or make the Unlearner with ids="
        )
    return _numbered(np.flatnonzero(mask), register, missing)


def _without_names(found: Selection) -> Selection:
    """As by a mask: values come for each row."""
    return Selection(np.sort(found.rows))


def rows_in_order(selection: Selection, names: RowNames | None, values: Any, what: str) -> Any:
    """Values for the rows of a request, one for each name or row that it asked for, as one for each row.

    A Series or frame of pandas goes by its labels, which are those names, the labels of the rows or their
    numbers. A scalar, or a single row of values, is for all.
    """
    require_unmasked(values, what)
    if index_of(values) is not None:
        values = in_order(values, _keys(selection, names), what)
    if selection.which is None or selection.asked is None:
        return values
    array = values if index_of(values) is not None else np.asarray(values)
    if array.ndim == 0 or array.shape[0] == 1 == array.ndim:
        return values
    if array.shape[0] != len(selection.asked):
        if array.ndim == 2 and array.shape[0] == 1:
            return values
        raise ValueError(
            f"{what} has {array.shape[0]} entries for {len(selection.asked)} names of rows: give one for "
            "each name, or one for all. Single rows of a name have numbers, see Unlearner.rows_of"
        )
    return np.asarray(array)[selection.which]


def _keys(selection: Selection, names: RowNames | None) -> list[Hashable]:
    """By what a Series with values for these rows is labelled."""
    asked = selection.rows if selection.asked is None else selection.asked
    if isinstance(asked, list):
        return asked
    return asked.tolist() if names is None or names.labels is None else names.labels.of(asked)


def cells_in_order(
    selection: Selection, names: RowNames | None, columns: list[Any], values: Any, what: str
) -> Any:
    """Values for rows and columns: a frame by both, a Series by whichever of the two it is labelled by."""
    if is_frame(values):
        values = in_columns(values, columns, what)
        return rows_in_order(selection, names, values, what)
    if not is_series(values):
        by_row = selection.which is not None and np.ndim(values) == 2
        return rows_in_order(selection, names, values, what) if by_row else values
    keys = _keys(selection, names)
    by_column, by_row = (set(values.index) == set(labels) for labels in (columns, keys))
    if by_column and not by_row:
        return in_order(values, columns, what)
    if by_row and by_column and len(columns) > 1 and len(keys) > 1:
        raise ValueError(f"{what} could go by row or by column: pass a frame")
    if by_row and by_column and len(columns) > 1:
        return in_order(values, columns, what)
    return rows_in_order(selection, names, values.to_frame(), what)
