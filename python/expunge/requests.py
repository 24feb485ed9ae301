"""Requests. Each turns the data D into D' (E2); a list of requests is one atomic request.

Rows are named in one of three ways.

- By number: a sequence of integers, a boolean mask, a slice or one integer. A row's number is its position in
  the X that was handed to the Unlearner, and added rows continue the count. Lists and arrays of integers are
  always numbers, also those that were made of labels, as ``list(frame.index)`` is.
- By label, where X was a frame of pandas: an Index selects all rows of each label, a boolean Series those
  whose labels it is True for, in whatever order it is; `labels` is a list of labels, or one.
- By id, where the Unlearner was made with `ids`: a list of ids, or one. An id stands for all rows that have
  it.

Columns are positions in that X, or the labels of a frame. A detached Unlearner has no row numbers: requests
to it carry rows by value. A request is checked when it is applied, before anything changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._arrays import Float, Index, as_matrix, as_real, as_weights
from ._frames import index_of, match_columns, require_labels, require_order
from ._same import same
from .engine.by_value import DetachedData
from .engine.data import CorrectedData
from .engine.row_names import Selection, labels_of, names_given
from .engine.selection import cells_in_order, rows_in_order
from .problem import SCALARS

__all__ = [
    "AddRows",
    "CorrectLabels",
    "CorrectValues",
    "Edit",
    "RemoveRows",
    "Request",
    "RevokeClass",
    "RevokeFeatures",
]

AnyData = CorrectedData | DetachedData
Encode = Callable[[ArrayLike, int], Float]  # labels and their number -> targets
# What a request named, for receipts. Of rows that came by value: how many.
Named = dict[str, NDArray[np.int64] | range | list[Any] | int | str]
# What it named, the rows, and what the target of each becomes, NaN where it leaves.
ByNumber = tuple[Named, list[int] | Index, list[float] | Float]
_WAYS = ("ids", "labels", "row_labels")  # to name rows, beside numbers
_AS_THEY_ARE = (type(None), int, float, str, list, np.ndarray)  # kept so, which saves a look


class Request:
    """Base of all requests. Its repr shows how many rows and columns it names, but no numbers or values.

    Requests of one kind are equal where their arguments say the same; they are not hashable.
    """

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if type(value) not in _AS_THEY_ARE:
                self.__dict__[name] = _kept(value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(same(value, vars(other)[name]) for name, value in vars(self).items())

    def __repr__(self) -> str:
        shown = (
            f"{name}={value if name == 'missing' else _size(value)}"
            for name, value in vars(self).items()
            if not (name in _WAYS and value is None) and not (name == "missing" and value == "raise")
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Checks this request against the data and edits them. Returns its kind and what it named.

        TypeError where such data cannot be edited so.
        """
        raise NotImplementedError

    def by_number(self, data: CorrectedData, encode: Encode) -> ByNumber | None:
        """The same as numbers alone; None where there is more to it. Edits nothing."""
        return None


