"""Rows to fit, rows to test and what the columns are called: one object for every source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.model_selection import train_test_split

from .._arrays import Float

RowNorm = Literal["unit"] | None


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Rows to fit and rows to test, with named columns.

    Attributes
    ----------
    name, source : str
        What it is called, and where these numbers came from.
    X, X_test : (n, d) and (m, d) float64, both arrays or both CSR
    y, y_test : (n,) and (m,) float64
        0 and 1 where there are two classes, else the numbers themselves.
    feature_names : tuple of d str
    sensitive_features : tuple of str
        Those of them that a person may ask to have forgotten; empty where the source names none.

    Examples
    --------
    >>> from expunge.datasets import load_breast_cancer
    >>> data = load_breast_cancer()
    >>> data
    Dataset(breast_cancer from scikit-learn: 455 + 114 rows, 30 columns, 0 of them sensitive)
    >>> data.feature_names[:2], data.columns_of(["mean texture"])
    (('mean radius', 'mean texture'), array([1]))
    """

    name: str
    source: str
    X: Any
    y: Float
    X_test: Any
    y_test: Float
    feature_names: tuple[str, ...]
    sensitive_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        d = len(self.feature_names)
        for X, y, part in ((self.X, self.y, "train"), (self.X_test, self.y_test, "test")):
            if X.ndim != 2 or y.shape != (X.shape[0],) or X.shape[1] != d:
                raise ValueError(
                    f"{self.source}: {part} has X of shape {X.shape} and y of shape {y.shape}, expected "
                    f"(n, {d}) and (n,) for {d} names of columns"
                )
            if not np.isfinite(X.data if sparse.issparse(X) else X).all():
                raise ValueError(
                    f"{self.source}: {part} has NaN or infinity: fill in or leave out those rows"
                )
        if len(set(self.feature_names)) < d:
            raise ValueError(f"{self.source}: two columns have one name: rename them")
        self.columns_of(self.sensitive_features)

    def __repr__(self) -> str:
        n, d = self.X.shape
        return (
            f"Dataset({self.name} from {self.source}: {n:,} + {self.X_test.shape[0]:,} rows, {d:,} columns, "
            f"{len(self.sensitive_features):,} of them sensitive)"
        )

    def columns_of(self, names: str | Iterable[str]) -> NDArray[np.intp]:
        """Positions of one column or several, as :class:`expunge.RevokeFeatures` takes them for an array.

        Raises
        ------
        ValueError
            A name that no column has.
        """
        position = {name: j for j, name in enumerate(self.feature_names)}
        names = as_names(names)
        if unknown := [name for name in names if name not in position]:
            raise ValueError(f"{self.source} has no column {unknown[0]!r}: see feature_names")
        return np.array([position[name] for name in names], dtype=np.intp)

    @property
    def sensitive_columns(self) -> NDArray[np.intp]:
        """Positions of the sensitive columns."""
        return self.columns_of(self.sensitive_features)


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several, each once."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def targets(y: ArrayLike, source: str) -> Float:
    """Two classes as 0 and 1, the larger (or later in the alphabet) one 1; else the numbers themselves."""
    y = np.asarray(y)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"{source}: the target has NaN or infinity: leave out those rows")
    classes = np.unique(y)
    if classes.size == 2:
        return np.asarray(y == classes[1], dtype=np.float64)
    if y.dtype.kind not in "iuf" or classes.size < 2:
        raise ValueError(f"{source}: the target has {classes.size} classes: two, or numbers, are needed")
    return y.astype(np.float64)


def split(
    name: str,
    source: str,
    X: Any,
    y: ArrayLike,
    feature_names: Iterable[str],
    sensitive_features: Iterable[str] = (),
    *,
    test_size: float = 0.2,
    random_state: int = 0,
) -> Dataset:
    """Of rows that come without test rows: a share of each class is drawn, the same for the same seed."""
    values = targets(y, source)
    classes = values if np.isin(values, (0.0, 1.0)).all() else None
    X, X_test, values, y_test = train_test_split(
        X, values, test_size=test_size, random_state=random_state, stratify=classes
    )
    return Dataset(name, source, X, values, X_test, y_test, tuple(feature_names), tuple(sensitive_features))


def unit_rows(X: Any) -> Any:
    """Each row divided by its Euclidean norm; rows of zeros stay."""
    if not sparse.issparse(X):
        norms = np.linalg.norm(X, axis=1, keepdims=True)
        return X / np.where(norms > 0.0, norms, 1.0)
    norms = np.sqrt(X.multiply(X).sum(axis=1))
    scaled = X.data / np.repeat(np.where(norms > 0.0, norms, 1.0), np.diff(X.indptr))
    return sparse.csr_array((scaled, X.indices, X.indptr), shape=X.shape)


def scaled(data: Dataset, row_norm: RowNorm, standardize: bool = False) -> Dataset:
    """The data set with its columns standardized, then its rows normalised, each only if asked."""
    if row_norm not in (None, "unit"):
        raise ValueError(f"row_norm must be None or 'unit', got {row_norm!r}")
    if standardize:
        data = _standardized(data)
    if row_norm is None:
        return data
    return replace(data, X=unit_rows(data.X), X_test=unit_rows(data.X_test))


def _standardized(data: Dataset) -> Dataset:
    """Columns to mean 0 and variance 1 over the training rows; those of 0 and 1 alone stay."""
    if sparse.issparse(data.X):
        raise ValueError(f"{data.source}: to standardize would make sparse rows dense: use row_norm='unit'")
    indicator = np.isin(data.X, (0.0, 1.0)).all(axis=0)
    mean = np.where(indicator, 0.0, data.X.mean(axis=0))
    deviation = np.where(indicator, 1.0, data.X.std(axis=0))
    deviation[deviation == 0.0] = 1.0
    return replace(data, X=(data.X - mean) / deviation, X_test=(data.X_test - mean) / deviation)
