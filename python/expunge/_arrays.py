"""The one place where input becomes arrays that the core accepts, or a clear error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_array

from . import _core
from ._frames import refuse_lazy, require_no_dates
from .losses import Loss

Float = NDArray[np.float64]
Index = NDArray[np.int64]
_FLOAT64 = np.dtype(np.float64)
_FLOATS = [_FLOAT64, np.dtype(np.float32)]
Block = tuple[Any, Float | None, Float | None]
Blocks = list[Block]
Result = TypeVar("Result")


def as_matrix(
    X: Any, name: str = "X", *, columns: int | None = None, finite: bool = True, canonical: bool = True
) -> Any:
    """(n, d) finite float32 or float64, dense in C or F order or canonical CSR.

    Such a matrix is returned as it is, without a copy. A sparse matrix stays sparse.

    finite=False: nobody looks for NaN and infinity here; the caller finds them in the result.
    canonical=False: nobody looks at CSR indices here; the core does and raises NotCanonical.
    """
    if not _is_plain(X):
        refuse_lazy(X, name)
        if not hasattr(X, "shape"):
            X = np.asarray(X)
        if len(X.shape) != 2:  # np.ndim would convert a polars frame
            raise ValueError(f"{name} has shape {X.shape}, expected (n, d)")
        if getattr(getattr(X, "dtype", None), "kind", "f") in "mM":
            raise ValueError(f"{name} must hold real numbers, got dtype {X.dtype}")
        X = check_array(
            inside(X, name),
            accept_sparse="csr",
            dtype=_FLOATS,
            ensure_min_samples=0,
            ensure_min_features=0,
            ensure_all_finite=False,
            input_name=name,
        )
    if columns is not None and X.shape[1] != columns:
        raise ValueError(f"{name} has {X.shape[1]} columns, expected {columns}")
    X = as_layout(X, canonical)
    if finite:
        require_finite(X if type(X) is np.ndarray else X.data, name)
    return X


def inside(X: Any, name: str = "X") -> Any:
    """X, checked before it is converted; for a sparse matrix, a copy with checked indices.

    NumPy would take numbers from behind a mask, and dates for numbers. SciPy trusts indices as it converts,
    and others may write to X at any time. ValueError for all three, TypeError for a lazy frame.
    """
    if _is_plain(X):  # the core checks the indices of those
        return X
    refuse_lazy(X, name)
    require_unmasked(X, name)
    require_no_dates(X, name)
    if not sparse.issparse(X):
        return X
    X = X.copy()
    if X.format in ("csr", "csc", "bsr"):
        X.check_format(full_check=True)
    elif X.format == "coo":
        for place, size in zip((X.row, X.col), X.shape, strict=True):
            if place.size and not (place.min() >= 0 and place.max() < size):
                raise ValueError("the indices of X point outside of it")
    return X


def with_own_indices(X: Any) -> Any:
    """X as CSR with checked copies of its indices: SciPy trusts indices, and others may write to X."""
    own = sparse.csr_array((X.data, X.indices.copy(), X.indptr.copy()), shape=X.shape)
    _core.is_canonical(own)  # raises where they point outside
    return own


def require_unmasked(values: Any, name: str) -> None:
    """ValueError where entries are masked out."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} has {np.ma.getmaskarray(values).sum()} entries that are masked out: leave these out, as "
            f"{name}.compressed() does, or put values in their place, {name}.filled(...)"
        )


def require_finite(values: NDArray[Any], name: str) -> None:
    """ValueError where contiguous floats contain NaN or infinity."""
    if not _core.is_finite(values):
        raise ValueError(f"{name} contains NaN or infinity: remove or impute those entries")


def _is_plain(X: Any) -> bool:
    """Whether the core reads X without a conversion of its type."""
    if type(X) is not np.ndarray and not (sparse.issparse(X) and X.format == "csr"):
        return False
    return X.dtype in _FLOATS and X.ndim == 2


def as_layout(X: Any, canonical: bool = True) -> Any:
    """X in C or F order and aligned, or as CSR, canonical if asked; a copy only where X is not so yet."""
    if type(X) is not np.ndarray and sparse.issparse(X):
        return _as_csr(X, canonical)
    flags = X.flags
    if not (flags.forc and flags.aligned):
        return np.array(X, order="C")
    return X


def _as_csr(X: Any, canonical: bool) -> Any:
    """CSR in contiguous arrays with one type of index; `canonical`: rows ascend without duplicates."""
    parts = (X.data, X.indices, X.indptr)
    if X.indices.dtype != X.indptr.dtype or not all(
        part.flags.c_contiguous and part.flags.aligned for part in parts
    ):
        X = sparse.csr_array(tuple(np.array(part, order="C") for part in parts), shape=X.shape)
    entries = int(X.indptr[-1]) if X.indptr.size else 0
    if 0 <= entries < X.indices.size:
        parts = (X.data[:entries], X.indices[:entries], X.indptr)  # SciPy may leave room behind them
        X = sparse.csr_array(parts, shape=X.shape)
    if not canonical or _core.is_canonical(X):
        return X
    X = X.copy()
    X.sum_duplicates()
    return X