@dataclass(frozen=True, eq=False, repr=False, init=False)
class RemoveRows(Request):
    """Rows leave the data.

    Parameters
    ----------
    rows : sequence of int, boolean mask, slice, int, or Index or Series of pandas
        Numbers, each row at most once; an Index or a Series selects by label, where X was a frame.
    ids, labels : list, or one
        In place of rows: the ids or labels of rows, as :mod:`expunge.requests` says.
    missing : {"raise", "ignore"}
        What to do about rows that are not there: raise :class:`expunge.AlreadyForgotten` where they left
        before and :class:`expunge.UnknownId` where none is known, or pass over them, so that a request may be
        repeated.

    Examples
    --------
    >>> import expunge as ex
    >>> un = ex.Unlearner(ex.Ridge().fit([[0.0], [1.0], [3.0]], [0, 1, 2]), [[0.0], [1.0], [3.0]], [0, 1, 2])
    >>> un.apply(ex.RemoveRows([0])).rows_touched
    1
    """

    rows: Any = None
    ids: Any = field(default=None, kw_only=True)
    labels: Any = field(default=None, kw_only=True)
    missing: Literal["raise", "ignore"] = field(default="raise", kw_only=True)

    def __init__(
        self,
        rows: Any = None,
        *,
        ids: Any = None,
        labels: Any = None,
        missing: Literal["raise", "ignore"] = "raise",
    ) -> None:
        # that of a dataclass, a call for each field, takes 4 % of a stream's time
        here = self.__dict__
        here["rows"] = rows if type(rows) is int else _kept(rows)
        here["ids"] = None if ids is None else _kept(ids)
        here["labels"] = None if labels is None else _kept(labels)
        here["missing"] = missing

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Weights become 0."""
        data = data.numbered("RemoveRows")
        found = data.select(self.rows, self.ids, self.labels, self.missing)
        data.remove(found.rows)
        return _named("RemoveRows", found, self.ids)

    def by_number(self, data: CorrectedData, encode: Encode) -> ByNumber | None:
        """See Request."""
        row = self.rows
        if type(self) is not RemoveRows:  # whose edit may be another
            return None
        if type(row) is int and self.ids is None and self.labels is None and self.missing == "raise":
            inside = 0 <= row < data.register.row_count
            return ({"kind": "RemoveRows", "rows": [row]}, [row], [nan]) if inside else None
        found = data.select(self.rows, self.ids, self.labels, self.missing)
        if not found.rows.size:
            return None
        leave = np.empty(found.rows.size)
        leave.fill(nan)
        return _named("RemoveRows", found, self.ids), found.rows, leave


@dataclass(frozen=True, eq=False, repr=False, init=False)
class CorrectLabels(Request):
    """Targets of rows are replaced.

    Parameters
    ----------
    rows : sequence of int, boolean mask, slice, int, or Index or Series of pandas
    labels : array (m,) or scalar
        In the form of the y that the model was fitted to. An unseen class is a ValueError. Where rows are
        named by ids or labels, one for each of these; a Series of pandas goes by its labels.
    ids, row_labels, missing : as ids, labels and missing of :class:`RemoveRows`

    Examples
    --------
    >>> import expunge as ex
    >>> un = ex.Unlearner(ex.Ridge().fit([[0.0], [1.0], [3.0]], [0, 1, 2]), [[0.0], [1.0], [3.0]], [0, 1, 2])
    >>> un.apply(ex.CorrectLabels([0, 2], 1.5)).rows_touched
    2
    """

    rows: Any = None
    labels: Any = None
    ids: Any = field(default=None, kw_only=True)
    row_labels: Any = field(default=None, kw_only=True)
    missing: Literal["raise", "ignore"] = field(default="raise", kw_only=True)

    def __init__(
        self,
        rows: Any = None,
        labels: Any = None,
        *,
        ids: Any = None,
        row_labels: Any = None,
        missing: Literal["raise", "ignore"] = "raise",
    ) -> None:
        here = self.__dict__  # as in RemoveRows
        here["rows"] = rows if type(rows) is int else _kept(rows)
        here["labels"] = labels if type(labels) in _AS_THEY_ARE else _kept(labels)
        here["ids"] = None if ids is None else _kept(ids)
        here["row_labels"] = None if row_labels is None else _kept(row_labels)
        here["missing"] = missing

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Targets become the labels."""
        data = data.numbered("CorrectLabels")
        if self.labels is None:
            raise ValueError("labels are missing: say what the targets of these rows become")
        found, targets = self._found(data, encode)
        data.set_targets(found.rows, targets)
        return _named("CorrectLabels", found, self.ids)

    def by_number(self, data: CorrectedData, encode: Encode) -> ByNumber | None:
        """See Request."""
        row, plain = self.rows, self.ids is None is self.row_labels and self.missing == "raise"
        if type(self) is not CorrectLabels:  # whose edit may be another
            return None
        if type(row) is int and isinstance(self.labels, SCALARS) and plain:
            if not 0 <= row < data.register.row_count:
                return None
            return {"kind": "CorrectLabels", "rows": [row]}, [row], encode(self.labels, 1).tolist()
        if self.labels is None:
            return None
        found, targets = self._found(data, encode)
        if not found.rows.size:
            return None
        return _named("CorrectLabels", found, self.ids), found.rows, targets

    def _found(self, data: CorrectedData, encode: Encode) -> tuple[Selection, Float]:
        """The rows and their new targets."""
        found, labels = data.select(self.rows, self.ids, self.row_labels, self.missing), self.labels
        if not isinstance(labels, SCALARS):
            labels = rows_in_order(found, data.row_names, labels, "labels")
            if np.shape(labels) == (1,):
                labels = np.asarray(labels)[0]
        return found, encode(labels, found.rows.size)


