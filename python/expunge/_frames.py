"""What frames know beyond their numbers: labels of rows and columns. The one place that reads them.

A label is never taken for a position. pandas and polars are not imported: a frame, a Series and an Index are
told by what they can do. A default RangeIndex (0, 1, 2, ...) counts as no labels where rows or columns come
in; a frame of polars has no labels of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

SHOWN = 20  # labels that an error names at most


def refuse_lazy(values: Any, name: str) -> None:
    """TypeError for a query that was not run yet, such as a polars LazyFrame: it has no rows."""
    if callable(getattr(values, "collect", None)) and not hasattr(values, "__array__"):
        raise TypeError(f"{name} is a {type(values).__name__} and holds no rows yet: pass {name}.collect()")


def is_frame(X: Any) -> bool:
    """Whether X is a frame of pandas, polars or the like."""
    return hasattr(type(X), "columns") and not isinstance(X, np.ndarray) and not sparse.issparse(X)


def is_index(given: Any) -> bool:
    """Whether these are labels: an Index of pandas, of any kind."""
    return hasattr(type(given), "get_indexer_for")


def is_series(given: Any) -> bool:
    """Whether these are values with labels: a Series of pandas."""
    return hasattr(given, "iloc") and getattr(given, "ndim", 0) == 1


def index_of(X: Any) -> Any:
    """The labels of the rows of a frame or Series, a pandas Index; None for anything else."""
    return X.index if hasattr(X, "iloc") else None


def is_default(index: Any) -> bool:
    """Whether labels are those that pandas makes up: 0, 1, 2, ..."""
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1


def is_missing(label: Any) -> bool:
    """Whether a label names nothing: None, NaN, NaT or NA."""
    try:
        return label is None or bool(label != label)
    except (TypeError, ValueError):  # of NA, and of arrays
        return not isinstance(label, np.ndarray)


def truth_of(given: Any) -> NDArray[np.bool_] | None:
    """A Series of truth values as an array; None for a Series of anything else."""
    kind, values = getattr(given.dtype, "kind", "O"), given.tolist()
    if kind != "b" and not (kind == "O" and values and all(isinstance(value, bool) for value in values)):
        return None
    if any(map(is_missing, values)):
        raise ValueError("a mask has missing values: fill them, mask.fillna(False)")
    return np.asarray(given, dtype=bool)


def library_of(X: Any) -> str | None:
    """The package that a frame is of; None for anything else."""
    return type(X).__module__.partition(".")[0] if is_frame(X) else None


def as_frame(X: Any, library: str, columns: Sequence[Any] | None, index: Sequence[Any] | None) -> Any:
    """A matrix as a frame of pandas or polars."""
    if library == "polars":
        return import_module(library).DataFrame(X, schema=columns)
    pandas = import_module("pandas")
    make = pandas.DataFrame.sparse.from_spmatrix if sparse.issparse(X) else pandas.DataFrame
    if index is not None and None in index:
        index = pandas.Index(index, dtype=object)  # or None would become NaN, and integers floats
    return make(X, index=index, columns=columns)


# --- columns


def column_labels(X: Any) -> list[Hashable] | None:
    """Labels of the columns of a frame, each there once; None for anything else."""
    if not is_frame(X):
        return None
    refuse_lazy(X, "X")  # whose columns would be found by running it
    columns = X.columns
    labels = columns.tolist() if hasattr(columns, "tolist") else list(columns)
    twice = [label for label, times in Counter(labels).items() if times > 1]
    if twice:
        raise ValueError(
            f"X has more than one column {twice[0]!r}: rename them, as a request by name could not tell them "
            "apart, and fit the model to the renamed frame"
        )
    return labels or None


def are_names(labels: Sequence[Any] | None) -> bool:
    """Whether all labels are text, as scikit-learn takes for names."""
    return labels is not None and all(isinstance(label, str) for label in labels)


def select_columns(X: Any, names: Sequence[Any] | None) -> Any:
    """The columns `names` of a frame that has these and more; anything else as it is."""
    given = column_labels(X)
    if given is None or names is None or len(given) <= len(names) or not set(names) <= set(given):
        return X
    return X[list(names)]


def match_columns(X: Any, names: Sequence[Any] | None) -> Any:
    """As :func:`select_columns`; a frame that then has other columns, or another order, is an error.

    One whose columns are labelled 0, 1, 2, ... goes by position, unless these are the names in another order.
    """
    X = select_columns(X, names)
    given = column_labels(X)
    if given is None or names is None or given == list(names):
        return X
    if given == list(range(len(given))) and set(given) != set(names):
        return X
    raise ValueError(
        f"X has columns {given[:SHOWN]}, expected {list(names)[:SHOWN]} in this order: "
        "pass X[list(model.feature_names_in_)]"
    )


def named_columns(given: Any, labels: Sequence[Any] | None) -> list[Any] | None:
    """The labels that a request names columns by; None where it gives positions.

    Integers are positions, unless columns are labelled by numbers other than 0, 1, 2, ...: then they have to
    be labels, and are refused where they could be positions of other columns.
    """
    if isinstance(given, slice):
        return None
    if is_index(given) or is_series(given):
        return _labels_given(given, labels)
    if isinstance(given, np.ndarray) and given.ndim > 1:
        return None
    known = {} if labels is None else {label: j for j, label in enumerate(labels) if label is not None}
    names = _listed(given, known)
    if labels is None and not any(isinstance(name, str) for name in names):
        return None
    if not any(isinstance(name, str) or not _is_number(name) for name in names):
        is_mask = any(isinstance(name, bool | np.bool_) for name in names)
        if labels is None or is_mask or not _by_number(labels):
            return None
        for name in names:
            _check_not_another(name, known, len(labels))
    return names


def _labels_given(given: Any, labels: Sequence[Any] | None) -> list[Any]:
    what = "an Index" if is_index(given) else "a Series"
    if labels is None:
        raise ValueError(
            f"columns are given by {what}, but have no labels here, as X was no frame: give positions"
        )
    mask = None if is_index(given) else truth_of(given)
    return list(given if mask is None else given.index[mask])


def _listed(given: Any, known: dict[Any, int]) -> list[Any]:
    """One label or several, as a list."""
    if isinstance(given, tuple) and given in known:
        if given and all(name in known for name in given):
            raise ValueError(f"{given!r} is the label of one column, and a tuple of labels: give a list")
        return [given]
    if isinstance(given, np.ndarray):
        return list(np.atleast_1d(given).tolist())
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        return [given]
    return list(given)


def _is_number(name: Any) -> bool:
    return isinstance(name, bool | int | float | np.number | np.bool_)


def _by_number(labels: Sequence[Any]) -> bool:
    """Whether some labels are numbers that positions might be taken for."""
    return any(
        _is_number(label) and label != j for j, label in enumerate(labels) if not isinstance(label, str)
    )


def _check_not_another(name: Any, known: dict[Any, int], size: int) -> None:
    """Raises where a number is no label, or also the position of another column."""
    fix = "give a mask over all columns for positions, or name the columns by text"
    if name not in known:
        raise ValueError(
            f"column {name!r} is not among the labels of the columns, which are numbers, and is not taken "
            f"for a position: {fix}"
        )
    if 0 <= name < size and known[name] != name:
        raise ValueError(
            f"column {name!r} is the label of one column, and the position of another: {fix}, or pass an "
            "Index for labels"
        )


# --- rows


def require_order(values: Any, index: Any, what: str) -> None:
    """ValueError where values are labelled as the rows of X are, but in another order.

    Other labels say nothing, and scikit-learn's fits go by position.
    """
    own = index_of(values)
    if index is None or own is None or len(own) != len(index) or own.equals(index):
        return
    if Counter(own.tolist()) == Counter(index.tolist()):
        raise ValueError(
            f"{what} has the labels of the rows of X in another order: pass {what}.loc[X.index] to go by "
            f"label, or {what}.to_numpy() to go by position"
        )


def require_labels(values: Any, index: Any, what: str) -> None:
    """ValueError where values have other labels than the rows of X, if these have any."""
    own = index_of(values)
    if index is None or own is None or own.equals(index):
        return
    if is_default(index) and Counter(own.tolist()) != Counter(index.tolist()):
        return
    raise ValueError(
        f"{what} has other labels than the rows of X: pass {what}.loc[X.index] to go by label, or "
        f"{what}.to_numpy() to go by position"
    )


def in_order(values: Any, keys: Sequence[Any], what: str) -> Any:
    """The rows of a Series or frame of pandas in the order of these keys; anything else as it is."""
    index = index_of(values)
    if index is None or index.tolist() == list(keys):
        return values
    position = {label: i for i, label in enumerate(index.tolist())}
    if len(position) < len(index) or set(position) != set(keys):
        raise ValueError(
            f"{what} has the labels {index[:SHOWN].tolist()}, which are not those of the rows, "
            f"{list(keys)[:SHOWN]}: label it so, or pass {what}.to_numpy() to go by position"
        )
    return values.iloc[[position[key] for key in keys]]


def in_columns(values: Any, keys: Sequence[Any], what: str) -> Any:
    """The columns of a frame in the order of these keys; anything else as it is."""
    given = column_labels(values)
    if given is None or given == list(keys):
        return values
    if set(given) != set(keys):
        raise ValueError(
            f"{what} has columns {given[:SHOWN]}, which are not those of the request, {list(keys)[:SHOWN]}: "
            f"name them so, or pass {what}.to_numpy() to go by position"
        )
    return values[list(keys)]


def require_no_dates(X: Any, name: str) -> None:
    """ValueError where a frame or array holds dates or durations, which NumPy would take for numbers."""
    labels, dtypes = column_labels(X), getattr(X, "dtypes", None)
    if labels is not None and dtypes is not None:
        for label, dtype in zip(labels, dtypes, strict=False):
            if getattr(dtype, "kind", "f") in "mM" or str(dtype).startswith(_POLARS_TIMES):
                raise ValueError(
                    f"column {label!r} of {name} holds {dtype}, not numbers: turn it into a number of days "
                    "or the like since a fixed date, or leave it out"
                )
    elif getattr(getattr(X, "dtype", None), "kind", "f") in "mM":
        raise ValueError(f"{name} must hold real numbers, got dtype {X.dtype}")


_POLARS_TIMES = ("Date", "Datetime", "Duration", "Time")