def stack(parts: Sequence[Any]) -> Any:
    """Stacks matrices of one kind, one below the other."""
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def as_real(values: Any, name: str) -> Float:
    """Any real numbers as contiguous, aligned float64; no complex numbers, dates or text."""
    if type(values) is np.ndarray and values.dtype is _FLOAT64:
        flags = values.flags
        if flags.carray or (flags.c_contiguous and flags.aligned):  # the first is one look for both
            return values
    if type(values) is float:
        return np.array(values)
    refuse_lazy(values, name)
    require_unmasked(values, name)
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"got dtype {array.dtype}")
        return np.require(array, np.float64, ["C", "A"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must hold real numbers: {error}") from None


def as_vector(values: ArrayLike, name: str, size: int, *, match: str = "") -> Float:
    """(size,) finite, contiguous float64; `match` ends the message about another size."""
    array = as_real(values, name)
    if array.shape != (size,):
        raise ValueError(f"{name} has shape {array.shape}, expected ({size},){match}")
    require_finite(array, name)
    return array


def _lowest(values: Float) -> float:
    """The smallest of finite numbers, 0 if there are none. For a few, `min` takes five times as long."""
    return values.item(values.argmin()) if values.size else 0.0


def as_weights(sample_weight: ArrayLike | None, n: int) -> Float | None:
    """(n,) weights >= 0, or None; a scalar is the weight of each row."""
    if sample_weight is None:
        return None
    refuse_lazy(sample_weight, "sample_weight")
    require_unmasked(sample_weight, "sample_weight")
    array = np.asarray(sample_weight)
    if array.ndim == 0:
        array = np.full(n, array)
    weights = as_vector(array, "sample_weight", n, match=" to match X")
    if _lowest(weights) < 0:
        raise ValueError("sample_weight must not be negative")
    return weights


def as_targets(y: ArrayLike, loss: Loss, n: int) -> Float:
    """(n,) targets in the domain of the loss."""
    targets = as_vector(y, "y", n, match=" to match X")
    loss.check_targets(targets)
    return targets


def as_penalty(alpha: ArrayLike, d: int, fit_intercept: bool) -> Float:
    """Diagonal of Lambda (p,): alpha, a scalar or (d,), and 0 at the intercept."""
    array = as_real(alpha, "alpha")
    if array.shape not in ((), (d,)):
        raise ValueError(f"alpha has shape {array.shape}, expected a scalar or ({d},) to match X")
    if not _core.is_finite(array) or _lowest(array) < 0:
        raise ValueError("alpha must be finite and not negative")
    penalty = np.zeros(d + bool(fit_intercept))
    penalty[:d] = array
    return penalty


def as_noise(noise: ArrayLike | None, d: int, fit_intercept: bool) -> Float | None:
    """The b of E1 (p,), 0 at the intercept, or None."""
    if noise is None:
        return None
    b = as_vector(noise, "noise", d, match=" to match X")
    return np.append(b, 0.0) if fit_intercept else b


def in_order(kernel: Callable[[bool], Result]) -> Result:
    """kernel(canonical=False), and again with True where CSR indices are disordered (:func:`as_matrix`)."""
    try:
        return kernel(False)
    except _core.NotCanonical:
        return kernel(True)


def as_indices(given: Any, size: int, what: Literal["row", "column"]) -> NDArray[np.int64]:
    """Positions in [0, size), each once, from an integer, a sequence, a boolean mask or a slice."""
    if isinstance(given, slice):
        return np.arange(*given.indices(size), dtype=np.int64)
    if type(given) is int and 0 <= given < size:  # fast for streams of single rows
        return np.array([given])
    if type(given) is list and len(given) == 1 and type(given[0]) is int and 0 <= given[0] < size:
        return np.array(given)
    if type(given) is int:
        raise ValueError(f"{what} {given} is out of range: there are {what}s 0 to {size - 1}")
    require_unmasked(given, f"{what}s")
    array = np.array(given)  # a copy, because receipts are written from it later
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise ValueError(f"{what}s have shape {array.shape}, expected one dimension")
    if array.dtype == bool:
        if array.shape != (size,):
            raise ValueError(f"{what} mask has shape {array.shape}, expected ({size},)")
        return np.flatnonzero(array).astype(np.int64, copy=False)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        named = "; labels= and ids= take names of rows" if what == "row" else ""
        raise TypeError(
            f"{what}s must be integers, a boolean mask or a slice, got dtype {array.dtype}{named}"
        )
    ordered = np.sort(array)
    if ordered[0] < 0 or ordered[-1] >= size:
        outside = array[(array < 0) | (array >= size)]
        raise ValueError(f"{what} {outside[0]} is out of range: there are {what}s 0 to {size - 1}")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if twice.size:
        raise ValueError(f"{what} {twice[0]} is given more than once")
    return array.astype(np.int64, copy=False)