@dataclass(frozen=True, eq=False, repr=False)
class CorrectValues(Request):
    """Cells of X are replaced.

    Parameters
    ----------
    rows : sequence of int, boolean mask, slice, int, or Index or Series of pandas
    columns : sequence of int or str, boolean mask, slice, int or str
        Positions, or labels of a frame's columns.
    values : array that broadcasts to (m, k), or scalar
        Finite numbers, stored in the dtype of X. A sparse X does not store zeros: a value of 0 removes an
        entry, another value in place of 0 makes one. Where rows are named by ids or labels, a row of values
        for each of these. A frame or a Series of pandas goes by its labels.
    ids, labels, missing : as in :class:`RemoveRows`

    Examples
    --------
    >>> import expunge as ex
    >>> un = ex.Unlearner(ex.Ridge().fit([[0.0], [1.0], [3.0]], [0, 1, 2]), [[0.0], [1.0], [3.0]], [0, 1, 2])
    >>> un.apply(ex.CorrectValues([2], [0], 2.0)).rows_touched
    1
    """

    rows: Any = None
    columns: Any = None
    values: Any = None
    ids: Any = field(default=None, kw_only=True)
    labels: Any = field(default=None, kw_only=True)
    missing: Literal["raise", "ignore"] = field(default="raise", kw_only=True)

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Cells become the values."""
        data = data.numbered("CorrectValues")
        if self.columns is None or self.values is None:
            raise ValueError("columns or values are missing: say which cells of these rows become what")
        found, columns = (
            data.select(self.rows, self.ids, self.labels, self.missing),
            data.surviving_columns(self.columns),
        )
        rows, labels = found.rows, data.labels_of(columns)
        values = as_real(cells_in_order(found, data.row_names, labels, self.values, "values"), "values")
        with np.errstate(over="ignore"):
            stored = values.astype(data.dtype, copy=False)
        shape = (rows.size, columns.size)
        try:
            cells = np.full(shape, stored) if stored.ndim == 0 else np.broadcast_to(stored, shape)
        except ValueError:
            raise ValueError(
                f"values have shape {values.shape}, expected what broadcasts to ({rows.size}, {columns.size})"
            ) from None
        if not np.isfinite(stored).all():
            raise ValueError(f"values contain NaN, infinity or what overflows {data.dtype}")
        data.set_values(rows, columns, cells)
        return _named("CorrectValues", found, self.ids) | _columns(data, columns)


@dataclass(frozen=True, eq=False, repr=False)
class AddRows(Request):
    """Rows join the data.

    Parameters
    ----------
    X : (m, d) array, CSR matrix (or other sparse matrix, where the data are sparse) or frame
        The surviving columns in their original order. A frame may have more columns, which are left out. A
        frame of pandas brings the labels of its rows, unless these are a default RangeIndex; a label that
        a row has already is a ValueError.
    y : (m,) array or scalar
    sample_weight : (m,) array or scalar, optional
        1 by default. A class_weight of the model is counted beside.
    ids : (m,) list or array
        Of the rows: needed where the Unlearner was made with ids.

    Examples
    --------
    >>> import expunge as ex
    >>> un = ex.Unlearner(ex.Ridge().fit([[0.0], [1.0], [3.0]], [0, 1, 2]), [[0.0], [1.0], [3.0]], [0, 1, 2])
    >>> un.apply([ex.AddRows([[4.0]], [3.0]), ex.RemoveRows(3)]).rows_touched
    1
    """

    X: Any
    y: Any
    sample_weight: Any = None
    ids: Any = field(default=None, kw_only=True)

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """New rows get the next row numbers, where rows have numbers."""
        X, y, s = _rows(data, encode, self.X, self.y, self.sample_weight)
        if self.ids is None:
            return {"kind": "AddRows", "rows": data.add(X, y, s, None, labels_of(index_of(self.X)))}
        require_labels(self.ids, index_of(self.X), "ids")
        ids = names_given(self.ids, "ids", y.size)
        rows = data.add(X, y, s, ids, labels_of(index_of(self.X)))
        return {"kind": "AddRows", "rows": rows, "ids": list(dict.fromkeys(ids))}


@dataclass(frozen=True, eq=False, repr=False)
class RevokeFeatures(Request):
    """Columns leave the data and the model: n_features_in_ shrinks (E12).

    Parameters
    ----------
    columns : sequence of int or str, boolean mask, slice, int or str
        Positions, or labels of a frame's columns. Each at most once, none that was revoked before, and not
        all that remain (ValueError).

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0, 1.0], [1.0, 0.0], [3.0, 1.0]], [0, 1, 2]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    >>> un.apply(ex.RevokeFeatures([1])).features_revoked, un.model.n_features_in_
    (1, 1)
    """

    columns: Any

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Coordinates drop out of theta."""
        columns = data.surviving_columns(self.columns)
        data.revoke(columns)
        return {"kind": "RevokeFeatures", **_columns(data, columns)}


@dataclass(frozen=True, eq=False, repr=False)
class RevokeClass(Request):
    """All rows of a class leave, and the model loses its output: classes_ shrinks.

    The model is then that of the other classes, as if the class had never been there. Where two are left it
    is a binary one, with one row of coefficients.

    Parameters
    ----------
    label : one of the model's classes
        Of three or more (ValueError). It is applied by itself, not in a list with others.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [2.0], [3.0], [5.0]], ["a", "b", "b", "c", "a"]
    >>> un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    >>> un.apply(ex.RevokeClass("b")).rows_touched, un.model.classes_.tolist(), un.model.coef_.shape
    (2, ['a', 'c'], (1, 1))
    """

    label: Any


@dataclass(frozen=True, eq=False, repr=False)
class Edit(Request):
    """Rows of a detached Unlearner leave, change or join, by value.

    Give `before` for rows that are removed, `after` for rows that are added, both for rows that change. Where
    only labels or weights change, both sides should hold the same X, or an equal one: the Hessian then
    changes by the weights alone (E6).

    Sums cannot tell whether the rows `before` were ever part of them, unless the Hessian would lose its
    positive definiteness or fewer than 0 rows would be left. If such rows were never in the data, or had
    other values there, the model becomes the minimiser for sums that belong to no data.

    Parameters
    ----------
    before, after : tuple (X, y) or (X, y, sample_weight), or None
        Rows that leave and rows that join; the numbers of rows may differ. X (m, d) is as in
        :class:`AddRows`, y (m,) or a scalar in the form of the y that the model was fitted to, sample_weight
        (m,) or a scalar, 1 by default.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0, 1, 2]
    >>> un = ex.Unlearner(ex.Ridge().fit(X, y), X, y).detach()
    >>> un.apply(ex.Edit(before=([[0.0]], [0]))).rows_touched  # row 0 leaves
    1
    >>> un.apply(ex.Edit(before=([[3.0]], [2]), after=([[3.0]], [1.5]))).residual_bound < 1e-8
    True
    """

    before: Any = None
    after: Any = None

    def edit(self, data: AnyData, encode: Encode) -> Named:
        """Rows of one side in place of those of the other."""
        data = data.by_value()
        for side in (self.before, self.after):
            if not (side is None or (isinstance(side, tuple) and len(side) in (2, 3))):
                raise TypeError("before and after are tuples (X, y) or (X, y, sample_weight), or None")
        if self.before is None and self.after is None:
            raise ValueError("an Edit needs rows: give before, after or both")
        before = None if self.before is None else _rows(data, encode, *self.before)
        after = None if self.after is None else _rows(data, encode, *self.after)
        data.replace(before, after)
        left, joined = (0 if side is None else side[1].size for side in (before, after))
        return {"kind": "Edit", "before": left, "after": joined}


def _kept(value: Any) -> Any:
    """A list of what can be gone through only once: a request is asked more than once."""
    return list(value) if isinstance(value, Iterator) else value


def as_requests(given: Request | Iterable[Request]) -> list[Request]:
    """One request or several as a list; TypeError for anything else."""
    if isinstance(given, Request):
        return [given]
    requests = list(given) if isinstance(given, Iterable) else [given]
    for request in requests:
        if not isinstance(request, Request):
            more = ", a list of which is one request of apply" if isinstance(request, list | tuple) else ""
            raise TypeError(f"{request!r} is not a request: pass RemoveRows, AddRows and the like{more}")
    return requests


def _size(value: Any) -> str:
    """The size of a parameter, as the repr of a request shows it."""
    if value is None or isinstance(value, slice):
        return str(value)
    if isinstance(value, tuple):  # rows by value
        return f"({', '.join(map(_size, value))})"
    try:
        shape = getattr(value, "shape", None) or np.shape(value)
    except ValueError:  # ragged
        return "<...>"
    return f"<{' x '.join(map(str, shape)) or 1}>"


def _columns(data: AnyData, columns: NDArray[np.int64]) -> Named:
    """Columns by position and, where they have names, by name."""
    names = data.names_of(columns)
    return {"columns": columns} if names is None else {"columns": columns, "names": names}


def _named(kind: str, found: Selection, ids: Any) -> Named:
    """What a request named: rows, and the ids by which they were found, if that is how."""
    named: Named = {"kind": kind, "rows": found.rows}
    if ids is not None and found.names is not None:
        named["ids"] = found.names
    return named


def _rows(
    data: AnyData, encode: Encode, X: Any, y: Any, sample_weight: Any = None
) -> tuple[Any, Float, Float | None]:
    """Rows by value in the form of the data: their columns, dtype and kind, and encoded targets."""
    if type(X) is not np.ndarray:  # which has no labels
        for values, what in ((y, "y"), (sample_weight, "sample_weight")):
            require_order(values, index_of(X), what)
        X = match_columns(X, data.surviving_names())
    X = as_matrix(X, columns=data.n_columns)
    if sparse.issparse(X) and not data.is_sparse:
        raise TypeError("X is sparse but the data are dense: pass a dense X (it is never densified here)")
    if data.is_sparse:
        X = sparse.csr_array(X)
    if X.dtype != data.dtype:
        with np.errstate(over="ignore"):
            X = X.astype(data.dtype)
        if not np.isfinite(X.data if sparse.issparse(X) else X).all():
            raise ValueError(f"X holds values that overflow {data.dtype}")
    return X, encode(y, X.shape[0]), as_weights(sample_weight, X.shape[0])
